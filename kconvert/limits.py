"""Sizes at which the vendor tools give up: known before hours of synthesis.

What the tools say (``n`` is what they count, ``m`` their limit):

* Vivado HLS: ``[XFORM 203-504] Stop unrolling loop ... because it may cause large runtime``: products unrolled at once;
* Vivado HLS: ``[XFORM 203-103] Array ...: partitioned elements number (n) has exeeded the threshold (m)``: 1024, or the
  4096 that ``build_prj.tcl`` allows;
* Vivado HLS: ``[XFORM 203-133] Bitwidth of reshaped elements (n bits) exceeds the maximum bitwidth (65536 bits)``;
* Vitis HLS has no such limits, but warns of long run times in the same cases (``[200-868]`` in UG1448).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kconvert.errors import HardwareWarning
from kconvert.firmware import storage_of
from kconvert.layers import Conv, GroupedConv, Input, Node, Recurrent, Weighted

if TYPE_CHECKING:
    from kconvert.model import HLSModel

MOST_UNROLLED = 4096
"""Products that are computed at the same time."""
MOST_PARTITIONED = 4096
"""Elements of an array that is kept in registers."""
MOST_RESHAPED_BITS = 65536
"""Bits of a word of a memory."""
NAMED = 4
"""Layers that a warning about several of them names."""


def warn_of_limits(model: HLSModel) -> None:
    """Warn once of each layer, and once of all tensors, too large for the vendor tool: a :class:`HardwareWarning`."""
    for node in model.nodes:
        what = next(_of_node(node), None)
        if what is not None:
            _warn(model, f"layer {node.name!r}: {what}")
    what = _of_tensors(model)
    if what is not None:
        _warn(model, what)


def _warn(model: HLSModel, what: str) -> None:
    vivado = model.settings.backend == "Vivado"
    known = "Vivado HLS refuses it" if vivado else "Vivado HLS refuses it, and Vitis HLS warns of long run times"
    warnings.warn(f"{what} ({known})", HardwareWarning, stacklevel=4)


# ***** layers *****


def _matrices(node: Weighted | Recurrent) -> list[tuple[int, int]]:
    """Return, for every matrix of a layer, its products and how many times it is there at once."""
    if isinstance(node, Recurrent):
        return [(matrix.fan_in * matrix.fan_out, 1) for matrix in node.matrices]
    together = node.parallelization_factor if isinstance(node, Conv) else 1
    return [(node.products, together * (node.groups if isinstance(node, GroupedConv) else 1))]


def _of_node(node: Node) -> Iterator[str]:
    """Yield what is too large about the matrices of a layer, and about the windows they are applied to."""
    if not isinstance(node, Weighted | Recurrent):
        return
    for products, copies in _matrices(node):
        shared = node.strategy == "Resource"
        reuse = node.reuse_factor if shared else 1
        unrolled = products // reuse * copies
        if unrolled > MOST_UNROLLED:
            yield (f"{unrolled} products are unrolled at once, more than {MOST_UNROLLED}; set {_way_out(node)}")
        width = node.typed("weight").width
        if shared and products // reuse * width > MOST_RESHAPED_BITS:
            yield (
                f"{products // reuse} weights of {width} bits make one word of memory, of more than "
                f"{MOST_RESHAPED_BITS} bits; set {_way_out(node, width)}"
            )
    if isinstance(node, Conv):
        seen = node.window.area * node.image_in[2]
        if seen > MOST_PARTITIONED:
            yield f"its window of {seen} elements is kept in registers, more than {MOST_PARTITIONED}; make it smaller"


def _way_out(node: Weighted | Recurrent, width: int = 0) -> str:
    """Return settings for which all matrices of a layer are small enough."""
    every = _matrices(node)
    most = min(MOST_UNROLLED // max(copies for _, copies in every), MOST_RESHAPED_BITS // width if width else 1 << 62)
    common = math.gcd(*(n for n, _ in every))
    largest = max(n for n, _ in every)
    fitting = [n for n in _divisors(common) if largest // n <= most] if most else []
    if not fitting:
        return "a smaller ParallelizationFactor, or make the layer smaller"
    return f"LayerName → {node.layer} → Strategy: Resource and ReuseFactor: {fitting[0]} or more"


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


# ***** tensors *****


def _of_tensors(model: HLSModel) -> str | None:
    """Return what is too large about the arrays between the layers, if anything."""
    if model.settings.io_type == "io_stream":
        return None
    sizes = {n.name: n.output.size for n in model.nodes if storage_of(n.output) is n.output}
    large = {name: size for name, size in sizes.items() if size > MOST_PARTITIONED}
    if large:
        names = [repr(name) for name in large]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return (
            f"the outputs of {', '.join(names[:NAMED])}{more} have up to {max(large.values())} elements, and arrays of "
            f"more than {MOST_PARTITIONED} are too large for registers; use io_type='io_stream'"
        )
    for node in model.nodes:
        if isinstance(node, Input) and node.output.size * node.typed("result").width > MOST_RESHAPED_BITS:
            return (
                f"input {node.name!r} comes as one word of {node.output.size * node.typed('result').width} bits, and "
                f"more than {MOST_RESHAPED_BITS} are too many; use io_type='io_stream', or a narrower type"
            )
    return None
