"""Figures of multipliers, drawn with matplotlib but without pyplot: nothing is shown, no global state is touched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kconvert.packages import import_package
from kconvert.profiling.plots import new_figure

from .errors import check
from .multipliers import ApproximateMultiplier

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pareto_front(multipliers: Iterable[ApproximateMultiplier]) -> list[ApproximateMultiplier]:
    """Return those that no other one beats: none is both cheaper and closer (by standard deviation); cheapest first.

    Of several that are equal in both, the first is returned.
    """
    front: list[ApproximateMultiplier] = []
    for one in sorted(multipliers, key=lambda one: (one.performance_metric, one.statistics.std)):
        if not front or one.statistics.std < front[-1].statistics.std:
            front.append(one)
    return front


def plot_library(multipliers: Iterable[ApproximateMultiplier], path: str | Path | None = None) -> Figure:
    """Draw the standard deviation of the error of each multiplier over its metric, with the Pareto front named.

    Args:
        multipliers: what to draw, all with metrics of one kind.
        path: the file to write it to, where one is named.

    Raises:
        ApproxError: there are none.
        MissingPackageError: matplotlib is not installed.
    """
    drawn = list(multipliers)
    check(bool(drawn), "plot_library: there are no multipliers to draw")
    front = pareto_front(drawn)
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    axes.scatter([m.performance_metric for m in drawn], [m.statistics.std for m in drawn], s=14, color="tab:gray")
    steps = [(m.performance_metric, m.statistics.std) for m in front]
    axes.plot(*zip(*steps, strict=True), marker="o", markersize=4, color="tab:blue", label="Pareto front")
    for multiplier, place in zip(front, steps, strict=True):
        axes.annotate(plain(multiplier.name), place, xytext=(3, 3), textcoords="offset points", fontsize=6, rotation=30)
    axes.margins(x=0.12)  # the names stand to the right of their points
    axes.set_yscale("symlog", linthresh=1)  # exact ones have an error of 0
    axes.set_ylim(bottom=0)
    axes.set_xlabel("performance metric")
    axes.set_ylabel("standard deviation of the error")
    axes.legend()
    return saved(figure, path)


def saved(figure: Figure, path: str | Path | None) -> Figure:
    """Return the figure, written to a file where one is named."""
    if path is not None:
        import_package("matplotlib.backends.backend_agg", "a figure").FigureCanvasAgg(figure)
        figure.savefig(path, dpi=150)
    return figure


def plain(text: str) -> str:
    """Return a name as matplotlib shows it: $...$ would be a formula."""
    return text.replace("$", r"\$")
