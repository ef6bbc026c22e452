"""Architectures, drawn from built Keras networks: boxes are the network's layers, with the widths that they have.

    encoder(source, target, titles, inputs)   two `paper.localizer`s: the paper's Fig. 1(a)
    umlp(network, inputs)                     a `paper.umlp`: the paper's Fig. 1(b)
    unified(network, environments)            `Unified.network` and `Unified.environments`, after `fit`

`inputs` names the inputs and counts them, for instance `{"access points": 249, "gateways": 72}`. Each returns a Figure
for `finish`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lib import quiet_import
from lib.models import by_environment
from lib.models.layers import Audible, CoordinateDecoder, Ensemble, Fold, Further, Levels
from lib.models.places import Neighbours, PlaceDecoder
from lib.report.figures.style import PALETTE, environment_label, scans_label

with quiet_import():
    import keras

PLAIN = (0.5, 0.5, 0.5)
HIDDEN, TRANSFERRED, HEAD, STORED = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[4]
PALE = 0.75  # how far a box's fill is from the colour of its edge towards white
BOX, GAP, TITLE, ARROW = 0.33, 0.1, 0.33, 0.3  # inches: heights of boxes, of gaps in a frame, of titles, of arrows
MARGIN = 0.12  # inches around the drawing, and between a frame and its boxes
TEXT, SMALL = 12, 10  # font sizes
MOST_MEMBERS = 4  # that are drawn side by side


# === What a network has ===


@dataclass(frozen=True)
class Box:
    """A layer as it is drawn: text, and the colour of its edge."""

    text: str
    colour: tuple[float, float, float]


def dense_boxes(network: keras.Model, colour: tuple[float, float, float] = HIDDEN) -> list[Box]:
    """A box for each dense layer of a network, from input to output; those that are outputs are heads.

    Args:
        network: without networks in it.
        colour: of the layers that are not outputs.
    """
    boxes = []
    of_environments = 0
    for layer in network.layers:
        if not isinstance(layer, keras.layers.Dense):
            continue
        if layer.name in network.output_names:
            boxes.append(Box(f"dense {layer.units:,}, {layer.activation.__name__}", HEAD))
        elif layer.name == by_environment.ENVIRONMENT:
            of_environments = layer.units  # side by side with the places, which come next
        elif of_environments:
            boxes.append(Box(f"dense {of_environments:,}+{layer.units:,}, {layer.activation.__name__}", HEAD))
        else:
            boxes.append(Box(f"dense {layer.units:,}", colour))
    return boxes


def after_each(network: keras.Model) -> str:
    """What follows the hidden dense layers of a network, in words: normalisation, ReLU, dropout with its rate."""
    names = []
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            names.append("batch normalisation")
        elif isinstance(layer, keras.layers.ReLU):
            names.append("ReLU")
        elif isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            names.append(f"dropout {layer.rate:g}")
    return ", ".join(dict.fromkeys(names))


def have_same_weights(first: keras.Model, second: keras.Model) -> bool:
    """Whether two networks have the same weights, as after a transfer."""
    own_weights, other_weights = first.get_weights(), second.get_weights()
    if len(own_weights) != len(other_weights):
        return False
    return all(map(np.array_equal, own_weights, other_weights))


def _input_box(inputs: Mapping[str, int]) -> list[Box]:
    return [Box(f"{count:,} {name}", PLAIN) for name, count in inputs.items()]


def _check_inputs(network: keras.Model, inputs: Mapping[str, int]) -> None:
    """Raise ValueError if a network has another number of inputs."""
    total = sum(inputs.values())
    expected = network.input_shape[1]
    if total != expected:
        raise ValueError(f"`inputs` must add up to the network's {expected} inputs. Received: {total}")


# === Drawing, in inches ===


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure whose axis counts inches from the lower left corner."""
    figure = plt.figure(figsize=(width, height), layout="none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return figure, axis


def _rectangle(axis: Axes, x: float, top: float, size: tuple[float, float], colour, fill) -> None:
    """A rectangle with round corners, its upper edge centred at (x, top)."""
    width, height = size
    corner = (x - width / 2, top - height)
    style = "round,pad=0,rounding_size=0.07"
    axis.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=fill, edgecolor=colour, lw=1.5))


def _draw_box(axis: Axes, x: float, top: float, width: float, box: Box) -> float:
    """A box with its text. Returns the height of its lower edge."""
    fill = [PALE + (1 - PALE) * part for part in box.colour]
    _rectangle(axis, x, top, (width, BOX), box.colour, fill)
    axis.text(x, top - BOX / 2, box.text, ha="center", va="center", fontsize=TEXT)
    return top - BOX


def _draw_frame(axis: Axes, x: float, top: float, width: float, title: str, boxes: Sequence[Box]) -> float:
    """Boxes below one another in a frame with a title. Returns the height of its lower edge."""
    height = _frame_height(boxes)
    _rectangle(axis, x, top, (width, height), boxes[0].colour, "white")
    axis.text(x, top - TITLE / 2, title, ha="center", va="center", fontsize=TEXT, fontweight="bold")
    lower = top - TITLE
    for box in boxes:
        lower = _draw_box(axis, x, lower, width - 2 * MARGIN, box) - GAP
    return top - height


def _frame_height(boxes: Sequence[Box]) -> float:
    return TITLE + len(boxes) * (BOX + GAP)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour="black", weight=1.3) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": weight, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=style)


def _below(axis: Axes, x: float, top: float) -> float:
    """An arrow downwards. Returns the height of its tip."""
    _arrow(axis, (x, top), (x, top - ARROW))
    return top - ARROW


def _note(axis: Axes, x: float, text: str) -> None:
    """A line at the bottom of the drawing."""
    axis.text(x, MARGIN, text, ha="center", va="bottom", fontsize=SMALL)


# === The paper's networks ===


def encoder(
    source: keras.Model,
    target: keras.Model,
    titles: tuple[str, str],
    inputs: tuple[Mapping[str, int], Mapping[str, int]],
) -> Figure:
    """Two localizers side by side, and the part that was transferred (the paper's Fig. 1(a)).

    Args:
        source, target: made by `paper.localizer`. What has the same weights in both is drawn as transferred.
        titles: of the two columns, for instance `("source: outdoors", "target: indoors")`.
        inputs: of each, the name of its inputs and how many there are.

    Raises:
        ValueError: if a network has another number of inputs.
    """
    networks = (source, target)
    for network, own in zip(networks, inputs, strict=True):
        _check_inputs(network, own)
    parts = [layer.name for layer in target.layers if isinstance(layer, keras.Model)]
    frames = sum(ARROW + _frame_height(dense_boxes(target.get_layer(name))) for name in parts)
    notes = _after_each_part([target.get_layer(name) for name in parts])
    height = TITLE + BOX + frames + ARROW + BOX + len(notes) * TITLE + 3 * MARGIN
    figure, axis = _sheet(6.4, height)
    columns, width = (1.5, 4.9), 2.3
    tops = []
    for x, name, own in zip(columns, titles, inputs, strict=True):
        axis.text(x, height - MARGIN, name, ha="center", va="top", fontsize=TEXT, fontweight="bold")
        (box,) = _input_box(own)
        tops.append(_draw_box(axis, x, height - MARGIN - TITLE, width, box))
    for name in parts:
        pair = [network.get_layer(name) for network in networks]
        tops = _draw_parts(axis, columns, tops, width, pair)
    for x, top in zip(columns, tops, strict=True):
        _draw_box(axis, x, _below(axis, x, top), width, Box("position x, y", PLAIN))
    _note(axis, 3.2, "\n".join(notes))
    return figure


def _after_each_part(parts: Sequence[keras.Model]) -> list[str]:
    """What follows the hidden layers, one line for parts that have the same."""
    names = {}
    for part in parts:
        names.setdefault(after_each(part), []).append(part.name.replace("_", " "))
    return [f"after each layer, {' and '.join(same)}: {what}" for what, same in names.items()]


def _draw_parts(
    axis: Axes, columns: Sequence[float], tops: Sequence[float], width: float, pair: Sequence[keras.Model]
) -> list[float]:
    """The same part of source and target. Returns the heights of the lower edges."""
    is_transferred = have_same_weights(*pair)
    has_output = any(box.colour == HEAD for box in dense_boxes(pair[0]))
    colour = TRANSFERRED if is_transferred else HEAD if has_output else HIDDEN
    lower = []
    for x, top, part in zip(columns, tops, pair, strict=True):
        title = part.name.replace("_", " ")
        lower.append(_draw_frame(axis, x, _below(axis, x, top), width, title, dense_boxes(part, colour)))
    if is_transferred:
        middle = (tops[0] - ARROW + lower[0]) / 2
        start, end = columns[0] + width / 2, columns[1] - width / 2
        _arrow(axis, (start, middle), (end, middle), colour, 4)
        axis.text((start + end) / 2, middle + MARGIN, "transferred", ha="center", va="bottom", fontsize=TEXT)
    return lower


def umlp(network: keras.Model, inputs: Mapping[str, int]) -> Figure:
    """One trunk for all inputs, and its outputs (the paper's Fig. 1(b)).

    Args:
        network: a `paper.umlp`.
        inputs: names of the groups of inputs, and how many each has.

    Raises:
        ValueError: if the network has another number of inputs.
    """
    _check_inputs(network, inputs)
    boxes = dense_boxes(network)
    trunk = [box for box in boxes if box.colour != HEAD]
    heads = [box for box in boxes if box.colour == HEAD]
    names = [layer.name for layer in network.layers if layer.name in network.output_names]
    height = BOX + ARROW + _frame_height(trunk) + ARROW + _frame_height(heads[:1]) + TITLE + 3 * MARGIN
    figure, axis = _sheet(5.4, height)
    middle, width = 2.7, 2.3
    top = height - MARGIN
    trunk_top = top - BOX - ARROW
    for x, box in zip(_spread(middle, len(inputs), width + 0.3), _input_box(inputs), strict=True):
        _arrow(axis, (x, _draw_box(axis, x, top, width, box)), (middle + (x - middle) / 3, trunk_top))
    lower = _draw_frame(axis, middle, trunk_top, width, "trunk", trunk)
    for x, name, box in zip(_spread(middle, len(heads), width + 0.3), names, heads, strict=True):
        _arrow(axis, (middle + (x - middle) / 3, lower), (x, lower - ARROW))
        _draw_frame(axis, x, lower - ARROW, width, name, [box])
    _note(axis, middle, f"after each blue layer: {after_each(network)}")
    return figure


def _spread(middle: float, count: int, distance: float) -> list[float]:
    """Places for so many columns around a middle."""
    return [middle + (number - (count - 1) / 2) * distance for number in range(count)]


# === The unified network ===


def unified(network: keras.Model, environments: Sequence[str]) -> Figure:
    """The unified network: its members, and what comes before and after them.

    Args:
        network: `Unified.network` after `fit`.
        environments: names, in the order in which they were fitted.
    """
    members = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    before, after = _before_and_after(network, environments)
    frame = dense_boxes(members[0])
    height = (len(before) + len(after) + 2) * (BOX + ARROW) + _frame_height(frame) + TITLE + 3 * MARGIN
    figure, axis = _sheet(6.8, height)
    middle, width = 3.4, 4.9
    top = height - MARGIN
    for box in [Box(f"RSSI of {network.input_shape[1]:,} transmitters (dBm)", PLAIN), *before]:
        lower = _draw_box(axis, middle, top, width, box)
        top = lower - ARROW
        if box is not before[-1]:
            _arrow(axis, (middle, lower), (middle, top))
    top = _draw_members(axis, middle, lower, members)
    for box in after:
        lower = _draw_box(axis, middle, top, width, box)
        top = _below(axis, middle, lower)
    _draw_box(axis, middle, top, width, Box(", ".join(network.output), PLAIN))
    _note(axis, middle, f"after each blue layer: {after_each(members[0])}")
    return figure


def _before_and_after(network: keras.Model, environments: Sequence[str]) -> tuple[list[Box], list[Box]]:
    """Boxes of the layers before the members, and of those after them."""
    before, after = [], []
    boxes = before
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            boxes = after
        elif not isinstance(layer, keras.layers.InputLayer):
            boxes.append(_layer_box(layer, environments))
    return before, after


def _layer_box(layer: keras.layers.Layer, environments: Sequence[str]) -> Box:
    """What a layer before or after the members does, in a few words."""
    if isinstance(layer, Fold):
        return Box(f"{max(layer.widths):,} columns that all environments share", PLAIN)
    if isinstance(layer, Levels):
        return Box(f"powed RSSI of the {len(layer.columns):,} heard in training", PLAIN)
    if isinstance(layer, Ensemble):
        return Box(f"mean probability of {len(layer.input)} members", PLAIN)
    if isinstance(layer, Further):
        return Box(f"{layer.count:,} further places", PLAIN)
    if isinstance(layer, Audible):
        return Box("only environments that the scan hears", PLAIN)
    if isinstance(layer, Neighbours):
        name = environments[int(layer.name.removeprefix("neighbours_"))]
        stored = f"{len(layer.of_place):,} stored {scans_label(name)}"
        return Box(f"{stored} vote ({layer.share:.0%}): {environment_label(name)}", STORED)
    if isinstance(layer, PlaceDecoder):
        return Box(f"geometric median of {len(layer.places):,} places", HEAD)
    if isinstance(layer, CoordinateDecoder):
        return Box("coordinates in metres", HEAD)
    return Box(layer.name, PLAIN)


def _draw_members(axis: Axes, middle: float, top: float, members: Sequence[keras.Model]) -> float:
    """Members side by side, with arrows to and from each. Returns the height below them."""
    shown = members[:MOST_MEMBERS]
    columns = _spread(middle, len(shown), 1.66)
    frames_top = top - ARROW
    for number, (x, member) in enumerate(zip(columns, shown, strict=True), start=1):
        near = middle + (x - middle) / 2
        _arrow(axis, (near, top), (x, frames_top))
        boxes = [Box(box.text.split(", ")[0], box.colour) for box in dense_boxes(member)]
        lower = _draw_frame(axis, x, frames_top, 1.56, f"member {number}", boxes)
        _arrow(axis, (x, lower), (near, lower - ARROW))
    return lower - ARROW
