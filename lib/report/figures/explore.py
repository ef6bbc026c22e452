"""What is in the data: RSSI, transmitters and places, before and after preprocessing."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.data.fingerprints import FingerprintSet
from lib.report.figures.style import (
    PALETTE,
    WIDTH,
    environment_colour,
    environment_label,
    scans_label,
    side_by_side,
    transmitters_label,
    wide_panels,
)

PART_COLOURS = [PALETTE[2], PALETTE[4], PALETTE[5], PALETTE[9]]  # of campaigns and publishers' parts
THRESHOLD = {"color": "black", "linestyle": "--", "linewidth": 1}


def _histogram(axis: Axes, values: np.ndarray, **style) -> None:
    """Bars one unit wide, centred on whole numbers."""
    lowest = np.floor(values.min()) - 0.5
    highest = np.ceil(values.max()) + 1
    axis.hist(values, bins=np.arange(lowest, highest), **style)


def rssi_histogram(fingerprints: FingerprintSet, transmitter: str | None = None) -> Figure:
    """How often each RSSI value was heard (the paper's Fig. 2), by all transmitters or by one."""
    if transmitter is None:
        values = fingerprints.heard_values
        transmitters = f"all {transmitters_label(fingerprints.name)}"
    else:
        column = fingerprints.transmitters.index(transmitter)
        values = fingerprints.rssi[:, column]
        values = values[~np.isnan(values)]
        transmitters = transmitter
    colour = environment_colour(fingerprints.name)
    figure, axis = plt.subplots(figsize=(8, 4.5))
    summary = "never heard"
    if len(values):
        _histogram(axis, values, color=colour, linewidth=0.3)
        axis.yaxis.set_major_formatter("{x:,.0f}")
        levels = f"{values.min():.0f} to {values.max():.0f} dBm"
        summary = f"{fingerprints.release.file}: {len(values):,} heard values, {levels}"
    axis.set(xlabel="RSSI (dBm)", ylabel="heard values per dB")
    axis.set_title(f"{environment_label(fingerprints.name)}: {transmitters}\n{summary}")
    return figure


def missing_rates(environments: Iterable[FingerprintSet], threshold: float) -> Figure:
    """Share of fingerprints that miss each transmitter, in ascending order, with the threshold of the selection."""
    environments = list(environments)
    figure, axes = wide_panels(len(environments))
    for axis, fingerprints in zip(axes, environments, strict=True):
        name = fingerprints.name
        heard = fingerprints.heard.mean(axis=0)
        missing = np.sort(1 - heard)
        kept = np.count_nonzero(missing <= threshold)
        ranks = np.arange(1, len(missing) + 1)
        axis.plot(ranks, missing * 100, ".", markersize=5, color=environment_colour(name))
        axis.axhline(threshold * 100, label=f"{threshold:.0%} threshold", **THRESHOLD)
        axis.set_xlabel(f"{transmitters_label(name)}, best heard first")
        axis.set_ylabel(f"{scans_label(name)} that miss it (%)")
        axis.set_title(f"{environment_label(name)}: {kept} of {len(missing)} at or under")
        axis.legend(loc="lower right")
    return figure


def heard_per_row(environments: Iterable[FingerprintSet]) -> Figure:
    """How many transmitters a fingerprint hears."""
    environments = list(environments)
    figure, axes = wide_panels(len(environments))
    for axis, fingerprints in zip(axes, environments, strict=True):
        name = fingerprints.name
        counts = fingerprints.heard.sum(axis=1)
        median = np.median(counts)
        silent = (counts == 0).sum()
        _histogram(axis, counts, color=environment_colour(name))
        axis.axvline(median, label=f"median {median:.0f}", **THRESHOLD)
        axis.set(xlabel=f"{transmitters_label(name)} heard", ylabel=f"number of {scans_label(name)}")
        axis.set_title(f"{environment_label(name)}: {silent} hear nothing")
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.legend()
    return figure


def positions(environments: Iterable[FingerprintSet]) -> Figure:
    """Where fingerprints were taken: one line an environment, one panel a publisher's part, so that none hides another.

    The other parts are grey.
    """
    environments = list(environments)
    parts = []
    for fingerprints in environments:
        part = fingerprints.part
        parts.append(np.full(len(fingerprints), "all") if part is None else part)
    columns = max(len(pd.unique(part)) for part in parts)
    size = (WIDTH / 2 * max(columns, 2), 3.2 * len(environments))
    figure, axes = plt.subplots(len(environments), columns, figsize=size, squeeze=False)
    for line, fingerprints, part in zip(axes, environments, parts, strict=True):
        names = pd.unique(part)
        for axis, name in zip(line, names, strict=False):
            _positions_of_part(axis, fingerprints, part == name, name)
        line[0].set_ylabel("north (m)")
        for unused in line[len(names) :]:
            unused.remove()
    return figure


def _positions_of_part(axis: Axes, fingerprints: FingerprintSet, of_part: np.ndarray, name: str) -> None:
    """One part in the colour of its environment, the others in grey."""
    position = fingerprints.position * fingerprints.frame.ground_scale
    axis.scatter(*position[~of_part].T, s=3, color="0.85", linewidth=0)
    axis.scatter(*position[of_part].T, s=5, color=environment_colour(fingerprints.name), linewidth=0)
    places = len(np.unique(fingerprints.place_id[of_part]))
    label = environment_label(fingerprints.name)
    scans = scans_label(fingerprints.name)
    axis.set(xlabel="east (m)", aspect="equal")
    axis.set_title(f"{label}: {name}\n{of_part.sum():,} {scans} at {places:,} positions", fontsize=11)


def coverage_maps(fingerprints: FingerprintSet, transmitters: Sequence[str]) -> Figure:
    """Where each of some transmitters is heard, and how strongly: its radio map."""
    east, north = np.ptp(fingerprints.position, axis=0)
    panel_width = WIDTH / len(transmitters)
    size = (WIDTH, 1.4 + panel_width * north / east)
    figure, axes = side_by_side(len(transmitters), size, sharex=True, sharey=True)
    figure.set_layout_engine("compressed")
    weakest, strongest = np.percentile(fingerprints.heard_values, [1, 99])
    for axis, transmitter in zip(axes, transmitters, strict=True):
        column = fingerprints.transmitters.index(transmitter)
        values = fingerprints.rssi[:, column]
        heard = np.count_nonzero(~np.isnan(values))
        weakest_first = np.argsort(values)[:heard]  # NaN come last; the strongest are drawn on top
        axis.scatter(*fingerprints.position.T, s=3, color="0.85", linewidth=0)
        dots = axis.scatter(
            *fingerprints.position[weakest_first].T,
            s=8,
            linewidth=0,
            c=values[weakest_first],
            vmin=weakest,
            vmax=strongest,
            cmap="viridis",
        )
        axis.set(xlabel="east (m)", aspect="equal")
        axis.set_title(f"{transmitter}\nheard by {heard / len(fingerprints):.1%}", fontsize=10)
    axes[0].set_ylabel("north (m)")
    figure.colorbar(dots, ax=axes, label="RSSI (dBm)", extend="both")
    scans = scans_label(fingerprints.name)
    figure.suptitle(f"{environment_label(fingerprints.name)} (grey: {scans} that do not hear it)", fontsize=13)
    return figure


def drift(campaigns: Mapping[str, FingerprintSet]) -> Figure:
    """How two campaigns of one environment differ: how strongly they hear, and which transmitters.

    Args:
        campaigns: label → fingerprints.

    Raises:
        ValueError: if there are not two campaigns.
    """
    if len(campaigns) != 2:
        raise ValueError(f"`campaigns` must be two. Received: {', '.join(campaigns) or 'none'}")
    figure, (levels, transmitters) = wide_panels(2)
    lowest = min(fingerprints.not_heard_dbm for fingerprints in campaigns.values())
    bins = np.arange(lowest - 0.5, 1, 3)
    rates = []
    labels = []
    for colour, (label, fingerprints) in zip(PART_COLOURS[:2], campaigns.items(), strict=True):
        style = {"density": True, "histtype": "stepfilled", "alpha": 0.5, "color": colour}
        levels.hist(fingerprints.heard_values, bins=bins, label=label, **style)
        rates.append(fingerprints.heard.mean(axis=0) * 100)
        labels.append(f"{label}: heard by (% of {scans_label(fingerprints.name)})")
    levels.set(xlabel="RSSI (dBm)", ylabel="share of heard values (per dB)", title="How strongly")
    levels.legend()
    transmitters.scatter(*rates, s=14, alpha=0.6, color="0.3", linewidth=0)
    top = np.max(rates)
    transmitters.plot([0, top], [0, top], label="no change", **THRESHOLD)
    transmitters.set(xlabel=labels[0], ylabel=labels[1])
    transmitters.set_title(f"Each of the {len(rates[0])} {transmitters_label(fingerprints.name)}")
    transmitters.legend()
    return figure


def before_after(raw: FingerprintSet, kept: np.ndarray, scaled: np.ndarray) -> Figure:
    """RSSI as published and as the network sees it.

    Args:
        raw: fingerprints with all transmitters.
        kept: (t,) bool, the transmitters that the network takes.
        scaled: (n, kept) RSSI after Eq. 5.
    """
    colour = environment_colour(raw.name)
    transmitters = transmitters_label(raw.name)
    figure, (before, after) = wide_panels(2)
    _histogram(before, raw.heard_values, color=colour, linewidth=0.3)
    not_heard = 1 - raw.heard.mean()
    before.set(xlabel="RSSI (dBm), heard values only", ylabel="number of values")
    before.yaxis.set_major_formatter("{x:,.0f}")
    before.set_title(f"before: {len(raw.transmitters)} {transmitters}, {not_heard:.1%} not heard", fontsize=11)
    after.hist(scaled.ravel(), bins=len(np.unique(scaled)), color=colour, linewidth=0.3)
    after.set(xlabel="RSSI scaled by Eq. 5 (no unit)", ylabel="number of values", yscale="log")
    after.set_title(f"after: {kept.sum()} {transmitters}; left bar: not heard", fontsize=11)
    figure.suptitle(environment_label(raw.name))
    return figure
