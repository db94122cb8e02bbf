"""What a kmodel does, in a table.

The times are estimates. On the KPU a layer takes its multiply-accumulates / 288 cycles: the maker gives 0.23
tera-operations a second at 400 MHz. On the CPU a step is taken to be 10 cycles, which is a rule of thumb. Neither was
measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kconvert.kpu.k210 import KPU_RAM, MACS_PER_CYCLE
from kconvert.kpu.layout import output_shapes
from kconvert.kpu.nodes import ChannelLast, KpuConv2D, Node
from kconvert.kpu.wire import Memory, MemoryRange

if TYPE_CHECKING:
    from kconvert.kpu.kmodel import KModel

CPU_CYCLES = 10  # of an elementary step
CLOCK = 400_000_000  # Hz


def cycles(node: Node) -> int:
    """Return how many cycles a node takes, as estimated."""
    return -(-node.work // MACS_PER_CYCLE) if node.on_kpu else node.work * CPU_CYCLES


def kpu_memory(model: KModel) -> int:
    """Return the bytes of KPU memory that the model uses, from its start."""
    used = [t.range for node in model.nodes for t in (*node.reads(), *node.writes())]
    used += [port.range for port in model.inputs]
    return max((where.end for where in used if where.memory is Memory.KPU), default=0)


def summary(model: KModel) -> str:
    """Return the table; the model has to pass its check."""
    rows = [["#", "operation", "on", "result", "where", "weights", "steps", "cycles"]]
    for i, node in enumerate(model.nodes):
        rows.append([str(i), *_row(node)])
    total = sum(map(cycles, model.nodes))
    on_kpu = [n for n in model.nodes if n.on_kpu]
    lines = [
        f"kmodel v4, {len(model.to_bytes()):,} bytes, for the {('CPU', 'K210')[model.target]}",
        *(
            f"input {i}: {_shape(p.shape)} {p.range.datatype.name.lower()} in {_place(p.range)}"
            for i, p in enumerate(model.inputs)
        ),
        *(
            f"output {i}: {_shape(s)} {w.datatype.name.lower()} in {_place(w)}"
            for i, (w, s) in enumerate(zip(model.outputs, output_shapes(model), strict=True))
        ),
        "",
        *_columns(rows),
        "",
        f"{len(on_kpu)} of {len(model.nodes)} operations and {_share(on_kpu, model.nodes)} of the steps run on the KPU",
        f"memory: constants {len(model.constants):,} bytes, main {model.main_memory:,}, KPU {kpu_memory(model):,} of "
        f"{KPU_RAM:,}",
        f"estimate: {total:,} cycles, {total / CLOCK * 1e3:.2f} ms at {CLOCK // 10**6} MHz (KPU: steps / "
        f"{MACS_PER_CYCLE}; CPU: steps x {CPU_CYCLES}; not measured)",
    ]
    return "\n".join(lines)


def _row(node: Node) -> list[str]:
    if isinstance(node, ChannelLast):
        return [node.op.name.lower(), "CPU", "", "", "", "", ""]
    result = node.writes()[0]
    name = type(node).__name__
    if isinstance(node, KpuConv2D):
        size = f"{node.registers.kernel}x{node.registers.kernel}"
        kind = "depthwise " if node.registers.depth_wise_layer else ""
        pool = f", {node.registers.pool.name.lower()}" if node.registers.pool else ""
        name = f"{name} {kind}{size}{pool}"
    weights = getattr(node, "weights", None)
    stored = "" if weights is None else f"{weights.nbytes:,}"
    numbers = [stored, f"{node.work:,}", f"{cycles(node):,}"]
    return [name, "KPU" if node.on_kpu else "CPU", _shape(result.shape), _place(result.range), *numbers]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _place(where: MemoryRange) -> str:
    return f"{where.memory.name.lower()} {where.start:,}-{max(where.end - 1, where.start):,}"


def _share(part: list[Node], whole: tuple[Node, ...]) -> str:
    steps = sum(n.work for n in whole)
    return f"{sum(n.work for n in part) / steps:.1%}" if steps else "0%"


def _columns(rows: list[list[str]]) -> list[str]:
    """Columns of equal width; text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {1, 2, 3, 4}
    return [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in rows
    ]
