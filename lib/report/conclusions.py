"""Sentences of conclusions, computed from the result tables of a run: each says what its numbers bear out.

Functions return Markdown sentences; `bullets` makes a list of them, or says why a run concludes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib.data.fingerprints import FingerprintSet
from lib.metrics import confidence_half_width
from lib.report.claims import FAILS, HOLDS, UNCHECKED
from lib.report.document import with_values
from lib.report.numbers import measured

WHERE = {"pooled": "Indoors (`pooled`)", "random": "Outdoors (`random`)"}  # under the paper's kind of split
HIGHER, LOWER, UNCLEAR = "higher", "lower", "unclear"


def bullets(sentences: Iterable[str], simulated: bool, rows: int | None = None) -> str:
    """Sentences as a Markdown list; of a run on simulated data or on some rows only that it concludes nothing.

    Args:
        sentences: in any number; empty ones are left out.
        simulated: whether the data are.
        rows: how many rows of each environment the run took, None for all.
    """
    if simulated:
        return "These are simulated data: **this run concludes nothing** about the paper or the models."
    if rows is not None:
        return f"This run took {rows:,} rows of each environment: **it concludes nothing**."
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


def direction(values: Sequence[float]) -> str:
    """Whether the 95 % t interval of values lies above zero (`HIGHER`), below it (`LOWER`), or tells nothing."""
    mean, half_width = float(np.mean(values)), confidence_half_width(values)
    if not abs(mean) > half_width:  # neither for a single value, which has no interval
        return UNCLEAR
    return HIGHER if mean > 0 else LOWER


def paper_value(claims: pd.DataFrame, text: str) -> float:
    """The paper's number in the line of the ledger that begins with a text."""
    (value,) = claims.loc[claims["claim"] == text, "paper"]
    return value


def quoted(value: float) -> str:
    """A number of the paper with the digits that the paper gives it."""
    return f"{value:.10g}"


# === What the data are ===


def claims_about_data(claims: pd.DataFrame) -> str:
    """How many of the paper's numbers hold, and which do not."""
    counts = claims["verdict"].value_counts()
    failed = []
    for line in claims[claims["verdict"] == FAILS].itertuples():
        unit = f" {line.unit}" if isinstance(line.unit, str) and line.unit else ""
        failed.append(f"{line.claim}, {line.ours:,.5g}{unit} (paper: {line.paper:,.5g}{unit})")
    unchecked = list(claims.loc[claims["verdict"] == UNCHECKED, "claim"])
    text = "**Of {count} numbers that the paper gives about its data, {holds} hold.** "
    text += "Not so: {failed}. " if failed else ""
    text += "These rows cannot tell: {unchecked}." if unchecked else ""
    values = {"count": len(claims), "holds": int(counts.get(HOLDS, 0))}
    values |= {"failed": "; ".join(failed)} if failed else {}
    values |= {"unchecked": unchecked} if unchecked else {}
    return with_values(text, **values).strip()


def access_points_kept(kept: Mapping[str, int], paper: float) -> str:
    """What the 98 % rule keeps when it sees all rows, and when it sees the training file alone.

    Args:
        kept: access points by what the rule saw: `both files`, `train`.
        paper: how many the paper keeps.
    """
    values = {"both": int(kept["both files"]), "train": int(kept["train"]), "paper": int(paper)}
    if values["both"] == values["paper"] != values["train"]:
        return with_values(
            "**The paper's {paper} access points come out only if the rule sees the test rows.** Of both files it "
            "keeps {both}, of the training file alone {train}. The rule reads no positions, so that this leaks "
            "little, but test rows should choose nothing.",
            **values,
        )
    return with_values(
        "The rule keeps {both} access points of both files and {train} of the training file; the paper has {paper}.",
        **values,
    )


def ranges_overlap(indoor: Sequence[float], outdoor: Sequence[float]) -> str:
    """The central ranges of RSSI of the two environments, in dBm, and how much they have in common."""
    overlap = max(0.0, min(indoor[1], outdoor[1]) - max(indoor[0], outdoor[0]))
    share = overlap / min(indoor[1] - indoor[0], outdoor[1] - outdoor[0])
    values = {"in_low": f"{indoor[0]:.0f}", "in_high": f"{indoor[1]:.0f}", "share": f"{share:.0%}"}
    values |= {"out_low": f"{outdoor[0]:.0f}", "out_high": f"{outdoor[1]:.0f}"}
    return with_values(
        "Without the 1 % at either end, RSSI covers {in_low} to {in_high} dBm indoors and {out_low} to {out_high} dBm "
        "outdoors. The narrower range has {share} in common with the other. Each environment gets a scaling of its "
        "own.",
        **values,
    )


def gaps(sets: Sequence[FingerprintSet]) -> str:
    """How much of the fingerprints is gaps."""
    shown = []
    for fingerprints in sets:
        heard = np.median(fingerprints.heard.sum(axis=1))
        share = 1 - fingerprints.heard.mean()
        count = len(fingerprints.transmitters)
        shown.append(f"{share:.0%} of the cells (a median of {heard:.0f} of {count} heard) in `{fingerprints.name}`")
    return with_values(
        "**A fingerprint is mostly gaps**: {shown}. What stands for a gap is a modelling decision (notebook 02).",
        shown=shown,
    )


def campaigns(first: FingerprintSet, second: FingerprintSet) -> str:
    """What changed between two campaigns of one environment: levels, access points, phones."""
    by_phone = [np.median(first[first.group == phone].heard_values) for phone in np.unique(first.group)]
    rates, later = first.heard.mean(axis=0), second.heard.mean(axis=0)
    phones = np.unique(np.concatenate([first.group, second.group]))
    values = {
        "moved": f"{abs(np.median(first.heard_values) - np.median(second.heard_values)):.0f}",
        "between": f"{max(by_phone) - min(by_phone):.0f}",
        "both": int(((rates > 0) & (later > 0)).sum()),
        "count": len(first.transmitters),
        "gone": f"{rates[later == 0].max(initial=0):.0%}",
        "same": len(np.intersect1d(first.group, second.group)),
        "phones": len(phones),
    }
    return with_values(
        "**Between the campaigns**, the median RSSI moves by {moved} dB; the medians of single phones of the training "
        "campaign, which went to different places, lie up to {between} dB apart. Of {count} access points, {both} are "
        "heard in both files; one that {gone} of the training scans hear has gone. Of {phones} phones, {same} took "
        "part in both.",
        **values,
    )


def repeated_places(points: int, near: float, within: float, fullest: float, block: float) -> str:
    """How often the same places are measured.

    Args:
        points: reference points indoors.
        near: share of the outdoor messages within so many metres of another.
        within: these metres.
        fullest: share of the outdoor messages from the fullest block.
        block: its side in metres.
    """
    values = {"points": points, "near": f"{near:.0%}", "within": f"{within:g}"}
    values |= {"fullest": f"{fullest:.0%}", "block": f"{block:.0f}"}
    return with_values(
        "**Places repeat.** The indoor training scans share {points} reference points; outdoors {near} of the messages "
        "lie within {within} m of another, and {fullest} come from one block of {block} m.",
        **values,
    )


def bounds_of_scaling(trials: pd.DataFrame) -> str:
    """Which bounds of Eq. 5 had the lowest validation error in each environment, beside the spread of the seeds.

    Args:
        trials: columns `environment, lower, upper, seed, validation_mean_m`.
    """
    sentences = []
    for environment, panel in trials.groupby("environment", sort=False):
        by_bounds = panel.groupby(["lower", "upper"])["validation_mean_m"].agg(["mean", "min", "max"])
        lower, upper = by_bounds["mean"].idxmin()
        lowest, highest = by_bounds["mean"].min(), by_bounds["mean"].max()
        between_bounds = highest / lowest - 1
        between_seeds = (by_bounds["max"] / by_bounds["min"] - 1).max()
        values = {
            "environment": environment,
            "bounds": f"a = {lower:g}, b = {upper:g}",
            "lowest": lowest,
            "between_bounds": f"{100 * between_bounds:.1f} %",
            "between_seeds": f"{100 * between_seeds:.1f} %",
            "verdict": "less" if between_bounds < between_seeds else "more",
        }
        text = (
            "`{environment}`: the lowest mean validation error, {lowest} m, is with {bounds}. With the other bounds it "
            "is up to {between_bounds} higher, {verdict} than between seeds with the same bounds ({between_seeds})."
        )
        sentences.append(with_values(text, **values))
    return " ".join(sentences)


def nearest_training_positions(medians: Mapping[str, float]) -> str:
    """How far test positions are from training positions, by protocol: median in metres."""
    shown = [f"{metres:.1f} m under `{protocol}`" for protocol, metres in medians.items()]
    near = [f"`{protocol}`" for protocol, metres in medians.items() if metres < 5]
    text = "**How far is the median test position from the nearest training position?** {shown}."
    if not near:
        return with_values(text, shown=shown)
    text += " Errors under {near} measure memory as much as localization."
    return with_values(text, shown=shown, near=near)


# === Transfer ===


def gain(paired: pd.DataFrame, protocol: str, claims: pd.DataFrame | None = None) -> str:
    """What transfer gains under a protocol, in metres and in percent, and what its interval bears out.

    Args:
        paired: one row a seed, columns `protocol, encoder_scratch, encoder_tl` in metres, and `gain_percent`.
        protocol: one of its protocols.
        claims: the ledger, for `pooled` and `random`, of which the paper gives numbers; None for others.
    """
    panel = paired[paired["protocol"] == protocol]
    percent = panel["gain_percent"]
    verdicts = {
        HIGHER: "The interval lies above zero: **transfer helps here** (before any correction, see notebook 05)",
        LOWER: "The interval lies below zero: **transfer does harm here**",
        UNCLEAR: "The interval holds zero: **no gain to be seen**",
    }
    verdict = verdicts[direction(percent)] if len(panel) > 1 else "A single seed has no interval"
    values = {
        "where": WHERE.get(protocol, f"Under `{protocol}`"),
        "transferred": measured(panel["encoder_tl"]),
        "scratch": measured(panel["encoder_scratch"]),
        "gain": measured(percent),
        "verdict": verdict,
    }
    text = "{where}: {transferred} m transferred, {scratch} m from scratch, a gain of {gain} %. {verdict}."
    if claims is None:
        return with_values(text, **values)
    place = "indoors" if protocol == "pooled" else "outdoors"
    values["paper_gain"] = quoted(paper_value(claims, f"gain of transfer {place}"))
    values["paper_mde"] = quoted(paper_value(claims, f"encoder-TL MDE {place}"))
    values["paper_scratch"] = quoted(paper_value(claims, f"MDE without transfer {place} (implied)"))
    text += " (Paper: {paper_mde} m, a gain of {paper_gain} %, which implies {paper_scratch} m from scratch.{on_rows})"
    lines = claims[claims["claim"] == f"gain of transfer {place}"]
    unchecked = (lines["verdict"] == UNCHECKED).any()
    values["on_rows"] = " On all messages, which these rows cannot check." if unchecked else ""
    return with_values(text, **values)


def lead(curves: pd.DataFrame, protocol: str, early: int) -> str:
    """Whether a transferred model starts ahead of one from scratch, and whether it still is at the last epoch.

    Args:
        curves: columns `protocol, model, seed, epoch, val_rmse`, the models `encoder_scratch` and `encoder_tl`.
        protocol: one of its protocols.
        early: the epoch that stands for the start; a shorter curve is looked at where it ends.
    """
    panel = curves[curves["protocol"] == protocol]
    level = panel.pivot_table("val_rmse", "epoch", "model")
    last = int(level.index.max())
    early = min(early, last)
    starts = "starts ahead of" if _lead_at(panel, early) else "does not clearly start ahead of"
    ends = "leads" if _lead_at(panel, last) else "does not lead by more than seeds differ"
    values = {"where": WHERE.get(protocol, protocol), "starts": starts, "ends": ends, "early": early, "last": last}
    for name, epoch in (("early", early), ("last", last)):
        values[f"tl_{name}"] = f"{level['encoder_tl'][epoch]:.3f}"
        values[f"scratch_{name}"] = f"{level['encoder_scratch'][epoch]:.3f}"
    return with_values(
        "{where}: the transferred model {starts} the one from scratch, with a validation RMSE of {tl_early} against "
        "{scratch_early} after {early} epochs. After {last} it {ends}: {tl_last} against {scratch_last}.",
        **values,
    )


def _lead_at(curves: pd.DataFrame, epoch: int) -> bool:
    """Whether the transferred model's error is lower at an epoch, by more than the interval over several seeds."""
    level = curves[curves["epoch"] == epoch].pivot_table("val_rmse", "seed", "model")
    saved = level["encoder_scratch"] - level["encoder_tl"]
    if len(saved) == 1:
        return bool(saved.iloc[0] > 0)
    return direction(saved) == HIGHER


def convergence(claims: pd.DataFrame) -> str:
    """After how many epochs models converge indoors, beside the paper's numbers."""
    parts = []
    for name in ("transferred", "from scratch"):
        (line,) = claims[claims["claim"] == f"epochs to converge indoors, {name}"].itertuples()
        ours = f"{line.ours:.0f}" + (f" ± {line.ci95:.0f}" if line.ci95 > 0 else "")
        parts.append(f"{name} after {ours} epochs (paper: about {line.paper:.0f}; {line.verdict})")
    return with_values("By the criterion, a model converges indoors {parts}.", parts=parts)


def sooner(by_model: pd.DataFrame, protocol: str, level: float, source_seconds: float, paper: float | None) -> str:
    """Whether a transferred model reaches an error sooner than one from scratch.

    Args:
        by_model: columns (`epochs` or `seconds`, model), index `environment, protocol, level, seed`.
        protocol: one of its protocols.
        level: of the error, in multiples of the lowest from scratch.
        source_seconds: of training the source.
        paper: the paper's ratio of epochs, None where it gives none.
    """
    panel = by_model[by_model.index.get_level_values("protocol") == protocol]
    saved = panel["epochs"]["encoder_scratch"] - panel["epochs"]["encoder_tl"]
    by_level = [values.dropna() for _, values in saved.groupby(level="level")]
    clear = sum(direction(values) == HIGHER for values in by_level if len(values) > 1)
    at_level = panel[panel.index.get_level_values("level") == level].dropna()
    if at_level.empty:
        return with_values("{where}: no pair of models came to that error.", where=WHERE.get(protocol, protocol))
    epochs, seconds = at_level["epochs"], at_level["seconds"]
    values = {
        "where": WHERE.get(protocol, protocol),
        "level": f"{level:g}",
        "transferred": measured(epochs["encoder_tl"]),
        "scratch": measured(epochs["encoder_scratch"]),
        "share": measured(100 * epochs["encoder_tl"] / epochs["encoder_scratch"]),
        "paper": f" (paper: {100 * paper:.0f} %)" if paper is not None else "",
        "clear": clear,
        "levels": len(by_level),
        "seconds": f"{(seconds['encoder_scratch'] - seconds['encoder_tl']).mean():.0f}",
        "source": f"{source_seconds:.0f}",
    }
    return with_values(
        "{where}: {level} times the lowest validation RMSE from scratch is reached after {transferred} epochs "
        "transferred and {scratch} from scratch: {share} % of the epochs{paper}. Of {levels} levels of error, {clear} "
        "are reached sooner by more than the interval. It saves {seconds} s; training the source took {source} s.",
        **values,
    )


def scarce_data(by_share: pd.DataFrame, protocol: str) -> str:
    """Whether transfer gains more with few rows than with all.

    Args:
        by_share: transferred models, columns `protocol, share, seed, gain_percent`.
        protocol: one of its protocols.
    """
    panel = by_share[by_share["protocol"] == protocol]
    gains = {share: rows["gain_percent"] for share, rows in panel.groupby("share")}
    least, most = min(gains), max(gains)
    if len(gains[most]) == 1:
        verdict = "A single seed tells no difference"
    else:
        wide = panel.pivot_table("gain_percent", "seed", "share")
        more = direction((wide[least] - wide[most]).dropna()) == HIGHER
        verdict = (
            "**It helps more where data are scarce**" if more else "**It is not shown to help more with few rows**"
        )
    clear = [f"{100 * share:g} %" for share, values in gains.items() if direction(values) == HIGHER]
    values = {
        "where": WHERE.get(protocol, protocol),
        "verdict": verdict,
        "least": f"{100 * least:g}",
        "most": f"{100 * most:g}",
        "gain_least": measured(gains[least]),
        "gain_most": measured(gains[most]),
        "clear": clear,
    }
    return with_values(
        "{where}: the gain is {gain_least} % with {least} % of the rows and {gain_most} % with {most} %. {verdict}. "
        "The interval lies above zero with these shares of the rows: {clear}.",
        **values,
    )


def knowledge(verdicts: pd.DataFrame, protocol: str) -> str:
    """Whether transfer helps, and whether what helps is shown to be knowledge.

    Args:
        verdicts: columns `protocol, against, saved (%), p, p (Holm), the transferred model is`.
        protocol: one of its protocols.
    """
    panel = verdicts[verdicts["protocol"] == protocol].set_index("against")
    controls = [name for name in ("shuffled positions", "noise") if name in panel.index]
    helps = panel.loc["scratch", "the transferred model is"] == "better"
    better = [panel.loc[name, "the transferred model is"] == "better" for name in controls]
    verdict = "**Transfer helps, and what helps is not shown to be knowledge**"
    if not helps:
        verdict = "**Transfer is not shown to help after the correction**"
    elif len(controls) < 2:
        verdict = "**Transfer helps**; whether by knowledge needs both controls, which `make benchmark` runs"
    elif all(better):
        verdict = "**Transfer helps, by knowledge**: more than after a start that knows nothing"
    shown = []
    for name in ("scratch", *controls):
        line = panel.loc[name]
        p_value, corrected = _p_value(line["p"]), _p_value(line["p (Holm)"])
        shown.append(f"{line['saved (%)']} % against {name} (p {p_value}, after Holm's correction {corrected})")
    values = {"where": WHERE.get(protocol, protocol), "verdict": verdict, "shown": shown}
    return with_values("{where}: {verdict}. The transferred model saves {shown}.", **values)


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def other_starts(verdicts: pd.DataFrame, protocol: str) -> str:
    """What the transferred model saves against the starts that are not of the rule, nothing where there are none."""
    panel = verdicts[(verdicts["protocol"] == protocol)]
    further = panel[~panel["against"].isin(["scratch", "shuffled positions", "noise"])]
    if further.empty:
        return ""
    shown = [f"{line['saved (%)']} % against {line['against']}" for _, line in further.iterrows()]
    text = "{where}, further starts: the transferred model saves {shown} (negative: it loses)."
    return with_values(text, where=WHERE.get(protocol, protocol), shown=shown)


# === One network for both environments ===


def shared_network(rows: pd.DataFrame, protocol: str, alone: str, paper: float) -> str:
    """The U-MLP of both environments beside the same network of one.

    Args:
        rows: tidy results.
        protocol: `pooled` or `random`.
        alone: the model that learnt this environment alone.
        paper: the paper's mean error of the U-MLP.
    """
    errors = _errors_by_model(rows, protocol)
    percent = (100 * (errors[alone] / errors["umlp"] - 1)).dropna()  # of the seeds that both have
    verdicts = {
        HIGHER: "Sharing costs nothing here, it gains",
        LOWER: "Sharing costs something here",
        UNCLEAR: "So sharing is not shown to cost or to gain anything",
    }
    values = {
        "where": WHERE[protocol],
        "umlp": measured(errors["umlp"]),
        "alone": measured(errors[alone]),
        "paper": quoted(paper),
        "percent": measured(percent),
        "verdict": verdicts[direction(percent)],
    }
    return with_values(
        "{where}: the U-MLP has {umlp} m (paper: {paper} m), the same network trained on this environment alone "
        "{alone} m, {percent} % more. {verdict}; but the network of one environment took half as many steps.",
        **values,
    )


def _errors_by_model(rows: pd.DataFrame, protocol: str) -> dict[str, pd.Series]:
    """Mean errors in metres under a protocol, one a seed, by model."""
    panel = rows[rows["protocol"] == protocol]
    return {model: own.set_index("seed")["mean_m"] for model, own in panel.groupby("model")}


def unseen_environment(rows: pd.DataFrame, home: Mapping[str, str]) -> str:
    """How networks of one environment locate in the other, which they never saw.

    Args:
        rows: tidy results.
        home: for each of two models the protocol of the environment that it learnt.
    """
    shown, ratios = [], []
    for model, protocol in home.items():
        (elsewhere,) = set(home.values()) - {protocol}
        (native,) = set(home) - {model}
        errors = _errors_by_model(rows, elsewhere)
        shown.append(f"{errors[model].mean():,.0f} m under `{elsewhere}`")
        ratios.append(errors[model].mean() / errors[native].mean())
    verdict = "fail" if min(ratios) > 2 else "do not fail"
    values = {"verdict": verdict, "shown": shown, "low": f"{min(ratios):.0f}", "high": f"{max(ratios):.0f}"}
    return with_values(
        "**In an environment that they never saw, networks of the other one {verdict}**: {shown}, {low} to {high} "
        "times the error of the network that learnt it. The paper reads this as overfitting; it is missing training "
        "data.",
        **values,
    )


def environment_accuracy(accuracies: pd.DataFrame) -> str:
    """How often the environment is recognised with columns of its own and with shared ones.

    Args:
        accuracies: columns `model, protocol, seed, n_test, environment_accuracy`; models `umlp` and `umlp_shared`.
    """
    shared = accuracies[accuracies["model"] == "umlp_shared"]
    own = accuracies[(accuracies["model"] == "umlp") & accuracies["protocol"].isin(shared["protocol"])]
    wrong = ((1 - shared["environment_accuracy"]) * shared["n_test"]).round()
    worst = wrong.idxmax()
    easy = shared["environment_accuracy"].min() > 0.99
    verdict = "so the task is easy, and an accuracy of 100 % says little" if easy else "so the task is not trivial"
    values = {
        "own": f"{own['environment_accuracy'].mean():.2%}",
        "shared": f"{shared['environment_accuracy'].mean():.2%}",
        "wrong": int(wrong[worst]),
        "of": int(shared.loc[worst, "n_test"]),
        "verdict": verdict,
    }
    return with_values(
        "**With input columns of their own, environments are told apart by construction**: {own} are right. In shared "
        "columns it has to be learnt: {shared} are right, at worst {wrong} wrong of {of} rows in a seed; {verdict}.",
        **values,
    )


def harder_rows(rows: pd.DataFrame, protocols: Sequence[str]) -> str:
    """The U-MLP's errors under protocols that ask for something new."""
    shown = []
    for protocol in protocols:
        shown.append(f"{measured(_errors_by_model(rows, protocol)['umlp'])} m (`{protocol}`)")
    return with_values("**On harder rows** the U-MLP has {shown}.", shown=shown)
