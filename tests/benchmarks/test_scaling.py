"""What is read off the cost of growing data: the exponents, and what is left out of them."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import scaling, steps
from lib.report import figures


@pytest.fixture(scope="module")
def rows():
    """Time grows with rows and with the root of transmitters, memory with both; one radio map was refused."""
    sizes = [(1000, 10), (3000, 10), (10_000, 10), (1000, 30), (1000, 100)]
    found = [(step, n, t, 1e-4 * n * t**0.5, 4e-6 * n * t) for n, t in sizes for step in scaling.STEPS]
    return pd.DataFrame([*found, ("simulate", 10**6, 10**4, None, None)], columns=scaling.COLUMNS)


def test_exponent_of_a_power_is_found_exactly():
    sizes = np.array([10, 100, 300, 5000])
    assert scaling.exponent(sizes, 7 * sizes**1.5) == pytest.approx((1.5, 0), abs=1e-6)


def test_interval_holds_the_exponent_in_95_of_100_cases():
    rng, sizes = np.random.default_rng(0), np.geomspace(10, 1000, 5)
    fits = [scaling.exponent(sizes, sizes * np.exp(rng.normal(0, 0.2, 5))) for _ in range(1000)]
    assert np.mean([abs(slope - 1) <= half for slope, half in fits]) == pytest.approx(0.95, abs=0.02)


def test_table_holds_both_exponents_of_every_step_along_both_sizes(rows):
    table = scaling.exponents(rows)
    assert len(table) == 2 * len(scaling.STEPS)
    for size, time, largest in (("rows", "1.00", "10,000 × 10"), ("transmitters", "0.50", "1,000 × 100")):
        along = table[table["against"] == size]
        assert list(along["step"]) == list(scaling.STEPS.values())
        assert set(along["exponent of time (s)"]) == {f"{time} ± 0.00"}
        assert set(along["exponent of peak memory (MB)"]) == {"1.00 ± 0.00"}
        assert set(along["rows × transmitters"]) == {largest}


def test_figure_names_what_was_refused_and_has_one_legend(rows):
    figure = figures.marked(scaling.draw(rows), simulated=False)
    assert len(figure.axes) == 4
    (legend,) = figure.legends
    drawn = [scaling.STEPS[step] for step in scaling.DRAWN]
    assert [text.get_text() for text in legend.get_texts()] == [*drawn, "in proportion"]
    for axis in figure.axes:
        assert axis.get_legend() is None
        assert axis.get_xscale() == axis.get_yscale() == "log"
    for axis in figure.axes[2:]:
        assert axis.get_xlabel().startswith("number of")
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == list(scaling.QUANTITIES.values())
    assert [text.get_text() for text in figure.axes[2].texts] == ["1,000,000 × 10,000,\n40 GB: refused"]


@pytest.fixture
def step_here(monkeypatch, capsys):
    """Does a step in this process, and returns what it answers: another would import for seconds what is here."""

    def answer(step, folder, n_rows, n_transmitters):
        monkeypatch.setattr(sys, "argv", ["steps.py", step, str(folder), str(n_rows), str(n_transmitters)])
        steps.main()
        return json.loads(capsys.readouterr().out)

    return answer


def test_steps_measure_what_the_ones_before_left(tmp_path, step_here):
    for measure, step in ((step_here, "simulate"), (scaling.measure, "load")):
        answer = measure(step, tmp_path, 300, 20)
        assert answer["seconds"] > 0 and answer["peak_mb"] >= 0
    with pytest.raises(RuntimeError, match="process of 300 × 20 failed"):
        scaling.measure("process", tmp_path / "nowhere", 300, 20)


def test_what_no_machine_has_memory_for_is_refused(tmp_path, step_here):
    answer = step_here("simulate", tmp_path, 10**9, 10**6)
    assert set(answer) == {"refused"} and "1,000,000,000 rows × 1,000,000 transmitters need" in answer["refused"]


def test_help_names_the_sizes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--help"])
    with pytest.raises(SystemExit) as end:
        scaling.main()
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "--rows" in printed and "1000000" in printed and "--transmitters" in printed
