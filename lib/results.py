"""Tidy result tables and the claims ledger: make a row, write, read, summarise, render."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib import metrics
from lib.datasets import REGISTRY
from lib.paths import ROOT, Workspace, replacing
from lib.preprocess import ProcessedSet

COLUMNS = (
    *("environment", "release", "protocol", "model", "seed", "n_train", "n_test"),
    *("mean_m", "median_m", "p75_m", "p95_m", "building_hit", "floor_hit"),
    *("rmse_normalised", "epochs", "fit_seconds", "predict_us"),
)
CLOCK_COLUMNS = ("fit_seconds", "predict_us")  # the only ones that differ between two runs of the same code and data
CLAIM_COLUMNS = ("claim", "paper", "ours", "ci95", "seeds", "unit", "release", "protocol", "verdict", "note")
HOLDS, FAILS, UNCHECKED = "holds", "does not hold", "cannot be checked on this release"


def release_name(data) -> str:
    """`file (rows rows)` of a FingerprintSet or ProcessedSet."""
    return f"{data.release.file} ({data.release.rows:,} rows)"


# === Result rows ===


def _errors_file(workspace: Workspace, row: dict | pd.Series) -> Path:
    share = f"-{row['share']:g}" if row.get("share", 1) < 1 else ""
    seed = "" if pd.isna(row["seed"]) else f"-s{int(row['seed'])}"
    return workspace.errors / f"{row['environment']}-{row['protocol']}-{row['model']}{share}{seed}.npz"


def evaluated(
    data: ProcessedSet,
    model: str,
    seed: int | None,
    predicted: np.ndarray,
    workspace: Workspace,
    *,
    n_train: int,
    fit_seconds: float,
    predict_us: float,
    right_place: np.ndarray | None = None,
    **more: float,
) -> dict:
    """One result row: predicted test positions measured as the paper does; per-row errors go to a file beside.

    Args:
        data: the environment and protocol; its test rows are the truth.
        model: a name of the benchmark.
        seed: of the training; None where nothing is random.
        predicted: (n_test, 2) local metres.
        workspace: where the errors are written.
        n_train: number of this environment's fingerprints that the model learnt from.
        fit_seconds, predict_us: what training, and predicting one row, took.
        right_place: (n_test,) whether building and floor were right, where the model has them.
        more: `epochs`, and the fractions `building_hit` and `floor_hit`, where the model has them; `share`, of a model
            that learnt from a share of the training rows.

    Raises:
        ValueError: if the prediction does not fit the test rows.
    """
    true = data.position[data.split.test]
    errors = metrics.localization_errors(data.environment, data.frame, true, predicted)
    scaled = data.position_scaling.transform(predicted) - data.position_scaling.transform(true)
    row = dict.fromkeys(COLUMNS) | {
        "environment": data.environment,
        "release": release_name(data),
        "protocol": data.split.protocol,
        "model": model,
        "seed": seed,
        "n_train": n_train,
        "n_test": len(true),
        **metrics.summary(errors),
        "rmse_normalised": float(np.sqrt(np.mean(np.square(scaled)))),
        "fit_seconds": fit_seconds,
        "predict_us": predict_us,
        **more,
    }
    arrays = {"row": data.rows[data.split.test], "error_m": errors, "predicted": predicted}
    arrays |= {} if right_place is None else {"right_place": right_place}
    with replacing(_errors_file(workspace, row)) as temporary:
        np.savez_compressed(temporary, **arrays)
    return row


def read_errors(workspace: Workspace, row: pd.Series | dict, array: str = "error_m") -> np.ndarray:
    """(n_test,) errors in metres behind a result row, or another array that `evaluated` wrote with them.

    Raises:
        KeyError: if the model has no such array: `right_place` is of models that predict building and floor.
    """
    with np.load(_errors_file(workspace, row)) as file:
        return file[array]


def write(rows: Iterable[dict] | pd.DataFrame, path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Write rows to a CSV file, whole or not at all, and return them as the file has them.

    Raises:
        ValueError: if `columns` are given and the rows have others.
    """
    table = pd.DataFrame(rows)
    if columns is not None and list(table.columns) != list(columns):
        raise ValueError(f"{path.name} must have columns {list(columns)}. Received: {list(table.columns)}")
    table = table.astype({name: "Int64" for name in ("seed", "epochs") if name in table})
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g")
    return read(path)


def read(path: Path) -> pd.DataFrame:
    """A result table.

    Raises:
        FileNotFoundError: if no notebook has written it yet.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. Run the notebooks in order: make all")
    return pd.read_csv(path, dtype={"seed": "Int64", "epochs": "Int64"})


# === Tables ===


def with_interval(values: Sequence[float]) -> str:
    """`mean ± half width of the 95 % t interval`, or the mean alone for a single value."""
    mean, half = float(np.mean(values)), metrics.confidence_half_width(values)
    return f"{mean:.2f}" if np.isnan(half) else f"{mean:.2f} ± {half:.2f}"


def summarise(rows: pd.DataFrame, values: Sequence[str] = ("mean_m", "median_m", "p95_m")) -> pd.DataFrame:
    """One row a model: mean ± 95 % CI over seeds of each of `values`.

    Args:
        rows: tidy results of any environments and protocols.
        values: columns of numbers.

    Returns:
        Columns `release, protocol, model, seeds, n_train, n_test` and one text column for each value.
    """
    grouped = rows.groupby(["release", "protocol", "model"], sort=False)
    table = grouped.agg(
        seeds=("seed", lambda seeds: max(1, seeds.nunique())), n_train=("n_train", "first"), n_test=("n_test", "first")
    )
    return table.assign(**{value: grouped[value].agg(with_interval) for value in values}).reset_index()


def write_table(table: pd.DataFrame, folder: Path, name: str, note: str, simulated: bool) -> None:
    """Render a table to `name.csv`, `name.md` and `name.tex`.

    Args:
        note: one line under the Markdown table that says what the figures are.
        simulated: puts a warning above the table, and a column into the CSV.
    """
    warning = "**SIMULATED DATA — says nothing about the paper**\n\n" if simulated else ""
    shown = table.astype(object).where(table.notna(), "")
    caption = re.sub(r"([%&_#$])", r"\\\1", note)
    texts = {
        "csv": (table.assign(data="simulated") if simulated else table).to_csv(index=False),
        "md": f"{warning}{shown.to_markdown(index=False, disable_numparse=True)}\n\n{note}\n",
        "tex": ("% SIMULATED DATA\n" if simulated else "") + shown.to_latex(index=False, escape=True, caption=caption),
    }
    for suffix, text in texts.items():
        with replacing(folder / f"{name}.{suffix}") as temporary:
            temporary.write_text(text)


# === Claims ledger ===


def claim(
    text: str,
    paper: float,
    ours: float | Sequence[float] | None,
    *,
    rule: str,
    unit: str = "",
    release: str = "",
    protocol: str = "",
    tolerance: float = 0.0,
    checkable: bool = True,
    note: str = "",
) -> dict:
    """One line of the ledger: a number of the paper beside ours, and whether it holds.

    Args:
        text: what the paper says.
        paper: its value.
        ours: our value, or one a seed; None where there is none.
        rule: `equal`, `at most` or `at least`: how ours must stand to the paper's for the claim to hold.
        unit, release, protocol: what the value is, and on what it was measured.
        tolerance: slack for the rule, in the claim's unit.
        checkable: False when the data at hand cannot answer; ours is then shown for orientation only.
        note: a sentence on why, where the numbers need one.

    Raises:
        ValueError: if the rule is none of these.
    """
    rules = {
        "equal": lambda value: abs(value - paper) <= tolerance,
        "at most": lambda value: value <= paper + tolerance,
        "at least": lambda value: value >= paper - tolerance,
    }
    if rule not in rules:
        raise ValueError(f"`rule` must be one of {', '.join(rules)}. Received: {rule}")
    values = [] if ours is None else np.atleast_1d(ours).astype(float)
    mean = float(np.mean(values)) if len(values) else None
    half = metrics.confidence_half_width(values)
    verdict = UNCHECKED if not checkable or mean is None else HOLDS if rules[rule](mean) else FAILS
    if verdict != UNCHECKED and rule != "equal" and half > abs(mean - paper):
        note = f"{note}; " * bool(note) + "the 95 % interval reaches across the paper's value"
    entries = (
        text,
        paper,
        mean,
        half if len(values) > 1 else None,
        len(values),
        unit,
        release,
        protocol,
        verdict,
        note,
    )
    return dict(zip(CLAIM_COLUMNS, entries, strict=True))


def claim_about(data: ProcessedSet, text: str, paper: float, ours, *, note: str = "", **about) -> dict:
    """A claim measured on one environment; on another release than the paper's it cannot be checked."""
    papers_own = data.environment == "ujiindoorloc" or data.release.rows == REGISTRY["lorawan_full"].rows
    subset = "" if papers_own else "the paper used all messages; the subset's are better heard and easier"
    about |= {"release": release_name(data), "protocol": data.split.protocol}
    checkable = papers_own and not data.release.simulated
    return claim(text, paper, ours, checkable=checkable, note="; ".join(filter(None, [note, subset])), **about)


def shown_claims(claims: pd.DataFrame) -> pd.DataFrame:
    """The ledger for reading: counts in full, measured values with four digits and interval, unit in the claim."""

    def ours(row) -> str:
        shown = "" if pd.isna(row.ours) else f"{row.ours:.0f}" if row.ours == round(row.ours) else f"{row.ours:.4g}"
        return f"{shown} ± {row.ci95:.2g}" if row.ci95 > 0 else shown

    words = claims[["claim", "unit", "release", "protocol", "verdict", "note"]].astype(object).fillna("")
    return pd.DataFrame(
        {
            "claim": [
                f"{text} ({unit})" if unit else text for text, unit in zip(words["claim"], words["unit"], strict=True)
            ],
            "paper": claims["paper"].map("{:.6g}".format),
            "ours": [ours(row) for row in claims.itertuples()],
            "verdict": words["verdict"],
            "measured on": (words["release"] + ", " + words["protocol"]).str.strip(", "),
            "note": words["note"],
        }
    )


# === README ===


def fill(document: str, tables: Path) -> str:
    """Replace what stands between `<!-- table: NAME -->` and `<!-- end -->` by the rendered table `NAME.md`.

    Raises:
        FileNotFoundError: if a table that the document names does not exist.
    """

    def filled(match: re.Match) -> str:
        return f"{match['mark']}\n{(tables / match['name']).with_suffix('.md').read_text()}<!-- end -->"

    return re.sub(r"(?P<mark><!-- table: (?P<name>\w+) -->)\n.*?<!-- end -->", filled, document, flags=re.DOTALL)


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    text = fill(readme.read_text(), ROOT / "outputs" / "tables")
    with replacing(readme) as temporary:
        temporary.write_text(text)
