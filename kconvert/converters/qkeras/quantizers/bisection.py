"""Where a function of float32 changes its quantised value, found among all float32 numbers by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from kconvert.converters.qkeras.quantizers.responses import Float32

Integers = npt.NDArray[np.int64]

_HIGHEST = int(np.array(np.finfo(np.float32).max).view(np.int32))


class Changes:
    """The changes of a quantised function that is monotone between `turns`.

    Where float32 rounds on the way, a function can waver by one code over a few numbers next to a change; one of these
    numbers is then taken for the change.
    """

    def __init__(self, codes: Callable[[Float32], npt.NDArray[np.int64]], turns: Sequence[float] = ()) -> None:
        """Look at a function.

        Args:
            codes: Maps float32 numbers to the integers they are quantised to.
            turns: The numbers, ascending, between which it is monotone.
        """
        self._codes = codes
        ends = np.array([-_HIGHEST, *(_rank(turn) for turn in turns), _HIGHEST])
        values = self._at(ends)
        differ = values[:-1] != values[1:]
        self._pieces = ends[:-1][differ], ends[1:][differ]
        self.first = int(values[0])

    def thresholds(self, most: int) -> tuple[npt.NDArray[np.float64], Integers] | None:
        """Return the first numbers with another code than those before, ascending, and the code from each on.

        None if there are more than `most`.
        """
        low, high = self._pieces
        while np.any(high - low > 1):
            if len(low) > most:
                return None
            middle = (low + high) // 2
            code = self._at(middle)
            left, right = code != self._at(low), code != self._at(high)
            low = np.column_stack([low, middle])[np.column_stack([left, right])]
            high = np.column_stack([middle, high])[np.column_stack([left, right])]
        return _number(high).astype(np.float64), self._at(high)

    def ends(self) -> tuple[float, float]:
        """Return the first and the last threshold; (0, 0) of a constant."""
        if not len(self._pieces[0]):
            return 0.0, 0.0
        low, high = (int(ends[0]) for ends in self._pieces)
        first = self._last_rank(low, high, same_as=low) + 1
        low, high = (int(ends[-1]) for ends in self._pieces)
        last = self._last_rank(low, high, differs_from=high) + 1
        return float(_number(np.array(first))), float(_number(np.array(last)))

    def _last_rank(self, low: int, high: int, *, same_as: int | None = None, differs_from: int | None = None) -> int:
        code = int(self._at(np.array(same_as if same_as is not None else differs_from)))
        while high - low > 1:
            middle = (low + high) // 2
            below = (int(self._at(np.array(middle))) == code) == (same_as is not None)
            low, high = (middle, high) if below else (low, middle)
        return low

    def _at(self, rank: Integers) -> Integers:
        with np.errstate(over="ignore"):
            return self._codes(_number(rank))


def _rank(number: float) -> int:
    """Return the place of a float32 number among all of them; that of zero is 0."""
    bits = int(np.array(abs(number), dtype=np.float32).view(np.int32))
    return bits if number >= 0 else -bits


def _number(rank: Integers) -> Float32:
    magnitude = np.abs(rank).astype(np.int32).view(np.float32)
    return np.where(rank < 0, -magnitude, magnitude)
