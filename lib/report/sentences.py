"""Sentences of conclusions about the unified network, the benchmark, radii, disturbed scans and searches.

Each number comes from result rows, and so does the wording that depends on it. Functions take rows of a notebook and
return Markdown, one item of a list or several; `conclusions.bullets` makes the list. What a run left out is left out of
the sentences.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib.metrics import confidence_half_width
from lib.report import claims, results
from lib.report.document import with_values
from lib.report.numbers import code, measured, percent
from lib.report.statistics import ALIKE, BETTER, WORSE

CLOSE = 0.05  # how far a share of rows within a radius may be from its level, to count as kept


def by_seeds(first: pd.Series, second: pd.Series) -> str:
    """Whether the first has lower errors than the second, by a t interval of the differences of seeds that both have.

    Args:
        first, second: metres by seed.

    Returns:
        `BETTER`, `WORSE`, or `ALIKE` if the interval includes 0 or there are fewer than two seeds.
    """
    differences = (first - second).dropna()
    half_width = confidence_half_width(differences)
    if np.isnan(half_width) or abs(differences.mean()) <= half_width:
        return ALIKE
    return BETTER if differences.mean() < 0 else WORSE


# === The unified network ===

CHAIN = (  # steps that keep what the one before has
    *("step_umlp", "step_distance", "step_powed", "step_trunk", "step_augmentation"),
    *("step_places", "step_soft", "step_sharp", "step_median"),
)
EFFECT = {BETTER: "lower", WORSE: "higher", ALIKE: "no difference beyond seeds"}


def _errors(rows: pd.DataFrame, model: str, protocol: str, column: str = "mean_m") -> pd.Series:
    """Of one model under one protocol by seed; empty where there are none."""
    chosen = rows[(rows["model"] == model) & (rows["protocol"] == protocol)]
    return chosen.set_index("seed")[column]


def steps(rows: pd.DataFrame, names: Mapping[str, str]) -> str:
    """What each step from the U-MLP's regression to the unified network is worth.

    Args:
        rows: tidy results on validation rows, by step.
        names: step → its name.
    """
    present = set(rows["model"])
    chain = [name for name in CHAIN if name in present]
    lines = []
    for protocol in rows["protocol"].unique():
        if len(chain) > 1:
            lines.append(_chain(rows, chain, names, protocol))
    further = [name for name in names if name in present and name not in CHAIN]
    if "step_median" in present and further:
        variants = [_variant(rows, name, names[name]) for name in further]
        title = "**Beside “+ softness of the median”**, mean errors on validation rows:"
        lines.append("\n    - ".join([title, *variants]))
    return "\n- ".join(lines)


def _chain(rows: pd.DataFrame, chain: Sequence[str], names: Mapping[str, str], protocol: str) -> str:
    """One bullet: the first step, the last one, and the steps between that lower or raise the error."""
    errors = {name: _errors(rows, name, protocol) for name in chain}
    gains, effects = {}, {BETTER: [], WORSE: []}
    for before, after in itertools.pairwise(chain):
        gains[after] = errors[before].mean() - errors[after].mean()
        effect = by_seeds(errors[after], errors[before])
        if effect != ALIKE:
            effects[effect].append(f"“{names[after]}”")
    largest = max(gains, key=gains.get)
    text = (
        "**Step by step under `{protocol}`.** “{first}” has {first_m} m, “{last}” has {last_m} m. The step with the "
        "largest gain is “{largest}”, from {before_m} to {after_m} m."
    )
    values = {
        "protocol": protocol,
        "first": names[chain[0]],
        "first_m": measured(errors[chain[0]]),
        "last": names[chain[-1]],
        "last_m": measured(errors[chain[-1]]),
        "largest": names[largest],
        "before_m": measured(errors[chain[chain.index(largest) - 1]].mean()),
        "after_m": measured(errors[largest].mean()),
    }
    if len(errors[chain[0]]) > 1:
        text += " By more than seeds differ, the error falls with {better}, and rises with {worse}."
        values |= {"better": effects[BETTER], "worse": effects[WORSE]}
    return with_values(text, **values)


def _variant(rows: pd.DataFrame, model: str, name: str) -> str:
    """One line: a variant beside `step_median`, under each protocol."""
    parts = []
    for protocol in rows["protocol"].unique():
        own, usual = _errors(rows, model, protocol), _errors(rows, "step_median", protocol)
        effect = "one run"
        if own.notna().sum() > 1 and own.index.notna().all():
            effect = EFFECT[by_seeds(own, usual)]
        parts.append(f"`{protocol}` {measured(own)} m where it has {measured(usual)} m ({effect})")
    return f"*{name}*: {'; '.join(parts)}."


def phones(rows: pd.DataFrame) -> str:
    """How networks locate phones that were held out, with and without votes of stored fingerprints.

    Args:
        rows: `model`, `fold`, `mean_m` and `floor_hit`; the first model is the network alone.
    """
    errors = rows.pivot_table("mean_m", "fold", "model", sort=False)
    floors = rows.groupby("model")["floor_hit"].mean()
    alone = errors.columns[0]
    listed = []
    for kind in errors.columns:
        listed.append(f"“{kind}” {measured(errors[kind].mean())} m with {percent(floors[kind])} of the floors")
    lower = []
    for kind in errors.columns[1:]:
        count = int((errors[kind] < errors[alone]).sum())
        lower.append(f"“{kind}” in {count}")
    text = (
        "**On phones that were held out**, mean errors over {folds} folds are: {listed}. The lowest is that of "
        "“{best}”. Of the folds, the error is lower than that of “{alone}” for {lower}."
    )
    best = errors.mean().idxmin()
    return with_values(text, folds=len(errors), listed=listed, best=best, alone=alone, lower=lower)


def on_test_rows(rows: pd.DataFrame) -> str:
    """Errors of one model on the test rows of every protocol.

    Args:
        rows: tidy results of the model.
    """
    parts = []
    for protocol, own in results.in_ground_metres(rows).groupby("protocol", sort=False):
        text = f"`{protocol}` {error(own)}, median {measured(own['median_m'].mean())} m"
        if own["floor_hit"].notna().all():
            text += f", {percent(own['floor_hit'].mean())} of the floors"
            text += f" and {percent(own['building_hit'].mean())} of the buildings right"
        parts.append(text)
    text = (
        "**On test rows** its mean errors are: {parts}. One training, of both environments of a pair, takes "
        "{seconds} seconds on one core. Notebook 07 compares it with the other models."
    )
    return with_values(text, parts="; ".join(parts), seconds=rows["fit_seconds"].mean())


def error(rows: pd.DataFrame) -> str:
    """The mean error of one model under one protocol: in ground metres, and in Mercator metres where these differ."""
    ground, frame = measured(rows["ground_m"]), measured(rows["mean_m"])
    if np.allclose(rows["ground_m"], rows["mean_m"], rtol=1e-3):
        return f"{ground} m"
    return f"{ground} m on the ground ({frame} Mercator m)"


def environments(rows: pd.DataFrame) -> str:
    """Whether a network knows the environment of a scan, with own and with shared input columns.

    Args:
        rows: `model` (`unified` or `unified_shared`), `protocol`, `environment_hit` and `mean_m`.
    """
    own, shared = (rows[rows["model"] == model] for model in ("unified", "unified_shared"))
    text = "**The environment.** With input columns of their own, at least {own} of the test rows are recognised"
    values = {"own": percent(own["environment_hit"].min())}
    if not len(shared):
        return with_values(f"{text}. The network with shared columns was not trained in this run.", **values)
    parts = []
    for protocol, runs in shared.groupby("protocol", sort=False):
        usual = own.loc[own["protocol"] == protocol, "mean_m"]
        share = f"{100 * runs['environment_hit'].mean():.2f} %"
        parts.append(
            f"`{protocol}` {share}, with {measured(runs['mean_m'])} m where own columns have {measured(usual)} m"
        )
    return with_values(f"{text}; in shared columns: {{parts}}.", **values, parts="; ".join(parts))


# === The benchmark ===


def benchmark(rows: pd.DataFrame, compared: pd.DataFrame, names: Mapping[str, str], ours: str = "unified") -> str:
    """Which model is best under each protocol, and which differences of ours are more than chance.

    Args:
        rows: tidy results.
        compared: of these rows, from `statistics.comparisons`.
        names: model → its name.
        ours: the model that is compared.
    """
    lines = []
    for protocol, panel in rows.groupby("protocol", sort=False):
        own = compared[compared["protocol"] == protocol]
        means = panel.groupby("model")["mean_m"].mean().sort_values()
        ranked = [f"{names[model]} {error(panel[panel['model'] == model])}" for model in means.index[:4]]
        verdicts = own[own["model"] == ours].set_index("reference")["verdict"]
        told = _compared_with(verdicts, names)
        apart = own["verdict"] != ALIKE
        text = (
            "**`{protocol}`.** The lowest mean errors of {models} models: {ranked}. The unified network{place} is "
            "{told}. Of the {count} comparisons here, {apart} distinguish two models."
        )
        place = "" if ours in means.index[:4] else f", with {error(panel[panel['model'] == ours])},"
        line = with_values(
            text,
            protocol=protocol,
            models=len(means),
            ranked=ranked,
            place=place,
            told=told,
            count=len(own),
            apart=int(apart.sum()),
        )
        lines.append(line)
    return "\n- ".join(lines)


def _compared_with(verdicts: pd.Series, names: Mapping[str, str]) -> list[str]:
    """By verdict, what a model is better than, and so on.

    Args:
        verdicts: of the model, by reference.
        names: model → its name.
    """
    told = []
    for verdict, word in ((BETTER, "better than"), (WORSE, "worse than"), (ALIKE, "not distinguishable from")):
        references = [names[reference] for reference in verdicts.index[verdicts == verdict]]
        if references:
            told.append(f"{word} {' and '.join(references)}")
    return told or ["compared with nothing"]


def against_paper(rows: pd.DataFrame, quoted: Mapping[str, float], names: Mapping[str, str], stored: str) -> str:
    """The paper's networks under its own protocol, beside its figures and beside nearest stored fingerprints.

    Args:
        rows: tidy results under that protocol.
        quoted: model → mean error in Mercator metres as published.
        names: model → its name.
        stored: the model of nearest stored fingerprints.
    """
    if not len(rows):
        return ""
    means = rows.groupby("model")["mean_m"].mean()
    parts = []
    for model, paper in quoted.items():
        own = rows.loc[rows["model"] == model, "mean_m"]
        position = "below" if own.mean() < paper else "not below"
        parts.append(f"{names[model]} has {measured(own)} m, {position} the paper's {paper:g} m")
    lower = [names[model] for model in quoted if means[model] < means[stored]]
    text = (
        "**Under the paper's protocol** (`{protocol}`, Mercator metres) {parts}. {stored}, which learns nothing, has "
        "{stored_m} m. Of the paper's networks a lower error than that: {lower}."
    )
    return with_values(
        text,
        protocol=rows["protocol"].iloc[0],
        parts=parts,
        stored=names[stored],
        stored_m=float(means[stored]),
        lower=lower,
    )


def published_networks(compared: pd.DataFrame, models: Sequence[str], names: Mapping[str, str]) -> str:
    """Published networks beside the paper's encoder-TL.

    Args:
        compared: from `statistics.comparisons`, with the reference `encoder_tl`.
        models: the published networks.
        names: model → its name.
    """
    own = compared[(compared["reference"] == "encoder_tl") & compared["model"].isin(models)]
    found = {}
    for verdict in (BETTER, WORSE):
        chosen = own[own["verdict"] == verdict]
        found[verdict] = [f"{names[row.model]} under `{row.protocol}`" for row in chosen.itertuples()]
    text = (
        "**The published networks** beside encoder-TL: better are {better}; worse are {worse}; the other {alike} of "
        "{count} comparisons tell nothing. Their training here is short, and what is not published about them is ours."
    )
    alike = len(own) - len(found[BETTER]) - len(found[WORSE])
    return with_values(text, better=found[BETTER], worse=found[WORSE], alike=alike, count=len(own))


def right_place(rows: pd.DataFrame, placed: pd.DataFrame, quoted: float) -> str:
    """1-NN on the publisher's split, over all rows and over those in the right building and floor, in Mercator metres.

    Args:
        rows: tidy results.
        placed: `model`, `protocol`, `right_place` (a share) and `right_place_m`.
        quoted: the published figure.
    """
    of_all = _errors(rows, "knn_euclidean", "official")
    right = placed[(placed["model"] == "knn_euclidean") & (placed["protocol"] == "official")]
    if not len(of_all) or not len(right):
        return ""
    text = (
        "**The 1-NN of [14]** has {right_m} Mercator m over the {share} of the rows that it places in the right "
        "building and floor (published: {quoted}), and {all_m} m over all rows."
    )
    return with_values(
        text,
        right_m=float(right["right_place_m"].mean()),
        share=percent(right["right_place"].mean()),
        quoted=f"{quoted:g} m",
        all_m=float(of_all.mean()),
    )


def ledger(rows: pd.DataFrame) -> str:
    """How many claims hold, and which do not.

    Args:
        rows: of the claims ledger.
    """
    counts = rows["verdict"].value_counts()
    failed = rows.loc[rows["verdict"] == claims.FAILS, "claim"]
    text = (
        "**The ledger:** of {count} numeric claims {holds} hold, {unchecked} cannot be checked on this release, and "
        "{fails} do not hold: {failed}."
    )
    return with_values(
        text,
        count=len(rows),
        holds=int(counts.get(claims.HOLDS, 0)),
        unchecked=int(counts.get(claims.UNCHECKED, 0)),
        fails=len(failed),
        failed="; ".join(failed) or "none",
    )


# === Radii ===


def radii(rows: pd.DataFrame, levels: Sequence[float] = (0.5, 0.9)) -> str:
    """Whether the radii hold what they promise.

    Args:
        rows: `protocol`, `held_out`, `as_asked` (whether test rows come as rows were held out), `level`, `coverage`.
        levels: those that are told.
    """
    lines = []
    for (protocol, held_out, as_asked), own in rows.groupby(["protocol", "held_out", "as_asked"], sort=False):
        parts, kept = [], []
        for level in levels:
            covered = own.loc[own["level"] == level, "coverage"]
            span = ""
            if len(covered) > 1:
                span = f" (seeds: {percent(covered.min())} to {percent(covered.max())})"
            parts.append(f"{percent(covered.mean())}{span} lie within the radius of {percent(level)}")
            kept.append(_promise(covered.mean(), level))
        verdict = kept[0] if len(set(kept)) == 1 else ", then ".join(kept)
        come = "as test rows come" if as_asked else "not as test rows come"
        lines.append(f"**`{protocol}`, {held_out} held out** ({come}): {' and '.join(parts)}: {verdict}.")
    text = f"“As promised” allows {100 * CLOSE:g} percentage points. {_own_way(rows, levels)}".strip()
    return "\n- ".join([*lines, text])


def _promise(covered: float, level: float) -> str:
    if abs(covered - level) <= CLOSE:
        return "as promised"
    return "fewer than promised" if covered < level else "more than promised"


def _own_way(rows: pd.DataFrame, levels: Sequence[float]) -> str:
    """Whether it matters that rows are held out as test rows come."""
    chosen = rows[rows["level"].isin(levels)]
    chosen = chosen.assign(off=(chosen["coverage"] - chosen["level"]).abs())
    off = chosen.pivot_table("off", "protocol", "as_asked", sort=False)
    if True not in off or False not in off:
        return ""
    both = off.dropna()
    nearer = both.index[both[True] < both[False]]
    return with_values(
        "Rows held out as test rows come bring the radii nearer to their levels than other rows under {nearer}, of "
        "{both}.",
        nearer=code(nearer),
        both=code(both.index),
    )


# === Disturbed scans ===

TOLD = (  # disturbance, and the size that is told: that of the run which is nearest to it
    ("transmitters that fail", 40.0),
    ("the device reads more", -10.0),
    ("the device reads more", 10.0),
    ("steps of the levels", 10.0),
    ("noise", 8.0),
)


def disturbances(rows: pd.DataFrame, names: Mapping[str, str], calibrated: str = "unified") -> str:
    """How errors and radii change with disturbed scans.

    Args:
        rows: `protocol`, `stress`, `unit`, `size`, `model`, `mean_m`; of the calibrated model also `coverage_90`.
        names: model → its name.
        calibrated: the model with radii.
    """
    lines = []
    for stress, wanted in TOLD:
        own = rows[rows["stress"] == stress]
        if not len(own):
            continue
        size = min(own["size"].unique(), key=lambda size: abs(size - wanted))
        parts = []
        for protocol, panel in own[own["size"] == size].groupby("protocol", sort=False):
            usual = rows[(rows["protocol"] == protocol) & (rows["stress"] == stress)]
            parts.append(_disturbed(protocol, panel, _undisturbed(usual), names, calibrated))
        lines.append(f"**{stress[0].upper()}{stress[1:]}, {size:g} {own['unit'].iloc[0]}.** {' '.join(parts)}")
    return "\n- ".join(lines)


def _undisturbed(rows: pd.DataFrame) -> pd.Series:
    """By model the mean error at the smallest size of a disturbance."""
    return rows[rows["size"].abs() == rows["size"].abs().min()].groupby("model")["mean_m"].mean()


def _disturbed(protocol: str, rows: pd.DataFrame, usual: pd.Series, names: Mapping[str, str], calibrated: str) -> str:
    means = rows.groupby("model")["mean_m"].mean()
    changes = [f"{name} {measured(usual[model])} → {measured(means[model])} m" for model, name in names.items()]
    covered = rows.loc[rows["model"] == calibrated, "coverage_90"].mean()
    return with_values(
        "Mean errors under `{protocol}`: {changes}; the lowest is that of {lowest}. The 90 % radius of {calibrated} "
        "holds {covered} of the scans that it locates.",
        protocol=protocol,
        changes=changes,
        lowest=names[means.idxmin()],
        calibrated=names[calibrated],
        covered=percent(covered),
    )


def attacks(
    rows: pd.DataFrame, names: Mapping[str, str], model: str = "unified", defended: str = "unified_smoothed"
) -> str:
    """What an attacker does to each model, beside the same change by chance, and what the defence is worth.

    Args:
        rows: `protocol`, `stress` (`PGD` or `by chance`), `size` in dB, `model` and `mean_m`.
        names: model → its name, without the defended one.
        model, defended: the network, and what stands for it with the defence.
    """
    lines = []
    for protocol, panel in rows.groupby("protocol", sort=False):
        error_m = panel.set_index(["stress", "size", "model"])["mean_m"]
        most = panel["size"].max()
        changes = []
        for each, name in names.items():
            usual, attacked, by_chance = (error_m[key] for key in _keys(each, most))
            changes.append(
                f"{name} from {measured(usual)} to {measured(attacked)} m, by chance to {measured(by_chance)} m"
            )
        cost = error_m["PGD", 0.0, defended] - error_m["PGD", 0.0, model]
        back = error_m["PGD", most, model] - error_m["PGD", most, defended]
        text = (
            "**An attacker under `{protocol}`, up to {most} dB**, moves {changes}. The median over thinned copies "
            "of a scan {effect} {back} m under this attack, and {cost_effect} {cost} m where nobody attacks."
        )
        line = with_values(
            text,
            protocol=protocol,
            most=f"{most:g}",
            changes="; ".join(changes),
            effect="takes back" if back > 0 else "adds",
            back=abs(float(back)),
            cost_effect="costs" if cost > 0 else "gains",
            cost=abs(float(cost)),
        )
        lines.append(line)
    return "\n- ".join(lines)


def _keys(model: str, most: float) -> list[tuple[str, float, str]]:
    """Of a model that nobody attacks, one that is attacked, and one whose scans change by chance."""
    return [("PGD", 0.0, model), ("PGD", most, model), ("by chance", most, model)]


# === Transfer from many ===


def transfer(rows: pd.DataFrame, scratch: str) -> str:
    """Whether transfer from many environments helps, and whether what helps is knowledge.

    Args:
        rows: `protocol`, `share`, `against`, `ratio` of the mean errors, and `verdict` on the transferred model.
        scratch: the start from nothing, among `against`.
    """
    lines = []
    for against, panel in rows.groupby("against", sort=False):
        counts = panel["verdict"].value_counts()
        text = (
            "**Against {against}** the transferred model has {mean} of the error in the geometric mean, from {low} "
            "to {high} over {count} pairs of target and share; it is better in {better} and worse in {worse} of them."
        )
        line = with_values(
            text,
            against=against,
            mean=f"{np.exp(np.log(panel['ratio']).mean()):.3f} times",
            low=f"{panel['ratio'].min():.3f}",
            high=f"{panel['ratio'].max():.3f}",
            count=len(panel),
            better=int(counts.get(BETTER, 0)),
            worse=int(counts.get(WORSE, 0)),
        )
        lines.append(line)
    is_better = rows["verdict"] == BETTER
    helps = is_better[rows["against"] == scratch]
    knows = is_better.groupby([rows["protocol"], rows["share"]]).all()
    text = "**The verdict.** Transfer from many helps in {helps} of {count} pairs. In {knows} what helps is {shown}."
    shown = "shown to be knowledge: there it is also better than every control"
    lines.append(with_values(text, helps=int(helps.sum()), count=len(knows), knows=int(knows.sum()), shown=shown))
    return "\n- ".join(lines)


# === Searches ===


def search(rows: pd.DataFrame) -> str:
    """Which settings of the comparators have a lower validation error than their defaults in every environment.

    Args:
        rows: `environment`, `model`, `setting` (`default` is one of them), `seed` and `validation_mean_m`.
    """
    means = rows.pivot_table("validation_mean_m", ["model", "setting"], "environment", sort=False)
    better = []
    for (model, setting), errors in means.iterrows():
        usual = means.loc[model, "default"]
        present = errors.notna()
        if (errors[present] < usual[present]).all():
            values = [
                f"{measured(errors[name])} where it has {measured(usual[name])} m" for name in errors.index[present]
            ]
            better.append(f"`{model}` with {setting} ({'; '.join(values)})")
    text = (
        "Settings that are better than the default in every environment where they were tried: {better}. With {seeds} "
        "seed(s) a setting, this shows a good region, not an optimum; the defaults stay where the gain is small or the "
        "time doubles."
    )
    return with_values(text, better="; ".join(better) or "none", seeds=int(rows["seed"].nunique()))


def averages(rows: pd.DataFrame) -> str:
    """What it is worth to average the trees of a forest by their median, the default, and not by their mean.

    Args:
        rows: see `search`.
    """
    means = rows.pivot_table("validation_mean_m", ["model", "setting"], "environment", sort=False)
    parts = []
    for model in rows.loc[rows["setting"] == "average=mean", "model"].unique():
        for environment in means.columns:
            usual = measured(means.loc[(model, "default"), environment])
            by_mean = measured(means.loc[(model, "average=mean"), environment])
            parts.append(f"`{model}` in `{environment}` {usual} m by the median and {by_mean} m by the mean")
    if not parts:
        return ""
    return with_values("The average over the trees of a forest: {parts}.", parts="; ".join(parts))
