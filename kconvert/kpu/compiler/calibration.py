"""Calibration: run the float graph on samples and find the range of every tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler.execute import run
from kconvert.kpu.compiler.graph import Function, Graph, Pad, Pool2D, Reshape, Resize, Slice, Tensor, Transpose
from kconvert.kpu.compiler.numbers import Range, fixed_up
from kconvert.progress import steps

Array = npt.NDArray[Any]
Method = Literal["no_clip", "l2"]

BINS = 2048  # of a histogram
LEVELS = 256  # of a byte
CHUNK = 16  # samples that are run together


def calibrate(
    graph: Graph,
    samples: Sequence[Array],
    method: Method,
    input_range: Range | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Return the range of every tensor of the float graph, fixed up, and what was measured.

    Args:
        graph: of float operations.
        samples: for each input an array [samples, ...] of float32 in the layout of the graph.
        method: "no_clip" for the smallest and largest value, "l2" for the range within it that loses least.
        input_range: of the first input, instead of the measured one.
        progress: called with a line about each range that "l2" makes smaller.
    """
    measured = _extremes(graph, samples)
    ranges = {t: fixed_up(*measured[_seen(t)]) for t in measured if not _copies(t)}
    if input_range is not None:
        ranges[graph.inputs[0]] = fixed_up(*input_range)
    if method == "l2":
        fixed = {graph.inputs[0]} if input_range is not None else set()
        counted = _histograms(graph, samples, {_seen(t): r for t, r in ranges.items()})
        for tensor in ranges:
            if tensor not in fixed:
                best = least_squares_range(counted[_seen(tensor)], ranges[tensor])
                if best != ranges[tensor]:
                    progress(f"{tensor.name}: {tuple(ranges[tensor])} -> {tuple(best)}")
                ranges[tensor] = best
    for tensor in measured:
        ranges[tensor] = ranges[source_of(tensor)]
    return Calibration(ranges, {t: Range(*r) for t, r in measured.items()})


def _copies(tensor: Tensor) -> bool:
    """Whether a tensor takes over the range of what it is made from."""
    op = tensor.producer
    if isinstance(op, Pad) and not op.crops and op.value != 0:
        return False  # what is added may be outside of it
    return isinstance(op, Pad | Slice | Transpose | Reshape | Resize | Pool2D)


def _seen(tensor: Tensor) -> Tensor:
    """Return what is left of a function's result: what is cut off right away does not count for its range."""
    user = tensor.users[0] if len(tensor.users) == 1 else None
    cut = isinstance(user, Slice) or (isinstance(user, Pad) and user.crops)
    return user.output if user is not None and cut and isinstance(tensor.producer, Function) else tensor


def source_of(tensor: Tensor) -> Tensor:
    """Return the tensor whose range counts for this one."""
    while _copies(tensor) and tensor.producer is not None and tensor.producer.inputs[0].data is None:
        tensor = tensor.producer.inputs[0]
    return tensor


def _chunks(samples: Sequence[Array]) -> list[list[Array]]:
    return [[s[i : i + CHUNK] for s in samples] for i in range(0, len(samples[0]), CHUNK)]


def _extremes(graph: Graph, samples: Sequence[Array]) -> dict[Tensor, tuple[float, float]]:
    found: dict[Tensor, tuple[float, float]] = {}

    def visit(tensor: Tensor, values: Array) -> None:
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = values[np.isfinite(values)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        before = found.get(tensor, (low, high))
        found[tensor] = (min(low, before[0]), max(high, before[1]))

    for part in steps(_chunks(samples), "measuring ranges"):
        run(graph, part, visit)
    return found


def _histograms(graph: Graph, samples: Sequence[Array], ranges: dict[Tensor, Range]) -> dict[Tensor, Array]:
    """Count how many values fall into each of 2048 equal parts of a range; what lies outside counts at its end."""
    counts = {t: np.zeros(BINS, np.int64) for t in ranges}

    def visit(tensor: Tensor, values: Array) -> None:
        if tensor not in counts:
            return
        low, high = ranges[tensor]
        interval = np.float32(high - low) / np.float32(BINS)
        values = values[np.isfinite(values)]
        index = np.clip((values - np.float32(low)) / interval, 0, BINS - 1).astype(np.int64)
        counts[tensor] += np.bincount(index, minlength=BINS)

    for part in steps(_chunks(samples), "measuring distributions"):
        run(graph, part, visit)
    return counts


@dataclass(frozen=True)
class Calibration:
    """What is known of the tensors of a float graph."""

    ranges: dict[Tensor, Range]  # how they are stored
    extremes: dict[Tensor, Range]  # what was measured


@dataclass(frozen=True)
class _Sums:
    """Sums over the first bins of count, count * place and count * place squared, for every number of bins."""

    zeroth: Array
    first: Array
    second: Array

    @classmethod
    def of(cls, counts: Array) -> _Sums:
        place = np.arange(BINS, dtype=np.float64)
        return cls(*(np.concatenate([[0.0], np.cumsum(counts * place**k)]) for k in range(3)))

    def below(self, end: Array) -> Array:
        """Squared distances of all bins before `end` to it."""
        result: Array = self.second[end] - 2 * end * self.first[end] + end * end * self.zeroth[end]
        return result

    def above(self, start: Array) -> Array:
        """Squared distances of all bins from `start` on to it."""
        zeroth, first, second = (s[-1] - s[start] for s in (self.zeroth, self.first, self.second))
        result: Array = second - 2 * start * first + start * start * zeroth
        return result


def least_squares_range(counts: Array, whole: Range) -> Range:
    """Return the part of a range for which 256 levels lose least: the smallest sum of squared errors.

    A part reaches from bin `low` to bin `high`, has 0 inside and 256 bins at least. For one width all its places are
    tried at once: inside, the error depends on the distance to `low` only, so the sums are a correlation; outside
    they follow from running sums. Of equal ones the first counts, by ascending `low`, then by descending `high`.

    Args:
        counts: of the values in each of 2048 bins.
        whole: the range that the bins divide.
    """
    interval = np.float32(whole.high - whole.low) / np.float32(BINS)
    zero_bin = int(np.clip(np.float32(-whole.low) / interval, 0, BINS - 1))
    weights = counts.astype(np.float64)
    sums = _Sums.of(weights)
    best = (np.inf, 0, 0)
    for width in range(BINS, LEVELS - 1, -1):
        lows = np.arange(max(0, zero_bin - width), min(zero_bin, BINS - width) + 1)
        if not lows.size:
            continue
        outside = sums.below(lows) + sums.above(lows + width)
        promising = np.flatnonzero(outside <= best[0])
        if not promising.size:
            break  # what lies outside of a narrower part loses no less
        lows, outside = (v[promising[0] : promising[-1] + 1] for v in (lows, outside))
        place = np.arange(width, dtype=np.float64)
        step = width / (LEVELS - 1)
        error = (place - np.rint(place / step) * step) ** 2
        losses = np.correlate(weights[lows[0] : lows[-1] + width], error, "valid") + outside
        at = int(np.argmin(losses))
        best = min(best, (float(losses[at]), int(lows[at]), -int(lows[at]) - width))
    _, low, minus_high = best
    return Range(
        float(np.float32(whole.low) + interval * np.float32(low)),
        float(np.float32(whole.low) + interval * np.float32(-minus_high)),
    )
