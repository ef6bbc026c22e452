"""How the cost of every step grows with fingerprints and transmitters: time, peak memory, and their exponents.

Each step of each size runs in a process of its own, one after the other, on scans of the simulated campus. Writes
`results/scaling.csv`, `tables/scaling.*` and `figures/scaling.png` below the outputs of the profile that `PROFILE`
names; under `smoke` the sizes are tiny.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from lib import THREADS, paths
from lib.data.fingerprints import require_memory
from lib.report import figures, results

COLUMNS = ("what", "n_rows", "n_transmitters", "seconds", "peak_mb")
ROWS, TRANSMITTERS = [10_000, 30_000, 100_000, 300_000, 1_000_000], [100, 300, 1000, 3000, 10_000]
FEW_ROWS, FEW_TRANSMITTERS = [300, 600, 1200], [20, 40, 80]
TOO_LARGE = (1_000_000, 10_000)  # a radio map of 40 GB
STEPS = {
    "simulate": "simulate",
    "load": "load CSV",
    "process": "preprocess",
    "train": "train an epoch",
    "predict": "predict all rows",
    "knn_euclidean": "kNN Euclidean",
    "knn_sorensen": "kNN Sørensen",
}
DRAWN = ("load", "train", "predict", "knn_sorensen")  # the others are in the table
QUANTITIES = {"seconds": "time (s)", "peak_mb": "peak memory (MB)"}
SIZES = {"n_rows": "rows", "n_transmitters": "transmitters"}


# === Measuring ===


def measure(step: str, folder: Path, n_rows: int, n_transmitters: int) -> dict:
    """What `steps.py` answers: `seconds` and `peak_mb`, or `refused` and why.

    Raises:
        RuntimeError: if the step fails.
    """
    command = [sys.executable, Path(__file__).with_name("steps.py"), step, folder, str(n_rows), str(n_transmitters)]
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{step} of {n_rows:,} × {n_transmitters:,} failed:\n{finished.stderr[-4000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def measure_all(sizes: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """One row a step and size, without figures where memory does not suffice."""
    rows = []
    started = time.perf_counter()
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                answer = measure(step, Path(folder), *size)
                rows.append((step, *size, answer.get("seconds"), answer.get("peak_mb")))
                if "refused" in answer:
                    print(answer["refused"])
                    break  # the other steps read what this one makes
        print(f"{time.perf_counter() - started:4.0f} s: {size[0]:,} rows × {size[1]:,} transmitters", flush=True)
    return pd.DataFrame(rows, columns=COLUMNS)


# === Exponents ===


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """(e, half width of its 95 % t interval) of values ∝ size ** e, by least squares on the logarithms."""
    line = stats.linregress(np.log(sizes), np.log(values))
    half_width = stats.t.ppf(0.975, len(sizes) - 2) * line.stderr
    return float(line.slope), float(half_width)


def sweeps(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What was measured along either size, with the least of the other."""
    rows = rows.dropna()
    fewest = {size: rows[rows[size] == rows[size].min()] for size in SIZES}
    return {"n_rows": fewest["n_transmitters"], "n_transmitters": fewest["n_rows"]}


def exponents(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a step and size: the exponents of time and memory, and what the largest took, as text."""
    table = []
    for size, sweep in sweeps(rows).items():
        for step, name in STEPS.items():
            measured = sweep[sweep["what"] == step].sort_values(size)
            line = {"step": name, "against": SIZES[size]}
            for quantity, label in QUANTITIES.items():
                slope, half_width = exponent(measured[size], measured[quantity])
                line[f"exponent of {label}"] = f"{slope:.2f} ± {half_width:.2f}"
            largest = measured.iloc[-1]
            line["rows × transmitters"] = f"{largest['n_rows']:,} × {largest['n_transmitters']:,}"
            for quantity, label in QUANTITIES.items():
                line[label] = f"{largest[quantity]:,.2f}"
            table.append(line)
    return pd.DataFrame(table)


# === Drawing ===


def draw(rows: pd.DataFrame) -> Figure:
    """Time and memory of some steps against rows and against transmitters; crosses are radio maps that were refused."""
    figure, axes = plt.subplots(2, 2, figsize=(figures.WIDTH, 7), sharex="col", sharey="row")
    refused = rows[rows["peak_mb"].isna()]
    smallest = rows.dropna().min(numeric_only=True)
    constant = {"n_rows": "n_transmitters", "n_transmitters": "n_rows"}
    for column, (size, sweep) in zip(axes.T, sweeps(rows).items(), strict=True):
        for axis, quantity in zip(column, QUANTITIES, strict=True):
            _lines(axis, sweep, size, quantity)
            axis.set(xscale="log", yscale="log")
        for radio_map in refused.itertuples():
            _cross(column[1], radio_map, size)
        least = smallest[constant[size]]
        column[0].set_title(f"against {SIZES[size]}, at {least:,.0f} {SIZES[constant[size]]}", fontsize=12)
        column[1].set_xlabel(f"number of {SIZES[size]}")
    for axis, label in zip(axes[:, 0], QUANTITIES.values(), strict=True):
        axis.set_ylabel(label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=11, frameon=False)
    return figure


def _lines(axis: Axes, sweep: pd.DataFrame, size: str, quantity: str) -> None:
    """A line for each step that is drawn, and a grey one that grows in proportion."""
    colours = sns.color_palette("colorblind", len(DRAWN))
    for step, colour, marker in zip(DRAWN, colours, "osDv", strict=True):
        measured = sweep[sweep["what"] == step].sort_values(size)
        axis.plot(measured[size], measured[quantity], marker=marker, color=colour, label=STEPS[step])
    sizes = np.array([sweep[size].min(), sweep[size].max()])
    first = sweep.loc[sweep["what"].isin(DRAWN) & (sweep[size] == sizes[0]), quantity].min()
    proportional = first / 2 * sizes / sizes[0]
    axis.plot(sizes, proportional, color="0.5", linestyle="--", linewidth=1.5, label="in proportion", zorder=1)


def _cross(axis: Axes, radio_map, size: str) -> None:
    """A radio map that was refused, at the memory that it would have taken."""
    megabytes = 4e-6 * radio_map.n_rows * radio_map.n_transmitters
    at = getattr(radio_map, size), megabytes
    axis.plot(*at, "x", color="black", markersize=9, markeredgewidth=2)
    text = f"{radio_map.n_rows:,} × {radio_map.n_transmitters:,},\n{megabytes / 1000:g} GB: refused"
    axis.annotate(text, at, (-10, 0), textcoords="offset points", ha="right", va="center", fontsize=10)


def main() -> None:
    """Measure every step of every size, and write down what they cost."""
    defaults = {"--rows": ROWS, "--transmitters": TRANSMITTERS}
    if os.environ.get("PROFILE") == "smoke":
        defaults = {"--rows": FEW_ROWS, "--transmitters": FEW_TRANSMITTERS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    purpose = "sizes to measure with the least of the other; three at least (default: %(default)s)"
    for name, sizes in defaults.items():
        parser.add_argument(name, type=int, nargs="+", default=sizes, metavar="N", help=purpose)
    arguments = parser.parse_args()
    workspace = paths.workspace(simulated=False)
    n_rows = sorted(set(arguments.rows))
    n_transmitters = sorted(set(arguments.transmitters))
    sizes = [(n, n_transmitters[0]) for n in n_rows]
    sizes += [(n_rows[0], n) for n in n_transmitters[1:]]
    try:
        require_memory(*TOO_LARGE)
    except MemoryError:  # where there is room for it, it would take its time
        sizes.append(TOO_LARGE)
    rows = results.write(measure_all(sizes), workspace.results / "scaling.csv", COLUMNS)
    table = exponents(rows)
    note = (
        f"What the steps cost on fingerprints of the simulated campus, with {THREADS} thread(s), and the exponents of "
        "its growth with their 95 % intervals. Memory is what the data of a step need, read and made. kNN answers "
        "1,000 queries, and goes through all fingerprints for each: to ask about as many rows as are stored is "
        "quadratic, by its nature. A radio map that does not fit in memory is refused before it is made."
    )
    results.write_table(table, workspace.tables, "scaling", note, simulated=False)
    print(table.to_string(index=False))
    figures.finish(draw(rows), workspace.figures / "scaling.png", simulated=False)


if __name__ == "__main__":
    main()
