"""What the front page, the report and the model card show of the committed results, written from the result files.

`python -m lib.report.front` writes fragments of Markdown into outputs/tables/ and the figure of the front page, and
fills README.md and the pages of docs/ with them, with the tables, and with the figures. Each sentence has the condition
that makes it true, and another wording where the comparison turns out otherwise. A fragment whose results are missing
is left out.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from lib.paths import ROOT, Workspace, replacing
from lib.report import document, results, statistics
from lib.report.figures import style
from lib.report.numbers import code, interval, measured

MODELS = {
    "knn_sorensen": "kNN, Sørensen",
    "knn_weighted": "weighted kNN",
    "extra_trees": "Extra Trees",
    "encoder_tl": "encoder-TL (paper)",
    "umlp": "U-MLP (paper)",
    "unified": "unified (ours)",
}
OURS, NEAREST, TREES, PAPERS = "unified", "knn_sorensen", "extra_trees", "encoder_tl"
OURS_ALONE = "unified_alone"  # the network of one environment, in notebook 10
PROTOCOLS = {
    "pooled": "random scans of the campus",
    "official": "other phones, months later",
    "random": "random messages of the city",
    "spatial": "city blocks never visited",
}
CONTROLS = {"encoder_tl_scans": "noise", "encoder_tl_labels": "shuffled positions"}
FINDINGS = 5  # that the front page has room for
PAGES = ("README.md", "docs/*.md")

Results = Mapping[str, pd.DataFrame]  # by the name of the file


# === Values ===


def _by_model(rows: pd.DataFrame, protocol: str, column: str = "ground_m") -> pd.Series:
    """Mean over seeds of a column under one protocol, by model; lowest first."""
    panel = rows[rows["protocol"] == protocol]
    return panel.groupby("model")[column].mean().sort_values()


def metres(values: Sequence[float]) -> str:
    """`mean ± half width of the 95 % interval m`; the mean alone for a single value."""
    return f"{measured(values)} m"


def _of(rows: pd.DataFrame, protocol: str, model: str, column: str = "ground_m") -> str:
    """Metres of one model under one protocol."""
    chosen = rows[(rows["protocol"] == protocol) & (rows["model"] == model)]
    return metres(chosen[column])


def _protocols(rows: pd.DataFrame) -> list[str]:
    """The four protocols that the results have, in their order."""
    present = set(rows["protocol"])
    return [protocol for protocol in PROTOCOLS if protocol in present]


# === Findings ===


def accuracy(found: Results) -> str:
    """Where the unified network has the lowest mean error, and where the lead is more than chance."""
    rows, compared = found["benchmark"], found["comparisons"]
    protocols = _protocols(rows)
    said = []
    best = []
    for protocol in protocols:
        means = _by_model(rows, protocol)
        others = means.drop(OURS)
        if means.index[0] == OURS:
            best.append(protocol)
        ours = _of(rows, protocol, OURS)
        other = _of(rows, protocol, others.index[0])
        said.append(f"{ours} under `{protocol}` (best other model: {other})")
    if len(best) == len(protocols):
        lead = f"The unified network has the lowest mean error under all {len(protocols)} protocols."
    elif best:
        lead = document.with_values(
            "The unified network has the lowest mean error under {count} of {all} protocols, {names}.",
            count=len(best),
            all=len(protocols),
            names=code(best),
        )
    else:
        lead = "The unified network has the lowest mean error under no protocol."
    text = (
        "**{lead}** On the ground: {errors}. After correction for all comparisons, it is better than kNN (Sørensen) "
        "under {nearest}, and better than Extra Trees under {trees}."
    )
    better = {}
    for name, reference in {"nearest": NEAREST, "trees": TREES}.items():
        pairs = compared[(compared["model"] == OURS) & (compared["reference"] == reference)]
        protocols_won = pairs[pairs["verdict"] == statistics.BETTER]["protocol"]
        better[name] = code(protocols_won) or "no protocol"
    return document.with_values(text, lead=lead, errors="; ".join(said), **better)


def split(found: Results) -> str:
    """How much harder the publisher's split is than random rows."""
    rows = found["benchmark"]
    ratios = {}
    for model, name in MODELS.items():
        ratios[name] = _by_model(rows, "official")[model] / _by_model(rows, "pooled")[model]
    lowest, highest = min(ratios.values()), max(ratios.values())
    text = (
        "**{lead}** With other phones and months later (`official`), the errors of the six models below are "
        "{lowest} to {highest} times those on random rows of the same campus (`pooled`): encoder-TL has {hard} instead "
        "of {easy}, kNN {knn_hard} instead of {knn_easy}."
    )
    lead = "The test split decides how good a model looks."
    if lowest <= 1:
        lead = "The harder test split does not make every model worse."
    return document.with_values(
        text,
        lead=lead,
        lowest=lowest,
        highest=highest,
        hard=_of(rows, "official", PAPERS),
        easy=_of(rows, "pooled", PAPERS),
        knn_hard=_of(rows, "official", NEAREST),
        knn_easy=_of(rows, "pooled", NEAREST),
    )


def reproduction(found: Results) -> str | None:
    """Whether the paper's indoor errors hold, and what nearest fingerprints have on the same rows."""
    rows, claims = found["benchmark"], found["claims"]
    published = {}
    verdicts = []
    for model, start in {PAPERS: "encoder-TL MDE indoors", "umlp": "U-MLP MDE indoors"}.items():
        lines = claims[claims["claim"].str.startswith(start)]
        if lines.empty:
            return None
        published[model] = f"{lines['paper'].iloc[0]:g}"
        verdicts.append(lines["verdict"].iloc[0] == "holds")
    lead = "The paper's indoor errors hold on its own kind of split"
    if not all(verdicts):
        lead = "Not all of the paper's indoor errors hold on its own kind of split"
    means = _by_model(rows, "pooled")
    if means[NEAREST] < means[PAPERS] and means[NEAREST] < means["umlp"]:
        lead += ", where nearest fingerprints do better"
    text = (
        "**{lead}.** Under `pooled`, encoder-TL has {encoder} on the ground and the U-MLP {umlp}. In Web Mercator "
        "metres, as the paper counts, that is {encoder_mercator} (paper: {encoder_paper} m) and {umlp_mercator} "
        "(paper: {umlp_paper} m). kNN, which trains nothing, has {nearest} on the ground."
    )
    return document.with_values(
        text,
        lead=lead,
        encoder=_of(rows, "pooled", PAPERS),
        umlp=_of(rows, "pooled", "umlp"),
        encoder_mercator=_of(rows, "pooled", PAPERS, "mean_m"),
        umlp_mercator=_of(rows, "pooled", "umlp", "mean_m"),
        encoder_paper=published[PAPERS],
        umlp_paper=published["umlp"],
        nearest=_of(rows, "pooled", NEAREST),
    )


def _saved(errors: pd.DataFrame, protocol: str, other: str) -> pd.Series:
    """Error that the transferred model saves against another start, in %, paired by seed."""
    panel = errors.loc[protocol]
    return (100 * (1 - panel[PAPERS] / panel[other])).dropna()


def transfer(found: Results) -> str:
    """What transfer saves, and whether it saves more than a base model that learnt nothing."""
    rows = found["transfer_controls"]
    errors = rows.pivot_table("mean_m", ["protocol", "seed"], "model", aggfunc="first")
    protocols = _protocols(rows)
    p_values = {}
    for protocol in protocols:
        for other in errors.columns.drop(PAPERS):
            p_values[protocol, other] = stats.ttest_1samp(_saved(errors, protocol, other), 0).pvalue
    corrected = dict(zip(p_values, statistics.holm(list(p_values.values())), strict=True))
    gains = []
    for protocol in protocols:
        gains.append(f"{interval(_saved(errors, protocol, 'encoder_scratch'))} % under `{protocol}`")
    over_controls = []
    shown = True
    for other, name in CONTROLS.items():
        saved = []
        for protocol in protocols:
            of_seeds = _saved(errors, protocol, other)
            saved.append(f"{interval(of_seeds)} %")
            shown &= of_seeds.mean() > 0 and corrected[protocol, other] < statistics.SIGNIFICANCE
        over_controls.append(f"{' and '.join(saved)} ({name})")
    lead = "The gain of transfer is not shown to be knowledge."
    verdict = "they are not all more than chance"
    if shown:
        verdict = "all of these are more than chance"
        lead = "The gain of transfer is more than that of a base model which learnt nothing."
    text = (
        "**{lead}** The base model of the other environment saves {gains} of the error against training from scratch. "
        "Against base models that learnt nothing of a place, it saves {controls}. (95 % intervals, before correction "
        "for {count} comparisons; after it, {verdict}.)"
    )
    return document.with_values(
        text, lead=lead, gains=gains, controls=over_controls, count=len(p_values), verdict=verdict
    )


def environments(found: Results) -> str:
    """How the unified network compares with the best baseline in every environment."""
    ratios = found["environments_ratios"]
    ours = ratios[ratios["model"] == OURS_ALONE]
    lower = ours[ours["ratio"] < 1]
    text = (
        "**{lead}** Its mean error is {lowest} to {highest} times that of the best of four baselines, chosen with the "
        "test rows known; it is lower in {count} of {all}."
    )
    lead = "One kind of network serves further environments, without settings made for each."
    if ours["ratio"].max() > 1.1:
        lead = "In further environments the unified network is not always the best choice."
    return document.with_values(
        text,
        lead=lead,
        lowest=float(ours["ratio"].min()),
        highest=float(ours["ratio"].max()),
        count=len(lower),
        all=len(ours),
    )


def one_network(found: Results) -> str:
    """Whether one U-MLP for both environments errs more than one for each."""
    rows = found["umlp"]
    said = []
    no_worse = True
    for protocol, alone in {"pooled": "umlp_in", "random": "umlp_out"}.items():
        means = _by_model(rows, protocol, "mean_m")
        no_worse &= means["umlp"] <= means[alone]
        ratio = means["umlp"] / means[alone]
        said.append(f"{ratio:.2f} times under `{protocol}`")
    lead = "One U-MLP can serve both environments."
    if not no_worse:
        lead = "One U-MLP for both environments costs accuracy."
    text = (
        "**{lead}** Its mean error is {ratios} that of a network which learns that environment alone. Recognising the "
        "environment is no achievement: the two have input columns of their own."
    )
    return document.with_values(text, lead=lead, ratios=said)


def radius(found: Results) -> str:
    """How often the 90 % radius holds."""
    rows = found["coverage"]
    at_90 = rows[np.isclose(rows["level"], 0.9) & rows["as_asked"]]
    said = []
    for (protocol, held_out), panel in at_90.groupby(["protocol", "held_out"], sort=False):
        said.append(f"{100 * panel['coverage'].mean():.0f} % under `{protocol}`, calibrated on {held_out}")
    text = "**Each position comes with a radius.** The 90 % radius holds {coverage}."
    return document.with_values(text, coverage="; ".join(said))


def speed_beside_pytorch(found: Results) -> str:
    """How fast training is beside PyTorch, with one thread and with two."""
    rows = found["speed"]
    said = []
    for threads in ("1 thread", "2 threads"):
        ours = rows[rows["implementation"] == f"ours, {threads}"].set_index("what")["ratio_to_torch"]
        networks = []
        for network in ("localizer", "umlp", "unified"):
            networks.append(f"{ours[f'train_{network}']:.2f} on `{network}`")
        said.append(f"with {threads} {document.with_values('{networks}', networks=networks)}")
    text = "Speed of `ours` by that of PyTorch, above 1 where ours is faster: {ratios}.\n"
    return document.with_values(text, ratios="; ".join(said))


# In the order of importance: each with the result files that it needs.
SENTENCES: dict[Callable[[Results], str | None], tuple[str, ...]] = {
    accuracy: ("benchmark", "comparisons"),
    split: ("benchmark",),
    reproduction: ("benchmark", "claims"),
    transfer: ("transfer_controls",),
    environments: ("environments_ratios",),
    one_network: ("umlp",),
    radius: ("coverage",),
}


def findings(found: Results) -> str:
    """The first five findings whose results are there, as a list."""
    lines = []
    for sentence, needed in SENTENCES.items():
        said = sentence(found) if all(name in found for name in needed) else None
        if said is not None:
            lines.append(f"- {said}")
    return "\n".join(lines[:FINDINGS]) + "\n"


# === Tables ===


def _seeds(rows: pd.DataFrame) -> str:
    """How many seeds the models of the front page have, those that have any."""
    counts = rows[rows["model"].isin(MODELS)].groupby("model", sort=False)["seed"].nunique()
    fewest = counts[counts > 0].min()
    more = [f"{counts[model]} for {MODELS[model].split(' (')[0]}" for model in counts.index[counts > fewest]]
    return f"{fewest} seeds" + (f" ({', '.join(more)})" if more else "")


def front_table(found: Results) -> str:
    """Mean error in ground metres, one line a model and one column a protocol; the lowest of each is bold."""
    rows = found["benchmark"]
    lines = []
    for model, name in MODELS.items():
        line = {"mean error on the ground": name}
        for protocol in _protocols(rows):
            means = _by_model(rows[rows["model"].isin(MODELS)], protocol)
            text = _of(rows, protocol, model)
            line[f"`{protocol}`"] = f"**{text}**" if means[model] == means.min() else text
        lines.append(line)
    table = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
    tests = []
    for protocol in _protocols(rows):
        count = rows[rows["protocol"] == protocol]["n_test"].iloc[0]
        tests.append(f"`{protocol}` {count:,}")
    note = f"Mean and 95 % interval over {_seeds(rows)}; kNN is the same for every seed. Test rows: {', '.join(tests)}."
    return f"{table}\n\n{note}\n"


def unified_accuracy(found: Results) -> str:
    """Errors of the unified network under each protocol, for its model card."""
    rows = found["benchmark"]
    ours = results.in_ground_metres(rows[rows["model"] == OURS])
    lines = []
    for protocol in _protocols(ours):
        panel = ours[ours["protocol"] == protocol]
        line = {
            "protocol": f"`{protocol}`",
            "test rows come": PROTOCOLS[protocol],
            "mean": metres(panel["ground_m"]),
            "median": metres(panel["median_m"]),
            "95 % within": metres(panel["p95_m"]),
        }
        for label in ("building", "floor"):
            hit = panel[f"{label}_hit"].mean()
            line[f"right {label}"] = "" if np.isnan(hit) else f"{hit:.1%}"
        line["fingerprints learnt"] = f"{panel['n_train'].iloc[0]:,}"
        line["test rows"] = f"{panel['n_test'].iloc[0]:,}"
        lines.append(line)
    table = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
    return f"{table}\n\nGround metres, mean and 95 % interval over {ours['seed'].nunique()} seeds.\n"


def committed_run(provenance: Mapping, releases: Sequence[str], notebooks: Sequence[str]) -> str:
    """Of which run, rows and machine the committed results are.

    Args:
        provenance: of the run, as `lib.experiments.reproduction` writes it.
        releases: of the data.
        notebooks: names of the notebooks that there are now.
    """
    facts = provenance["machine"]
    ran = [row["notebook"] for row in provenance["notebooks"]]
    took = "in parts, each of which continued the one before"
    if provenance["seconds"] is not None:
        took = f"in {provenance['seconds'] / 60:.0f} minutes"
    text = (
        "Committed results: `make benchmark` of {date} at commit {commit}, on {cores} cores ({processor}), {took}. "
        "Rows: {releases}."
    )
    said = document.with_values(
        text,
        date=provenance["date"][:10],
        commit=provenance["commit"],
        cores=facts["cores"],
        processor=facts["processor"],
        took=took,
        releases=releases,
    )
    missing = [name for name in notebooks if name not in ran]
    if missing:
        said += document.with_values(
            " That run is older than the code. It lacks {names}, and its models are those of that commit.",
            names=code(missing),
        )
    return said + "\n"


# === The figure ===


def figure(found: Results) -> Figure:
    """Mean error on the ground of six models, one panel a protocol, each with an axis of its own."""
    rows = found["benchmark"]
    protocols = _protocols(rows)
    chart, axes = style.grid(len(protocols), (9, 7), sharey=True)
    for axis, protocol in zip(axes, protocols, strict=True):
        _draw_protocol(axis, rows[rows["protocol"] == protocol])
        axis.set_title(f"{protocol}:\n{PROTOCOLS[protocol]}", fontsize=17, loc="left")
    axes[0].invert_yaxis()
    chart.supxlabel("mean error on the ground (m)", fontsize=17)
    return chart


def _draw_protocol(axis: Axes, rows: pd.DataFrame) -> None:
    """Bars of the mean error, with the number at their end; ours in another colour."""
    means = rows.groupby("model")["ground_m"].mean()
    for height, model in enumerate(MODELS):
        colour = style.PALETTE[1] if model == OURS else "0.65"
        axis.barh(height, means[model], color=colour)
        digits = 1 if means[model] < 100 else 0
        text = f" {means[model]:.{digits}f}"
        axis.text(means[model], height, text, va="center", fontsize=16)
    axis.set_xlim(0, 1.25 * means[list(MODELS)].max())
    axis.set_yticks(range(len(MODELS)), [name.split(" (")[0] for name in MODELS.values()], fontsize=16)
    axis.set_xticks([])
    axis.grid(visible=False)


# === Everything ===


FRAGMENTS: dict[Callable[[Results], str], tuple[str, ...]] = {
    findings: ("benchmark", "comparisons"),
    front_table: ("benchmark",),
    unified_accuracy: ("benchmark",),
    speed_beside_pytorch: ("speed",),
}


def write(workspace: Workspace) -> list[str]:
    """Write the fragments `tables/NAME.md` and `figures/front.png` whose results are there, and return their names."""
    found = {path.stem: results.read(path) for path in sorted(workspace.results.glob("*.csv"))}
    texts = {}
    for fragment, needed in FRAGMENTS.items():
        if all(name in found for name in needed):
            texts[fragment.__name__] = fragment(found)
    provenance = workspace.results / "provenance.json"
    if provenance.exists() and "benchmark" in found:
        releases = found["benchmark"]["release"].unique()
        notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem[:2] != "00")
        texts["committed_run"] = committed_run(json.loads(provenance.read_text()), list(releases), notebooks)
    for name, text in texts.items():
        with replacing(workspace.tables / f"{name}.md") as temporary:
            temporary.write_text(text)
    if "benchmark" in found:
        style.finish(figure(found), workspace.figures / "front.png", simulated=False)
    return list(texts)


def pages() -> list[Path]:
    """The documents that show results: the front page and those in docs/."""
    documents = []
    for pattern in PAGES:
        documents += sorted(ROOT.glob(pattern))
    return documents


def with_executed_notebooks(text: str) -> str:
    """The front page, with links to executed copies of the notebooks where they are, and to the notebooks elsewhere."""

    def link(match: re.Match) -> str:
        executed = Path("outputs", "notebooks", match["name"])
        target = executed if (ROOT / executed).exists() else Path("notebooks", match["name"])
        return f"]({target.as_posix()})"

    return re.sub(r"\]\((?:outputs/)?notebooks/(?P<name>\w+\.ipynb)\)", link, text)


def main() -> None:
    """Write what the front page shows of the committed results, and fill README.md and the pages of docs/."""
    argparse.ArgumentParser(prog="python -m lib.report.front", description=main.__doc__).parse_args()
    outputs = ROOT / "outputs"
    write(Workspace(outputs))
    texts = {page: page.read_text() for page in pages()}
    marked = document.marks("".join(texts.values()))
    shown = [*marked["table"], *marked["figure"]]
    for page, text in texts.items():
        filled = document.fill(text, outputs, page.parent, elsewhere=shown)
        if page.parent == ROOT:
            filled = with_executed_notebooks(filled)
        with replacing(page) as temporary:
            temporary.write_text(filled)


if __name__ == "__main__":
    main()
