"""Classifiers by their ROC curves: signal efficiency (true positives) against background efficiency (false positives).

scikit-learn finds the curves; what is read from them is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import InputError
from kconvert.packages import import_package
from kconvert.profiling.plots import DASHES, PLAIN, label, new_figure, plain_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Row = dict[str, Any]

EFFICIENCIES = (0.5, 0.8)
"""Signal efficiencies at which the background rejection is read."""
MOST_LISTED = 8
"""Classes whose rejections are written beside the figure; :func:`roc_table` has those of any number."""


LINE = 0.185
"""Height of a line of a legend in inches."""
BETWEEN = 1.9
"""Lines that a legend takes beside its entries: its title, and the distance to the next."""


@dataclass(frozen=True)
class Curve:
    """The curve of one class against the rest.

    Attributes:
        signal: Signal efficiency, ascending.
        background: Background efficiency there.
        area: Area under the curve, AUC.
        floor: Background efficiency of one sample: less cannot be seen.
    """

    signal: Array
    background: Array
    area: float
    floor: float

    def background_at(self, signal: float | Array) -> Array:
        """Return the background efficiency at signal efficiencies, between the points of the curve by straight lines.

        Where the curve rises straight up, it is the lower end: that much background is enough for that much signal.
        """
        between = np.interp(signal, self.signal, self.background)
        first = np.minimum(np.searchsorted(self.signal, signal), len(self.signal) - 1)
        return np.where(self.signal[first] == signal, self.background[first], between)

    def rejection(self, signal: float) -> float:
        """Return one over the background efficiency; infinite where no background is left."""
        background = float(self.background_at(signal))
        return 1 / background if background else float("inf")


def roc_table(
    y_true: npt.ArrayLike,
    predictions: Mapping[str, npt.ArrayLike],
    labels: Sequence[str] | None = None,
    efficiencies: Sequence[float] = EFFICIENCIES,
) -> list[Row]:
    """Return the numbers of :func:`roc`, one row for each model and class.

    Returns:
        Rows with ``model``, ``class``, ``auc`` (None where the class, or all else, has no samples) and, for each of
        `efficiencies`, ``rejection@0.5``, ...: one over the background efficiency at that signal efficiency.

    Raises:
        InputError: shapes do not fit, a score is NaN or infinite, or an efficiency is not between 0 and 1.
        MissingPackageError: scikit-learn is not installed.
    """
    names, curves = _curves(y_true, predictions, labels, efficiencies)
    return [
        {
            "model": model,
            "class": name,
            "auc": curve.area if curve else None,
            **{f"rejection@{e:g}": curve.rejection(e) if curve else None for e in efficiencies},
        }
        for model, found in curves.items()
        for name, curve in zip(names, found, strict=True)
    ]


def roc(
    y_true: npt.ArrayLike,
    predictions: Mapping[str, npt.ArrayLike],
    labels: Sequence[str] | None = None,
    log: bool = True,
    efficiencies: Sequence[float] = EFFICIENCIES,
) -> Figure:
    """Draw background against signal efficiency, each class against the rest, for several models.

    Args:
        y_true: Class numbers [n], or one-hot [n, classes].
        predictions: Scores [n, classes] by model name ([n] or [n, 1] of a binary classifier: the score of class 1).
            The first is the reference, drawn solid.
        labels: Names of the classes.
        log: Logarithmic background efficiency, with the background rejection at `efficiencies`.
        efficiencies: Signal efficiencies, between 0 and 1.

    Returns:
        A figure. Its first axes has the curves: x is the signal efficiency (true positives), y the background
        efficiency (false positives); the lower the curve, the better. With several models a second axes below has the
        residuals, every model against the reference at the same signal efficiency: the ratio of background efficiencies
        if `log`, else their difference. The legends give the area under the curve of every class and model in percent,
        and the mean over the classes.

    Raises:
        InputError: shapes do not fit, a score is NaN or infinite, or an efficiency is not between 0 and 1.
        MissingPackageError: matplotlib or scikit-learn is not installed.
    """
    names, curves = _curves(y_true, predictions, labels, efficiencies)
    several = len(curves) > 1
    share = 0.62 if several else 0.88  # of the figure's height that the upper axes gets
    blocks = (len(efficiencies) if log and len(names) <= MOST_LISTED else 0) + 1
    lines = len(curves) + blocks * min(len(names), 18) + BETWEEN * (blocks + 1)
    height = max(7.4 if several else 6.0, lines * LINE / share)
    figure = new_figure(9.5, height)
    ratios = {"height_ratios": [3, 1], "hspace": 0.05} if several else {}
    axes, *below = figure.subplots(1 + several, 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    colours = _class_colours(len(names))
    for (_, found), dash in zip(curves.items(), _dashes(), strict=False):
        for curve, colour in zip(found, colours, strict=True):
            if curve is not None:
                axes.plot(curve.signal, curve.background, color=colour, linestyle=dash, linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="background efficiency")
    if log:
        floor = min((c.floor for found in curves.values() for c in found if c), default=1.0)
        axes.set(yscale="log", ylim=(0.5 * floor, 1))  # below one wrong sample there is nothing to see
    for lower in below:
        _residuals(lower, curves, colours, log)
    for part in (axes, *below):
        part.grid(color="#E5E5E5", linewidth=0.6)
        part.set_axisbelow(True)
        for efficiency in efficiencies if log else ():
            part.vlines(efficiency, 0, 1, transform=part.get_xaxis_transform(), color="#888888", linewidth=0.8, ls=":")
    (below or [axes])[-1].set_xlabel("signal efficiency")
    _legends(axes, names, colours, curves, efficiencies if log else (), LINE / (share * height))
    return figure


def _curves(
    y_true: npt.ArrayLike,
    predictions: Mapping[str, npt.ArrayLike],
    labels: Sequence[str] | None,
    efficiencies: Sequence[float],
) -> tuple[list[str], dict[str, list[Curve | None]]]:
    """Return the names of the classes, and for every model their curves."""
    if not isinstance(predictions, Mapping):
        raise InputError(f"predictions= is a {type(predictions).__name__}; give a dict from model name to scores")
    for efficiency in efficiencies:
        if not 0 < efficiency < 1:
            raise InputError(f"efficiencies= holds {efficiency!r}; a signal efficiency lies between 0 and 1")
    scores = {name: _scores(name, given) for name, given in predictions.items()}
    if not scores:
        raise InputError("predictions= is empty; give at least one array of scores")
    truth = _one_hot(y_true, scores)
    names = _class_names(labels, truth.shape[1])
    return names, {
        model: [_curve(truth[:, k], array[:, k]) for k in range(len(names))] for model, array in scores.items()
    }


def _curve(truth: Array, score: Array) -> Curve | None:
    """Return the curve, or None where one of the two has no samples."""
    if truth.all() or not truth.any():
        return None
    metrics = import_package("sklearn.metrics", "an ROC curve", "scikit-learn")
    background, signal, _ = metrics.roc_curve(truth, score)
    return Curve(signal, background, float(metrics.auc(background, signal)), 1 / np.count_nonzero(~truth))


def _residuals(axes: Axes, curves: Mapping[str, Sequence[Curve | None]], colours: Sequence[Any], log: bool) -> None:
    """Draw every model against the first."""
    (_, reference), *others = curves.items()
    shown: list[Array] = []
    for (_, found), dash in zip(others, DASHES[1:] * len(others), strict=False):
        for curve, first, colour in zip(found, reference, colours, strict=True):
            if curve is None or first is None:
                continue
            x = np.unique(np.concatenate([curve.signal, first.signal]))
            ours, theirs = curve.background_at(x), first.background_at(x)
            seen = (ours > 0) & (theirs > 0) if log else np.ones(len(x), dtype=bool)
            residual = ours[seen] / theirs[seen] if log else ours - theirs
            axes.plot(x[seen], residual, color=colour, linestyle=dash, linewidth=1.1)
            shown.append(residual[x[seen] > 0.2])  # further down a curve is a few samples
    values = np.concatenate(shown) if shown else np.empty(0)
    middle = 1.0 if log else 0.0
    axes.axhline(middle, color="black", linewidth=0.8, zorder=1.5)
    reach = 1.15 * float(np.abs(values - middle).max(initial=0)) or 0.01
    axes.set_ylim(max(middle - reach, 0) if log else -reach, middle + reach)
    name = label(next(iter(curves)), 16)
    axes.set_ylabel(f"background\n{'/' if log else chr(0x2212)} {name}", **PLAIN)


def _scores(name: str, given: npt.ArrayLike) -> Array:
    scores = np.asarray(given)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or scores.dtype.kind not in "fiub":
        raise InputError(f"predictions[{name!r}]: expected scores [n, classes], got {scores.dtype} {scores.shape}")
    bad = int(scores.size - np.isfinite(scores).sum())
    if bad:
        raise InputError(f"predictions[{name!r}]: {bad} of {scores.size} scores are NaN or infinite")
    return scores


def _one_hot(y_true: npt.ArrayLike, scores: Mapping[str, Array]) -> Array:
    """Return the truth as bool [n, classes], checked against the shapes of the scores."""
    truth = np.asarray(y_true)
    reference = next(iter(scores))
    samples, classes = scores[reference].shape
    for name, array in scores.items():
        if array.shape != (samples, classes):
            raise InputError(
                f"predictions[{name!r}] has shape {array.shape}, predictions[{reference!r}] {(samples, classes)}"
            )
    flat = truth.ndim == 1 or truth.shape[1:] == (1,)
    if truth.shape[:1] != (samples,) or (not flat and truth.shape != (samples, classes)):
        raise InputError(f"y_true has shape {truth.shape}, expected ({samples},) or {(samples, classes)}")
    if not flat:
        return np.asarray(truth > 0.5)
    truth = truth.reshape(-1)
    if classes == 1:
        return np.asarray(truth > 0.5)[:, None]
    if not np.isin(truth, np.arange(classes)).all():
        raise InputError(f"y_true holds classes other than 0 to {classes - 1}, which the predictions have")
    return np.asarray(truth[:, None] == np.arange(classes))


def _class_names(labels: Sequence[str] | None, classes: int) -> list[str]:
    if labels is None:
        return [str(k) for k in range(classes)] if classes > 1 else ["1"]
    if len(labels) != classes:
        raise InputError(f"{len(labels)} labels for {classes} classes")
    return [str(name) for name in labels]


def _class_colours(count: int) -> list[Any]:
    maps = import_package("matplotlib", "a figure").colormaps
    if count <= 10:
        return [maps["tab10"](k) for k in range(count)]
    return [maps["turbo"](k / (count - 1)) for k in range(count)]


def _dashes() -> Iterable[Any]:
    yield DASHES[0]
    while True:
        yield from DASHES[1:]


def _legends(
    axes: Axes,
    names: Sequence[str],
    colours: Sequence[Any],
    curves: Mapping[str, Sequence[Curve | None]],
    efficiencies: Sequence[float],
    line: float,
) -> None:
    """Below each other: a legend of the models (line styles), one of each rejection, one of the classes (colours)."""
    lines = import_package("matplotlib.lines", "a figure")
    models = []
    for (name, found), dash in zip(curves.items(), _dashes(), strict=False):
        areas = [c.area for c in found if c is not None]
        mean = f"{100 * np.mean(areas):.2f}" if areas else "none"
        models.append(lines.Line2D([], [], color="black", linestyle=dash, label=f"{label(name)}: {mean}"))

    def of_classes(text: Any, width: float) -> list[Any]:
        return [
            lines.Line2D([], [], color=colour, linewidth=width, label=f"{label(name, 20)}: {text(k)}")
            for k, (name, colour) in enumerate(zip(names, colours, strict=True))
        ]

    def each(k: int, number: Any) -> str:
        return " / ".join(number(c) if (c := found[k]) else "none" for found in curves.values())

    blocks = [("Model: mean AUC in %", models)]
    if len(names) <= MOST_LISTED:
        for e in efficiencies:
            title = f"Rejection at {100 * e:g} % signal"
            blocks.append((title, of_classes(lambda k, e=e: each(k, lambda c: f"{c.rejection(e):.3g}"), 2)))
    classes = of_classes(lambda k: each(k, lambda c: f"{100 * c.area:.2f}"), 3)
    top = 1.0
    options: dict[str, Any] = {"loc": "upper left", "alignment": "left", "fontsize": "small", "title_fontsize": "small"}
    for title, handles in blocks:
        axes.add_artist(plain_legend(axes, handles, title=title, bbox_to_anchor=(1.01, top), **options))
        top -= line * (len(handles) + BETWEEN)
    columns = 1 + (len(classes) - 1) // 18
    title = "Class: AUC in % in that order" if len(curves) > 1 else "Class: AUC in %"
    plain_legend(axes, classes, title=title, bbox_to_anchor=(1.01, top), ncols=columns, **options)
