"""Every figure's drawing code. Functions take numbers and return a Figure; `finish` marks and saves it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from lib.fingerprints import FingerprintSet
from lib.metrics import confidence_half_width
from lib.paths import replacing
from lib.splits import PROTOCOLS

sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
matplotlib.rcParams |= {"figure.dpi": 100, "savefig.dpi": 150, "figure.constrained_layout.use": True}

INDOOR, OUTDOOR = sns.color_palette("colorblind")[:2]
CAMPAIGNS = sns.color_palette("colorblind")[2], sns.color_palette("colorblind")[4]
COLOURS = {"ujiindoorloc": INDOOR, "lorawan_antwerp": OUTDOOR}
FAMILIES = [sns.color_palette("colorblind")[number] for number in (0, 1, 2, 4, 5, 9)]
PUBLISHED = "firebrick"
ENVIRONMENTS = {"ujiindoorloc": "UJIIndoorLoc, Wi-Fi", "lorawan_antwerp": "Antwerp, LoRaWAN"}
SCANS = {"ujiindoorloc": "scans", "lorawan_antwerp": "messages"}
TRANSMITTERS = {"ujiindoorloc": "access points", "lorawan_antwerp": "gateways"}


def marked(figure: Figure, simulated: bool) -> Figure:
    """Mark a figure of simulated data as such, and close it: a notebook still shows it."""
    if simulated:
        figure.text(0.5, 0.5, "SIMULATED", fontsize=48, color="red", alpha=0.18, ha="center", va="center", rotation=25)
    plt.close(figure)
    return figure


def finish(figure: Figure, path: Path, simulated: bool) -> Figure:
    """Mark a figure of simulated data as such, and save it as PNG, whole or not at all."""
    with replacing(path) as temporary:
        marked(figure, simulated).savefig(temporary, metadata={"Software": None})
    return figure


def _pair(height: float = 4.2) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(1, 2, figsize=(12, height))
    figure.get_layout_engine().set(wspace=0.05)
    return figure, axes


def by_protocol(rows: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Rows by (environment, protocol), in the order in which the protocols are defined; those that have any."""
    found = dict(list(rows.groupby(["environment", "protocol"], sort=False)))
    keys = [(environment, protocol) for environment in PROTOCOLS for protocol in PROTOCOLS[environment]]
    return [(key, found[key]) for key in keys if key in found]


# === Explore ===


def _histogram(axis: Axes, values: np.ndarray, **style) -> None:
    """Bars one unit wide, centred on whole numbers."""
    axis.hist(values, bins=np.arange(np.floor(values.min()) - 0.5, np.ceil(values.max()) + 1), **style)


def rssi_histogram(data: FingerprintSet, transmitter: str | None = None) -> Figure:
    """How often each RSSI value was heard (the paper's Fig. 2), by all transmitters or by one."""
    column = slice(None) if transmitter is None else data.transmitters.index(transmitter)
    values = data.rssi[:, column][data.heard[:, column]]
    figure, axis = plt.subplots(figsize=(8, 4.5))
    heard = "never heard"
    if len(values):
        _histogram(axis, values, color=COLOURS[data.name], linewidth=0.3)
        heard = f"{data.release.file}: {len(values):,} heard values, {values.min():.0f} to {values.max():.0f} dBm"
        axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set(xlabel="RSSI (dBm)", ylabel="heard values per dB")
    of_what = transmitter or f"all {TRANSMITTERS[data.name]}"
    axis.set_title(f"{ENVIRONMENTS[data.name]}: {of_what}\n{heard}", fontsize=12)
    return figure


def missing_rates(environments: Iterable[FingerprintSet], threshold: float) -> Figure:
    """Share of fingerprints that miss each transmitter, in ascending order, with the threshold of the selection."""
    figure, axes = _pair()
    for axis, data in zip(axes, environments, strict=True):
        missing = np.sort(1 - data.heard.mean(axis=0))
        kept = int((missing <= threshold).sum())
        axis.plot(np.arange(1, len(missing) + 1), missing * 100, ".", markersize=5, color=COLOURS[data.name])
        axis.axhline(threshold * 100, color="black", linestyle="--", linewidth=1, label=f"{threshold:.0%} threshold")
        axis.set(xlabel=f"{TRANSMITTERS[data.name]}, best heard first", ylabel=f"{SCANS[data.name]} that miss it (%)")
        axis.set_title(f"{ENVIRONMENTS[data.name]}: {kept} of {len(missing)} at or under", fontsize=12)
        axis.legend(loc="lower right")
    return figure


def heard_per_row(environments: Iterable[FingerprintSet]) -> Figure:
    """How many transmitters a fingerprint hears."""
    figure, axes = _pair()
    for axis, data in zip(axes, environments, strict=True):
        counts = data.heard.sum(axis=1)
        middle = np.median(counts)
        _histogram(axis, counts, color=COLOURS[data.name])
        axis.axvline(middle, color="black", linestyle="--", linewidth=1, label=f"median {middle:.0f}")
        axis.set(xlabel=f"{TRANSMITTERS[data.name]} heard", ylabel=SCANS[data.name])
        axis.set_title(f"{ENVIRONMENTS[data.name]}: {(counts == 0).sum()} hear nothing", fontsize=12)
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.legend()
    return figure


def positions(environments: Iterable[FingerprintSet]) -> Figure:
    """Where fingerprints were taken, the publisher's parts told apart."""
    figure, axes = _pair(height=4.6)
    figure.set_layout_engine("compressed")  # leaves no gaps around axes of a fixed aspect
    for axis, data in zip(axes, environments, strict=True):
        parts = data.part if data.part is not None else np.full(len(data), "all")
        for part, colour, size in zip(pd.unique(parts), CAMPAIGNS, (14, 4), strict=False):
            here = parts == part
            axis.scatter(*data.position[here].T, s=size, color=colour, label=f"{part} ({here.sum():,})", linewidth=0)
        axis.set(xlabel="east (m)", ylabel="north (m)", aspect="equal")
        axis.set_title(f"{ENVIRONMENTS[data.name]}: {len(np.unique(data.place_id)):,} distinct positions", fontsize=12)
        axis.legend(title="publisher's part", markerscale=2, fontsize=10, title_fontsize=10)
    return figure


def coverage_maps(data: FingerprintSet, transmitters: Sequence[str]) -> Figure:
    """Where each of some transmitters is heard, and how strongly: its radio map."""
    east, north = np.ptp(data.position, axis=0)
    size = (4.4 * len(transmitters), 1.2 + 4 * north / east)
    figure, axes = plt.subplots(1, len(transmitters), figsize=size, sharex=True, sharey=True, squeeze=False)
    figure.set_layout_engine("compressed")
    weakest, strongest = np.percentile(data.heard_values, [1, 99])
    for axis, transmitter in zip(axes[0], transmitters, strict=True):
        values = data.rssi[:, data.transmitters.index(transmitter)]
        order = np.argsort(values)[: (~np.isnan(values)).sum()]  # the strongest on top
        axis.scatter(*data.position.T, s=3, color="0.85", linewidth=0)
        style = {"c": values[order], "vmin": weakest, "vmax": strongest, "cmap": "viridis"}
        dots = axis.scatter(*data.position[order].T, s=8, linewidth=0, **style)
        axis.set(xlabel="east (m)", aspect="equal")
        axis.set_title(f"{transmitter}: heard by {len(order) / len(data):.1%}", fontsize=12)
    axes[0, 0].set_ylabel("north (m)")
    figure.colorbar(dots, ax=axes[0].tolist(), label="RSSI (dBm)", extend="both")
    figure.suptitle(f"{ENVIRONMENTS[data.name]} (grey: {SCANS[data.name]} that do not hear it)", fontsize=13)
    return figure


def drift(campaigns: Mapping[str, FingerprintSet]) -> Figure:
    """How two campaigns of one environment differ: how strongly they hear, and which transmitters."""
    figure, axes = _pair()
    for colour, (label, data) in zip(CAMPAIGNS, campaigns.items(), strict=True):
        style = {"density": True, "histtype": "stepfilled", "alpha": 0.5, "color": colour}
        axes[0].hist(data.heard_values, bins=np.arange(-105.5, 1, 3), label=label, **style)
    axes[0].set(xlabel="RSSI (dBm)", ylabel="share of heard values (per dB)", title="How strongly")
    axes[0].legend()
    rates = [data.heard.mean(axis=0) * 100 for data in campaigns.values()]
    axes[1].scatter(*rates, s=14, alpha=0.6, color="0.3", linewidth=0)
    top = np.max(rates)
    axes[1].plot([0, top], [0, top], color="black", linestyle="--", linewidth=1, label="no change")
    titles = [f"{label}: heard by (% of {SCANS[data.name]})" for label, data in campaigns.items()]
    axes[1].set(xlabel=titles[0], ylabel=titles[1], title=f"Each of the {len(rates[0])} {TRANSMITTERS[data.name]}")
    axes[1].legend()
    return figure


# === Preprocess ===


def before_after(raw: FingerprintSet, kept: np.ndarray, scaled: np.ndarray) -> Figure:
    """RSSI as published and as the network sees it."""
    figure, axes = _pair()
    _histogram(axes[0], raw.heard_values, color=COLOURS[raw.name], linewidth=0.3)
    axes[0].set(
        xlabel="RSSI (dBm), heard values only",
        ylabel="values",
        title=f"before: {len(raw.transmitters)} {TRANSMITTERS[raw.name]}, {1 - raw.heard.mean():.1%} not heard",
    )
    axes[1].hist(scaled.ravel(), bins=len(np.unique(scaled)), color=COLOURS[raw.name], linewidth=0.3)
    axes[1].set(
        xlabel="scaled RSSI (Eq. 5); not heard = lower bound",
        ylabel="values (log)",
        yscale="log",
        title=f"after: {kept.sum()} {TRANSMITTERS[raw.name]}, scaled",
    )
    figure.suptitle(ENVIRONMENTS[raw.name])
    return figure


# === Training ===


def _curve(axis: Axes, curves: pd.DataFrame, column: str, colour, label: str, style: str = "-") -> None:
    """Mean of a column over seeds against the epoch, with the range between seeds as a band."""
    by_epoch = curves.groupby("epoch")[column]
    mean = by_epoch.mean()
    axis.plot(mean.index, mean, color=colour, linestyle=style, label=label)
    axis.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, linewidth=0)


def learning_curves(curves: pd.DataFrame, labels: Mapping[str, str], title: str, validation: str) -> Figure:
    """RMSE on training and validation rows against the epoch (the paper's Figs. 3 and 4).

    Args:
        curves: columns `model, seed, epoch, rmse, val_rmse`.
        labels: model → its name in the legend, in the order to draw.
        title: of the figure.
        validation: what the validation rows are, for the legend.
    """
    figure, axis = plt.subplots(figsize=(10, 4.8))
    for colour, (model, label) in zip(sns.color_palette("colorblind"), labels.items(), strict=False):
        of_model = curves[curves["model"] == model]
        _curve(axis, of_model, "rmse", colour, f"{label}, training", "--")
        _curve(axis, of_model, "val_rmse", colour, f"{label}, {validation}")
    axis.set(xlabel="epoch", ylabel="RMSE of normalised coordinates", yscale="log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_title(f"{title}\nmean over seeds ({curves['seed'].nunique()}); band: their range", fontsize=12)
    axis.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def paired_seeds(paired: pd.DataFrame) -> Figure:
    """Error from scratch and with a transferred base model, one line a seed, one panel a protocol.

    Args:
        paired: columns `environment, protocol, seed, encoder_scratch, encoder_tl`, errors in metres.
    """
    panels = by_protocol(paired)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 4))
    for axis, ((environment, protocol), panel) in zip(axes, panels, strict=True):
        for row in panel.itertuples():
            axis.plot([0, 1], [row.encoder_scratch, row.encoder_tl], marker="o", label=f"seed {row.seed}")
        axis.set_xticks([0, 1], ["from scratch", "transferred"])
        axis.set(xlim=(-0.4, 1.4), title=f"{ENVIRONMENTS[environment]}\n{protocol}")
    axes[0].set_ylabel("mean distance error on test rows (m)")
    axes[-1].legend(fontsize=9)
    return figure


def gains(rows: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """How much error each kind of start saves against starting from scratch: a dot a seed, the mean and its interval.

    Args:
        rows: columns `environment, protocol, model, seed, gain_percent`.
        labels: model → what its base model starts from, in the order to draw.
    """
    panels = by_protocol(rows)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 + 3 * len(panels), 4), sharey=True, squeeze=False)
    for axis, ((environment, protocol), panel) in zip(axes[0], panels, strict=True):
        for place, model in enumerate(labels):
            values = panel[panel["model"] == model]["gain_percent"].to_numpy(dtype=float)
            axis.scatter(values, np.full(len(values), place), s=14, color="0.5", zorder=2)
            half = confidence_half_width(values)
            axis.errorbar(values.mean(), place, xerr=half, fmt="o", color=COLOURS[environment], capsize=4, zorder=3)
        axis.axvline(0, color="black", linewidth=1)
        axis.set_title(f"{ENVIRONMENTS[environment]}\n{protocol}", fontsize=12)
        axis.set_xlabel("error saved against scratch (%)")
    axes[0, 0].set_yticks(range(len(labels)), labels.values())
    axes[0, 0].invert_yaxis()
    figure.suptitle(f"grey: {rows['seed'].nunique()} seeds; colour: their mean and its 95 % interval", fontsize=11)
    return figure


def error_cdf(
    errors: Mapping[str, np.ndarray],
    xlabel: str,
    title: str,
    xlimit: float | None = None,
    highlighted: Sequence[str] | None = None,
) -> Figure:
    """Cumulative distribution of localization errors (the paper's Fig. 5), one line a model.

    Args:
        errors: model's name → errors in metres.
        xlabel, title, xlimit: of the axis.
        highlighted: the names to tell apart where there are many; the others' lines are grey and unnamed. None: all.
    """
    highlighted = list(errors) if highlighted is None else highlighted
    grey = [label for label in errors if label not in highlighted]
    figure, axis = plt.subplots(figsize=(8, 4.8))
    for label in highlighted:
        values = errors[label]
        axis.ecdf(values, label=f"{label} (mean {np.mean(values):.3g}, median {np.median(values):.3g})", zorder=3)
    for label in grey:
        axis.ecdf(errors[label], color="0.75", linewidth=1, label=f"{len(grey)} others" * (label == grey[0]))
    axis.set(xlabel=xlabel, ylabel="share of test rows with at most this error", ylim=(0, 1), xlim=(0, xlimit))
    axis.set_title(title, fontsize=12)
    axis.legend(loc="lower right", fontsize=10)
    return figure


# === Benchmark ===


def beside(axis: Axes, points: float, y: float, text: str, colour="black") -> None:
    """Text to the right of the axis, at a height of it."""
    style = {"textcoords": "offset points", "va": "center", "fontsize": 10, "color": colour}
    axis.annotate(text, (1, y), (points, 0), xycoords=axis.get_yaxis_transform(), **style)


def measured(mean: float, half: float) -> str:
    """Metres with three or four digits, and the half width of their interval where there is one."""
    digits = 2 if mean < 100 else 0
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def forest(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    families: Mapping[str, str],
    quoted: Mapping[tuple[str, str], Mapping[str, float]],
    reference: str,
) -> Figure:
    """Mean error of every model under every protocol, one line a model, with 95 % intervals and published values.

    A mean of more than twice the median model's is an arrow at the edge of its panel; the figures beside say how much.

    Args:
        rows: tidy results.
        names: model → its name on the axis, in the order of the lines: models of a family together.
        families: model → its family, which gives the colour; six at most.
        quoted: (environment, protocol) → model → published mean error in metres. A model that is not among the names
            was not run, and gets a line by the name it has here.
        reference: the model at whose mean a vertical line is drawn.
    """
    panels = by_protocol(rows)
    run = [model for model in names if model in set(rows["model"])]
    not_run = dict.fromkeys(model for key, _ in panels for model in quoted.get(key, {}) if model not in run)
    family = pd.Series({model: families[model] for model in run} | dict.fromkeys(not_run, "published"))
    height = pd.Series(np.arange(len(family)) + 0.5 * (family != family.shift()).cumsum(), family.index)
    colours = dict(zip(family.unique(), FAMILIES, strict=False)) | {"published": PUBLISHED}
    lines, columns = -(-len(panels) // 2), min(2, len(panels))
    size = (3 + 5.5 * columns, lines * (1.5 + 0.27 * height.max()) + 0.8)
    figure, axes = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
    for axis, (key, panel) in zip(axes.flat, panels, strict=False):
        means = panel.groupby("model")["mean_m"].mean()
        halves = panel.groupby("model")["mean_m"].agg(confidence_half_width)
        edge = 1.1 * max(*means[means <= 2 * means.median()], *quoted.get(key, {}).values())
        for model, mean in means.items():
            style = {"color": colours[family[model]], "solid_capstyle": "butt"}
            if mean > edge:
                axis.plot(edge, height[model], ">", markersize=8, **style)
            else:
                axis.plot(
                    mean + halves[model] * np.array([-1, 1]), [height[model]] * 2, linewidth=5, alpha=0.4, **style
                )
                axis.plot(mean, height[model], "o", markersize=6, **style)
            beside(axis, 8, height[model], measured(mean, halves[model]))
        for model, value in quoted.get(key, {}).items():
            axis.plot(value, height[model], "D", markersize=7, markerfacecolor="none", color=PUBLISHED)
            beside(axis, 95, height[model], f"{value:g}", PUBLISHED)
        beside(axis, 8, -0.4, "mean (m)")
        beside(axis, 95, -0.4, "published", PUBLISHED)
        axis.axvline(means[reference], color="0.4", linewidth=1, linestyle="--", zorder=0)
        axis.set(xlabel="mean distance error (m)", ylim=(height.max() + 0.7, -0.8))
        axis.set_title(f"{ENVIRONMENTS[key[0]]}, {key[1]}\n{panel['release'].iloc[0]}", fontsize=12, loc="left")
        axis.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(height, [names.get(model, f"{model}, not run") for model in height.index])
    keys = [Line2D([], [], color=colours[name], marker="o", label=name) for name in family[run].unique()]
    keys += [
        Line2D(
            [], [], color=PUBLISHED, marker="D", markerfacecolor="none", linestyle="", label="published, on other rows"
        ),
        Line2D([], [], color="0.4", linestyle="--", label=names[reference]),
        Line2D([], [], color="0.4", linewidth=5, alpha=0.4, label="95 % interval over seeds"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncol=4, fontsize=10, frameon=False)
    return figure


def error_by_share(rows: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Mean error against the share of the training rows, one line a model: mean over seeds, band: its 95 % interval.

    Args:
        rows: tidy results with a column `share`.
        names: model → its name in the legend.
    """
    panels = by_protocol(rows)
    lines, columns = -(-len(panels) // 2), min(2, len(panels))
    figure, axes = plt.subplots(lines, columns, figsize=(13, 4.4 * lines), squeeze=False)
    for axis, ((environment, protocol), panel) in zip(axes.flat, panels, strict=False):
        for colour, (model, name) in zip(sns.color_palette("colorblind"), names.items(), strict=False):
            errors = panel[panel["model"] == model].groupby("share")["mean_m"]
            mean, half = errors.mean(), errors.agg(confidence_half_width)
            axis.plot(100 * mean.index, mean, marker="o", color=colour, label=name)
            axis.fill_between(100 * mean.index, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        axis.set(
            xscale="log", xlabel="share of the training rows (%)", ylabel="mean distance error (m)", ylim=(0, None)
        )
        axis.set_xticks(100 * np.unique(panel["share"]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(f"{ENVIRONMENTS[environment]}, {protocol}\n{panel['release'].iloc[0]}", fontsize=12)
    axes[0, 0].legend(fontsize=10, title=f"95 % interval over seeds ({rows['seed'].nunique()})", title_fontsize=10)
    return figure
