"""What a run of all notebooks took, on which machine, and whether its results agree with the committed ones.

Run as a command at the end of `make all`. It prints a summary, writes `results/provenance.json` and
`tables/speed_pipeline`, and, for a run on measured data, `reproduction.md`, or if it is the committed one, the executed
notebooks.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from dask.system import CPU_COUNT
from scipy import stats

from lib import THREADS, paths
from lib.experiments import executed
from lib.paths import Workspace, replacing
from lib.report import numbers, results

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")  # that decide how fast a training is, and how it rounds
VERSIONS = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "lightgbm")
NOTEBOOK_COLUMNS = ["notebook", "seconds", "trained", "recalled"]
CONFIDENCE = 0.95
COMPARED = ("benchmark", "umlp", "transfer_controls")  # results that do not depend on the profile


# === What a run took ===


def records(built: Path) -> list[dict]:
    """What `notebooks/run.py` left of each notebook of `make all` that ran to its end, in their order."""
    finished = []
    for path in sorted(built.glob("[0-9][0-9]_*.json")):
        searches = path.name.startswith("00_")  # by `make search`
        if path.with_suffix(".ipynb").exists() and not searches:
            finished.append(json.loads(path.read_text()))
    return finished


def is_measurement(built: Path, notebooks: Sequence[dict], started: float | None) -> bool:
    """Whether a run since `started` made everything itself: all notebooks, and each training that one recalled."""
    if started is None or any(record["started"] < started for record in notebooks):
        return False
    names = {"trained": set(), "recalled": set()}
    for path in built.glob("*.trainings.csv"):
        for line in path.read_text().splitlines():
            outcome, _, name = line.split(",", 2)
            names[outcome].add(name)
    return names["recalled"] <= names["trained"]


def pipeline_table(notebooks: Sequence[dict]) -> pd.DataFrame:
    """The records for reading, one row a notebook and one for their sum, all text."""
    table = pd.DataFrame(notebooks, columns=NOTEBOOK_COLUMNS)
    sums = table.drop(columns="notebook").sum(min_count=1)
    table.loc[len(table)] = ["sum", *sums]
    counts = table[["trained", "recalled"]].astype("Int64").astype(object).fillna("")
    return pd.DataFrame(
        {
            "notebook": table["notebook"],
            "seconds": table["seconds"].map("{:.0f}".format),
            "trainings done": counts["trained"].astype(str),
            "trainings recalled": counts["recalled"].astype(str),
        }
    )


def machine() -> dict:
    """Processor, cores and instruction sets of this machine, as far as the system tells."""
    facts = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": CPU_COUNT,
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "system": platform.platform(terse=True),
    }


def commit() -> str | None:
    """The commit of this checkout, with `-dirty` where anything but results differs from it; None outside of git."""
    try:
        head = _git("rev-parse", "HEAD").strip()[:12]
        changed = _git("status", "--porcelain", "--", ".", ":!outputs", ":!README.md", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head


def _git(*command: str) -> str:
    """What a git command prints."""
    finished = subprocess.run(["git", *command], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    return finished.stdout


def machine_name(run: dict) -> str:
    """The machine of a run in a few words, from its provenance."""
    facts = run["machine"]
    instructions = ", ".join(facts["instructions"]) or "no AVX2"
    return f"{facts['processor']}, {facts['cores']} cores, {instructions}"


def pipeline_note(run: dict) -> str:
    """One sentence on how long a run took, from its provenance."""
    took = "A run that continued another"
    if run["seconds"] is not None:
        minutes = run["seconds"] / 60
        took = f"All notebooks took {minutes:.1f} minutes, several at a time"
    return f"{took}: profile {run['profile']}, commit {run['commit']}, {machine_name(run)}."


def provenance(notebooks: Sequence[dict], profile: str, seconds: float | None) -> dict:
    """What made the results of a run: commit, machine, versions, date, and how long it took.

    Args:
        notebooks: see `records`.
        profile: its parameters.
        seconds: wall time of the whole run; None if it continued another.
    """
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        versions[name] = importlib.metadata.version(name)

    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "profile": profile,
        "seconds": seconds,
        "machine": machine(),
        "threads": int(THREADS),
        "versions": versions,
        "notebooks": [{name: record[name] for name in NOTEBOOK_COLUMNS} for record in notebooks],
    }


# === Whether it agrees ===


def compared(committed: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """The mean error of each model under each protocol, as committed and in this run, and whether they agree.

    What has no seed must agree to the printed digits. Of the rest, the difference must lie within the 95 % prediction
    interval for the mean of as many new seeds as this run has: t · s · √(1/n + 1/m), with s and n the committed
    standard deviation and seeds, and m the seeds of this run. One in twenty lies outside by chance.

    Args:
        committed, ours: tidy results, of the same models on the same releases at least in part.

    Returns:
        Columns `protocol, model, share, committed (m), this run (m), seeds here, standard errors, agrees`, one row for
        what both have. The errors in metres are texts; `standard errors` is NaN where nothing is random.
    """
    keys = ["environment", "release", "protocol", "model", "share"]
    if "share" not in committed:
        committed = committed.assign(share=1.0)
    if "share" not in ours:
        ours = ours.assign(share=1.0)
    before = dict(list(committed.groupby(keys, sort=False)))
    now = dict(list(ours.groupby(keys, sort=False)))
    columns = ["protocol", "model", "share", "committed (m)", "this run (m)", "seeds here", "standard errors", "agrees"]
    rows = []
    for key, expected in before.items():
        if key not in now:
            continue
        measured = now[key]
        committed_error = numbers.interval(expected["mean_m"])
        our_error = numbers.interval(measured["mean_m"])
        seeds = max(1, measured["seed"].nunique())
        rows.append((*key[2:], committed_error, our_error, seeds, *_agreement(expected, measured)))
    return pd.DataFrame(rows, columns=columns)


def _agreement(expected: pd.DataFrame, measured: pd.DataFrame) -> tuple[float, bool]:
    """How many standard errors two means lie apart, and whether they agree, for one model under one protocol."""
    before = expected["mean_m"]
    now = measured["mean_m"]
    if expected["seed"].isna().all():
        agrees = f"{before.mean():.2f}" == f"{now.mean():.2f}"
        return np.nan, agrees
    spread = np.sqrt(1 / len(before) + 1 / len(now))
    standard_error = before.std() * spread
    errors = (now.mean() - before.mean()) / standard_error
    bound = stats.t.ppf((1 + CONFIDENCE) / 2, len(before) - 1)
    return errors, abs(errors) <= bound


def report(table: pd.DataFrame, run: dict) -> str:
    """A comparison as Markdown.

    Args:
        table: see `compared`.
        run: the provenance of the committed results.
    """
    if table.empty:
        return "Nothing to compare: the committed results are of another release of the data than this run's.\n"
    agree = int(table["agrees"].sum())
    largest = table["standard errors"].abs().max()
    shown = table.astype(object)
    shown["share"] = table["share"].map("{:g}".format)
    shown["standard errors"] = table["standard errors"].map("{:+.1f}".format, na_action="ignore").fillna("")
    shown["agrees"] = np.where(table["agrees"], "yes", "NO")
    return (
        "# Does this run reproduce the committed results?\n\n"
        f"{agree} of {len(table)} mean errors on test rows agree with those of commit {run['commit']} "
        f"({machine_name(run)}). The largest difference is {largest:.1f} standard errors.\n\n"
        f"{shown.astype(str).to_markdown(index=False, disable_numparse=True)}\n\n"
        "Mean distance error in metres (UJIIndoorLoc: Web Mercator), ± 95 % CI where there are several seeds. What is "
        "not random agrees if it is the same to the printed digits; the rest if the difference lies within the 95 % "
        "prediction interval of the committed seeds, outside of which one in twenty lies by chance.\n"
    )


# === Command line ===


def finish(built: Path, workspace: Workspace, profile: str, simulated: bool, started: float | None) -> None:
    """Print the summary of a run and write what is to be kept of it.

    Args:
        built: the folder of the executed notebooks.
        workspace: where they wrote.
        profile: their parameters.
        simulated: whether they ran on simulated data.
        started: when the run began, in seconds since 1970; None if it is not known.
    """
    notebooks = records(built)
    table = pipeline_table(notebooks)
    print(f"\n{table.to_string(index=False)}")
    seconds = None
    if is_measurement(built, notebooks, started):
        seconds = time.time() - started
    if any(record["started"] >= (started or 0) for record in notebooks):
        run = provenance(notebooks, profile, seconds)
        note = pipeline_note(run)
        with replacing(workspace.results / "provenance.json") as temporary:
            temporary.write_text(json.dumps(run, indent=2) + "\n")
        results.write_table(table, workspace.tables, "speed_pipeline", note, simulated)
        print(note)
    print(f"Figures, tables and results: {workspace.outputs}")
    if simulated:
        print("SIMULATED DATA: the results say nothing about the paper, and are compared with nothing.")
    elif profile == paths.COMMITTED:
        copies = executed.publish(built, workspace.outputs / "notebooks")
        print(f"{len(copies)} executed notebooks: {workspace.outputs / 'notebooks'}")
    elif profile == "full":
        print(f"\n{reproduction(workspace)}")


def reproduction(workspace: Workspace) -> str:
    """Compare the results of a workspace with the committed ones, write `reproduction.md` and return it."""
    committed = paths.ROOT / "outputs" / "results"
    tables = []
    for name in COMPARED:
        before = results.read(committed / f"{name}.csv")
        now = results.read(workspace.results / f"{name}.csv")
        tables.append(compared(before, now))
    table = pd.concat(tables).drop_duplicates(["protocol", "model", "share"])
    run = json.loads((committed / "provenance.json").read_text())
    text = report(table, run)
    with replacing(workspace.outputs / "reproduction.md") as temporary:
        temporary.write_text(text)
    return text


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=Path, help="folder of the executed notebooks")
    parser.add_argument("--started", type=float, help="when the run began, in seconds since 1970")
    arguments = parser.parse_args()
    try:
        simulated = json.loads((arguments.built / "sources.json").read_text())["simulated"]
    except OSError as problem:
        sys.exit(f"{arguments.built} holds no run of the notebooks: {problem}")
    profile = os.environ.get("PROFILE", "lab")
    finish(arguments.built, paths.workspace(simulated), profile, simulated, arguments.started)


if __name__ == "__main__":
    main()
