"""The tables of the speed benchmark tell apart what is compared from what was tried."""

import pandas as pd
import pytest

from benchmarks import speed, worker


@pytest.fixture(scope="module")
def shown() -> dict[str, pd.DataFrame]:
    """The tables of made-up times: the first implementation takes a second, each later one a second longer."""
    steps = [{"seconds": 1.0, "peak_mb": 100.0}], {"n_rows": 60, "n_inputs": 5}
    rows = [speed.row("load_ujiindoorloc", "ours", "pandas", 1, steps[0], **steps[1])]
    for threads, trainers in {1: speed.TRAINERS | speed.VARIANTS, 2: speed.TRAINERS}.items():
        for seconds, (name, backend) in enumerate(trainers.items(), start=1):
            for what in ("train_localizer", "train_localizer_first_epoch"):
                answers = [{"seconds": float(seconds), "peak_mb": 100.0}]
                rows.append(speed.row(what, name, backend, threads, answers, n_rows=60, n_inputs=5))
    return speed.shown(speed.with_ratio(rows))


def test_every_trainer_and_variant_is_one_that_a_worker_has():
    assert set(speed.TRAINERS | speed.VARIANTS) == set(worker.TRAINERS)


def test_variants_have_a_table_of_their_own_beside_all_they_are_compared_with(shown):
    compared = [f"{name}, {threads} thread{'s' * (threads > 1)}" for threads in (1, 2) for name in speed.TRAINERS]
    assert shown["speed"]["implementation"].tolist() == compared
    variants = shown["speed_variants"]
    assert variants["implementation"].tolist() == [f"{name}, 1 thread" for name in speed.TRAINERS | speed.VARIANTS]


def test_variants_are_compared_with_pytorch_and_the_defaults_of_keras(shown):
    variants = shown["speed_variants"].set_index("implementation")
    for name, column in {
        "PyTorch": "times as fast as PyTorch",
        "Keras defaults": "times as fast as Keras defaults",
    }.items():
        assert variants.loc[f"{name}, 1 thread", column] == "1.00"
        assert variants.loc["ours, 1 thread", column] == f"{float(variants.loc[f'{name}, 1 thread', 's/epoch']):.2f}"
