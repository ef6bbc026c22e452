"""Run one notebook with the parameters of the profile that `PROFILE` names (default: full).

The target appears only when every cell ran. A notebook that fails is kept beside it as `*.failed.ipynb`, with its
traceback. Beside the target, `*.json` says how long it took and how many trainings it did or recalled, and `*.log` has
what the libraries wrote to stderr. A parameter in settings.yaml that the notebook does not have is an error.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import papermill

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from lib import stderr_in
from lib.experiments import settings

HERE = Path(__file__).resolve().parent


def parameters(notebook: Path, profile: str) -> dict:
    """The values that a profile gives a notebook.

    Raises:
        ValueError: if there is no such profile, or it names a parameter that the notebook does not have.
    """
    os.environ["PROFILE"] = profile  # the notebook's workspace depends on it
    values = settings.notebook(notebook.stem)
    unknown = set(values) - set(papermill.inspect_notebook(notebook))
    if unknown:
        raise ValueError(f"settings.yaml, {profile}: {notebook.name} has no parameter {', '.join(sorted(unknown))}")
    return values


def trainings(log: Path) -> dict[str, int]:
    """How many trainings a notebook did, and how many others it recalled, by the lines of `store.log`."""
    lines = log.read_text().splitlines() if log.exists() else []
    named = [line.split(",", 2) for line in lines]
    trained = [name for what, _, name in named if what == "trained"]
    recalled = {name for what, _, name in named if what == "recalled"}
    return {"trained": len(trained), "recalled": len(recalled.difference(trained))}


def run(notebook: Path, target: Path, profile: str) -> dict:
    """Execute `notebook`, put the result at `target` and its record beside it.

    Returns:
        The record: `notebook`, `started` (seconds since 1970), `seconds`, `trained` and `recalled`.

    Raises:
        PapermillExecutionError: if a cell fails; the notebook is then kept as `*.failed.ipynb`.
    """
    values = parameters(notebook, profile)
    target.parent.mkdir(parents=True, exist_ok=True)
    failed, running = target.with_suffix(".failed.ipynb"), target.with_suffix(".running.ipynb")
    log = target.with_suffix(".trainings.csv").absolute()
    for old in (failed, log):
        old.unlink(missing_ok=True)
    os.environ["TRAINING_LOG"] = str(log)
    started = time.time()
    try:
        with target.with_suffix(".log").open("w") as noise, stderr_in(noise) as screen:
            shown = {"file": screen, "disable": not screen.isatty(), "leave": False, "mininterval": 1.0}
            papermill.execute_notebook(
                notebook,
                running,
                values,
                kernel_name="python3",
                cwd=HERE.parent,
                start_timeout=600,  # seconds: on a busy machine, a kernel needs more than the usual minute
                progress_bar={"desc": notebook.stem, **shown},
            )
    except BaseException:
        if running.exists():
            running.replace(failed)
            print(f"{notebook.name} failed; see {failed}", file=sys.stderr)
        raise
    record = {"notebook": notebook.stem, "started": started, "seconds": time.time() - started, **trainings(log)}
    target.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    running.replace(target)
    return record


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path, help="the notebook to run")
    parser.add_argument("target", type=Path, help="where the executed notebook goes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the notebook is kept
    try:
        record = run(arguments.notebook, arguments.target, os.environ.get("PROFILE", "full"))
    except (papermill.PapermillExecutionError, ValueError) as problem:
        sys.exit(str(problem))
    print("{notebook}: {seconds:.0f} s, {trained} trainings done, {recalled} recalled".format(**record), flush=True)


if __name__ == "__main__":
    main()
