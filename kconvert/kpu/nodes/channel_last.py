# ruff: noqa: D102 (the records' methods are documented where they are declared, in Node)
"""Operations that no compiler emits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy.typing as npt

from kconvert.errors import KModelError
from kconvert.kpu.nodes.base import (
    Node,
    Tensor,
)
from kconvert.kpu.wire import (
    Writer,
)

Array = npt.NDArray[Any]


class ChannelLastOp(IntEnum):
    """Operations that the runtime has and no compiler of this version emits; their bodies are not known."""

    CPU_CONV2D = 0x1001
    CPU_DEPTHWISE_CONV2D = 0x1002
    CPU_REDUCE_WINDOW2D = 0x1003
    CPU_QUANTIZED_CONV2D = 0x1004
    CPU_QUANTIZED_DEPTHWISE_CONV2D = 0x1005


@dataclass(frozen=True, eq=False)
class ChannelLast(Node):
    """One of :class:`ChannelLastOp`, kept as bytes: it is written back and cannot be run."""

    op: ChannelLastOp
    body: bytes

    def write(self, out: Writer) -> None:
        """Append the body."""
        out.data += self.body

    def reads(self) -> tuple[Tensor, ...]:
        return ()

    def writes(self) -> tuple[Tensor, ...]:
        return ()

    def check(self) -> None:
        raise KModelError(f"{self.op.name.lower()} is an operation that no compiler of v4 emits, and cannot be run")
