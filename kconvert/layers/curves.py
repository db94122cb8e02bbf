"""Smooth functions of one variable as tables need them: what is left beside the straight lines they follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, slots=True)
class Curve:
    """A function that far from zero is a straight line plus a constant.

    Attributes:
        function: The function.
        lines: The slope it has far above zero, and the one far below.
        bounds: The lowest and the highest value it has.
    """

    function: Callable[[np.ndarray], np.ndarray]
    lines: tuple[float, float] = (0.0, 0.0)
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the function of `x`."""
        with np.errstate(over="ignore"):
            return np.asarray(self.function(x))

    def beside_lines(self, x: np.ndarray) -> np.ndarray:
        """Return the function of `x` minus the lines through zero that it follows."""
        above, below = self.lines
        return np.asarray(self(x) - above * np.maximum(x, 0) - below * np.minimum(x, 0))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0, x))


def _gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _gelu_approximate(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def elu(alpha: float, scale: float = 1.0) -> Curve:
    """``scale * x`` above zero, ``scale * alpha * (exp(x) - 1)`` below."""
    return Curve(
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
        (scale, 0.0),
        (min(-scale * alpha, 0.0), math.inf),
    )


def celu(alpha: float) -> Curve:
    """``x`` above zero, ``alpha * (exp(x / alpha) - 1)`` below."""
    return Curve(lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)), (1.0, 0.0))


def soft_shrink(threshold: float) -> Curve:
    """``x`` moved towards zero by `threshold`, zero where that would cross it."""
    return Curve(lambda x: x - np.clip(x, -threshold, threshold), (1.0, 1.0))


# Klambauer et al., "Self-Normalizing Neural Networks", 2017, eq. 14; the digits Keras has
_SELU = elu(1.6732632423543772848170429916717, 1.0507009873554804934193349852946)

CURVES: Mapping[str, Curve] = {
    "sigmoid": Curve(_sigmoid, bounds=(0.0, 1.0)),
    "tanh": Curve(np.tanh, bounds=(-1.0, 1.0)),
    "elu": elu(1.0),
    "selu": _SELU,
    "celu": celu(1.0),
    "gelu": Curve(_gelu, (1.0, 0.0)),
    "gelu_approximate": Curve(_gelu_approximate, (1.0, 0.0)),
    "silu": Curve(lambda x: x * _sigmoid(x), (1.0, 0.0)),
    "hard_silu": Curve(lambda x: x * np.clip(x / 6 + 0.5, 0, 1), (1.0, 0.0)),
    "mish": Curve(lambda x: x * np.tanh(_softplus(x)), (1.0, 0.0)),
    "softplus": Curve(_softplus, (1.0, 0.0)),
    "log_sigmoid": Curve(lambda x: -_softplus(-x), (0.0, 1.0)),
    "tanh_shrink": Curve(lambda x: x - np.tanh(x), (1.0, 1.0)),
    "soft_shrink": soft_shrink(0.5),
}
"""By the name of the activation in Keras."""
