"""The operations of a kmodel, one record each.

A record's fields are those of the file, in the file's order; arrays are flat. Records are made by ordinary
constructors, and nothing is checked until they are written (values fit their fields, arrays have the length that the
other fields say) or run (:meth:`Node.check` and what :meth:`Node.reads` and :meth:`Node.writes` say of memory).
"""

from __future__ import annotations

from kconvert.errors import KModelError
from kconvert.kpu.nodes.base import NODES, Node, Tensor
from kconvert.kpu.nodes.channel_last import ChannelLast, ChannelLastOp
from kconvert.kpu.nodes.elementwise import (
    Binary,
    BinaryOp,
    Dequantize,
    NNILUnary,
    Quantize,
    QuantizedBinary,
    TableLookup1D,
    Unary,
    UnaryOp,
)
from kconvert.kpu.nodes.kpu import KpuConv2D, KpuUpload
from kconvert.kpu.nodes.moves import Concat, MemoryCopy, Pad, ResizeImage, ResizeMode, StridedSlice, Transpose
from kconvert.kpu.nodes.reductions import Reduce, ReduceOp, ReduceWindow2D, Softmax
from kconvert.kpu.nodes.sums import Conv2D, Conv2DTranspose, MatMul, QuantizedConv2D, QuantizedMatMul
from kconvert.kpu.wire import Reader

__all__ = [
    "NODES",
    "Binary",
    "BinaryOp",
    "ChannelLast",
    "ChannelLastOp",
    "Concat",
    "Conv2D",
    "Conv2DTranspose",
    "Dequantize",
    "KpuConv2D",
    "KpuUpload",
    "MatMul",
    "MemoryCopy",
    "NNILUnary",
    "Node",
    "Pad",
    "Quantize",
    "QuantizedBinary",
    "QuantizedConv2D",
    "QuantizedMatMul",
    "Reduce",
    "ReduceOp",
    "ReduceWindow2D",
    "ResizeImage",
    "ResizeMode",
    "Softmax",
    "StridedSlice",
    "TableLookup1D",
    "Tensor",
    "Transpose",
    "Unary",
    "UnaryOp",
    "opcode_of",
    "read_node",
]


def opcode_of(node: Node) -> int:
    """Return the code of a node in the file."""
    return int(node.op) if isinstance(node, ChannelLast) else node.opcode


def read_node(opcode: int, source: Reader) -> Node:
    """Read the body of a node.

    Raises:
        KModelError: the body does not hold such a node, or there is none of this code.
    """
    if opcode in NODES:
        return NODES[opcode].read(source)
    try:
        return ChannelLast(ChannelLastOp(opcode), source.take(source.end - source.position, "body"))
    except ValueError:
        raise KModelError(f"{source.where}: there is no operation of code {opcode:#x}") from None
