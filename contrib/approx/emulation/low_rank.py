"""Approximate products as a few exact ones: the error of a multiplier as a sum of products of one-operand functions.

With ``x·y - approx(x, y) = sum_r u_r(x) v_r(y)``, a matrix product through an approximate multiplier is one ordinary
matrix product of rows ``[x, u_1(x), ..., u_r(x)]`` and columns ``[y, -v_1(y), ..., -v_r(y)]``. The singular value
decomposition of the error map gives the fewest such terms for the root mean square of what is left. Truncated and
broken-array multipliers have 1 to 4 terms and then nothing is left; logarithmic ones need many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import check

_USED = slice(1, 256)  # code -128 is never made


@dataclass(frozen=True, eq=False)
class LowRank:
    """An error map as ``left @ right.T``.

    Attributes:
        left: float64 [256, rank], u of the first operand, -128 to 127; zero at -128, which is no code.
        right: float64 [256, rank], v of the second.
        max_error: Largest absolute difference to the error map, over codes -127 to 127.
        rms_error: Root mean square of the difference, as a share of that of the error map.
    """

    left: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    max_error: float
    rms_error: float

    @property
    def rank(self) -> int:
        """Number of terms."""
        return int(self.left.shape[1])

    @property
    def exact(self) -> bool:
        """Is nothing left but rounding? Sums of fewer than a million products are then exact once rounded."""
        return self.max_error < 1e-7


def low_rank(
    error_map: npt.ArrayLike, *, bound: float = 0.0, weights: tuple[npt.ArrayLike, npt.ArrayLike] | None = None
) -> LowRank:
    """Return the fewest terms that leave no more than `bound` of the error map.

    Args:
        error_map: [256, 256], ``x·y - approx(x, y)``, rows x and columns y from -128 to 127.
        bound: Root mean square of what may be left, as a share of the error map's; 0 leaves nothing.
        weights: How often codes -128 to 127 occur, [256] each for x and y: terms then serve what occurs.

    Raises:
        ApproxError: an argument is out of range.
    """
    error = np.array(error_map, np.float64)
    check(error.shape == (256, 256), f"error_map: expected [256, 256], received {list(error.shape)}")
    check(0 <= bound < 1, f"bound is in [0, 1), received {bound}")
    error[0] = error[:, 0] = 0
    rows, columns = (np.ones(256), np.ones(256)) if weights is None else map(_amplitudes, weights)
    u, s, vt = np.linalg.svd(rows[:, None] * error * columns)
    left = np.sqrt(np.cumsum((s**2)[::-1])[::-1] / max(np.sum(s**2), np.finfo(float).tiny))  # before term i
    rank = int(np.count_nonzero(left > max(bound, 1e-12)))
    root = np.sqrt(s[:rank])
    factors = u[:, :rank] * root / rows[:, None], vt[:rank].T * root / columns[:, None]
    difference = (factors[0] @ factors[1].T - error)[_USED, _USED]
    whole = max(float(np.sqrt(np.mean(error[_USED, _USED] ** 2))), np.finfo(float).tiny)
    worst, rms = float(abs(difference).max()), float(np.sqrt(np.mean(difference**2)))
    return LowRank(*factors, worst, rms / whole)


def _amplitudes(weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Roots of relative frequencies; a code that never occurred counts a little, so that its error stays bounded."""
    found = np.asarray(weights, np.float64)
    check(found.shape == (256,) and bool(np.all(found >= 0)) and found.sum() > 0, "weights: 256 numbers from 0 on")
    return np.asarray(np.sqrt(found / found.sum() + 1e-6))
