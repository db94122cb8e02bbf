"""What the chip fixes: limits, the layout of the KPU's memory, and the bits of a layer's registers and tables.

A layer is described to the KPU by 12 words of 64 bits, a table with one word for each output channel (batch
normalisation), and 16 line segments (activation). This module is the only one that knows where in them a field is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from kconvert.errors import KModelError

Array = npt.NDArray[Any]

KPU_RAM = 2 * 1024 * 1024  # bytes of the KPU's own memory, which holds the feature maps
GENERAL_RAM = 6 * 1024 * 1024  # bytes that program, model file and working memory share
FLASH = 16 * 1024 * 1024  # bytes of the flash chip of the boards on sale
ROW = 64  # the KPU's memory is addressed in rows of this many bytes
TABLE_ALIGNMENT = 256  # of a layer's tables, counted from the start of the file
WEIGHT_BUFFER = 30720  # bytes of weights that one load may bring
MAX_CHANNELS = 1024
MIN_HEIGHT, MAX_HEIGHT = 4, 256
MIN_WIDTH, MAX_WIDTH = 4, 512
MAX_LOADS = 64  # load_time has 6 bits
SEGMENTS = 16  # of the activation table
LOWEST_X = -(1 << 35)  # where segment 0 starts
MACS_PER_CYCLE = 288  # 0.23 TOPS at 400 MHz, two operations a multiply-accumulate: the maker's figure


class Pool(IntEnum):
    """What the KPU does with a map it has computed; the value is that of the register field."""

    NONE = 0
    MAX_2X2 = 1
    MEAN_2X2 = 2
    MAX_4X4 = 3
    MEAN_4X4 = 4
    LEFT_TOP_2X2 = 5
    RIGHT_TOP_2X2 = 6
    LEFT_TOP_4X4 = 7
    MEAN_2X2_STRIDE_1 = 8
    MAX_2X2_STRIDE_1 = 9

    @property
    def stride(self) -> int:
        """How many pixels of the computed map make one of the result, in each direction."""
        return {0: 1, 1: 2, 2: 2, 3: 4, 4: 4, 5: 2, 6: 2, 7: 4, 8: 1, 9: 1}[self.value]


# ***** memory layout *****


class RowLayout(NamedTuple):
    """How the rows of 64 bytes are shared out for maps of one width."""

    groups: int  # channels that share a row
    row_length: int  # rows for one line of the map
    pitch: int  # bytes from one channel to the next within a row


def row_layout(width: int) -> RowLayout:
    """Return how maps of `width` pixels lie in the KPU's memory."""
    if width <= 16:
        return RowLayout(4, 1, 16)
    if width <= 32:
        return RowLayout(2, 1, 32)
    return RowLayout(1, -(-width // ROW), ROW)


def map_bytes(channels: int, height: int, width: int) -> int:
    """Return the bytes that one feature map takes in the KPU's memory."""
    groups, row_length, _ = row_layout(width)
    return row_length * height * -(-channels // groups) * ROW


def to_kpu_layout(maps: Array) -> Array:
    """Return uint8 `maps` [n, c, h, w] as the KPU keeps them, [n, map_bytes]; bytes between lines are 0."""
    n, c, h, w = maps.shape
    groups, row_length, pitch = row_layout(w)
    full = np.zeros((n, -(-c // groups) * groups, h, pitch if groups > 1 else row_length * ROW), np.uint8)
    full[:, :c, :, :w] = maps
    return full.reshape(n, -1, groups, h, full.shape[-1]).transpose(0, 1, 3, 2, 4).reshape(n, map_bytes(c, h, w))


def from_kpu_layout(stored: Array, channels: int, height: int, width: int) -> Array:
    """Return the maps [n, c, h, w] that :func:`to_kpu_layout` has made."""
    groups, row_length, pitch = row_layout(width)
    line = pitch if groups > 1 else row_length * ROW
    full = stored.reshape(len(stored), -1, height, groups, line).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(full.reshape(len(stored), -1, height, line)[:, :channels, :, :width])


# ***** registers *****


def _bits(word: int, low: int, count: int, *, signed: bool = False, default: int = 0) -> Any:
    return dataclasses.field(default=default, metadata={"bits": (word, low, count, signed)})


@dataclass(frozen=True, slots=True)
class Registers:
    """The 12 register words of a layer, taken apart.

    Names and positions are those of the chip. A field holds what its bits hold: many of them a size minus 1. See
    :meth:`for_layer` for values that are consistent, and the properties for sizes as they are meant.
    """

    WORDS: ClassVar[int] = 12

    int_en: int = _bits(0, 0, 1)
    ram_flag: int = _bits(0, 1, 1)
    full_add: int = _bits(0, 2, 1)
    depth_wise_layer: int = _bits(0, 3, 1)
    image_src_addr: int = _bits(1, 0, 15)  # in rows of 64 bytes, as all addresses and offsets in KPU memory
    image_dst_addr: int = _bits(1, 32, 15)
    i_ch_num: int = _bits(2, 0, 10)
    o_ch_num: int = _bits(2, 32, 10)
    o_ch_num_coef: int = _bits(2, 48, 10)
    i_row_wid: int = _bits(3, 0, 10)
    i_col_high: int = _bits(3, 10, 9)
    o_row_wid: int = _bits(3, 32, 10)
    o_col_high: int = _bits(3, 42, 9)
    kernel_type: int = _bits(4, 0, 3)
    pad_type: int = _bits(4, 3, 1)
    pool_type: int = _bits(4, 4, 4)
    first_stride: int = _bits(4, 8, 1)
    bypass_conv: int = _bits(4, 9, 1)
    load_para: int = _bits(4, 10, 1, default=1)
    dma_burst_size: int = _bits(4, 16, 8, default=15)
    pad_value: int = _bits(4, 24, 8)
    bwsx_base_addr: int = _bits(4, 32, 32)  # in a file: bytes to skip before the batch-norm table
    load_coor: int = _bits(5, 0, 1, default=1)
    load_time: int = _bits(5, 1, 6)
    para_size: int = _bits(5, 15, 17)
    para_start_addr: int = _bits(5, 32, 32)  # in a file: bytes to skip before the weights
    coef_column_offset: int = _bits(6, 0, 4)
    coef_row_offset: int = _bits(6, 4, 12)
    channel_switch_addr: int = _bits(7, 0, 15)
    row_switch_addr: int = _bits(7, 16, 4)
    coef_size: int = _bits(7, 20, 8)
    coef_group: int = _bits(7, 28, 3)
    load_act: int = _bits(7, 31, 1, default=1)
    active_addr: int = _bits(7, 32, 32)  # in a file: bytes to skip before the activation table
    wb_channel_switch_addr: int = _bits(8, 0, 15)
    wb_row_switch_addr: int = _bits(8, 16, 4)
    wb_group: int = _bits(8, 20, 3)
    shr_w: int = _bits(9, 0, 4)
    shr_x: int = _bits(9, 4, 4)
    arg_w: int = _bits(9, 8, 24, signed=True)
    arg_x: int = _bits(9, 32, 24, signed=True)
    arg_add: int = _bits(10, 0, 40, signed=True)
    send_data_out: int = _bits(11, 0, 1)
    channel_byte_num: int = _bits(11, 16, 16)
    dma_total_byte: int = _bits(11, 32, 32)
    unnamed: tuple[int, ...] = (0,) * 12  # bits of no field, one number a word, in place

    @classmethod
    def for_layer(
        cls,
        *,
        in_shape: tuple[int, int, int],
        out_channels: int,
        kernel: int,
        depthwise: bool = False,
        pool: Pool = Pool.NONE,
        source: int = 0,
        target: int = 0,
        to_main: bool = False,
        **values: Any,
    ) -> Registers:
        """Return the registers of a layer, with everything that follows from sizes filled in.

        Args:
            in_shape: channels, height and width of the input map.
            out_channels: channels of the result (those of the input if `depthwise`).
            kernel: 1 or 3.
            depthwise: one filter for each channel.
            pool: what happens to the computed map.
            source: byte address of the input in KPU memory, a multiple of 64.
            target: byte address of the result, likewise.
            to_main: whether the result also goes to main memory.
            values: further fields: ``pad_value``, ``arg_x``, ``arg_w``, ``arg_add``...

        Raises:
            KModelError: the chip has no such layer.
        """
        channels, height, width = in_shape
        _check_layer(in_shape, out_channels, kernel, depthwise, source, target)
        out_height, out_width = height // pool.stride, width // pool.stride
        per_channel = kernel * kernel * channels
        per_load = out_channels if depthwise else min(out_channels, WEIGHT_BUFFER // per_channel)
        loads = -(-out_channels // per_load)
        if loads > MAX_LOADS:
            raise KModelError(
                f"{channels} channels of {kernel}x{kernel} to {out_channels} need {loads} weight loads and the KPU can "
                f"do {MAX_LOADS}: split the layer"
            )
        groups, row_length, _ = row_layout(width)
        out_groups, out_row_length, _ = row_layout(out_width)
        return cls(
            depth_wise_layer=int(depthwise),
            image_src_addr=source // ROW,
            image_dst_addr=target // ROW,
            i_ch_num=channels - 1,
            o_ch_num=out_channels - 1,
            o_ch_num_coef=per_load - 1,
            i_row_wid=width - 1,
            i_col_high=height - 1,
            o_row_wid=out_width - 1,
            o_col_high=out_height - 1,
            kernel_type=int(kernel == 3),
            pool_type=int(pool),
            load_time=loads - 1,
            para_size=kernel * kernel * out_channels if depthwise else per_channel * per_load,
            channel_switch_addr=row_length * height,
            row_switch_addr=row_length,
            coef_group=groups,
            wb_channel_switch_addr=out_row_length * out_height,
            wb_row_switch_addr=out_row_length,
            wb_group=out_groups,
            send_data_out=int(to_main),
            channel_byte_num=out_height * out_width - 1,
            dma_total_byte=out_height * out_width * out_channels - 1,
            **values,
        )

    @classmethod
    def unpack(cls, words: Array) -> Registers:
        """Take 12 words (uint64) apart."""
        numbers = [int(w) for w in words]
        values: dict[str, Any] = {"unnamed": tuple(n & ~m for n, m in zip(numbers, _NAMED, strict=True))}
        for name, (word, low, count, signed) in _FIELDS.items():
            value = numbers[word] >> low & (1 << count) - 1
            values[name] = value - (1 << count) if signed and value >> count - 1 else value
        return cls(**values)

    def pack(self) -> Array:
        """Return the 12 words, uint64.

        Raises:
            KModelError: a value does not fit its field.
        """
        numbers = [n & ~m & (1 << 64) - 1 for n, m in zip(self.unnamed, _NAMED, strict=True)]
        for name, (word, low, count, signed) in _FIELDS.items():
            numbers[word] |= _fit(getattr(self, name), count, signed, name) << low
        return np.array(numbers, dtype=np.uint64)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        return self.i_ch_num + 1, self.i_col_high + 1, self.i_row_wid + 1

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the result, after pooling."""
        return self.o_ch_num + 1, self.o_col_high + 1, self.o_row_wid + 1

    @property
    def kernel(self) -> int:
        """Height and width of the filters.

        Raises:
            KModelError: the field holds none of the two that there are.
        """
        if self.kernel_type not in (0, 1):
            raise KModelError(f"kernel_type {self.kernel_type} is neither 0 (1x1) nor 1 (3x3)")
        return (1, 3)[self.kernel_type]

    @property
    def pool(self) -> Pool:
        """What happens to the computed map.

        Raises:
            KModelError: the field holds no such thing.
        """
        if self.pool_type > max(Pool):
            raise KModelError(f"pool_type {self.pool_type} is not one of 0 to {max(Pool)}")
        return Pool(self.pool_type)

    @property
    def weight_count(self) -> int:
        """Bytes of weights: [out, in, k, k], or [channels, 1, k, k] if depthwise."""
        return (self.o_ch_num + 1) * self.kernel**2 * (1 if self.depth_wise_layer else self.i_ch_num + 1)


_FIELDS: dict[str, tuple[int, int, int, bool]] = {
    field.name: field.metadata["bits"] for field in dataclasses.fields(Registers) if "bits" in field.metadata
}
_NAMED = [
    sum((1 << count) - 1 << low for word, low, count, _ in _FIELDS.values() if word == i)
    for i in range(Registers.WORDS)
]


def _fit(value: int, count: int, signed: bool, name: str) -> int:
    low = -(1 << count - 1) if signed else 0
    high = low + (1 << count) - 1
    if not low <= value <= high:
        raise KModelError(f"{name} = {value} does not fit its {count} bits ({low} to {high})")
    return value & (1 << count) - 1


def _check_layer(
    in_shape: tuple[int, int, int], out_channels: int, kernel: int, depthwise: bool, source: int, target: int
) -> None:
    channels, height, width = in_shape
    if kernel not in (1, 3):
        raise KModelError(f"the KPU has 1x1 and 3x3 filters, not {kernel}x{kernel}")
    if not (1 <= channels <= MAX_CHANNELS and 1 <= out_channels <= MAX_CHANNELS):
        raise KModelError(f"{channels} to {out_channels} channels: the KPU takes 1 to {MAX_CHANNELS}")
    if not (MIN_HEIGHT <= height <= MAX_HEIGHT and MIN_WIDTH <= width <= MAX_WIDTH):
        raise KModelError(
            f"a map of {height}x{width} pixels: the KPU takes heights of {MIN_HEIGHT} to {MAX_HEIGHT} and widths of "
            f"{MIN_WIDTH} to {MAX_WIDTH}"
        )
    if depthwise and channels != out_channels:
        raise KModelError(f"a depthwise layer has as many channels out as in, not {channels} and {out_channels}")
    if source % ROW or target % ROW:
        raise KModelError(f"KPU addresses {source} and {target} are not both multiples of {ROW}")


# ***** tables *****


def _field_of(words: Array, low: int, count: int, *, signed: bool) -> Array:
    """Return bits of every word, as int64."""
    up = words.astype(np.uint64) << np.uint64(64 - low - count)
    return up.view(np.int64) >> (64 - count) if signed else (up >> np.uint64(64 - count)).view(np.int64)


def _packed(fields: list[tuple[str, Array, int, int, bool]]) -> Array:
    words = np.zeros(len(fields[0][1]), dtype=np.uint64)
    for name, values, low, count, signed in fields:
        least = -(1 << count - 1) if signed else 0
        wrong = [int(v) for v in values if not least <= v < least + (1 << count)]
        if wrong:
            raise KModelError(f"{name} = {wrong[0]} does not fit its {count} bits")
        words |= (values.astype(np.int64).view(np.uint64) & np.uint64((1 << count) - 1)) << np.uint64(low)
    return words


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """The batch-norm table: b = ((v * mul) >> shift) + add, one entry for each output channel; int64 arrays."""

    mul: Array  # signed 24 bits
    add: Array  # signed 32 bits
    shift: Array  # 4 bits
    unused: Array | None = None  # 4 bits that the chip ignores and the original leaves as they were in memory

    @classmethod
    def unpack(cls, words: Array) -> BatchNorm:
        """Take the words (uint64, one a channel) apart."""
        return cls(
            _field_of(words, 0, 24, signed=True),
            _field_of(words, 24, 32, signed=True),
            _field_of(words, 56, 4, signed=False),
            _field_of(words, 60, 4, signed=False),
        )

    def pack(self) -> Array:
        """Return the words, uint64.

        Raises:
            KModelError: a value does not fit its field.
        """
        return _packed(
            [
                ("norm_mul", self.mul, 0, 24, True),
                ("norm_add", self.add, 24, 32, True),
                ("norm_shift", self.shift, 56, 4, False),
                ("unused bits", np.zeros_like(self.mul) if self.unused is None else self.unused, 60, 4, False),
            ]
        )


@dataclass(frozen=True, slots=True)
class Activation:
    """The activation table: 16 lines y = (b - start) * mul / 2^shift + bias, chosen by the last start below b."""

    start: Array  # int64 [16], signed 36 bits, ascending; the first is LOWEST_X
    mul: Array  # int64 [16], signed 16 bits
    shift: Array  # int64 [16], 8 bits
    bias: Array  # uint8 [16]
    unused: Array | None = None  # as in BatchNorm

    @classmethod
    def unpack(cls, words: Array, bias: Array) -> Activation:
        """Take the 16 words (uint64) apart; `bias` has its own bytes behind them."""
        return cls(
            _field_of(words, 24, 36, signed=True),
            _field_of(words, 8, 16, signed=True),
            _field_of(words, 0, 8, signed=False),
            bias,
            _field_of(words, 60, 4, signed=False),
        )

    def pack(self) -> Array:
        """Return the 16 words, uint64.

        Raises:
            KModelError: there are not 16 segments, or a value does not fit its field.
        """
        if {len(self.start), len(self.mul), len(self.shift), len(self.bias)} != {SEGMENTS}:
            raise KModelError(f"an activation table has {SEGMENTS} segments")
        return _packed(
            [
                ("shift", self.shift, 0, 8, False),
                ("y_mul", self.mul, 8, 16, True),
                ("x_start", self.start, 24, 36, True),
                ("unused bits", np.zeros_like(self.mul) if self.unused is None else self.unused, 60, 4, False),
            ]
        )
