"""Input, dense, normalisation and shape layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from kconvert.errors import ConfigError, GraphError
from kconvert.layers.base import Constant, Node, OnImages, Value, image, narrowed
from kconvert.layers.steps import Thresholds
from kconvert.types import FixedType, exact_type, grow

STRATEGIES = ("Latency", "Resource", "Unrolled")


@dataclass(eq=False, kw_only=True)
class Input(Node):
    """A tensor given to the model; quantised to its type on entry."""

    shape: tuple[int, ...]
    template = "input"

    def output_shape(self) -> tuple[int, ...]:
        """The shape it was declared with."""
        return self.shape

    def _result_may_stay_wide(self) -> bool:
        return False

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """The type that all its readers store it in first, where there is one: so it is rounded once."""
        stored = _stored_in(self.output)
        return (stored.pop() if len(stored) == 1 else None) or default

    def infer_types(self, default: FixedType) -> None:
        """An input left ``auto`` has the model's default type."""
        self.result_type = self.result_type or default


@dataclass(eq=False, kw_only=True)
class Weighted(Node):
    """A layer that multiplies windows of its input by a weight matrix: ``accum = bias + sum(input * weight)``.

    Attributes:
        weight: Float weights, the axis of the outputs last; flattened they are a matrix [fan-in, outputs].
        bias: Float bias [outputs].
        weight_scale: Factor [outputs] that `weight` has still to be multiplied by (the alpha of a quantizer);
            an optimiser moves it behind the sum.
        activation: A node without inputs to be put behind this layer; split off by an optimiser.
        reuse_factor: How many times one multiplier is used for one application of the matrix.
        strategy: ``Latency`` (all in parallel), ``Resource`` (weights in block memory) or ``Unrolled`` (in
            parallel, weights in the logic).
        binary: The model's own quantizer makes every weight plus or minus one step of their preset type.
    """

    weight: np.ndarray
    bias: np.ndarray
    weight_scale: np.ndarray | None = None
    activation: Node | None = None
    weight_type: FixedType | None = None
    bias_type: FixedType | None = None
    accum_type: FixedType | None = None
    reuse_factor: int = 1
    strategy: str = "Latency"
    binary: bool = False

    roles: ClassVar[Mapping[str, str]] = {
        "weight": "weight_type",
        "bias": "bias_type",
        "accum": "accum_type",
        "result": "result_type",
    }
    tunables = frozenset({"reuse_factor", "strategy"})

    @property
    def fan_in(self) -> int:
        """Number of products summed for one output."""
        return int(np.prod(self.weight.shape[:-1]))

    @property
    def fan_out(self) -> int:
        """Number of outputs of one application of the matrix."""
        return int(self.weight.shape[-1])

    @property
    def products(self) -> int:
        """Multiplications of one application of the matrix, which share multipliers."""
        return self.fan_in * self.fan_out

    @property
    def scratch(self) -> int:
        """What the matrix is applied to, and the accumulators."""
        return self.fan_in + self.fan_out

    def scale_outputs(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Fold ``y * scale + shift`` (one factor per output channel) into weights and bias."""
        self.weight = self.weight * scale
        self.bias = self.bias * scale + shift
        self.binary = False

    # ***** weights of one bit *****

    @property
    def one_bit(self) -> bool:
        """True if the hardware keeps the signs of the weights alone: they are binary and have no type of the user's."""
        kind = self.weight_type
        return self.binary and kind is not None and is_sign(kind, self.weight.flat[0])

    @property
    def product(self) -> str:
        """The kernel's product policy: ``exact``, ``sign`` (weights are bits) or ``xnor`` (inputs are signs, too)."""
        if not self.one_bit:
            return "exact"
        return "xnor" if self._sees_signs() and self._holds_every_count() else "sign"

    @property
    def policy(self) -> str:
        """The C++ type that multiplies, see ``nnet::product`` in nnet_common.h; a subclass may name one of its own."""
        argument = "" if self.product == "exact" else f"<{self.typed('weight')}>"
        return f"nnet::product::{self.product}{argument}"

    def _sees_signs(self) -> bool:
        """True if every number it multiplies is plus or minus one step of its type."""
        return only_signs(self.inputs[0])

    def _holds_every_count(self) -> bool:
        """True if the accumulator rounds no sum of bias and products of plus and minus one step."""
        largest = self.fan_in * self.in_type().step * self.typed("weight").step
        products, bias, accum = exact_type([-largest, largest]), self.typed("bias"), self.typed("accum")
        return accum.holds(products) and accum.holds(bias) and accum.holds(products + bias)

    def infer_types(self, default: FixedType) -> None:
        """The accumulator holds every sum the operand types allow; so does the result."""
        self.weight_type = self.weight_type or default
        self.bias_type = self.bias_type or default
        product = self.in_type() * self.weight_type
        if self.accum_type is None:
            self.accum_type = self.lossless(grow(product, self.fan_in) + self.bias_type, "accum")
        _ = product + self.accum_type  # what a sum is computed in before it is stored has to exist, too
        self.result_type = self.result_type or self.accum_type

    def constants(self) -> dict[str, Constant]:
        """Weights and bias."""
        kind = self.typed("weight")
        if self.one_bit and not is_sign(kind, self.weight):
            raise GraphError(
                f"layer {self.name!r}: its weights were said to be binary, but not all are +-{kind.step:g}"
            )
        return {
            "weight": Constant(self.weight, kind, one_bit=self.one_bit),
            "bias": Constant(self.bias, self.typed("bias")),
        }

    def describe(self) -> str:
        """Say too where weights are bits."""
        return super().describe() + (", weights of 1 bit" if self.one_bit else "")

    def check(self) -> None:
        """A resource-shared matrix must divide evenly over the reuse factor."""
        products = self.products
        if self.strategy == "Resource" and products % self.reuse_factor:
            raise ConfigError(
                f"layer {self.name!r}: ReuseFactor {self.reuse_factor} does not divide its {products} products "
                f"(fan-in {self.fan_in} x {products // self.fan_in} outputs); the nearest that do: "
                f"{nearest_divisors(products, self.reuse_factor)}"
            )


def nearest_divisors(number: int, wanted: int) -> list[int]:
    """Return the (up to) four divisors of `number` that come nearest to `wanted`, in ascending order."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    divisors = sorted({*small, *(number // n for n in small)})
    return sorted(sorted(divisors, key=lambda n: abs(n - wanted))[:4])


@dataclass(eq=False, kw_only=True)
class Dense(Weighted):
    """``y = x W + b`` over the last axis; on inputs of rank 2 and more it is applied at every position."""

    pointwise = True
    template = "dense"
    kernel = "nnet_dense.h"

    def output_shape(self) -> tuple[int, ...]:
        """The input's shape with the last axis replaced by the number of units."""
        return (*self.inputs[0].shape[:-1], self.fan_out)

    @property
    def positions(self) -> int:
        """How many times the matrix is applied to one sample."""
        return int(np.prod(self.inputs[0].shape[:-1], dtype=int))


@dataclass(eq=False, kw_only=True)
class BatchNormalization(Node):
    """``y = x * scale + bias`` per channel: the inference form of batch normalisation.

    Attributes:
        scale: Flat.
        bias: Flat.
        inner: Elements behind each other that share a scale: 1 where channels are the last axis.
    """

    scale: np.ndarray
    bias: np.ndarray
    inner: int = 1
    scale_type: FixedType | None = None
    bias_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"scale": "scale_type", "bias": "bias_type", "result": "result_type"}
    template = "batch_normalization"
    kernel = "nnet_batch_normalization.h"
    pointwise = True
    absorbs = True

    @property
    def channels(self) -> int:
        """Number of scales: the size of the channel axis, or 1 where all channels share one."""
        return self.scale.size

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner > 1:
            self.absorbs = False  # type: ignore[misc]  # it cannot be folded into the layer before

    @property
    def of_last_axis(self) -> bool:
        """Whether the scales are those of the last axis, or one for all."""
        return self.inner == 1 and self.channels in (1, self.output.shape[-1])

    def at_position(self) -> Self | None:
        """There is one if the scales are those of the last axis."""
        return super().at_position() if self.of_last_axis else None

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """``auto`` for its parameters too: they are meant to be folded into the layer before."""
        return None if role in ("scale", "bias") else super().default_type(role, default)

    def infer_types(self, default: FixedType) -> None:
        """The result holds every product plus bias."""
        self.scale_type = self.scale_type or default
        self.bias_type = self.bias_type or default
        exact = self.in_type() * self.scale_type + self.bias_type
        self.result_type = self.result_type or self.lossless(exact, "result")

    def constants(self) -> dict[str, Constant]:
        """Scale and bias per channel."""
        return {
            "scale": Constant(np.broadcast_to(self.scale, (self.channels,)), self.typed("scale")),
            "bias": Constant(np.broadcast_to(self.bias, (self.channels,)), self.typed("bias")),
        }


@dataclass(eq=False, kw_only=True)
class ApplyAlpha(BatchNormalization):
    """``y = x * scale + bias`` per channel (last axis): the scale factored out of quantised weights, and their bias.

    It computes what a :class:`BatchNormalization` does; but its numbers are meant to arrive in hardware as they are, so
    types left open hold their values.
    """

    def infer_types(self, default: FixedType) -> None:
        """Scale and bias lose nothing (up to 32 bits); the result holds every product plus bias."""
        self.scale_type = self.scale_type or exact_type(self.scale)
        self.bias_type = self.bias_type or self.preset.get("bias") or exact_type(self.bias)
        super().infer_types(default)


@dataclass(eq=False, kw_only=True)
class Rescale(ApplyAlpha):
    """Scale and bias of a layer of its own (Rescaling, Normalization): what it reads has a working width already."""

    absorbs = False


@dataclass(eq=False, kw_only=True)
class ScoreScale(ApplyAlpha):
    """The scale between scores and their softmax."""

    def lossless(self, exact: FixedType, role: str) -> FixedType:
        """Drop the lowest of too many bits, even those the scores have: the softmax reads fewer."""
        return narrowed(exact)


@dataclass(eq=False, kw_only=True)
class View(Node):
    """The elements of its input in the same order: costs nothing unless it was given a type to change to."""

    template = "convert"
    kernel = "nnet_shape.h"
    pointwise = True
    keeps_values = True

    def passes_on(self) -> bool:
        """A view is as narrow as its readers make it."""
        return all(user.absorbs or user.passes_on() for user in self.output.users)

    @property
    def changes_type(self) -> bool:
        """True if it converts; otherwise it shares the storage of its input."""
        return self.result_type != self.inputs[0].type


@dataclass(eq=False, kw_only=True)
class Identity(View):
    """Passes its input on (Dropout at inference, a linear activation)."""


@dataclass(eq=False, kw_only=True)
class Reshape(View):
    """Another shape (Reshape, Flatten)."""

    shape: tuple[int, ...]

    def output_shape(self) -> tuple[int, ...]:
        """The target shape."""
        return self.shape


@dataclass(eq=False, kw_only=True)
class ZeroPadding(OnImages, Node):
    """Adds zeros around and between the pixels of an image.

    Attributes:
        padding: How many around it: (top, bottom, left, right), top and bottom 0 for rank 1.
        spread: Distance of neighbouring pixels in the output, (vertical, horizontal); 1 puts no zeros between them.
    """

    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    spread: tuple[int, int] = (1, 1)
    template = "zero_padding"
    kernel = "nnet_shape.h"
    keeps_values = True

    def output_shape(self) -> tuple[int, ...]:
        """The input's shape, grown by the zeros."""
        height, width, channels = image(self.inputs[0])
        top, bottom, left, right = self.padding
        rows = top + (height - 1) * self.spread[0] + 1 + bottom
        columns = left + (width - 1) * self.spread[1] + 1 + right
        return (columns, channels) if len(self.inputs[0].shape) == 2 else (rows, columns, channels)


# ***** what readers ask for *****


def _stored_in(value: Value) -> set[FixedType | None]:
    """Return the types that the readers of a tensor, or of other views of it, store it in before all else."""
    found: set[FixedType | None] = set()
    for user in value.users:
        plain = isinstance(user, View) and user.stores_input_in is None and not user.absorbs
        found |= _stored_in(user.output) if plain else {user.stores_input_in}
    return found or {None}


# ***** tensors of signs *****


def is_sign(kind: FixedType, values: npt.ArrayLike) -> bool:
    """Whether all `values` are plus or minus one step of `kind`, a signed type of two bits."""
    return kind.width == 2 and kind.signed and bool(np.all(np.abs(values) == kind.step))


def only_signs(value: Value) -> bool:
    """Whether every element of a tensor is plus or minus one step of its type, whatever the model is given.

    That is what thresholds make of two such levels, and what shape changes and maximum pooling leave of it.
    """
    node, kind = value.producer, value.known_type()
    if isinstance(node, Thresholds):
        return is_sign(kind, node.levels)
    return (
        node.keeps_values
        and not isinstance(node, ZeroPadding)
        and all(v.known_type().fraction == kind.fraction and only_signs(v) for v in node.inputs)
        and is_sign(kind, kind.step)
    )
