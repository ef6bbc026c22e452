"""Tables for reading, made of result rows: columns are named as there, and get their headings where they are shown."""

from collections.abc import Mapping, Sequence

import pandas as pd
from pandas.io.formats.style import Styler

from lib.report import numbers, results

TUNED = "The unified network had more tuning than the comparators."


def shares(values: pd.Series) -> list[str]:
    """Shares of the training rows in percent."""
    return [f"{100 * share:g} %" for share in values]


def styled(table: pd.DataFrame, note: str) -> Styler:
    """A table as a notebook shows it, columns by their headings, with its note above."""
    return results.with_headings(table).style.hide(axis="index").set_caption(note)


# === The unified network ===


def steps(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """One line a step and protocol.

    Args:
        rows: tidy results on validation rows.
        names: step → its name in the table.
    """
    table = results.summarise(rows, ["mean_m", "median_m"])
    table["model"] = table["model"].map(names)
    return table.rename(columns={"model": "network", "n_test": "n_validation"})


def phones(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a kind of network: means over folds of phones that were held out.

    Args:
        rows: `model`, `fold`, `mean_m`, `median_m` and `floor_hit`.
    """
    table = rows.groupby("model", sort=False)[["mean_m", "median_m", "floor_hit"]].mean().reset_index()
    table["floor_hit"] = table["floor_hit"].map(numbers.percent)
    table[["mean_m", "median_m"]] = table[["mean_m", "median_m"]].map(numbers.number)
    return table.rename(columns={"model": "network"})


def on_test_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a protocol of one model on test rows, errors in ground metres with their intervals over seeds.

    Args:
        rows: tidy results of one model. Where metres of their frame are not those on the ground, the mean error in
            these stands beside.
    """
    rows = results.in_ground_metres(rows)
    rows["map_m"] = rows["mean_m"].where(rows["ground_m"] < 0.999 * rows["mean_m"])
    errors = ["ground_m", "map_m", "median_m", "p75_m", "p95_m"]
    table = results.summarise(rows, errors).drop(columns="model")
    means = rows.groupby("protocol")[["building_hit", "floor_hit", "fit_seconds", "predict_us"]].mean()
    for name in ("building_hit", "floor_hit"):
        table[name] = table["protocol"].map(means[name]).map(numbers.percent)
    for name in ("fit_seconds", "predict_us"):
        table[name] = table["protocol"].map(means[name]).map("{:,.0f}".format)
    return table


def environments_recognised(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """One line a model and protocol: how many test rows are located in the right environment.

    Args:
        rows: tidy results with `environment_hit`.
        names: model → its name in the table.
    """
    lines = []
    for (model, environment, protocol), runs in rows.groupby(["model", "environment", "protocol"], sort=False):
        line = {
            "inputs": names[model],
            "environment": environment,
            "protocol": protocol,
            "recognised, mean (%)": f"{100 * runs['environment_hit'].mean():.3f}",
            "lowest (%)": f"{100 * runs['environment_hit'].min():.3f}",
            "seeds": runs["seed"].nunique(),
            "mean_m": numbers.interval(runs["mean_m"]),
        }
        lines.append(line)
    return pd.DataFrame(lines)


# === Radii ===


def coverage(rows: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
    """One line a protocol and way of holding rows out: share of the test rows within the radii, and the radii.

    Args:
        rows: `release`, `protocol`, `held_out`, `mean_m`, `level`, `coverage` (a share) and `radius_m`; one row a seed.
        levels: those that are shown.
    """
    keys = ["release", "protocol", "held_out"]
    lines = []
    for key, draws in rows.groupby(keys, sort=False):
        line = dict(zip(keys, key, strict=True))
        line["mean_m"] = over_draws(draws["mean_m"])
        for level in levels:
            at_level = draws[draws["level"] == level]
            line[f"coverage at {level:.0%}"] = over_draws(100 * at_level["coverage"])
        for level in levels:
            at_level = draws[draws["level"] == level]
            line[f"radius_m at {level:.0%}"] = over_draws(at_level["radius_m"])
        lines.append(line)
    return pd.DataFrame(lines)


def over_draws(values: pd.Series) -> str:
    """The mean of several draws, and the lowest and highest if they differ."""
    low, mean, high = (f"{value:.1f}" for value in (values.min(), values.mean(), values.max()))
    return mean if low == high else f"{mean} ({low} to {high})"


# === Disturbed scans ===


def attack(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """One line a protocol, kind and size of a change: the mean error of each model.

    Args:
        rows: `protocol`, `stress`, `size` in dB, `model` and `mean_m`.
        names: model → its name in the table, in the order of the columns.
    """
    table = rows.pivot_table("mean_m", ["protocol", "stress", "size"], "model", sort=False)[list(names)]
    titles = {model: f"{name} (m)" for model, name in names.items()}
    table = table.map(numbers.number).rename(columns=titles).reset_index()
    table["size"] = table["size"].map("{:g}".format)
    return table


def disturbances(rows: pd.DataFrame, names: Mapping[str, str], calibrated: str) -> pd.DataFrame:
    """One line a protocol and disturbance: the mean error of each model, and the radii of one of them.

    Args:
        rows: `protocol`, `stress`, `size`, `model`, `mean_m`, `silent`, and of the calibrated model
            `coverage_90` (a share) and `radius_90` (metres).
        names: model → its name in the table, in the order of the columns.
        calibrated: the model with radii.
    """
    keys = ["protocol", "stress", "size"]
    own = rows[rows["model"] == calibrated].set_index(keys)
    errors = rows.pivot_table("mean_m", keys, "model")[list(names)].reindex(own.index)
    table = errors.map(numbers.number).rename(columns={model: f"{name} (m)" for model, name in names.items()})
    table["within the 90 % radius"] = own["coverage_90"].map(numbers.percent)
    table["silent scans"] = own["silent"].map("{:.0f}".format)
    table["median 90 % radius (m)"] = own["radius_90"].map(numbers.number)
    table = table.reset_index()
    table["size"] = table["size"].map("{:g}".format)
    return table


# === Shares and verdicts of transfer ===


def errors_by_start(rows: pd.DataFrame, starts: Mapping[str, str]) -> pd.DataFrame:
    """One line a protocol and share of the training rows: the mean error by what a network starts from.

    Args:
        rows: tidy results with `share`.
        starts: model → what it starts from, in the order of the columns.
    """
    errors = rows.pivot_table("mean_m", ["protocol", "share"], "model", aggfunc=numbers.interval, sort=False)
    table = errors[list(starts)].rename(columns={model: f"{start} (m)" for model, start in starts.items()})
    table = table.reset_index()
    table["share"] = shares(table["share"])
    return table


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a comparison of the transferred model with another start.

    Args:
        rows: `protocol`, `share`, `against`, `ratio` of the mean errors with `low` and `high`, `p_holm` and `verdict`.
    """
    intervals = []
    for low, high in zip(rows["low"], rows["high"], strict=True):
        intervals.append(f"{low:.3f} to {high:.3f}")
    return pd.DataFrame(
        {
            "protocol": rows["protocol"],
            "share": shares(rows["share"]),
            "against": rows["against"],
            "ratio of mean errors": rows["ratio"].map("{:.3f}".format),
            "95 % interval": intervals,
            "p (Holm)": rows["p_holm"].map("{:.3f}".format),
            "the transferred model is": rows["verdict"],
        }
    )


# === Searches ===


def search(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """One line a comparator and setting: the mean error on validation rows of each environment.

    Args:
        rows: `model`, `setting`, `environment` and `validation_mean_m`.
        columns: environment → the protocol whose validation rows tell.
    """
    errors = rows.pivot_table("validation_mean_m", ["model", "setting"], "environment", sort=False)[list(columns)]
    titles = {environment: f"{environment}, {protocol} (m)" for environment, protocol in columns.items()}
    return errors.map(numbers.number).rename(columns=titles).reset_index()
