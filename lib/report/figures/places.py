"""How likely each place is for one scan: by a network, by stored fingerprints, and by both."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lib.report.figures.style import environment_colour, side_by_side

LEAST = 1e-3  # the probability below which a place is not drawn
LARGEST = 400.0  # the area of the dot of a place with all the probability, in points²
MARGIN = 0.15  # of the extent, around what is drawn


def place_probabilities(
    probabilities: Mapping[str, np.ndarray],
    places: np.ndarray,
    floors: np.ndarray,
    true: Sequence[float],
    estimate: Sequence[float],
    radii: Mapping[str, float],
    environment: str,
    title: str,
    *,
    nearest: np.ndarray | None = None,
    plan: np.ndarray | None = None,
    unit: str = "m",
) -> Figure:
    """One panel a distribution: a dot for each place, its area by the probability, and where the scan was taken.

    Args:
        probabilities: what they are by → (c,) probabilities. The last panel also shows estimate and radii.
        places: (c, 2) metres.
        floors: (c,) numbers, -1 where there are none.
        true: (2,) metres, where the scan was taken.
        estimate: (2,) metres, where it was located; NaN if it was not.
        radii: level → metres; those that are not finite are not drawn.
        environment: whose colour the dots have.
        title: of the figure.
        nearest: (k, 2) metres, places of the most similar stored fingerprints, drawn in the last panel but one.
        plan: (m, 2) metres, training positions, drawn in grey.
        unit: of the axes.
    """
    figure, axes = side_by_side(len(probabilities), (4.6 * len(probabilities), 5.0), sharex=True, sharey=True)
    figure.set_layout_engine("compressed")  # with equal axes, their labels would fall off the page
    colour = environment_colour(environment)
    for axis, (name, shares) in zip(axes, probabilities.items(), strict=True):
        if plan is not None:
            axis.scatter(*plan.T, s=4, color="0.85", linewidth=0)
        drawn = shares >= LEAST
        area = LARGEST * shares[drawn] + 4
        axis.scatter(*places[drawn].T, s=area, color=colour, alpha=0.5, linewidth=0, label="probability of a place")
        axis.plot(*true, "x", color="black", markersize=9, markeredgewidth=2, label="true position")
        axis.set(xlabel=f"east ({unit})", aspect="equal")
        axis.set_title(f"{name}{_likeliest_floor(shares, floors)}", fontsize=11)
    if nearest is not None:
        axes[-2].plot(*nearest.T, "+", color="black", label="nearest stored fingerprints")
        axes[-2].legend(fontsize=9)
    _draw_estimate(axes[-1], estimate, radii)
    axes[0].set_ylabel(f"north ({unit})")
    _zoom(axes[0], probabilities.values(), places, [true, estimate])
    figure.suptitle(title, fontsize=13)
    return figure


def _likeliest_floor(shares: np.ndarray, floors: np.ndarray) -> str:
    """In words the floor with most of the probability; nothing where there are no floors."""
    if (floors < 0).all():
        return ""
    of_floors = {floor: shares[floors == floor].sum() for floor in np.unique(floors)}
    floor = max(of_floors, key=of_floors.get)
    return f"\nfloor {floor}: {of_floors[floor]:.0%}"


def _draw_estimate(axis: Axes, estimate: Sequence[float], radii: Mapping[str, float]) -> None:
    """Where a scan was located, and the circles of its radii."""
    axis.plot(*estimate, "o", color="black", markerfacecolor="white", label="located here")
    finite = {level: radius for level, radius in radii.items() if np.isfinite(radius)}
    for number, (level, radius) in enumerate(finite.items()):
        line = ("-", "--", ":")[number % 3]
        axis.add_patch(Circle(estimate, radius, fill=False, color="black", linestyle=line, label=f"{level} radius"))
    axis.legend(fontsize=9)


def _zoom(axis: Axes, distributions, places: np.ndarray, positions: Sequence[Sequence[float]]) -> None:
    """Show what has some probability, and these positions."""
    seen = np.any([shares >= LEAST for shares in distributions], axis=0)
    points = np.concatenate([places[seen], np.asarray(positions, dtype=float)])
    points = points[np.isfinite(points).all(axis=1)]
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    half = (0.5 + MARGIN) * max((high - low).max(), 1.0)
    axis.set_xlim(middle[0] - half, middle[0] + half)
    axis.set_ylim(middle[1] - half, middle[1] + half)
