"""What figures share: colours and labels of environments, the marks of simulated data, saving, and grids of panels."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.data.protocols import PROTOCOLS
from lib.paths import replacing

sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
matplotlib.rcParams |= {"figure.dpi": 100, "savefig.dpi": 150, "figure.constrained_layout.use": True}

PALETTE = sns.color_palette("colorblind")
WIDTH = 9.0  # inches of a whole figure: pages show it about 800 pixels wide, where smaller text could not be read
ENVIRONMENT_COLOURS = [*PALETTE, *sns.color_palette("dark")]  # there are more environments than PALETTE has colours
# Labels of environments. One that is not listed is plotted with its own name.
ENVIRONMENTS = {"ujiindoorloc": "UJIIndoorLoc, Wi-Fi", "lorawan_antwerp": "Antwerp, LoRaWAN"}
SCANS = {"lorawan_antwerp": "messages"}
TRANSMITTERS = {"ujiindoorloc": "access points", "lorawan_antwerp": "gateways"}


# === Labels ===


def environment_label(environment: str) -> str:
    """An environment as titles and tables name it."""
    return ENVIRONMENTS.get(environment, environment)


def scans_label(environment: str) -> str:
    """What the fingerprints of an environment are."""
    return SCANS.get(environment, "scans")


def transmitters_label(environment: str) -> str:
    """What the transmitters of an environment are."""
    return TRANSMITTERS.get(environment, "transmitters")


def environment_colour(environment: str) -> tuple[float, float, float]:
    """The colour of an environment in all figures: by its place among those that have a protocol, or the next one."""
    environments = []
    for protocol in PROTOCOLS.values():
        if protocol.environment not in environments:
            environments.append(protocol.environment)
    if environment not in environments:
        environments.append(environment)
    number = environments.index(environment)
    return ENVIRONMENT_COLOURS[number % len(ENVIRONMENT_COLOURS)]


def panel_label(panel: tuple[str, str]) -> str:
    """(environment, protocol) as titles and legends name them, once where the two have one name."""
    environment, protocol = panel
    return ", ".join(dict.fromkeys([environment_label(environment), protocol]))


# === Panels ===


def grid_shape(panels: int) -> tuple[int, int]:
    """Lines and columns of a figure with so many panels, two side by side."""
    columns = min(2, panels)
    return -(-panels // columns), columns


def grid(panels: int, size: tuple[float, float], **sharing: bool) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, see `grid_shape`.

    Args:
        panels: how many.
        size: width and height of the figure in inches.
        sharing: `sharex`, `sharey`.
    """
    lines, columns = grid_shape(panels)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, **sharing)
    axes = list(axes.flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def side_by_side(panels: int, size: tuple[float, float], **sharing: bool) -> tuple[Figure, list[Axes]]:
    """The same with all panels in one line."""
    figure, axes = plt.subplots(1, panels, figsize=size, squeeze=False, **sharing)
    return figure, list(axes[0])


def wide_panels(panels: int, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A grid whose panels are half a page wide, and so high."""
    lines, columns = grid_shape(panels)
    figure, axes = grid(panels, (WIDTH / 2 * columns, height * lines))
    figure.get_layout_engine().set(wspace=0.05)
    return figure, axes


def by_protocol(rows: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Rows by (environment, protocol), in the order in which the protocols are defined, and then any others."""
    panels = dict(list(rows.groupby(["environment", "protocol"], sort=False)))
    defined = [(protocol.environment, name) for name, protocol in PROTOCOLS.items()]
    further = [key for key in panels if key not in defined]
    ordered = []
    for key in [*defined, *further]:
        if key in panels:
            ordered.append((key, panels[key]))
    return ordered


def band(axis: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour) -> None:
    """A pale band between two curves."""
    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def beside(axis: Axes, points: float, y: float, text: str, colour="black") -> None:
    """Text to the right of the axis, at a height of it.

    Args:
        axis: the panel.
        points: distance from its right edge.
        y: height in the units of the axis.
        text, colour: what is written.
    """
    axis.annotate(
        text,
        (1, y),
        (points, 0),
        xycoords=axis.get_yaxis_transform(),
        textcoords="offset points",
        va="center",
        fontsize=10,
        color=colour,
    )


# === Saving ===


def marked(figure: Figure, simulated: bool) -> Figure:
    """Mark a figure of simulated data as such, and close it: a notebook still shows it."""
    if simulated:
        figure.text(0.5, 0.5, "SIMULATED", fontsize=48, color="red", alpha=0.18, ha="center", va="center", rotation=25)
    plt.close(figure)
    return figure


def finish(figure: Figure, path: Path, simulated: bool) -> Figure:
    """Mark a figure of simulated data as such, and save it as PNG, whole or not at all."""
    marked(figure, simulated)
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
    return figure
