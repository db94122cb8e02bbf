"""Symmetric 8-bit codes: how values become codes, and which scale suits a set of values.

``code(x) = clip(round(x / scale), -127, 127)``, rounding halves to even; the value of a code is ``code · scale``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 127
"""The largest code; -128 is not used, so that every code has a negative."""


def codes(values: npt.ArrayLike, scale: float) -> npt.NDArray[np.int8]:
    """Return int8 codes of values of any shape."""
    return np.clip(np.round(np.asarray(values) / scale), -MOST, MOST).astype(np.int8)


def best_scale(values: npt.ArrayLike, *, power_of_two: bool = True, candidates: int = 3) -> float:
    """Return the scale with the smallest mean squared error of ``code(x) · scale``.

    The first candidate just holds the largest value; each further one is half of the one before, where powers of two
    are asked for, and clips more of the values in return for finer steps. Otherwise the steps between are tried too.

    Args:
        values: Any shape; all zeros give 1.
        power_of_two: Products of codes are then exact in binary fixed point, without a multiplication by the scale.
        candidates: How many halvings are tried.
    """
    x = np.asarray(values, np.float64).ravel()
    largest = float(np.max(np.abs(x), initial=0.0))
    if largest == 0.0:
        return 1.0
    if power_of_two:
        first = math.ldexp(1.0, math.ceil(math.log2(largest / MOST)))
        scales = [first / 2**i for i in range(candidates)]
    else:
        scales = [largest / MOST * 2 ** (-i / 8) for i in range(8 * (candidates - 1) + 1)]
    return float(min(scales, key=lambda scale: _squared_error(x, scale)))  # of equals the first, which clips less


def _squared_error(x: npt.NDArray[Any], scale: float) -> float:
    return float(np.sum((codes(x, scale) * np.float64(scale) - x) ** 2))
