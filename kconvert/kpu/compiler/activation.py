"""Fitting the KPU's activation table: up to 15 line segments, and what lies below them.

A segment is y = bias + (b - start) * mul / 2^shift with whole numbers throughout, from its start to the next one's. A
bias that had to be rounded shifts its whole segment, so segments start where the function takes a whole level.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler.functions import Expr
from kconvert.kpu.compiler.numbers import fixed_mul, round_away
from kconvert.kpu.k210 import LOWEST_X, SEGMENTS, Activation
from kconvert.kpu.wire import QuantParam

Array = npt.NDArray[Any]

SAMPLES = 4096  # of a function
CANDIDATES = 400  # places where a segment may start, at most
LINES = SEGMENTS - 1  # segment 0 is what lies below the domain
HIGHEST_X = (1 << 35) - 1
MUL_BITS, MAX_SHIFT = 16, 20


@dataclass(frozen=True)
class Domain:
    """The values that a layer's sums take before its function, outside of which the function is constant."""

    low: float
    high: float


@dataclass(frozen=True)
class Segment:
    """A line from `start` on: `level` there, then `slope` levels for each unit."""

    start: float
    level: int
    slope: float


def activation_table(domain: Domain, expr: Expr | None, scale: float, out: QuantParam) -> Activation:
    """Return the table of a function.

    Args:
        domain: of its arguments.
        expr: the function; None leaves the values as they are.
        scale: of the integers that the table gets: 1.0 comes as `scale`.
        out: how the results are stored.
    """
    ends = np.array([domain.low, domain.high], np.float32)
    below, above = levels(ends if expr is None else expr(ends), out)
    straight = [Segment(domain.low, int(round_away(below)), out.scale)]
    segments = straight if expr is None else fit(domain, expr, out)
    if len(segments) < LINES:
        segments = [*segments, Segment(domain.high, int(round_away(above)), 0.0)]
    lines = [fixed_mul(s.slope / scale, MUL_BITS, MAX_SHIFT) for s in segments]
    missing = LINES - len(segments)
    bound = (1 << MUL_BITS - 1) - 1
    return Activation(
        np.array([LOWEST_X, *(int(round_away(s.start * scale)) for s in segments)] + [HIGHEST_X] * missing, np.int64),
        np.array([0, *(max(-bound, min(bound, line.rounded)) for line in lines)] + [0] * missing, np.int64),
        np.array([0, *(line.shift for line in lines)] + [0] * missing, np.int64),
        np.array([int(round_away(below)), *(s.level for s in segments)] + [255] * missing, np.uint8),
    )


def levels(values: Array, out: QuantParam) -> Array:
    """Return results as the KPU could store them if its bytes had fractions, 0 to 255."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
    return np.clip(values * out.scale + out.zero_point, 0, 255)


def fit(domain: Domain, expr: Expr, out: QuantParam) -> list[Segment]:
    """Return at most 14 segments with the least sum of squared errors over the domain.

    Dynamic programming: best[j] is the least error up to candidate j with one more segment each round.
    """
    x = np.linspace(domain.low, domain.high, SAMPLES)
    y = levels(expr(x), out)
    places = candidates(y)
    cost, slopes = segment_errors(x, y, places)
    best = cost[0].copy()
    rounds = []
    for _ in range(LINES - 2):
        total = best[:, None] + cost
        came = np.argmin(total, axis=0)
        rounds.append(came)
        best = total[came, np.arange(len(places))]
    path = [len(places) - 1]
    for came in reversed(rounds):
        path.append(int(came[path[-1]]))
    ordered = sorted({0, *path})
    return [
        Segment(float(x[places[a]]), int(round_away(y[places[a]])), float(slopes[a, b]))
        for a, b in itertools.pairwise(ordered)
    ]


def candidates(y: Array) -> Array:
    """Return the indices at which a segment may start: the ends, and where y is nearest to a whole level."""
    nearest = round_away(y)
    distance = np.abs(y - nearest)
    inner = np.arange(1, len(y) - 1)
    lowest = (distance[1:-1] <= distance[:-2]) & (distance[1:-1] <= distance[2:])
    # Where y does not move, one place is as good as another.
    moves = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    found = inner[lowest & moves]
    even = np.linspace(0, len(y) - 1, 33).astype(int)
    if len(found) > CANDIDATES:
        found = found[np.linspace(0, len(found) - 1, CANDIDATES).astype(int)]
    return np.unique(np.concatenate([even, found]))


def segment_errors(x: Array, y: Array, places: Array) -> tuple[Array, Array]:
    """Return [start, end]: the squared errors of the best segment between two candidates, and its slope.

    Errors are infinite where the end is before the start, 0 where both are the same.
    """
    sums = [np.concatenate([[0.0], np.cumsum(t)]) for t in (np.ones_like(x), x, y, x * x, x * y, y * y)]
    a, b = places[:, None], places[None, :]
    n, sx, sy, sxx, sxy, syy = (s[b] - s[a] for s in sums)
    x0, y0 = x[a], round_away(y[a])
    across = np.maximum(sxx - 2 * x0 * sx + n * x0 * x0, 0)
    along = sxy - x0 * sy - y0 * sx + n * x0 * y0
    up = np.maximum(syy - 2 * y0 * sy + n * y0 * y0, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(across > 0, along / across, 0.0)
    error = np.where(b > a, np.maximum(up - slope * along, 0), np.inf)
    np.fill_diagonal(error, 0.0)
    return error, slope
