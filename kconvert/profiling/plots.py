"""Figures. They are made without pyplot: nothing is shown, no window opens, no global state is touched.

Show one in a notebook by making it the last value of a cell; save it with ``figure.savefig("name.png")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError, did_you_mean
from kconvert.model import HLSModel
from kconvert.packages import import_package
from kconvert.profiling import numbers
from kconvert.types import FixedType

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kconvert.model import Arrays

Array = npt.NDArray[Any]

# Colours that stay apart for colour-blind readers and in grey (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
SHADE = "#E3EBD8"
# Names come from the model's author: neither mathtext nor TeX may read them.
PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
_NOTE: dict[str, Any] = {"size": "small", "va": "center"}
ROW = 0.42
"""Height of one row in inches."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    figure: Figure = import_package("matplotlib.figure", "a figure").Figure(
        figsize=(width, height), layout="constrained"
    )
    return figure


def _choose(value: str, allowed: Iterable[str], what: str) -> None:
    if value not in allowed:
        raise InputError(f"unknown {what} {value!r}; choose from {', '.join(allowed)}{did_you_mean(value, allowed)}")


def label(name: str, length: int = 36) -> str:
    """Return a name on one line of at most `length` characters, the middle left out."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in name)
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}\u2026{text[-half:]}"


def short(kind: FixedType) -> str:
    """Return a type in the shorter spelling, its modes said also where they are those that C++ leaves out."""
    modes = ",".join(mode.name for mode in (kind.rounding, kind.overflow))
    kept = f",{kind.saturation_bits}" if kind.saturation_bits else ""
    return f"{'' if kind.signed else 'u'}fixed<{kind.width},{kind.integer},{modes}{kept}>"


def _rows(axes: Axes, names: Sequence[str], notes: Sequence[str]) -> None:
    """Give the rows their names on the left and notes on the right; the first row is at the top."""
    count = len(names)
    axes.set_ylim(max(count, 1) - 0.5, -0.5)
    axes.set_yticks(range(count), [label(n) for n in names], **PLAIN)
    axes.tick_params("y", length=0)
    for row, note in enumerate(notes):
        axes.text(1.01, row, note, transform=axes.get_yaxis_transform(), color="#444444", **_NOTE, **PLAIN)
    for row in range(1, count):
        axes.axhline(row - 0.5, color="#DDDDDD", linewidth=0.6, zorder=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _powers_of_two(axes: Axes) -> None:
    """Label an axis that holds log2 of the values."""
    ticker = import_package("matplotlib.ticker", "a figure")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=10, integer=True))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"$2^{{{x:.0f}}}$"))


def _legend_above(axes: Axes, colours: Mapping[str, str]) -> None:
    """Name the colours of the areas."""
    patches = import_package("matplotlib.patches", "a figure")
    handles = [patches.Patch(color=colour, label=label(name)) for name, colour in colours.items()]
    plain_legend(axes, handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def plain_legend(axes: Axes, handles: Sequence[Any], **options: Any) -> Any:
    """Add a legend whose texts are shown as they are."""
    legend = axes.legend(handles=handles, frameon=False, **options)
    for text in [*legend.get_texts(), legend.get_title()]:
        text.set(**PLAIN)
    return legend


def _colours() -> Iterable[str]:
    while True:
        yield from COLOURS


# ***** drawing distributions *****


def _box(axes: Axes, centre: float, height: float, values: Array, colour: str, lowest: float = 0) -> None:
    """Quartiles as a box, the median as a line in it, the quantile `lowest` and the largest value as whiskers."""
    low, first, median, third, high = np.quantile(values, (lowest, 0.25, 0.5, 0.75, 1))
    axes.hlines(centre, low, high, color=colour, linewidth=1)
    axes.vlines([low, high], centre - height / 4, centre + height / 4, color=colour, linewidth=1)
    axes.barh(centre, third - first, height, left=first, color=colour, alpha=0.75, edgecolor=colour)
    line = "white" if third > first else colour  # values of one size are a line, not a box
    axes.vlines(median, centre - height / 2, centre + height / 2, color=line, linewidth=1.5)


def _density(values: Array, smooth: bool) -> tuple[Array, Array]:
    """Return a histogram scaled to a largest value of 1, and the middles of its bins."""
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, bins=40, range=(low - 0.5, high + 0.5))
    heights = counts.astype(float)
    if smooth:
        bell = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
        heights = np.convolve(heights, bell, mode="same")
    return (edges[:-1] + edges[1:]) / 2, heights / heights.max()


def _violin(axes: Axes, centre: float, height: float, values: Array, colour: str) -> None:
    middles, heights = _density(values, smooth=True)
    half = heights * height / 2
    axes.fill_between(middles, centre - half, centre + half, color=colour, alpha=0.75, linewidth=0)


def _histogram(axes: Axes, centre: float, height: float, values: Array, colour: str) -> None:
    middles, heights = _density(values, smooth=False)
    base = centre + height / 2  # rows are counted downwards
    axes.fill_between(middles, base, base - heights * height, step="mid", color=colour, alpha=0.75, linewidth=0)


Draw = Callable[["Axes", float, float, Array, str], None]
_DISTRIBUTIONS: Mapping[str, Draw] = {"boxplot": _box, "violinplot": _violin, "histogram": _histogram}
_MEANING = {"boxplot": "box: quartiles, whiskers: smallest and largest", "violinplot": "density", "histogram": "counts"}


def _slots(row: int, count: int) -> list[tuple[float, float]]:
    """Return (centre, height) for each of `count` series in a row."""
    height = 0.8 / count
    return [(row - 0.4 + height * (i + 0.5), height * 0.85) for i in range(count)]


# ***** Keras against hardware *****


def compare(
    keras_model: Any, hls_model: HLSModel | Mapping[str, HLSModel], X: Arrays, plot_type: str = "dist_diff"
) -> Figure:
    """Draw how far the hardware is from Keras, layer by layer in network order.

    Args:
        keras_model: The live model that was converted.
        hls_model: The conversion of it, compiled here if it was not; or several as a dict by the name to show.
        X: Samples as for :meth:`HLSModel.predict`.
        plot_type: ``"dist_diff"``: distribution of the absolute differences. ``"norm_diff"``: norm of the differences
            over that of Keras' values.

    Returns:
        A figure with one axes; of a single hls model the types stand on the right.

    Raises:
        InputError: `plot_type` is unknown, the models are not the same network, or `X` does not fit.
        MissingPackageError: matplotlib is not installed.
    """
    _choose(plot_type, ("dist_diff", "norm_diff"), "plot_type")
    models = hls_model if isinstance(hls_model, Mapping) else {"hls": hls_model}
    if not models:
        raise InputError("hls_model= is an empty dict; give at least one converted model")
    series = {name: {c.layer: c for c in numbers.comparisons(keras_model, m, X)} for name, m in models.items()}
    first = next(iter(series.values()))
    figure = new_figure(9, 1.3 + ROW * len(first) * max(1, 0.5 * len(models)))
    axes = figure.subplots()
    axes.set_xscale("log")
    draw = _differences if plot_type == "dist_diff" else _norms
    drawn: list[float] = []
    for row, name in enumerate(first):
        pairs = [found.get(name) for found in series.values()]
        for pair, (centre, height), colour in zip(pairs, _slots(row, len(pairs)), _colours(), strict=False):
            if pair is not None:
                drawn += draw(axes, centre, height, pair, colour)
    notes = [short(c.type) for c in first.values()] if len(models) == 1 else []
    _rows(axes, [c.label for c in first.values()], notes)
    if drawn:
        _decades(axes, min(drawn), max(drawn))
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)
    if len(models) > 1:
        _legend_above(axes, dict(zip(models, _colours(), strict=False)))
    return figure


def _differences(axes: Axes, centre: float, height: float, pair: numbers.Comparison, colour: str) -> list[float]:
    """Draw the distribution of the differences; returns the values that should be seen."""
    axes.set_xlabel("|hls \u2212 Keras|   (box: quartiles, whiskers: 1 % and largest, zeros left out)")
    difference = np.abs(pair.difference)
    difference = difference[difference > 0]
    if not difference.size:
        return _equal(axes, centre, colour)
    _box(axes, centre, height, difference, colour, lowest=0.01)
    return [float(q) for q in np.quantile(difference, (0.01, 1))]


def _norms(axes: Axes, centre: float, height: float, pair: numbers.Comparison, colour: str) -> list[float]:
    """Draw the relative norm of the differences; returns the value that should be seen."""
    axes.set_xlabel("\u2016hls \u2212 Keras\u2016 / \u2016Keras\u2016")
    norm = numbers.relative_norm(pair)
    if norm == 0:
        return _equal(axes, centre, colour)
    if not np.isfinite(norm):
        axes.text(0.99, centre, "Keras is 0", transform=axes.get_yaxis_transform(), **_NOTE, ha="right", color=colour)
        return []
    axes.plot(norm, centre, "o", color=colour)
    return [norm]


def _decades(axes: Axes, low: float, high: float) -> None:
    """Show whole powers of ten, and leave out what is too small to matter beside the largest difference."""
    last = np.ceil(np.log10(high))
    first = max(np.floor(np.log10(low)), last - 9)
    axes.set_xlim(10.0 ** min(first, last - 1), 10.0**last)
    axes.xaxis.set_minor_formatter(import_package("matplotlib.ticker", "a figure").NullFormatter())


def _equal(axes: Axes, centre: float, colour: str) -> list[float]:
    axes.text(0.01, centre, "equal", transform=axes.get_yaxis_transform(), **_NOTE, color=colour)
    return []


# ***** ranges of values *****


def numerical(
    model: Any = None, hls_model: HLSModel | None = None, X: Arrays | None = None, plot: str = "boxplot"
) -> Figure:
    """Draw the magnitudes of weights and, with `X`, of layer outputs over what their types can hold.

    Every row is one array; behind it the range of its type is shaded, from the smallest step to the largest value.
    What lies to the left of the shade is rounded to zero, what lies to the right saturates or wraps.

    Args:
        model: The live Keras model, for the float values.
        hls_model: The conversion of it, for types and the values in hardware; compiled if `X` is given.
        X: Samples as for :meth:`HLSModel.predict`.
        plot: ``"boxplot"``, ``"violinplot"`` or ``"histogram"``.

    Returns:
        A figure with one axes for the weights and, with `X`, a second for inputs and layer outputs.

    Raises:
        KConvertError: a model is missing or not ready, `X` does not fit, or `plot` is unknown.
        MissingPackageError: matplotlib is not installed.
    """
    _choose(plot, _DISTRIBUTIONS, "plot")
    numbers.check_given(model, hls_model)
    panels = [("Weights", list(numbers.weight_tensors(model, hls_model)))]
    if X is not None:
        panels.append(("Inputs and outputs of the layers", list(numbers.activation_tensors(model, hls_model, X))))
    rows = max(len(tensors) for _, tensors in panels)
    figure = new_figure(8 * len(panels), 1.5 + 1.2 * ROW * rows)
    for axes, (title, tensors) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_title(title, loc="left", pad=30)
        _ranges(axes, tensors, plot)
    return figure


def _ranges(axes: Axes, tensors: Sequence[numbers.Tensor], plot: str) -> None:
    draw = _DISTRIBUTIONS[plot]
    for row, tensor in enumerate(tensors):
        if tensor.type is not None:
            low, high = np.log2([tensor.type.step, max(tensor.type.max, -tensor.type.min)])
            axes.barh(row, high - low, 0.96, left=low, color=SHADE, zorder=0.4)
        both = ((tensor.exact, COLOURS[0]), (tensor.fixed, COLOURS[1]))
        given = [(values, colour) for values, colour in both if values is not None]
        for (values, colour), (centre, height) in zip(given, _slots(row, len(given)), strict=True):
            logs = numbers.magnitudes(values)
            if logs.size:
                draw(axes, centre, height, logs, colour)
            elif values.size:
                axes.text(0.01, centre, "all 0", transform=axes.get_yaxis_transform(), **_NOTE, color=colour)
    names = [t.label if t.role == "result" else f"{t.label} \u00b7 {t.role}" for t in tensors]
    _rows(axes, names, [short(t.type) if t.type else "" for t in tensors])
    _powers_of_two(axes)
    axes.set_xlabel(f"|value|   ({_MEANING[plot]}; zeros left out)")
    shown = {"float": COLOURS[0]} if any(t.exact is not None for t in tensors) else {}
    if any(t.type for t in tensors):
        shown |= {"fixed point": COLOURS[1], "range of the type": SHADE}
    _legend_above(axes, shown)
