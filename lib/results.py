"""Tidy result tables, comparisons and the claims ledger: make a row, write, read, summarise, compare, render."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
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
PANEL = ["environment", "protocol"]  # models are compared within one of each
COMPARISON_COLUMNS = (
    *("environment", "release", "protocol", "model", "reference", "difference_m", "low_m", "high_m"),
    *("p_value", "p_holm", "comparisons", "verdict"),
)
BETTER, WORSE, ALIKE = "better", "worse", "not distinguishable"
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
    part: str = "test",
    *,
    n_train: int,
    fit_seconds: float,
    predict_us: float,
    right_place: np.ndarray | None = None,
    **more: float,
) -> dict:
    """One result row: predicted positions measured as the paper does; per-row errors go to a file beside.

    Args:
        data: the environment and protocol; its rows are the truth.
        model: a name of the benchmark.
        seed: of the training; None where nothing is random.
        predicted: (n_test, 2) local metres.
        workspace: where the errors are written.
        part: which rows were predicted, `validation` for what is still being chosen.
        n_train: number of this environment's fingerprints that the model learnt from.
        fit_seconds, predict_us: what training, and predicting one row, took.
        right_place: (n_test,) whether building and floor were right, where the model has them.
        more: `epochs`, and the fractions `building_hit` and `floor_hit`, where the model has them; `share`, of a model
            that learnt from a share of the training rows.

    Raises:
        ValueError: if the prediction does not fit the rows.
    """
    tested = getattr(data.split, part)
    true = data.position[tested]
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
    arrays = {"row": data.rows[tested], "error_m": errors, "predicted": predicted}
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
    """`mean ± half width of the 95 % t interval`, the mean alone for a single value, nothing where values are NaN."""
    mean, half = float(np.mean(values)), metrics.confidence_half_width(values)
    return "" if np.isnan(mean) else f"{mean:.2f}" if np.isnan(half) else f"{mean:.2f} ± {half:.2f}"


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


def benchmark_tables(
    rows: pd.DataFrame, names: Mapping[str, str], quoted: Mapping[tuple[str, str], Mapping[str, float]]
) -> dict[tuple[str, str], pd.DataFrame]:
    """One table for each environment and protocol, one line a model: errors, hits, costs and published figures.

    Args:
        rows: tidy results. Beside the errors of `COLUMNS`, tables show `ground_m` and `right_place_m` where rows have
            them: the mean error in ground metres, and of the test rows placed in the right building and floor.
        names: model → its name in the table, in the order of the lines.
        quoted: (environment, protocol) → model → published mean error in metres. A model that is not among the names
            was not run, and gets a line by the name it has here.

    Returns:
        (environment, protocol) → texts; errors are mean ± 95 % CI over seeds, the rest means over seeds. Columns that
        the protocol has no value of are left out.

    Raises:
        KeyError: if a model has no name.
    """
    errors = ("mean_m", "ground_m", "median_m", "p75_m", "p95_m", "right_place_m")
    others = {"building_hit": "{:.1%}", "floor_hit": "{:.1%}", "fit_seconds": "{:.3g}", "predict_us": "{:.3g}"}
    unnamed = sorted(set(rows["model"]) - set(names))
    if unnamed:
        raise KeyError(f"`names` must have every model. Received: none for {', '.join(unnamed)}")
    tables = {}
    for key, panel in rows.groupby(PANEL, sort=False):
        values = [name for name in errors if name in panel and panel[name].notna().any()]
        table = summarise(panel, values).set_index("model").drop(columns=["release", "protocol", "n_test"])
        means = panel.groupby("model")[list(others)].mean()
        table = table.assign(
            **{name: means[name].map(form.format, na_action="ignore") for name, form in others.items()}
        )
        published = pd.Series(quoted.get(key, {}), dtype=float).map("{:g}".format)
        table = table.astype(object).join(published.rename("quoted_m"), how="outer")
        ordered = table.reindex([*names, *published.index.difference(list(names), sort=False)]).dropna(how="all")
        shown = ordered.rename(index=names).rename_axis("model").dropna(axis="columns", how="all")
        tables[key] = shown.fillna("").reset_index()
    return tables


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


# === Comparisons ===


def resampled_means(
    rows: pd.DataFrame, workspace: Workspace, groups: Mapping[tuple[str, str], np.ndarray] | None = None, **sampling
) -> dict[tuple[str, str], pd.DataFrame]:
    """Draws of every model's mean error, for intervals and comparisons, from the errors of every row and seed.

    Args:
        rows: tidy results.
        workspace: where their errors are.
        groups: (environment, protocol) → (n_test,) group of each test row; without, its rows are independent.
        sampling: `resamples` and `seed` of `metrics.bootstrap_means`, which says what the draws cover.

    Returns:
        (environment, protocol) → (resamples, models) metres, models as columns.
    """
    draws = {}
    for key, panel in rows.groupby(PANEL, sort=False):
        errors = {
            model: np.stack([read_errors(workspace, row) for _, row in runs.iterrows()])
            for model, runs in panel.groupby("model", sort=False)
        }
        means = metrics.bootstrap_means(list(errors.values()), (groups or {}).get(key), **sampling)
        draws[key] = pd.DataFrame(means, columns=list(errors))
    return draws


def comparisons(
    rows: pd.DataFrame, draws: Mapping[tuple[str, str], pd.DataFrame], references: Sequence[str]
) -> pd.DataFrame:
    """Is a model better than a reference? Every model against each of some, in every environment and protocol.

    Args:
        rows: tidy results.
        draws: of these rows, as `resampled_means` gives them.
        references: models; two of them are compared once.

    Returns:
        `COMPARISON_COLUMNS`: the difference in mean error (negative where the model is better) with its own 95 %
        interval; the verdict goes by `p_holm` at 0.05, corrected for all comparisons of the table.

    Raises:
        ValueError: if a reference was not run under a protocol.
    """
    lines = []
    for (environment, protocol), panel in rows.groupby(PANEL, sort=False):
        means, sampled = panel.groupby("model", sort=False)["mean_m"].mean(), draws[environment, protocol]
        about = {"environment": environment, "release": panel["release"].iloc[0], "protocol": protocol}
        for position, reference in enumerate(references):
            if reference not in means:
                known = ", ".join(means.index)
                raise ValueError(f"{protocol}: `references` must be among {known}. Received: {reference}")
            for model in means.index[~means.index.isin(references[: position + 1])]:
                found = metrics.difference(means[model] - means[reference], sampled[model] - sampled[reference])
                lines.append({**about, "model": model, "reference": reference, **found})
    table = pd.DataFrame(lines)
    table["p_holm"], table["comparisons"] = metrics.holm(table["p_value"]), len(table)
    verdict = np.where(table["difference_m"] < 0, BETTER, WORSE)
    table["verdict"] = np.where(table["p_holm"] < 0.05, verdict, ALIKE)
    return table[list(COMPARISON_COLUMNS)]


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


def main() -> None:
    """Put the tables below outputs/tables into a document, each between `<!-- table: NAME -->` and `<!-- end -->`."""
    parser = argparse.ArgumentParser(prog="python -m lib.results", description=main.__doc__)
    parser.add_argument("document", type=Path, help="Markdown that has such marks, README.md for instance")
    document = parser.parse_args().document
    text = fill(document.read_text(), ROOT / "outputs" / "tables")
    with replacing(document) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
