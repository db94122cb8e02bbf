"""Planning memory: what lives when, and where it goes.

Buffers that are never alive together share addresses. Finding the smallest such plan is bin packing in two dimensions;
first fit over a few orders finds it nearly always, and the most that is alive at any moment says when to stop looking.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from kconvert.errors import CapacityError
from kconvert.kpu.k210 import KPU_RAM

MAIN_ALIGNMENT = 8
KPU_ALIGNMENT = 64
ROUNDS = 400  # of swapping, for graphs where the first orders are not the best possible
SMALL = 64  # buffers; beyond it swapping is not tried


@dataclass
class Buffer:
    """Bytes that are needed from one step to another, both included."""

    name: str
    size: int
    first: int
    last: int
    start: int = 0
    shape: tuple[int, ...] = field(default=())

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.start + self.size

    def meets(self, other: Buffer) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


def plan(buffers: Sequence[Buffer], alignment: int, seconds: float = 60.0) -> int:
    """Place buffers and return the bytes that they take together.

    Args:
        buffers: their `start` is set.
        alignment: of every start.
        seconds: for how long to look for better plans than a few orders give.
    """
    if not buffers:
        return 0
    sizes = [-(-b.size // alignment) * alignment for b in buffers]
    alive = bytes_alive(buffers, alignment)
    least = max(alive)
    pressure = [max(alive[b.first : b.last + 1]) for b in buffers]
    count = range(len(buffers))
    span = [b.last - b.first for b in buffers]
    orders = [
        sorted(count, key=lambda i: (buffers[i].first, -span[i])),
        sorted(count, key=lambda i: (-sizes[i], buffers[i].first)),
        sorted(count, key=lambda i: (-sizes[i] * (span[i] + 1), buffers[i].first)),
        sorted(count, key=lambda i: (-span[i], -sizes[i])),
        sorted(count, key=lambda i: (-pressure[i], -sizes[i])),
    ]
    neighbours = [[j for j in count if j != i and buffers[i].meets(buffers[j])] for i in count]
    best_total, best_order, best_starts = math.inf, orders[0], [0] * len(buffers)
    for order in orders:
        total, starts = _first_fit(order, sizes, neighbours)
        if total < best_total:
            best_total, best_order, best_starts = total, order, starts
    if seconds > 0 and best_total > least and len(buffers) <= SMALL:
        best_total, best_starts = _swap(best_order, best_total, best_starts, least, sizes, neighbours, seconds)
    for buffer, start in zip(buffers, best_starts, strict=True):
        buffer.start = start
    return int(best_total)


def _first_fit(order: Sequence[int], sizes: list[int], neighbours: list[list[int]]) -> tuple[int, list[int]]:
    """Give each buffer, in order, the lowest place between those it meets."""
    starts = [-1] * len(sizes)
    total = 0
    for i in order:
        place = 0
        for start, size in sorted((starts[j], sizes[j]) for j in neighbours[i] if starts[j] >= 0):
            if start - place >= sizes[i]:
                break
            place = max(place, start + size)
        starts[i] = place
        total = max(total, place + sizes[i])
    return total, starts


def _swap(
    order: Sequence[int],
    total: float,
    starts: list[int],
    least: int,
    sizes: list[int],
    neighbours: list[list[int]],
    seconds: float,
) -> tuple[float, list[int]]:
    """Swap two buffers of the order as long as that is no loss."""
    rng = random.Random(0)  # noqa: S311 - the same plan every time
    deadline = time.monotonic() + seconds
    current = list(order)
    for _ in range(ROUNDS):
        if total <= least or time.monotonic() > deadline:
            break
        i, j = rng.randrange(len(current)), rng.randrange(len(current))
        current[i], current[j] = current[j], current[i]
        new_total, new_starts = _first_fit(current, sizes, neighbours)
        if new_total <= total:
            total, starts = new_total, new_starts
        else:
            current[i], current[j] = current[j], current[i]
    return total, starts


def bytes_alive(buffers: Sequence[Buffer], alignment: int) -> list[int]:
    """Return how many bytes are alive at each step; no plan takes less than the most of them."""
    changes = [0] * (max(b.last for b in buffers) + 2)
    for b in buffers:
        changes[b.first] += -(-b.size // alignment) * alignment
        changes[b.last + 1] -= -(-b.size // alignment) * alignment
    return list(itertools.accumulate(changes))


def refuse(
    memory: str, needed: int, limit: int, buffers: Sequence[Buffer], alignment: int, more: str = ""
) -> CapacityError:
    """Return the error that says by how much a model does not fit, what is alive, and what would help."""
    totals = bytes_alive(buffers, alignment)
    step = totals.index(max(totals))
    alive = sorted((b for b in buffers if b.first <= step <= b.last), key=lambda b: -b.size)
    listed = "; ".join(f"{b.name!r} {'x'.join(map(str, b.shape))}: {b.size:,} bytes" for b in alive[:6])
    rest = f"; {len(alive) - 6} more" if len(alive) > 6 else ""
    side = math.sqrt(max(0.01, limit / needed))
    part = limit / needed
    return CapacityError(
        f"{memory}: {needed:,} bytes are needed and there are {limit:,}, {needed - limit:,} too few{more}. "
        f"Alive at the fullest step: {listed}{rest}. What helps, in this order: an input of {side:.0%} of the height "
        f"and width, or smaller; {part:.0%} of the channels in these layers; fewer layers, or fewer results that are "
        f"kept for later ones"
    )


def plan_kpu(buffers: Sequence[Buffer], seconds: float) -> int:
    """Place the buffers in KPU memory.

    Raises:
        CapacityError: they do not fit.
    """
    total = plan(buffers, KPU_ALIGNMENT, seconds)
    if total > KPU_RAM:
        raise refuse("KPU memory", total, KPU_RAM, buffers, KPU_ALIGNMENT)
    return total
