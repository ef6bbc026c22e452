"""What the front page says follows from the result files, whichever way a comparison turns out."""

import json

import pandas as pd
import pytest

from lib.paths import ROOT
from lib.report import front

# (pooled, official, random, spatial) mean errors in ground metres, of seeds 0 and 1 with 1 % between them.
ERRORS = {
    "knn_sorensen": (2.0, 5.0, 310.0, 560.0),
    "knn_weighted": (2.0, 5.0, 300.0, 540.0),
    "extra_trees": (1.7, 6.0, 260.0, 510.0),
    "encoder_tl": (4.5, 7.5, 310.0, 520.0),
    "umlp": (5.7, 8.8, 310.0, 515.0),
    "unified": (1.5, 4.8, 230.0, 470.0),
}


def benchmark(**changes: tuple) -> pd.DataFrame:
    """Rows of the benchmark, some models' errors changed."""
    lines = []
    for model, errors in (ERRORS | changes).items():
        for protocol, error in zip(front.PROTOCOLS, errors, strict=True):
            for seed, factor in enumerate((0.995, 1.005)):
                line = {"protocol": protocol, "model": model, "seed": seed, "n_train": 100, "n_test": 50}
                line |= {"ground_m": factor * error, "mean_m": 1.25 * factor * error, "median_m": error, "p95_m": error}
                line |= {"building_hit": 1.0, "floor_hit": 0.9, "release": "release (150 rows)"}
                lines.append(line)
    return pd.DataFrame(lines)


def comparisons(verdict: str) -> pd.DataFrame:
    """The unified network against both references under two protocols."""
    lines = []
    for protocol in ("official", "random"):
        for reference in ("knn_sorensen", "extra_trees"):
            lines.append({"protocol": protocol, "model": "unified", "reference": reference, "verdict": verdict})
    return pd.DataFrame(lines)


def controls(transferred: float) -> pd.DataFrame:
    """Errors by start; four seeds that differ a little."""
    lines = []
    starts = {"encoder_scratch": 10.0, "encoder_tl": transferred, "encoder_tl_scans": 9.5, "encoder_tl_labels": 9.5}
    for protocol in ("pooled", "random"):
        for model, error in starts.items():
            for seed in range(4):
                wobble = 0.05 * ((seed * len(model)) % 7)
                lines.append({"protocol": protocol, "model": model, "seed": seed, "mean_m": error + wobble})
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("unified", "said"),
    [
        ((1.5, 4.8, 230.0, 470.0), "the lowest mean error under all 4 protocols."),
        ((1.5, 5.8, 230.0, 470.0), "under 3 of 4 protocols, `pooled`, `random` and `spatial`."),
        ((9.5, 9.8, 930.0, 970.0), "the lowest mean error under no protocol."),
    ],
)
def test_the_accuracy_is_said_as_it_is(unified, said):
    found = {"benchmark": benchmark(unified=unified), "comparisons": comparisons("better")}
    text = front.accuracy(found)
    assert said in text
    assert text.endswith("better than kNN (Sørensen) under `official` and `random`, and better than Extra Trees "
                         "under `official` and `random`.")  # fmt: skip


def test_a_lead_that_may_be_chance_is_no_lead():
    found = {"benchmark": benchmark(), "comparisons": comparisons("not distinguishable")}
    assert "better than kNN (Sørensen) under no protocol" in front.accuracy(found)


def test_metres_are_those_on_the_ground():
    text = front.accuracy({"benchmark": benchmark(), "comparisons": comparisons("better")})
    assert "4.80 ± 0.30 m under `official` (best other model: 5.00 ± 0.32 m)" in text


def test_the_split_is_said_to_matter_only_if_it_does():
    assert "The test split decides" in front.split({"benchmark": benchmark()})
    easier = benchmark(umlp=(9.0, 8.8, 310.0, 515.0))
    assert "does not make every model worse" in front.split({"benchmark": easier})


@pytest.mark.parametrize(
    ("nearest", "verdict", "lead"),
    [
        (
            2.0,
            "holds",
            "The paper's indoor errors hold on its own kind of split, where nearest fingerprints do better.",
        ),
        (6.0, "holds", "The paper's indoor errors hold on its own kind of split."),
        (6.0, "does not hold", "Not all of the paper's indoor errors hold on its own kind of split."),
    ],
)
def test_the_reproduction_follows_the_ledger(nearest, verdict, lead):
    claims = pd.DataFrame(
        {"claim": ["encoder-TL MDE indoors", "U-MLP MDE indoors"], "paper": [6.65, 9.61], "verdict": ["holds", verdict]}
    )
    rows = benchmark(knn_sorensen=(nearest, 5.0, 310.0, 560.0))
    text = front.reproduction({"benchmark": rows, "claims": claims})
    assert text.startswith(f"- **{lead}**".removeprefix("- "))
    assert "(paper: 6.65 m)" in text and "(paper: 9.61 m)" in text
    assert front.reproduction({"benchmark": rows, "claims": claims[:1]}) is None


@pytest.mark.parametrize(
    ("transferred", "lead"), [(9.5, "is not shown to be knowledge"), (8.0, "is more than that of")]
)
def test_transfer_is_compared_with_what_learnt_nothing(transferred, lead):
    assert lead in front.transfer({"transfer_controls": controls(transferred)})


@pytest.mark.parametrize(("highest", "lead"), [(1.05, "serves further environments"), (1.4, "not always the best")])
def test_environments_are_compared_with_the_best_baseline(highest, lead):
    ratios = pd.DataFrame({"model": ["unified_alone", "unified_alone", "extra_trees"], "ratio": [0.8, highest, 9.0]})
    text = front.environments({"environments_ratios": ratios})
    assert lead in text and "it is lower in 1 of 2." in text


@pytest.mark.parametrize(("together", "lead"), [(9.0, "can serve both"), (11.0, "costs accuracy")])
def test_one_umlp_is_compared_with_two(together, lead):
    lines = []
    for protocol, alone in {"pooled": "umlp_in", "random": "umlp_out"}.items():
        lines += [{"protocol": protocol, "model": alone, "mean_m": 10.0}]
        lines += [{"protocol": protocol, "model": "umlp", "mean_m": together}]
    assert lead in front.one_network({"umlp": pd.DataFrame(lines)})


def test_the_radius_is_said_by_how_rows_were_held_out():
    rows = {"level": [0.5, 0.9, 0.9], "coverage": [0.5, 0.88, 0.9], "protocol": "official", "held_out": "devices"}
    rows["as_asked"] = [True, True, True]
    text = front.radius({"coverage": pd.DataFrame(rows)})
    assert "holds 89 % under `official`, calibrated on devices" in text


def test_findings_without_results_are_left_out_and_five_are_enough():
    found = {"benchmark": benchmark(), "comparisons": comparisons("better")}
    assert front.findings(found).count("- **") == 2
    found["transfer_controls"] = controls(9.5)
    found["environments_ratios"] = pd.DataFrame({"model": ["unified_alone"], "ratio": [0.8]})
    found["coverage"] = pd.DataFrame(
        {"level": [0.9], "coverage": [0.9], "protocol": ["random"], "held_out": ["rows"], "as_asked": [True]}
    )
    assert front.findings(found).count("- **") == 5


def test_the_lowest_error_of_each_protocol_is_bold():
    rows = benchmark(unified=(1.5, 5.8, 230.0, 470.0), knn_weighted=(2.0, 5.1, 300.0, 540.0))
    table = front.front_table({"benchmark": rows}).splitlines()
    assert len(table) == 2 + len(front.MODELS) + 2
    bold = {line.split("|")[1].strip(): line.count("**") // 2 for line in table[2:8]}
    assert bold == dict.fromkeys(front.MODELS.values(), 0) | {"unified (ours)": 3, "kNN, Sørensen": 1}


def test_the_model_card_has_ground_metres_in_every_column():
    text = front.unified_accuracy({"benchmark": benchmark()})
    (official,) = [line for line in text.splitlines() if "`official`" in line]
    assert "4.80 ± 0.30 m" in official and official.count("3.84") == 2  # 4.8 m in the plane, 0.8 on the ground
    assert "100.0%" in official and "90.0%" in official


def test_the_committed_run_is_named_and_whether_it_is_older_than_the_notebooks():
    run = {"date": "2026-01-02T03:04", "commit": "abc", "machine": {"cores": 2, "processor": "Chip"}, "seconds": 170.0}
    run["notebooks"] = [{"notebook": "01_a", "seconds": 60.0}, {"notebook": "02_b", "seconds": 120.0}]
    text = front.committed_run(run, ["one (5 rows)"], ["01_a", "02_b"])
    assert "2026-01-02 at commit abc, on 2 cores (Chip), in 3 minutes" in text and "older" not in text
    continued = front.committed_run(run | {"seconds": None}, ["one (5 rows)"], ["01_a", "03_c"])
    assert "It lacks `03_c`" in continued and "in parts" in continued


def test_what_has_no_results_is_not_written(workspace):
    assert front.write(workspace) == []
    benchmark().to_csv(workspace.results / "benchmark.csv", index=False)
    assert front.write(workspace) == ["front_table", "unified_accuracy"]
    assert (workspace.figures / "front.png").exists()


def test_committed_fragments_are_those_of_the_committed_results(tmp_path, workspace):
    committed = ROOT / "outputs" / "results"
    for name in ("benchmark.csv", "comparisons.csv", "claims.csv", "transfer_controls.csv", "umlp.csv", "coverage.csv",
                 "speed.csv", "environments_ratios.csv", "provenance.json"):  # fmt: skip
        if (committed / name).exists():
            (workspace.results / name).write_text((committed / name).read_text())
    for name in front.write(workspace):
        written = (workspace.tables / f"{name}.md").read_text()
        assert written == (ROOT / "outputs" / "tables" / f"{name}.md").read_text(), name
    assert json.loads((committed / "provenance.json").read_text())["commit"] in written
