"""The tables of the speed benchmark tell apart what is compared from what was tried."""

import pandas as pd
import pytest

from benchmarks import speed, worker
from lib.report import figures


@pytest.fixture(scope="module")
def variants() -> pd.DataFrame:
    """The table of made-up times: the first implementation takes a second, each later one a second longer."""
    rows = []
    for seconds, name in enumerate(speed.VARIANTS, start=1):
        for what in ("train_localizer", "train_localizer_first_epoch"):
            answers = [{"seconds": float(seconds), "peak_mb": 100.0}]
            rows.append(speed.row(what, name, "any", 1, answers, n_rows=60, n_inputs=5))
    return speed.shown_variants(speed.with_ratio(rows))


def test_every_trainer_and_variant_is_one_that_a_worker_has():
    assert set(speed.TRAINERS) < set(speed.VARIANTS)
    assert set(speed.VARIANTS).union(*speed.TRAINERS_OF.values()) == set(worker.TRAINERS)


def test_variants_are_compared_with_pytorch_and_the_defaults_of_keras(variants):
    assert variants["implementation"].tolist() == [f"{name}, 1 thread" for name in speed.VARIANTS]
    variants = variants.set_index("implementation")
    for name, column in {
        "PyTorch": "times as fast as PyTorch",
        "Keras defaults": "times as fast as Keras defaults",
    }.items():
        assert variants.loc[f"{name}, 1 thread", column] == "1.00"
        assert variants.loc["ours, 1 thread", column] == f"{float(variants.loc[f'{name}, 1 thread', 'epoch (s)']):.2f}"


def test_the_bound_in_float32_is_drawn_for_what_multiplies_in_float32_alone():
    rows = []
    for network, trainers in {"umlp": speed.TRAINERS, "unified": speed.TRAINERS_OF["unified"]}.items():
        for name in trainers:
            answers = [{"seconds": 1.0, "peak_mb": 100.0}]
            backend = worker.TRAINERS[name][-1]
            rows.append(speed.row(f"train_{network}", name, backend, 1, answers, n_rows=60, n_inputs=5))
    table = speed.with_ratio(rows).assign(ceiling_fraction=0.5)
    figure = figures.marked(speed.figure_of(table), simulated=False)
    (axis,) = figure.axes
    heights = []
    for marks in axis.collections:
        heights += [segment[:, 1].mean() for segment in marks.get_segments() if len(segment)]
    assert sum(height < 0.5 for height in heights) == len(speed.TRAINERS), "all of the umlp"
    assert sum(height > 0.5 for height in heights) == 1, "of the unified network, PyTorch in float32"
    assert axis.get_xlabel() and axis.get_ylabel()
