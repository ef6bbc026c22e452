"""Run one notebook with the parameters of the profile that `PROFILE` names (default: full).

The target appears only when every cell ran. A notebook that fails is kept beside it as `*.failed.ipynb`, with its
traceback. A parameter in profiles.yaml that the notebook does not have is an error.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import papermill
import yaml

HERE = Path(__file__).resolve().parent


def parameters(notebook: Path, profile: str) -> dict:
    """The values that a profile gives a notebook.

    Raises:
        ValueError: if there is no such profile, or it names a parameter that the notebook does not have.
    """
    profiles = yaml.safe_load((HERE / "profiles.yaml").read_text())
    if profile not in profiles:
        raise ValueError(f"PROFILE must be one of {', '.join(profiles)}. Received: PROFILE={profile}")
    values = profiles[profile].get(notebook.stem, {})
    unknown = set(values) - set(papermill.inspect_notebook(notebook))
    if unknown:
        raise ValueError(f"profiles.yaml, {profile}: {notebook.name} has no parameter {', '.join(sorted(unknown))}")
    return values


def run(notebook: Path, target: Path, profile: str) -> None:
    """Execute `notebook` and put the result at `target`.

    Raises:
        PapermillExecutionError: if a cell fails; the notebook is then kept as `*.failed.ipynb`.
    """
    os.environ["PROFILE"] = profile  # the notebook's workspace depends on it
    target.parent.mkdir(parents=True, exist_ok=True)
    failed, running = target.with_suffix(".failed.ipynb"), target.with_suffix(".running.ipynb")
    failed.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            notebook,
            running,
            parameters(notebook, profile),
            kernel_name="python3",
            cwd=HERE.parent,
            progress_bar={"desc": notebook.stem, "mininterval": 1.0},
        )
    except BaseException:
        if running.exists():
            running.replace(failed)
            print(f"{notebook.name} failed; see {failed}", file=sys.stderr)
        raise
    running.replace(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path, help="the notebook to run")
    parser.add_argument("target", type=Path, help="where the executed notebook goes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the notebook is kept
    try:
        run(arguments.notebook, arguments.target, os.environ.get("PROFILE", "full"))
    except (papermill.PapermillExecutionError, ValueError) as problem:
        sys.exit(str(problem))
