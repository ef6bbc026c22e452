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
from matplotlib.figure import Figure
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from lib import THREADS, paths, plots, results
from lib.fingerprints import require_memory

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
    rows, started = [], time.perf_counter()
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
    return float(line.slope), float(stats.t.ppf(0.975, len(sizes) - 2) * line.stderr)


def sweeps(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What was measured along either size, with the least of the other."""
    rows = rows.dropna()
    return {size: rows[rows[other] == rows[other].min()] for size, other in zip(SIZES, reversed(SIZES), strict=True)}


def exponents(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a step and size: the exponents of time and memory, and what the largest took, as text."""
    table = []
    for size, sweep in sweeps(rows).items():
        for step, name in STEPS.items():
            of_step = sweep[sweep["what"] == step].sort_values(size)
            fitted = {
                f"exponent of {label}": "{:.2f} ± {:.2f}".format(*exponent(of_step[size], of_step[quantity]))
                for quantity, label in QUANTITIES.items()
            }
            largest = of_step.iloc[-1]
            of_largest = f"{largest['n_rows']:,} × {largest['n_transmitters']:,}"
            took = {label: f"{largest[quantity]:,.2f}" for quantity, label in QUANTITIES.items()}
            table.append({"step": name, "against": SIZES[size], **fitted, "rows × transmitters": of_largest, **took})
    return pd.DataFrame(table)


# === Drawing ===


def draw(rows: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Time and memory of each step against rows and against transmitters; crosses are radio maps that were refused."""
    figure, axes = plt.subplots(2, 2, figsize=(15, 10), sharex="col", sharey="row")
    refused = rows[rows["peak_mb"].isna()]
    for column, (size, sweep), other in zip(axes.T, sweeps(rows).items(), reversed(SIZES), strict=True):
        for axis, (quantity, label) in zip(column, QUANTITIES.items(), strict=True):
            fitted = table[table["against"] == SIZES[size]].set_index("step")[f"exponent of {label}"]
            for (step, name), colour, marker in zip(
                STEPS.items(), sns.color_palette("colorblind"), "os^vDPX", strict=False
            ):
                of_step = sweep[sweep["what"] == step].sort_values(size)
                style = {"marker": marker, "markersize": 6, "color": colour, "label": f"{name}: {fitted[name]}"}
                axis.plot(of_step[size], of_step[quantity], **style)
            axis.set(xscale="log", yscale="log", ylabel=label)
            title = {"title": "exponent ± 95 % interval", "title_fontsize": 10, "alignment": "left"}
            axis.legend(**title, fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        for row in refused.itertuples():
            at = getattr(row, size), 4e-6 * row.n_rows * row.n_transmitters
            column[1].plot(*at, "x", color="black", markersize=9, markeredgewidth=2)
            about = f"{row.n_rows:,} × {row.n_transmitters:,},\n{at[1] / 1000:g} GB: refused"
            column[1].annotate(about, at, (-10, 0), textcoords="offset points", ha="right", va="center", fontsize=10)
        column[0].set_title(f"against {SIZES[size]}, at {sweep[other].iloc[0]:,} {SIZES[other]}", fontsize=12)
        column[1].set_xlabel(SIZES[size])
    figure.suptitle("What each step costs (kNN: 1,000 queries)", fontsize=13)
    return figure


def main() -> None:
    small = os.environ.get("PROFILE") == "smoke"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, sizes in {
        "--rows": FEW_ROWS if small else ROWS,
        "--transmitters": FEW_TRANSMITTERS if small else TRANSMITTERS,
    }.items():
        about = "sizes to measure with the least of the other; three at least (default: %(default)s)"
        parser.add_argument(name, type=int, nargs="+", default=sizes, metavar="N", help=about)
    arguments = parser.parse_args()
    workspace = paths.workspace(simulated=False)
    n_rows, n_transmitters = sorted(set(arguments.rows)), sorted(set(arguments.transmitters))
    sizes = [(n, n_transmitters[0]) for n in n_rows] + [(n_rows[0], n) for n in n_transmitters[1:]]
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
    plots.finish(draw(rows, table), workspace.figures / "scaling.png", simulated=False)


if __name__ == "__main__":
    main()
