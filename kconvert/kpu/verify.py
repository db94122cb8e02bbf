"""Before a model is run: every access inside its memory, no more memory and work than the bounds allow.

The simulator's kernels check nothing, so what passes here has to be safe whatever the file holds. The bounds of one
sample are those below; per thread it takes the working memory, 2 MiB for the KPU, and scratch of at most 256 MiB.
Weights take up to 8 bytes for each byte of the file, and 40 while they are unpacked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kconvert.errors import KModelError
from kconvert.kpu.k210 import KPU_RAM
from kconvert.kpu.nodes import Conv2D, Node, QuantizedConv2D, Tensor
from kconvert.kpu.wire import DataType, Memory, MemoryRange

if TYPE_CHECKING:
    from kconvert.kpu.kmodel import KModel

MAX_MAIN_MEMORY = 256 * 1024 * 1024  # bytes, forty times what the chip has
MAX_WORK = 1 << 36  # multiply-accumulates and elements of one sample
MAX_TAPS = 1 << 18  # products in one sum of a convolution


def verify(model: KModel) -> None:
    """Check that the model can be run.

    Raises:
        KModelError: it cannot; the message names the node.
    """
    sizes = {Memory.CONST: len(model.constants), Memory.MAIN: model.main_memory, Memory.KPU: KPU_RAM}
    if model.main_memory > MAX_MAIN_MEMORY:
        raise KModelError(f"{model.main_memory} bytes of working memory are more than the {MAX_MAIN_MEMORY} allowed")
    _check_ports(model, sizes)
    work = 0
    for i, node in enumerate(model.nodes):
        try:
            _check_node(node, sizes)
        except KModelError as error:
            raise KModelError(f"node {i} ({type(node).__name__}): {error}") from None
        work += node.work
        if work > MAX_WORK:
            raise KModelError(f"up to node {i} a sample takes {work} steps, more than the {MAX_WORK} allowed")


def _check_ports(model: KModel, sizes: dict[Memory, int]) -> None:
    for i, port in enumerate(model.inputs):
        if min(port.shape) < 1:
            raise KModelError(f"input {i}: the shape {port.shape} is not positive")
        in_kpu = port.range.memory is Memory.KPU
        if in_kpu and port.range.datatype is not DataType.UINT8:
            raise KModelError(f"input {i}: the KPU's memory holds uint8 only")
        tensor = Tensor(f"input {i}", port.range, port.shape, port.range.datatype, in_kpu)
        _check_tensor(tensor, sizes, written=True)
    for i, where in enumerate(model.outputs):
        tensor = Tensor(f"output {i}", where, (where.size // where.datatype.itemsize,), where.datatype)
        _check_tensor(tensor, sizes, written=False)
        if tensor.size != where.size:
            raise KModelError(f"output {i}: {where.size} bytes are not whole elements")
    if sum(where.size for where in model.outputs) > MAX_MAIN_MEMORY:
        raise KModelError(f"the outputs have more than the {MAX_MAIN_MEMORY} bytes allowed")


def _check_node(node: Node, sizes: dict[Memory, int]) -> None:
    node.check()
    for tensor in node.reads():
        _check_tensor(tensor, sizes, written=False)
    for tensor in node.writes():
        _check_tensor(tensor, sizes, written=True)
    if isinstance(node, Conv2D | QuantizedConv2D) and node.weights.size // node.out_channels > MAX_TAPS:
        raise KModelError(f"one sum has {node.weights.size // node.out_channels} products, more than {MAX_TAPS}")


def _check_tensor(tensor: Tensor, sizes: dict[Memory, int], *, written: bool) -> None:
    what, where = tensor.what, tensor.range
    if (where.memory is Memory.KPU) != tensor.in_kpu:
        raise KModelError(f"{what} is in {_name(where)}, where it cannot be")
    if where.datatype is not tensor.datatype:
        raise KModelError(f"{what} is of {where.datatype.name.lower()}, {tensor.datatype.name.lower()} is needed")
    if written and where.memory is Memory.CONST:
        raise KModelError(f"{what} is written and lies in the constant pool")
    if math.prod(tensor.shape) < 1 or tensor.size > where.size:
        raise KModelError(f"{what} of shape {tensor.shape} does not fit the {where.size} bytes of its range")
    if where.end > sizes[where.memory]:
        raise KModelError(f"{what} ends at byte {where.end} of {_name(where)}, which has {sizes[where.memory]}")
    if where.start % where.datatype.itemsize:
        raise KModelError(f"{what} starts at byte {where.start}, which is not a multiple of 4")


def _name(where: MemoryRange) -> str:
    return {Memory.CONST: "the constant pool", Memory.MAIN: "main memory", Memory.KPU: "KPU memory"}[where.memory]
