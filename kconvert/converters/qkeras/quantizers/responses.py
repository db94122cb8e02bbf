"""What a quantizer computes of an activation, as data: a function, then a store into the quantizer's type."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[Any]

EPSILON = np.float32(1e-7)
"""keras.config.epsilon(), which a model file does not record."""
LOG2 = np.float32(np.log(2.0))


@dataclass(frozen=True, kw_only=True)
class Activation(abc.ABC):
    """What a quantizer computes at inference: ``alpha * store(self(x))``, with `store` assigning to its type.

    Attributes:
        alpha: Factor of the stored value: one number, or one for each channel of the last axis.
    """

    alpha: float | tuple[float, ...] = 1.0

    @abc.abstractmethod
    def __call__(self, x: Floats) -> Floats:
        """Return the values to store, in the dtype of `x`."""


@dataclass(frozen=True)
class Convert(Activation):
    """Nothing but the store, of ``x / divisor``.

    Attributes:
        divisor: One number, or one for each channel of the last axis.
    """

    divisor: float | tuple[float, ...] = 1.0

    def __call__(self, x: Floats) -> Floats:
        """Return the quotient, a float32 if it is any but `x` itself."""
        if self.divisor == 1:
            return x
        quotient: Floats = np.divide(x, np.asarray(self.divisor), dtype=np.float32)
        return quotient.astype(x.dtype)


@dataclass(frozen=True)
class Rectify(Activation):
    """A ReLU: ``clip(x if x > 0 else negative_slope * x, lower_bound, upper_bound)``.

    Attributes:
        negative_slope: Zero or a power of two.
        upper_bound: A value of the type, or None where the type's own saturation is all.
        lower_bound: The same at the other end.
    """

    negative_slope: float = 0.0
    upper_bound: float | None = None
    lower_bound: float | None = None

    def __call__(self, x: Floats) -> Floats:
        """Return the rectified values."""
        y = np.where(x > 0, x, x * x.dtype.type(self.negative_slope))
        return clip(y, self.lower_bound, self.upper_bound)


@dataclass(frozen=True)
class Affine(Activation):
    """``max(scale * x + bias, lower_bound)``.

    Attributes:
        scale: Factor.
        bias: Summand.
        lower_bound: A value of the type, or None where the type's own saturation is all.
    """

    scale: float
    bias: float = 0.0
    lower_bound: float | None = None

    def __call__(self, x: Floats) -> Floats:
        """Return the transformed values."""
        number = x.dtype.type
        return clip(x * number(self.scale) + number(self.bias), self.lower_bound, None)


@dataclass(frozen=True)
class Table(Activation):
    """A function without a closed fixed-point form; to be tabulated.

    Attributes:
        name: What it is, for people.
        function: Maps numbers, element by element, to float32 as QKeras does, up to the last bits in which
            implementations of float32 tanh and exp differ.
        turns: The float32 numbers, ascending, between which it is monotone.
    """

    name: str
    function: Callable[[npt.ArrayLike], Float32]
    turns: tuple[float, ...] = ()

    def __call__(self, x: Floats) -> Floats:
        """Return the function of `x`."""
        return self.function(x).astype(x.dtype)


@dataclass(frozen=True)
class Steps(Activation):
    """A step function: ``levels[number of thresholds that x reaches]``.

    Attributes:
        thresholds: Ascending; each is exact in float32.
        levels: One more than thresholds, values of the type; not always ascending.
        inclusive: For each threshold whether ``x == threshold`` reaches it.
    """

    thresholds: tuple[float, ...]
    levels: tuple[float, ...]
    inclusive: tuple[bool, ...]

    def __call__(self, x: Floats) -> Floats:
        """Return the levels of `x`."""
        reached = np.zeros(x.shape, dtype=np.intp)
        for threshold, inclusive in zip(self.thresholds, self.inclusive, strict=True):
            reached += x >= threshold if inclusive else x > threshold
        return np.asarray(self.levels)[reached].astype(x.dtype)


def clip(x: Floats, lower: float | None, upper: float | None) -> Floats:
    """Return `x` between the bounds there are."""
    return x if lower is None and upper is None else np.clip(x, lower, upper)
