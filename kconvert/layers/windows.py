"""Layers that slide a window over one or two spatial axes: convolutions and pooling.

Everything is two-dimensional inside: a tensor [length, channels] is an image of height 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from kconvert.errors import ConfigError
from kconvert.layers.base import Constant, Node, OnImages, image
from kconvert.layers.core import Weighted, nearest_divisors
from kconvert.layers.mean import Division, mean_type
from kconvert.types import FixedType, grow


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window: sizes, strides and padding as (vertical, horizontal) pairs.

    `padding` is (top, bottom, left, right), `dilation` the distance of neighbouring pixels under the window.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        strides: tuple[int, int],
        padding: str,
        space: tuple[int, int],
        dilation: tuple[int, int] = (1, 1),
    ) -> Window:
        """Resolve Keras' padding ``"valid"``, ``"same"`` or ``"causal"`` for an image of (height, width) `space`."""
        plain = cls(size, strides, dilation=dilation)
        if padding == "valid":
            return plain
        if padding == "causal":
            return cls(size, strides, (0, 0, plain.reach[1] - 1, 0), dilation)
        pads: list[int] = []
        for length, reach, stride in zip(space, plain.reach, strides, strict=True):
            total = max((-(-length // stride) - 1) * stride + reach - length, 0)
            pads += [total // 2, total - total // 2]
        return cls(size, strides, (pads[0], pads[1], pads[2], pads[3]), dilation)

    @property
    def reach(self) -> tuple[int, int]:
        """Height and width of the part of the image that the window covers."""
        return (self.size[0] - 1) * self.dilation[0] + 1, (self.size[1] - 1) * self.dilation[1] + 1

    @property
    def dilated(self) -> bool:
        """Whether there are pixels between those that the window sees."""
        return self.reach != self.size

    def output(self, space: tuple[int, int]) -> tuple[int, int]:
        """Number of window positions over an image of (height, width) `space`."""
        top, bottom, left, right = self.padding
        return (
            (space[0] + top + bottom - self.reach[0]) // self.strides[0] + 1,
            (space[1] + left + right - self.reach[1]) // self.strides[1] + 1,
        )

    @property
    def area(self) -> int:
        """Elements of one channel under the window."""
        return self.size[0] * self.size[1]


def _output_shape(node: Node, window: Window, channels: int) -> tuple[int, ...]:
    height, width, _ = image(node.inputs[0])
    out_height, out_width = window.output((height, width))
    rank_one = len(node.inputs[0].shape) == 2
    return (out_width, channels) if rank_one else (out_height, out_width, channels)


@dataclass(eq=False, kw_only=True)
class Conv(OnImages, Weighted):
    """Convolution in one or two dimensions, weights [height, width, channels, filters].

    Attributes:
        window: Geometry.
        parallelization_factor: How many output positions are computed at the same time, in ``io_parallel``.
        conv_implementation: How a stream is turned into windows: there is the line buffer alone.
    """

    window: Window
    parallelization_factor: int = 1
    conv_implementation: str = "LineBuffer"
    tunables = frozenset({*Weighted.tunables, "parallelization_factor", "conv_implementation"})
    template = "conv"
    kernel = "nnet_conv.h"

    def check(self) -> None:
        """As of every matrix; and positions must come in groups of equal size."""
        super().check()
        positions, wanted = self.output.positions, self.parallelization_factor
        if positions % wanted:
            raise ConfigError(
                f"layer {self.name!r}: ParallelizationFactor {wanted} does not divide its {positions} output "
                f"positions; the nearest that do: {nearest_divisors(positions, wanted)}"
            )

    def _sees_signs(self) -> bool:
        return not any(self.window.padding) and super()._sees_signs()  # padding is zeros

    def output_shape(self) -> tuple[int, ...]:
        """Window positions by filters."""
        return _output_shape(self, self.window, self.fan_out)


@dataclass(eq=False, kw_only=True)
class GroupedConv(Conv):
    """Convolution of every group of channels with filters of its own.

    Weights are [height, width, channels of a group, filters of all groups].
    """

    groups: int
    template = "grouped_conv"

    @property
    def group_filters(self) -> int:
        """Filters of one group."""
        return self.fan_out // self.groups

    @property
    def products(self) -> int:
        """Multiplications of one group."""
        return self.fan_in * self.group_filters

    @property
    def scratch(self) -> int:
        """The window over all channels and over those of a group, and the accumulators."""
        return self.fan_in * (self.groups + 1) + self.fan_out

    def constants(self) -> dict[str, Constant]:
        """Weights, one matrix [fan-in, filters of a group] after the other, and bias."""
        found = super().constants()
        by_group = self.weight.reshape(self.fan_in, self.groups, self.group_filters).transpose(1, 0, 2)
        return {**found, "weight": replace(found["weight"], values=by_group)}


@dataclass(eq=False, kw_only=True)
class DepthwiseConv(Conv):
    """Convolution of every channel with `depth_multiplier` filters of its own.

    Weights are [height, width, channels * depth_multiplier].
    """

    depth_multiplier: int = 1
    template = "depthwise_conv"
    kernel = "nnet_conv.h"

    @property
    def scratch(self) -> int:
        """The window over all channels."""
        return self.fan_in * self.image_in[2]


@dataclass(eq=False, kw_only=True)
class Pool(OnImages, Node):
    """Largest value or mean under a window, per channel; padding never counts.

    Attributes:
        window: Geometry; the whole image for global pooling.
        average: Mean if true, largest value if false.
        drop_space: True for global pooling without ``keepdims``: the output has the channel axis only.
        accum_type: Type of the sum (average only).
    """

    window: Window
    average: bool
    drop_space: bool = False
    accum_type: FixedType | None = None

    template = "pool"
    kernel = "nnet_pool.h"
    average_roles: ClassVar[Mapping[str, str]] = {"accum": "accum_type", "result": "result_type"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average:
            self.roles = self.average_roles  # type: ignore[misc]  # a maximum has no accumulator to set
        self.keeps_values = not self.average  # type: ignore[misc]

    def output_shape(self) -> tuple[int, ...]:
        """Window positions by channels, or channels alone."""
        channels = self.inputs[0].shape[-1]
        return (channels,) if self.drop_space else _output_shape(self, self.window, channels)

    @property
    def image_out(self) -> tuple[int, int, int]:
        """(height, width, channels) of the output, spatial axes kept."""
        height, width, channels = self.image_in
        return (*self.window.output((height, width)), channels)

    def infer_types(self, default: FixedType) -> None:
        """A sum is lossless; a mean keeps log2 of the window's area more fraction bits, exact for powers of two."""
        source = self.in_type()
        if not self.average:
            self.result_type = self.result_type or source
            return
        self.accum_type = self.accum_type or self.lossless(grow(source, self.window.area), "accum")
        mean = mean_type(source, self.accum_type, self.window.area)
        self.result_type = self.result_type or self.lossless(mean, "result")
        self.division.check(self.name)

    @property
    def division(self) -> Division:
        """How a sum is divided by the number of elements a window sees (average only)."""
        return Division(self.typed("accum"), self.typed("result"), self.window.area)

    def constants(self) -> dict[str, Constant]:
        """Reciprocals of 1 .. area, rounded up; entry 0 is unused."""
        return {"reciprocal": self.division.reciprocals(*range(self.window.area + 1))} if self.average else {}
