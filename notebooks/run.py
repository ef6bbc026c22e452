"""Run one notebook with the parameters of the profile that `PROFILE` names: python notebooks/run.py NOTEBOOK TARGET

TARGET appears only when every cell ran. A notebook that fails is kept beside it as `*.failed.ipynb`, with its
traceback. A parameter in profiles.yaml that the notebook does not have is an error.
"""

import argparse
import os
import sys
from pathlib import Path

import papermill
import yaml

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT_S = 3600


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
    """Execute `notebook` and put the result at `target`; raises PapermillExecutionError when a cell fails."""
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
            execution_timeout=CELL_TIMEOUT_S,
            progress_bar={"desc": notebook.stem, "mininterval": 1.0},
        )
    except papermill.PapermillExecutionError:
        running.replace(failed)
        print(f"{notebook.name} failed; see {failed}", file=sys.stderr)
        raise
    finally:
        # An interrupt leaves a notebook that papermill was still writing.
        if running.exists() and sys.exc_info()[0] is not None:
            running.unlink()
    running.replace(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        run(arguments.notebook, arguments.target, os.environ.get("PROFILE", "full"))
    except (papermill.PapermillExecutionError, ValueError) as problem:
        sys.exit(str(problem))
