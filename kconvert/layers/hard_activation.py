"""Sigmoid and tanh made of three straight lines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kconvert.layers.base import Constant, Node
from kconvert.types import FixedType, Overflow, Rounding, exact_type


@dataclass(eq=False, kw_only=True)
class HardActivation(Node):
    """``clip(x * slope + offset, min_value, max_value)``: a hard sigmoid or a hard tanh."""

    slope: float
    offset: float
    min_value: float
    max_value: float

    template = "hard_activation"
    kernel = "nnet_hard_activation.h"
    pointwise = True
    absorbs = True
    narrows = True

    def infer_types(self, default: FixedType) -> None:
        """The result holds every value between the bounds, and saturates beyond them."""
        if self.result_type is None:
            line = self.in_type() * exact_type(self.slope) + exact_type(self.offset)
            signed = self.min_value < 0
            integer = math.frexp(max(-self.min_value, self.max_value))[1] + signed
            exact = FixedType(integer + max(line.fraction, 0), integer, signed)
            self.result_type = self.lossless(exact, "result").with_(rounding=Rounding.RND, overflow=Overflow.SAT)

    def constants(self) -> dict[str, Constant]:
        """Slope and offset, exact up to 32 bits, and the bounds, rounded to the result's grid."""
        result = self.typed("result")
        grid = result.with_(rounding=Rounding.RND, overflow=Overflow.SAT)
        return {
            "slope": Constant(np.array([self.slope]), exact_type(self.slope)),
            "offset": Constant(np.array([self.offset]), exact_type(self.offset)),
            "limit": Constant(np.array([self.max_value]), grid),
            "lower_limit": Constant(np.array([self.min_value]), grid),
        }
