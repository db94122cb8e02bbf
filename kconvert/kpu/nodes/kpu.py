# ruff: noqa: D102 (the records' methods are documented where they are declared, in Node)
"""What concerns the KPU."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kconvert.kpu.k210 import ROW, SEGMENTS, TABLE_ALIGNMENT, Activation, BatchNorm, Registers, map_bytes
from kconvert.kpu.nodes.base import (
    B,
    Node,
    Tensor,
    operation,
    positive,
    require,
    stored,
)
from kconvert.kpu.wire import (
    RANGE,
    SHAPE,
    Memory,
    MemoryRange,
    Reader,
    Shape,
    Writer,
)

Array = npt.NDArray[Any]


@operation(0x2001)
class KpuUpload(Node):
    """Bring uint8 maps from main memory into KPU memory, in its layout."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, B),)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.in_shape, B, in_kpu=True),)

    def check(self) -> None:
        positive(self, "in_shape")


@operation(0x2002)
class KpuConv2D(Node):
    """A convolution, batch normalisation, activation and pooling on the KPU.

    In a record the three addresses of `registers` are 0: how far away the tables are is known when the file is written.
    """

    on_kpu: ClassVar[bool] = True

    main_output: MemoryRange  # where the result also goes as plain NCHW, if its size is not 0
    batches: int
    reserved: int
    registers: Registers
    norm: BatchNorm
    activation: Activation
    weights: Array  # uint8, flat: [out, in, k, k], or [channels, 1, k, k] if depthwise

    @classmethod
    def read(cls, source: Reader) -> KpuConv2D:
        """Read a body; see :meth:`Node.read`."""
        main_output = RANGE.read(source, {}, "main_output")
        batches, reserved = source.numbers("ii", "batches")
        registers = Registers.unpack(source.array("<u8", Registers.WORDS, "registers"))
        require(registers.kernel_type in (0, 1), f"{source.where}: kernel_type {registers.kernel_type} is not 0 or 1")
        stored = (registers.bwsx_base_addr, registers.active_addr, registers.para_start_addr)
        gaps = []

        def table(dtype: str, count: int, what: str) -> Array:
            start = source.position
            source.align(TABLE_ALIGNMENT, what)
            gaps.append(source.position - start)
            return source.array(dtype, count, what)

        norm = BatchNorm.unpack(table("<u8", registers.out_shape[0], "batch-norm table"))
        lines = table("<u8", SEGMENTS, "activation table")
        activation = Activation.unpack(lines, source.array("u1", SEGMENTS, "activation bias"))
        weights = table("u1", registers.weight_count, "weights")
        require(
            stored == tuple(gaps),
            f"{source.where}: the gaps {stored} before its tables are not {tuple(gaps)}, which would put them at "
            f"multiples of {TABLE_ALIGNMENT}",
        )
        return cls(main_output, batches, reserved, _without_addresses(registers), norm, activation, weights)

    def write(self, out: Writer) -> None:
        """Append the body; see :meth:`Node.write`."""
        registers = self.registers
        require(
            len(self.norm.mul) == registers.out_shape[0] and self.weights.size == registers.weight_count,
            f"KpuConv2D: {len(self.norm.mul)} entries of norm and {self.weights.size} weights, and its registers say "
            f"{registers.out_shape[0]} and {registers.weight_count}",
        )
        RANGE.write(out, self.main_output, {}, "KpuConv2D.main_output")
        out.numbers("ii", self.batches, self.reserved, what="KpuConv2D.batches, reserved")
        place = len(out.data)
        size = 8 * Registers.WORDS
        out.data += bytes(size)
        bwsx = out.align(TABLE_ALIGNMENT)
        out.data += self.norm.pack().astype("<u8").tobytes()
        active = out.align(TABLE_ALIGNMENT)
        out.data += self.activation.pack().astype("<u8").tobytes()
        out.data += np.asarray(self.activation.bias, dtype=np.uint8).tobytes()
        start = out.align(TABLE_ALIGNMENT)
        out.data += np.asarray(self.weights, dtype=np.uint8).tobytes()
        words = dataclasses.replace(registers, bwsx_base_addr=bwsx, active_addr=active, para_start_addr=start).pack()
        out.data[place : place + size] = words.astype("<u8").tobytes()

    @property
    def in_shape(self) -> Shape:
        """Shape of the input maps."""
        return (self.batches, *self.registers.in_shape)

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return (self.batches, *self.registers.out_shape)

    def reads(self) -> tuple[Tensor, ...]:
        start = self.registers.image_src_addr * ROW
        where = MemoryRange(Memory.KPU, B, start, self.batches * map_bytes(*self.registers.in_shape))
        return (Tensor("source", where, self.in_shape, B, in_kpu=True),)

    def writes(self) -> tuple[Tensor, ...]:
        start = self.registers.image_dst_addr * ROW
        where = MemoryRange(Memory.KPU, B, start, self.batches * map_bytes(*self.registers.out_shape))
        maps = Tensor("out", where, self.out_shape, B, in_kpu=True)
        copy = Tensor("main_output", self.main_output, self.out_shape, B)
        return (maps, copy) if self.main_output.size else (maps,)

    def check(self) -> None:
        registers = self.registers
        stride = registers.pool.stride
        channels, height, width = registers.in_shape
        out_channels, *out_size = registers.out_shape
        positive(self, "batches")
        require(
            tuple(out_size) == (height // stride, width // stride),
            f"{height}x{width} pixels with pool_type {registers.pool_type} do not make {out_size[0]}x{out_size[1]}",
        )
        require(
            not registers.depth_wise_layer or channels == out_channels,
            f"a depthwise layer of {channels} channels would have {out_channels} in its result",
        )
        require(not registers.bypass_conv and not registers.first_stride, "bypass_conv and first_stride are not known")
        require(registers.pad_type == 0, f"pad_type {registers.pad_type} is not 0, a constant border")
        worst = int(self.activation.shift.max(initial=0))
        require(worst <= 62, f"the activation table shifts by {worst}, which is more than 62")

    @property
    def work(self) -> int:
        _, height, width = self.registers.in_shape
        return self.batches * height * width * self.registers.weight_count


def _without_addresses(registers: Registers) -> Registers:
    return dataclasses.replace(registers, bwsx_base_addr=0, active_addr=0, para_start_addr=0)
