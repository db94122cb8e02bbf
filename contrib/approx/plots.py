"""Error against cost of a set of multipliers, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import check
from .multipliers import ApproximateMultiplier

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pareto_front(multipliers: Iterable[ApproximateMultiplier]) -> list[ApproximateMultiplier]:
    """Return those that no other one beats: none is both cheaper and closer (by standard deviation); cheapest first.

    Of several that are equal in both, the first is returned.
    """
    front: list[ApproximateMultiplier] = []
    for one in sorted(multipliers, key=lambda one: (one.performance_metric, one.statistics.std)):
        if not front or one.statistics.std < front[-1].statistics.std:
            front.append(one)
    return front


def plot_library(multipliers: Iterable[ApproximateMultiplier], axes: Axes | None = None) -> Axes:
    """Draw the standard deviation of the error of each multiplier over its metric, with the Pareto front named.

    Args:
        multipliers: what to draw, all with metrics of one kind.
        axes: where to draw; a new figure if left out.

    Raises:
        ApproxError: there are none.
    """
    import matplotlib.pyplot as plt

    drawn = list(multipliers)
    check(bool(drawn), "plot_library: there are no multipliers to draw")
    front = pareto_front(drawn)
    if axes is None:
        _, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.scatter([m.performance_metric for m in drawn], [m.statistics.std for m in drawn], s=14, color="tab:gray")
    steps = [(m.performance_metric, m.statistics.std) for m in front]
    axes.plot(*zip(*steps, strict=True), marker="o", markersize=4, color="tab:blue", label="Pareto front")
    for multiplier, place in zip(front, steps, strict=True):
        # a name may hold a dollar sign, which would begin a formula
        text = multiplier.name.replace("$", r"\$")
        axes.annotate(text, place, xytext=(3, 3), textcoords="offset points", fontsize=6, rotation=30)
    axes.margins(x=0.12)  # the names stand to the right of their points
    axes.set_yscale("symlog", linthresh=1)  # exact ones have an error of 0
    axes.set_ylim(bottom=0)
    axes.set_xlabel("performance metric")
    axes.set_ylabel("standard deviation of the error")
    axes.legend()
    return axes
