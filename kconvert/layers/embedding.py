"""Embedding: rows of a matrix by their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kconvert.layers.base import Constant, Node
from kconvert.types import FixedType, Overflow, Rounding


@dataclass(eq=False, kw_only=True)
class Embedding(Node):
    """``y[..., :] = weight[x[...]]``; a number beyond the last row stands for it, and a negative one for the first.

    Attributes:
        weight: Float rows [numbers, outputs].
    """

    weight: np.ndarray
    weight_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"weight": "weight_type", "result": "result_type"}
    template = "embedding"
    kernel = "nnet_embedding.h"
    absorbs = True
    narrows = True

    @property
    def index_type(self) -> FixedType:
        """Type of a row's number: rounds, and saturates."""
        bits = max((len(self.weight) - 1).bit_length(), 1)
        return FixedType(bits, bits, False, Rounding.RND, Overflow.SAT)

    @property
    def stores_input_in(self) -> FixedType | None:  # type: ignore[override]  # known once there is a weight
        """The type of a row's number: what an input of the model needs to be."""
        return self.index_type

    @property
    def outputs(self) -> int:
        """Elements of a row."""
        return int(self.weight.shape[1])

    @property
    def rows(self) -> int:
        """Entries of one column's table: the last row fills it up to all that `index_type` can say."""
        return 1 << self.index_type.width

    def output_shape(self) -> tuple[int, ...]:
        """A row for each element of the input."""
        return (*self.inputs[0].shape, self.outputs)

    def infer_types(self, default: FixedType) -> None:
        """The result is a row."""
        self.weight_type = self.weight_type or default
        self.result_type = self.result_type or self.weight_type

    def constants(self) -> dict[str, Constant]:
        """A table for each column."""
        padded = np.pad(self.weight, ((0, self.rows - len(self.weight)), (0, 0)), mode="edge")
        return {"weight": Constant(padded.T, self.typed("weight"))}
