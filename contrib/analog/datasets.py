"""The Yin-Yang data set: points of the figure, told apart as yin, yang or its dots.

Published by L. Kriener, J. Göltz and M. A. Petrovici, "The Yin-Yang Dataset", NICE 2022. Points come in the same order
and with the same numbers as theirs for the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import check

Array = np.ndarray[Any, np.dtype[Any]]

RADIUS = 0.5
DOT_RADIUS = 0.1
CLASSES = ("yin", "yang", "dot")


class YinYang:
    """Samples (x, y, 1 - x, 1 - y) in [0, 1] with class 0, 1 or 2; classes are equally likely.

    A point is a yin one, class 1 as published, where it is in the upper half outside of the right half circle, or in
    the left half circle; the two dots are class 2. For each sample a class is drawn, then points until one is of it.

    Args:
        size: Number of samples.
        seed: Published are 42 with 5000 samples to train, 41 and 40 with 1000 to validate and to test.
        fixed: Keep the samples: `x` float64 [size, 4] and `y` int64 [size]. Otherwise every access draws a new one.
    """

    def __init__(self, size: int = 1000, seed: int = 42, fixed: bool = True) -> None:
        check(size > 0, f"YinYang: size has to be positive, received {size}")
        self.size, self.seed, self.fixed = size, seed, fixed
        # the generator whose numbers are published
        self._rng = np.random.RandomState(seed)
        if fixed:
            self.x, self.y = self.draw(size)

    def draw(self, count: int) -> tuple[Array, Array]:
        """Return features float64 [count, 4] and classes int64 [count] of the next samples."""
        points, classes = np.empty((count, 2)), np.empty(count, np.int64)
        for i in range(count):
            classes[i] = self._rng.randint(3)
            points[i] = self._point(classes[i])
        return np.concatenate([points, 1.0 - points], axis=1), classes

    def _point(self, goal: int) -> tuple[float, float]:
        random = self._rng.random_sample
        while True:
            x, y = random(), random()
            if _distance(x, y, RADIUS) <= RADIUS and classify(x, y) == goal:
                return x, y

    def batches(self, size: int) -> Iterator[tuple[Array, Array]]:
        """Go on forever: new samples, or all that are fixed in a new order each time, the rest as a smaller batch."""
        while not self.fixed:
            yield self.draw(size)
        order = np.random.default_rng(self.seed)
        while True:
            shuffled = order.permutation(self.size)
            for at in range(0, self.size, size):
                chosen = shuffled[at : at + size]
                yield self.x[chosen], self.y[chosen]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Array, int]:
        if not -self.size <= index < self.size:
            raise IndexError(f"sample {index} of {self.size}")
        if self.fixed:
            return self.x[index], int(self.y[index])
        x, y = self.draw(1)
        return x[0], int(y[0])


def classify(x: float, y: float) -> int:
    """Return the class of a point of the figure."""
    right, left = _distance(x, y, 1.5 * RADIUS), _distance(x, y, 0.5 * RADIUS)
    if right < DOT_RADIUS or left < DOT_RADIUS:
        return 2
    yin = right <= DOT_RADIUS or DOT_RADIUS < left <= RADIUS / 2 or (y > RADIUS and right > RADIUS / 2)
    return int(yin)


def _distance(x: float, y: float, centre: float) -> float:
    return math.sqrt((x - centre) ** 2 + (y - RADIUS) ** 2)  # math.hypot may differ in the last bit
