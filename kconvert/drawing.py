"""The graph of a model as a picture: layers as boxes, tensors as lines with shape and type beside them.

The layout is a layered one, made here, so that no other program is needed: a layer stands one rank below the lowest it
reads, ranks are ordered so that few lines cross, and a line that spans several ranks has a place in each.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from kconvert.errors import InputError, WriteError, did_you_mean
from kconvert.layers import Input, Node, Value, Weighted
from kconvert.packages import import_package
from kconvert.tables import printable

if TYPE_CHECKING:
    from kconvert.model import HLSModel

# All in pixels of the SVG, which is 96 to the inch.
BOX = 42
"""Height of a box."""
GAP = 58
"""Height between two ranks, for the lines and their labels."""
STEM = 22
"""How far a line goes straight down, beside its label."""
SPACE = 18
"""Least width between what two boxes of a rank take."""
MARGIN = 16
FONT = 12
SMALL = 10.5
LETTER, CAPITAL, BROAD = 0.60, 0.68, 0.92
"""Widths of letters by their height, ``BROAD`` that of m, w and their like: upper bounds for most sans-serif fonts."""
BOLD = 1.2
"""How much wider bold letters are."""
LONGEST = 34
"""Letters of a name that are shown; the middle of a longer one is left out."""
SWEEPS = 8

WHEN = ("after", "before")
SUFFIXES = (".svg", ".png")
# fill, line: inputs and outputs, layers with weights, the rest; and the text
COLOURS: Mapping[str, tuple[str, str]] = {
    "input": ("#e8f1ea", "#4f8a5b"),
    "weighted": ("#e6eef8", "#3b6ea8"),
    "other": ("#f4f4f2", "#8a8a84"),
}
INK, FAINT, LINE = "#1d1d1b", "#5b5b57", "#6f6f6a"


@dataclass(eq=False)
class Box:
    """A layer in the picture, or the place where a line passes a rank."""

    node: Node | None
    rank: int
    width: float
    x: float = 0.0
    above: list[Box] = field(default_factory=list)
    below: list[Box] = field(default_factory=list)

    @property
    def y(self) -> float:
        """Upper edge."""
        return MARGIN + self.rank * (BOX + GAP)

    @property
    def right(self) -> float:
        """What it takes to the right of its middle: half of the box, or the label of its tensor."""
        label = 0.0 if self.node is None else _text_width(_tensor(self.node.output), SMALL) + 10
        return max(self.width / 2, label, _text_width("output", SMALL) + 10)


@dataclass(frozen=True)
class Layout:
    """Where everything is; lines run through the middles of their places, from top to bottom."""

    boxes: list[Box]
    lines: list[list[Box]]
    width: float
    height: float
    outputs: frozenset[int]


def plot(hls_model: HLSModel, to_file: str | Path | None = None, when: str = "after") -> str:
    """Draw the graph of a model.

    Args:
        hls_model: The model.
        to_file: Where to write the picture; ``.svg`` or ``.png``, the latter by matplotlib. Nothing is written if left
            out.
        when: ``"after"``: what becomes hardware. ``"before"``: the model as it was read, not optimised.

    Returns:
        The picture as the text of an SVG element.

    Raises:
        InputError: `when` or the ending of the file is unknown.
        WriteError: the file cannot be written.
        MissingPackageError: matplotlib is needed and not installed.
    """
    if when not in WHEN:
        raise InputError(f"unknown when={when!r}; choose from {', '.join(WHEN)}{did_you_mean(when, WHEN)}")
    path = None if to_file is None else Path(to_file)
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot draw into {str(path)!r}: its name must end in {' or '.join(SUFFIXES)}")
    found = layout(hls_model if when == "after" else as_read(hls_model))
    text = svg(found)
    if path is not None:
        try:
            if path.suffix.lower() == ".svg":
                path.write_text(text, encoding="utf-8")
            else:
                _figure(found).savefig(path, dpi=144)
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error.strerror}") from error
    return text


def as_read(hls_model: HLSModel) -> HLSModel:
    """Return the graph of a model before any optimisation."""
    from kconvert.converters import build_model

    return build_model(hls_model.spec)


# ***** the layout *****


def layout(hls_model: HLSModel) -> Layout:
    """Return the place of every layer and line of a graph."""
    boxes: dict[int, Box] = {}
    lines: list[list[Box]] = []
    ranks: list[list[Box]] = []
    for node in hls_model:
        rank = max((boxes[id(v.producer)].rank + 1 for v in node.inputs), default=0)
        box = boxes[id(node)] = Box(node, rank, _box_width(node))
        _place(ranks, box)
        lines += [_line(ranks, boxes[id(value.producer)], box) for value in node.inputs]
    for _ in range(SWEEPS):
        for row in ranks:
            _order(row, [box.above for box in row])
        for row in reversed(ranks):
            _order(row, [box.below for box in row])
    _spread(ranks)
    every = [box for row in ranks for box in row]
    left = min((box.x - box.width / 2 for box in every), default=0.0)
    for box in every:
        box.x += MARGIN - left
    width = max((box.x + box.right for box in every), default=0.0) + MARGIN
    # below the last rank stands what leaves the model
    height = 2 * MARGIN + len(ranks) * (BOX + GAP)
    outputs = frozenset(id(value.producer) for value in hls_model.outputs)
    return Layout(list(boxes.values()), lines, width, height, outputs)


def _place(ranks: list[list[Box]], box: Box) -> None:
    while len(ranks) <= box.rank:
        ranks.append([])
    ranks[box.rank].append(box)


def _line(ranks: list[list[Box]], start: Box, end: Box) -> list[Box]:
    """Return the places a line goes through, having made those between its ends."""
    places = [start]
    for rank in range(start.rank + 1, end.rank):
        places.append(Box(None, rank, 12))
        _place(ranks, places[-1])
    places.append(end)
    for one, other in itertools.pairwise(places):
        one.below.append(other)
        other.above.append(one)
    return places


def _order(rank: list[Box], neighbours: Sequence[Sequence[Box]]) -> None:
    """Sort a rank by the middle of what its boxes are connected to, and give each box a place beside the others."""
    wanted = {
        id(box): statistics.fmean(n.x for n in near) if near else box.x
        for box, near in zip(rank, neighbours, strict=True)
    }
    rank.sort(key=lambda box: wanted[id(box)])
    _separate(rank, [wanted[id(box)] for box in rank])


def _separate(rank: Sequence[Box], wanted: Sequence[float]) -> None:
    """Place boxes side by side, as near to where they are wanted as the others allow."""
    groups: list[tuple[list[float], float]] = []  # offsets from where the group starts, sum of wanted starts
    for index, place in enumerate(wanted):
        offsets, total = [0.0], place
        while groups:
            before, sum_before = groups[-1]
            step = before[-1] + _distance(rank[index - len(offsets)], rank[index - len(offsets) + 1])
            if sum_before / len(before) + step <= total / len(offsets):
                break
            groups.pop()
            total += sum_before - step * len(offsets)
            offsets = [*before, *(step + o for o in offsets)]
        groups.append((offsets, total))
    places = [total / len(offsets) + o for offsets, total in groups for o in offsets]
    for box, place in zip(rank, places, strict=True):
        box.x = place


def _distance(one: Box, other: Box) -> float:
    return one.right + other.width / 2 + SPACE


def _spread(ranks: Sequence[Sequence[Box]]) -> None:
    """Straighten the lines without changing the order."""
    for _ in range(SWEEPS):
        for rank in [*ranks, *reversed(ranks)]:
            near = [[*box.above, *box.below] for box in rank]
            wanted = [statistics.fmean(n.x for n in b) if b else box.x for b, box in zip(near, rank, strict=True)]
            _separate(rank, wanted)


def _text_width(text: str, size: float) -> float:
    return sum(_letter_width(c) for c in text) * size


def _letter_width(letter: str) -> float:
    if ord(letter) >= 0x1100:  # full-width letters of other scripts
        return 1.05
    return BROAD if letter in "mwMW@%\u2026\ufffd" else CAPITAL if letter.isupper() else LETTER


def _box_width(node: Node) -> float:
    texts = [_text_width(_name(node), FONT * BOLD), _text_width(_operation(node), SMALL)]
    return max(texts) + 24


# ***** texts *****


def _shortened(text: str) -> str:
    text = printable(text)
    half = (LONGEST - 1) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}\u2026{text[-half:]}"


def _name(node: Node) -> str:
    return _shortened(node.name)


def _operation(node: Node) -> str:
    """Return what a layer does; with the activation that is still inside of it."""
    words = [type(node).__name__]
    if isinstance(node, Weighted):
        words.append(f"{node.fan_in}\u2192{node.fan_out}")
        if node.activation is not None:
            words.append(f"+ {getattr(node.activation, 'function', type(node.activation).__name__)}")
    extra = [name for name in node.output.names if name != node.name]
    if extra:
        words.append(f"= {_shortened(extra[-1])}")
    return " ".join(words)


def _tensor(value: Value) -> str:
    """Return shape and type of a tensor."""
    shape = "\u00d7".join(map(str, value.shape)) or "scalar"
    kind = str(value.type).replace("ap_", "").replace("AP_", "") if value.type is not None else ""
    return f"{shape}  {kind}".strip()


def _kind(node: Node) -> str:
    return "input" if isinstance(node, Input) else "weighted" if "weight" in node.roles else "other"


# ***** drawing *****


def _path(places: Sequence[Box]) -> list[tuple[float, float]]:
    """Return the corners of a line: straight down past every rank between its ends."""
    corners = [(places[0].x, places[0].y + BOX), (places[0].x, places[0].y + BOX + STEM)]
    for place in places[1:-1]:
        corners += [(place.x, place.y), (place.x, place.y + BOX + STEM)]
    return [*corners, (places[-1].x, places[-1].y)]


def svg(found: Layout) -> str:
    """Return the picture as an SVG element; every name in it is text."""
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {found.width:.0f} {found.height:.0f}",
            "width": f"{found.width:.0f}",
            "height": f"{found.height:.0f}",
            "font-family": "system-ui, 'DejaVu Sans', sans-serif",
            "role": "img",
        },
    )
    ElementTree.SubElement(root, "title").text = "Network"
    ElementTree.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    for places in found.lines:
        _svg_line(root, _path(places))
    for box in found.boxes:
        _svg_box(root, box, id(box.node) in found.outputs)
    return ElementTree.tostring(root, encoding="unicode")


def _svg_line(root: ElementTree.Element, corners: Sequence[tuple[float, float]]) -> None:
    (x, y), *rest = corners
    words = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        bend = f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
        words.append(bend if abs(to_x - x) > 0.5 else f"L{to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    ElementTree.SubElement(root, "path", {"d": " ".join(words), "fill": "none", "stroke": LINE, "stroke-width": "1.2"})
    head = f"M{x - 4:.1f} {y - 7:.1f}L{x:.1f} {y:.1f}L{x + 4:.1f} {y - 7:.1f}z"
    ElementTree.SubElement(root, "path", {"d": head, "fill": LINE})


def _svg_box(root: ElementTree.Element, box: Box, is_output: bool) -> None:
    node = box.node
    if node is None:
        return
    fill, line = COLOURS[_kind(node)]
    group = ElementTree.SubElement(root, "g")
    ElementTree.SubElement(group, "title").text = printable(node.describe())
    shape = {"x": f"{box.x - box.width / 2:.1f}", "y": f"{box.y:.1f}", "width": f"{box.width:.1f}", "height": f"{BOX}"}
    style = {"rx": "6", "fill": fill, "stroke": line, "stroke-width": "1.8" if is_output else "1"}
    ElementTree.SubElement(group, "rect", {**shape, **style})
    for text, y, size, colour, anchor, x in _texts(box, is_output):
        style = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": f"{size:g}", "fill": colour, "text-anchor": anchor}
        if size == FONT:
            style["font-weight"] = "600"
        elif anchor == "start":  # readable where a line passes behind it
            style |= {"stroke": "#ffffff", "stroke-width": "3", "paint-order": "stroke"}
        ElementTree.SubElement(group, "text", style).text = text


def _texts(box: Box, is_output: bool) -> list[tuple[str, float, float, str, str, float]]:
    """Return the texts of a box and its tensor: text, base line, size, colour, anchor, x."""
    node = box.node
    if node is None:
        return []
    texts = [
        (_name(node), box.y + 18, FONT, INK, "middle", box.x),
        (_operation(node), box.y + 33, SMALL, FAINT, "middle", box.x),
        (_tensor(node.output), box.y + BOX + 16, SMALL, FAINT, "start", box.x + 8),
    ]
    if is_output:
        texts.append(("output", box.y + BOX + 31, SMALL, COLOURS["input"][1], "start", box.x + 8))
    return texts


def _figure(found: Layout) -> Any:
    """Return the picture as a matplotlib figure."""
    figures = import_package("matplotlib.figure", "a picture as PNG", "matplotlib")
    patches = import_package("matplotlib.patches", "a picture as PNG", "matplotlib")
    paths = import_package("matplotlib.path", "a picture as PNG", "matplotlib")
    figure = figures.Figure(figsize=(max(found.width, 1) / 96, max(found.height, 1) / 96))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, found.width), ylim=(found.height, 0))
    axes.set_axis_off()
    for places in found.lines:
        corners = _path(places)
        points, codes = [corners[0]], [paths.Path.MOVETO]
        for (x, y), (to_x, to_y) in itertools.pairwise(corners):
            points += [(x, (y + to_y) / 2), (to_x, (y + to_y) / 2), (to_x, to_y)]
            codes += [paths.Path.CURVE4] * 3
        axes.add_patch(patches.PathPatch(paths.Path(points, codes), fill=False, edgecolor=LINE, linewidth=0.9))
        x, y = corners[-1]
        axes.add_patch(patches.Polygon([(x - 4, y - 7), (x, y), (x + 4, y - 7)], color=LINE, linewidth=0))
    for box in found.boxes:
        _figure_box(axes, patches, box, id(box.node) in found.outputs)
    return figure


def _figure_box(axes: Any, patches: Any, box: Box, is_output: bool) -> None:
    if box.node is None:
        return
    fill, line = COLOURS[_kind(box.node)]
    corner, width = (box.x - box.width / 2, box.y), 1.4 if is_output else 0.8
    style = patches.BoxStyle.Round(pad=0, rounding_size=6)
    axes.add_patch(
        patches.FancyBboxPatch(corner, box.width, BOX, boxstyle=style, facecolor=fill, edgecolor=line, linewidth=width)
    )
    for text, y, size, colour, anchor, x in _texts(box, is_output):
        axes.text(
            *(x, y, text),
            fontsize=size * 0.72 * 0.95,  # pixels to points, for a font that runs wider than the SVG's
            color=colour,
            ha={"middle": "center", "start": "left"}[anchor],
            weight="bold" if size == FONT else "normal",
            parse_math=False,
            usetex=False,
        )
