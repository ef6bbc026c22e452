"""Tidy results, one row a run: make a row, write and read tables, and render them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from lib import metrics
from lib.data.fingerprints import FingerprintSet
from lib.data.protocols import Parts
from lib.models.estimator import Located
from lib.models.scaling import MinMaxScaling
from lib.paths import Workspace, replacing
from lib.report import numbers

COLUMNS = (
    *("environment", "release", "protocol", "model", "seed", "n_train", "n_test"),
    *("mean_m", "ground_m", "median_m", "p75_m", "p95_m", "evaal_m", "building_hit", "floor_hit"),
    *("rmse_normalised", "epochs", "fit_seconds", "predict_us"),
)
CLOCK_COLUMNS = ("fit_seconds", "predict_us")  # the only ones that differ between two runs of the same code and data
INTEGERS = {"seed": "Int64", "epochs": "Int64"}
PANEL = ["environment", "protocol"]  # models are compared within one of each
# What a benchmark table shows, where rows have it: errors with their intervals, and plain means.
ERRORS = ("ground_m", "evaal_m", "mean_m", "median_m", "p75_m", "p95_m", "right_place_m")
HITS = ("building_hit", "floor_hit")
OF_THE_FRAME = ("median_m", "p75_m", "p95_m", "right_place_m")  # see `in_ground_metres`
# Names of columns in rendered tables. The result files keep those on the left.
HEADINGS = {
    "n_train": "training rows",
    "n_test": "test rows",
    "n_validation": "validation rows",
    "mean_m": "mean error (m)",
    "ground_m": "mean error (m, ground)",
    "map_m": "mean error (m, Web Mercator)",
    "evaal_m": "EvAAL score (m, ground)",
    "median_m": "median error (m)",
    "p75_m": "75th percentile (m)",
    "p95_m": "95th percentile (m)",
    "right_place_m": "mean error on the right floor (m)",
    "quoted_m": "published (m)",
    "quoted_map_m": "published (m, Web Mercator)",
    "building_hit": "building hit (%)",
    "floor_hit": "floor hit (%)",
    "fit_seconds": "training (s)",
    "predict_us": "prediction (µs a row)",
    "held_out": "held out",
    "coverage at 50%": "rows within the 50 % radius (%)",
    "coverage at 90%": "rows within the 90 % radius (%)",
    "radius_m at 50%": "median 50 % radius (m)",
    "radius_m at 90%": "median 90 % radius (m)",
    "within the 90 % radius": "rows within the 90 % radius (%)",
    "share": "share (%)",
    "stress": "disturbance",
    "size": "size (dB or %)",
}
COUNTS = ("training rows", "test rows", "validation rows")
TRAINING_ROWS = (
    "Training rows differ: nearest fingerprints, trees and the unified network also learn from the validation rows, "
    "other networks keep these apart, and the U-MLP learns from equally many rows of each environment."
)
# A cell with a number: perhaps with a sign, separators, a percent sign, and an interval.
NUMBER = re.compile(r"[+−-]?[\d,]+(\.\d+)?( ?%)?(\s*(±|\().*)?")


# === Result rows ===


def _errors_file(workspace: Workspace, row: dict | pd.Series) -> Path:
    name = f"{row['environment']}-{row['protocol']}-{row['model']}"
    if row.get("share", 1) < 1:
        name += f"-{row['share']:g}"
    if not pd.isna(row["seed"]):
        name += f"-s{int(row['seed'])}"
    return workspace.errors / f"{name}.npz"


def evaluated(
    parts: Parts,
    located: Located,
    model: str,
    seed: int | None,
    workspace: Workspace,
    part: str = "test",
    *,
    share: float | None = None,
    epochs: int | None = None,
    n_train: int,
    fit_seconds: float,
    predict_us: float,
    environment_number: int | None = None,
) -> dict:
    """One result row: errors of the predicted positions as the paper measures them; a file keeps those of every row.

    A row that is located in another environment counts with the distance between its coordinates there and the true
    ones here: a number that only says that it is wrong. `environment_hit` says how many are right.

    Args:
        parts: the environment under its protocol.
        located: predictions for the rows of `part`, in their order.
        model: its name in the benchmark.
        seed: of the training; None where nothing is random.
        workspace: where the errors are written.
        part: which rows were predicted: `test`, or `validation` for what is still being tuned.
        share: of the training rows that the model learnt from; None leaves the column out.
        epochs: that it trained; None where nothing is trained in epochs.
        n_train: number of this environment's fingerprints that the model learnt from.
        fit_seconds, predict_us: seconds of training, and microseconds of predicting one row.
        environment_number: number of this environment among those that the model was fitted on.

    Returns:
        `COLUMNS`, and `share` and `environment_hit` where there are any. `ground_m` is the mean error and `evaal_m` the
        EvAAL score, both in ground metres, while the other errors are in metres of the frame. Building and floor hits
        are None where the rows have no such labels or the model does not predict them; then they cost the EvAAL score
        nothing, so that it compares models only among those that predict the same labels.

    Raises:
        ValueError: if the predictions do not fit the rows, or the training positions lie on a line along an axis.
    """
    rows = getattr(parts, part)
    errors = rows.frame.errors(rows.position, located.position)
    right = _right_labels(rows, located)
    row = dict.fromkeys(COLUMNS)
    row |= {
        "environment": parts.environment,
        "release": str(rows.release),
        "protocol": parts.protocol,
        "model": model,
        "seed": seed,
        "n_train": n_train,
        "n_test": len(rows),
        "rmse_normalised": _rmse_normalised(parts.train.position, rows.position, located.position),
        "epochs": epochs,
        "fit_seconds": fit_seconds,
        "predict_us": predict_us,
    }
    row |= metrics.summary(errors)
    row["ground_m"] = row["mean_m"] * rows.frame.ground_scale
    row["evaal_m"] = _evaal_score(rows, located, errors * rows.frame.ground_scale)
    for label, hits in right.items():
        row[f"{label}_hit"] = float(hits.mean())
    if share is not None:
        row["share"] = share
    if environment_number is not None and located.environment is not None:
        recognised = located.environment == environment_number
        row["environment_hit"] = float(recognised.mean())
    arrays = {"error_m": errors, "predicted": located.position}
    if right:
        arrays["right_place"] = np.all(list(right.values()), axis=0)
    with replacing(_errors_file(workspace, row)) as temporary:
        np.savez_compressed(temporary, **arrays)
    return row


def _right_labels(rows: FingerprintSet, located: Located) -> dict[str, np.ndarray]:
    """(n,) whether the building, and the floor, are right, where rows and predictions have them."""
    right = {}
    for label in ("building", "floor"):
        true = getattr(rows, label)
        predicted = getattr(located, label)
        if true is not None and predicted is not None:
            right[label] = predicted == true
    return right


def _evaal_score(rows: FingerprintSet, located: Located, ground_errors: np.ndarray) -> float:
    """The EvAAL score of (n,) errors in ground metres, with penalties for what both rows and predictions tell."""
    floors_off = None
    wrong_building = None
    if rows.floor is not None and located.floor is not None:
        floors_off = located.floor - rows.floor
    if rows.building is not None and located.building is not None:
        wrong_building = located.building != rows.building
    return metrics.evaal_score(ground_errors, floors_off, wrong_building)


def _rmse_normalised(train: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> float:
    """RMSE of coordinates scaled to [0, 1] on the range of the training positions, as the paper trains on them."""
    scaling = MinMaxScaling.of_position(train)
    difference = scaling.transform(predicted) - scaling.transform(true)
    return float(np.sqrt(np.mean(np.square(difference))))


def read_errors(workspace: Workspace, row: pd.Series | dict, array: str = "error_m") -> np.ndarray:
    """(n_test,) errors in metres behind a result row, or another array that `evaluated` wrote with them.

    Args:
        workspace: where `evaluated` wrote them.
        row: a result row.
        array: `error_m`, `predicted` or `right_place`.

    Raises:
        KeyError: if there is no such array: `right_place` is of models that predict building or floor.
        ValueError: if the file is of another run, which had the same name.
    """
    path = _errors_file(workspace, row)
    with np.load(path) as file:
        errors = file["error_m"]
        asked = errors if array == "error_m" else file[array]
    if not np.isclose(errors.mean(), row["mean_m"], rtol=1e-6):
        raise ValueError(
            f"{path}: expected errors with the mean of the result row, {row['mean_m']:g} m. Received: "
            f"{errors.mean():g} m. Another run wrote them: run the notebook of the row again"
        )
    return asked


def write(rows: Iterable[dict] | pd.DataFrame, path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Write rows to a CSV file, whole or not at all, and return them as the file has them.

    Raises:
        ValueError: if `columns` are passed and the rows have others.
    """
    table = pd.DataFrame(rows)
    names = list(table.columns)
    if columns is not None and names != list(columns):
        raise ValueError(f"{path.name} must have columns {list(columns)}. Received: {names}")
    integers = {name: kind for name, kind in INTEGERS.items() if name in table}
    table = table.astype(integers)
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
    return pd.read_csv(path, dtype=INTEGERS)


# === Tables ===


def _runs(seeds: pd.Series) -> int:
    """The number of seeds, 1 for a model without any."""
    return max(1, seeds.nunique())


def summarise(rows: pd.DataFrame, values: Sequence[str] = ("mean_m", "median_m", "p95_m")) -> pd.DataFrame:
    """One row a model: mean ± 95 % CI over seeds of each of `values`.

    Args:
        rows: tidy results of any environments and protocols.
        values: columns of numbers.

    Returns:
        Columns `release, protocol, model, seeds, n_train, n_test` and one text column for each value.
    """
    grouped = rows.groupby(["release", "protocol", "model"], sort=False)
    table = grouped.agg(seeds=("seed", _runs), n_train=("n_train", "first"), n_test=("n_test", "first"))
    for value in values:
        table[value] = grouped[value].agg(numbers.interval)
    return table.reset_index()


def benchmark_tables(
    rows: pd.DataFrame, names: Mapping[str, str], quoted: Mapping[tuple[str, str], Mapping[str, float]]
) -> dict[tuple[str, str], pd.DataFrame]:
    """One table for each environment and protocol, one line a model: errors, hits, costs and published figures.

    Args:
        rows: tidy results. Beside the errors of `COLUMNS`, tables show `right_place_m` where rows have it: the mean
            error of the test rows placed in the right building and floor.
        names: model → its name in the table, in the order of the lines.
        quoted: (environment, protocol) → model → published mean error in metres. A model that is not among the names
            was not run, and gets a line by the name it has here.

    Returns:
        (environment, protocol) → texts, columns by their headings; errors are mean ± 95 % CI over seeds, the rest means
        over seeds. Errors are in ground metres where the rows have `ground_m`; the mean in metres of the frame stands
        beside if it differs, and published figures are in these. What a protocol has no value of is left out.

    Raises:
        KeyError: if a model has no name.
    """
    unnamed = sorted(set(rows["model"]) - set(names))
    if unnamed:
        raise KeyError(f"`names` must have every model. Received: none for {', '.join(unnamed)}")
    tables = {}
    for key, panel in rows.groupby(PANEL, sort=False):
        published = pd.Series(quoted.get(key, {}), dtype=float)
        tables[key] = _benchmark_table(panel, names, published)
    return tables


def _benchmark_table(rows: pd.DataFrame, names: Mapping[str, str], published: pd.Series) -> pd.DataFrame:
    """The table of one environment and protocol; `published` are mean errors in metres by model."""
    shown_as = dict(HEADINGS)
    if has_ground_metres(rows):
        rows, shown_as = _shown_in_ground_metres(rows)
    present = rows.columns[rows.notna().any()]
    errors = [name for name in ERRORS if name in present]
    table = summarise(rows, errors).set_index("model")
    table = table.drop(columns=["release", "protocol", "n_test"])
    means = rows.groupby("model")[[*HITS, *CLOCK_COLUMNS]].mean()
    for name in HITS:
        table[name] = (100 * means[name]).map("{:.1f}".format, na_action="ignore")
    for name in CLOCK_COLUMNS:
        table[name] = means[name].map(numbers.three_digits, na_action="ignore")
    table["n_train"] = table["n_train"].map("{:,}".format)
    quoted = published.map("{:g}".format).rename("quoted_m")
    table = table.astype(object).join(quoted, how="outer")
    not_run = published.index.difference(list(names), sort=False)
    table = table.reindex([*names, *not_run]).dropna(how="all")
    table = table.rename(index=names).rename_axis("model")
    table = table.dropna(axis="columns", how="all").fillna("")
    return table.rename(columns=shown_as).reset_index()


def has_ground_metres(rows: pd.DataFrame) -> bool:
    """Whether every row of a result table has its mean error in ground metres."""
    return "ground_m" in rows and bool(rows["ground_m"].notna().all())


def in_ground_metres(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows, with all errors but `mean_m` in ground metres."""
    scale = rows["ground_m"] / rows["mean_m"]
    errors = [name for name in OF_THE_FRAME if name in rows]
    return rows.assign(**rows[errors].mul(scale, axis="index"))


def _shown_in_ground_metres(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows in ground metres, without `mean_m` if it is the same, and headings."""
    shown_as = {name: HEADINGS[name].replace("(m)", "(m, ground)") for name in OF_THE_FRAME}
    rows = in_ground_metres(rows)
    if np.allclose(rows["ground_m"], rows["mean_m"]):
        return rows.drop(columns="mean_m"), HEADINGS | shown_as
    return rows, HEADINGS | shown_as | {"mean_m": HEADINGS["map_m"], "quoted_m": HEADINGS["quoted_map_m"]}


def environments_table(rows: pd.DataFrame, ratios: pd.DataFrame, names: Mapping[str, str], model: str) -> pd.DataFrame:
    """One line an environment and protocol, one column a model: mean error in ground metres.

    Args:
        rows: tidy results.
        ratios: of these rows, from `statistics.ratios_to_best`.
        names: model → its name in the table, in the order of the columns.
        model: the one whose ratio to the best baseline is shown, with its 95 % interval.

    Returns:
        Texts; errors are mean ± 95 % CI over seeds.
    """
    errors = rows.pivot_table("ground_m", PANEL, "model", aggfunc=numbers.interval, sort=False)
    errors = errors.reindex(columns=[name for name in names if name in errors])
    own_ratios = ratios[ratios["model"] == model].set_index(PANEL)
    titles = {name: f"{names[name]} (m)" for name in errors}
    table = errors.rename(columns=titles).fillna("")
    table["best baseline"] = own_ratios["best"].map(names)
    column = f"{names[model]} / best baseline"
    table[column] = own_ratios.apply("{0.ratio:.2f} ({0.low:.2f} … {0.high:.2f})".format, axis="columns")
    labels = [panel_label(environment, protocol) for environment, protocol in table.index]
    table.insert(0, "environment", labels)
    return table.reset_index(drop=True)


def panel_label(environment: str, protocol: str) -> str:
    """An environment and a protocol, once where the two have one name."""
    return ", ".join(dict.fromkeys([environment, protocol]))


def write_table(table: pd.DataFrame, folder: Path, name: str, note: str, simulated: bool) -> None:
    """Render a table to `name.csv`, `name.md` and `name.tex`, columns by their `HEADINGS` and numbers to the right.

    Args:
        table: numbers and texts.
        folder: where the files are written.
        name: of the files.
        note: one line under the Markdown table that says what the figures are. Where models of one protocol learnt from
            different numbers of rows, a sentence says why.
        simulated: puts a warning above the table, and a column into the CSV.
    """
    table = with_headings(table)
    if _training_rows_differ(table):
        note = f"{note} {TRAINING_ROWS}"
    shown = table.astype(object).where(table.notna(), "").astype(str)
    is_number = [column_of_numbers(shown[column]) for column in shown]
    sides = ["right" if number else "left" for number in is_number]
    letters = "".join("r" if number else "l" for number in is_number)
    caption = re.sub(r"([%&_#$])", r"\\\1", note)
    csv = table.to_csv(index=False)
    markdown = f"{shown.to_markdown(index=False, disable_numparse=True, colalign=sides)}\n\n{note}\n"
    latex = shown.to_latex(index=False, escape=True, caption=caption, column_format=letters)
    if simulated:
        csv = table.assign(data="simulated").to_csv(index=False)
        markdown = f"**SIMULATED DATA — says nothing about the paper**\n\n{markdown}"
        latex = f"% SIMULATED DATA\n{latex}"
    for suffix, text in {"csv": csv, "md": markdown, "tex": latex}.items():
        with replacing(folder / f"{name}.{suffix}") as temporary:
            temporary.write_text(text)


def with_headings(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns by their `HEADINGS`: counts with separators, and percents without the sign."""
    table = table.rename(columns=HEADINGS)
    for column in table.columns:
        if column in COUNTS:
            table[column] = table[column].map(_with_separators).astype(object)
        if str(column).endswith("(%)"):
            table[column] = table[column].map(_without_percent_sign)
    return table


def _with_separators(cell):
    return f"{cell:,}" if isinstance(cell, Integral) else cell


def _without_percent_sign(cell):
    return cell.removesuffix("%").rstrip() if isinstance(cell, str) else cell


def _training_rows_differ(table: pd.DataFrame) -> bool:
    """Whether models of one protocol learnt from different numbers of rows."""
    training_rows = HEADINGS["n_train"]
    if not {"model", training_rows} <= set(table.columns):
        return False
    run = table[table[training_rows] != ""]
    protocols = run["protocol"] if "protocol" in run else pd.Series("", index=run.index)
    distinct = run.assign(protocol=protocols)[["protocol", training_rows]].drop_duplicates()
    return bool(distinct["protocol"].duplicated().any())


def column_of_numbers(cells: pd.Series) -> bool:
    """Whether all texts of a column are numbers, or empty, and not all are empty."""
    filled = cells[cells != ""]
    return len(filled) > 0 and bool(filled.str.fullmatch(NUMBER).all())
