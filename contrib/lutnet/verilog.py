"""LUT layers as Verilog: a module for each, a pipeline of them, a stream around it, a test bench and its vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import ConfigError, GraphError, WriteError, did_you_mean
from kconvert.firmware import render, storage_of
from kconvert.layers import Thresholds, Value, View
from kconvert.model import HLSModel

from .nodes import GroupSum, Luts, Wires, only_bits

PRIMITIVES = ("LUT6", "RTL")
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stage:
    """A layer of the pipeline: its node, and the wires [units, inputs] to the stage before."""

    node: Luts
    wires: npt.NDArray[np.int64]

    @property
    def rows(self) -> list[tuple[str, list[int]]]:
        """The table of every unit as a Verilog number, and what its inputs are wired to."""
        digits = -(-self.node.bits // 4)
        words = (f"{self.node.bits}'h{table:0{digits}x}" for table in self.node.tables.tolist())
        return list(zip(words, self.wires.tolist(), strict=True))


@dataclass(frozen=True)
class Design:
    """The part of a model that is Verilog: consecutive LUT layers, and the counters behind them if there are any.

    Attributes:
        name: Name of the top module.
        source: The bits that the first layer reads.
        stages: The layers in order.
        sums: The node that adds up what the last layer makes, if one does: counters of ones in hardware.
        levels: What a 0 and a 1 of the last layer stand for in those sums.
    """

    name: str
    source: Value
    stages: tuple[Stage, ...]
    sums: GroupSum | None = None
    levels: tuple[float, float] = (0.0, 1.0)

    @property
    def result(self) -> Value:
        """The tensor of the model that the top module makes."""
        return self.sums.output if self.sums else self.stages[-1].node.output

    @property
    def count_width(self) -> int:
        """Bits of one output: of a counter, or 1."""
        return self.sums.count.bit_length() if self.sums else 1

    @property
    def out_width(self) -> int:
        """Bits of all outputs."""
        return self.count_width * (self.sums.groups if self.sums else self.stages[-1].node.units)

    @property
    def groups(self) -> list[list[int]]:
        """The units that each counter adds up."""
        if self.sums is None:
            return []
        units = np.arange(self.sums.inputs[0].size)
        return (
            units.reshape(-1, self.sums.groups).T if self.sums.strided else units.reshape(self.sums.groups, -1)
        ).tolist()

    def values(self, counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return what numbers at the output of the top module, [n, outputs], stand for in the model."""
        if self.sums is None:
            return np.asarray(counts, dtype=np.float64)
        low, high = self.levels
        totals = low * self.sums.count + (high - low) * np.arange(self.sums.count + 1)
        return self.sums.typed("result").quantize(totals * self.sums.scale)[np.asarray(counts, dtype=np.intp)]

    def counts(self, bits: Bits) -> npt.NDArray[np.int64]:
        """Return the numbers at the output, [n, outputs], for bits [n, units] of the last layer."""
        if self.sums is None:
            return bits.astype(np.int64)
        return np.asarray(bits[:, self.groups].sum(axis=2), np.int64)


def design(model: HLSModel) -> Design:
    """Return the part of a converted model that can be Verilog.

    Raises:
        GraphError: there is none, or its LUT layers are not one chain.
    """
    stages: list[Stage] = []
    nodes = [node for node in model.nodes if isinstance(node, Luts)]
    if not nodes:
        raise GraphError("the model has no LUT layer, and only these can be written as Verilog")
    source, _ = _behind_wires(nodes[0].inputs[0], nodes[0].connections)
    for node in nodes:
        value, wires = _behind_wires(node.inputs[0], node.connections)
        if stages and value is not stages[-1].node.output:
            raise GraphError(
                f"LUT layer {node.name!r} reads {value.producer.name!r} and not {stages[-1].node.name!r}; only LUT "
                f"layers one after the other can be written as Verilog"
            )
        stages.append(Stage(node, wires))
    name = model.settings.project_name
    sums, levels = _counted(nodes[-1].output)
    return Design(name, source, tuple(stages), sums, levels)


def _behind_wires(value: Value, index: npt.NDArray[np.int64]) -> tuple[Value, npt.NDArray[np.int64]]:
    """Follow elements `index` of `value` to where their bits come from.

    That is through nodes that only move elements, and through comparisons that together make 0 of 0 and 1 of 1, such
    as a majority's levels of -1 and 1 and what reads them as bits again.
    """
    found = value, index
    compared: list[Thresholds] = []
    while True:
        node = value.producer
        if isinstance(node, Wires):
            index = node.index.ravel()[index]
        elif isinstance(node, Thresholds) and _is_step(node):
            compared.insert(0, node)
        elif storage_of(value) is value:
            return found
        (value,) = node.inputs
        if only_bits(value) and [_level(compared, bit) for bit in (0.0, 1.0)] == [0.0, 1.0]:
            found = value, index


def _is_step(node: Thresholds) -> bool:
    """Whether it is one comparison, the same for all elements."""
    return node.thresholds.size == 1 and node.levels.shape == (2,)


def _level(compared: Sequence[Thresholds], value: float) -> float:
    """Return what comparisons, one after the other, make of a value."""
    for node in compared:
        threshold = float(node.thresholds.flat[0])
        reached = value >= threshold if np.any(node.inclusive) else value > threshold
        value = float(node.levels[int(reached)])
    return value


def _counted(bits: Value) -> tuple[GroupSum | None, tuple[float, float]]:
    levels = (0.0, 1.0)
    value = bits
    while len(value.users) == 1:
        (user,) = value.users
        if isinstance(user, Thresholds) and value is bits and _is_step(user):
            levels = (_level([user], 0.0), _level([user], 1.0))
        elif not isinstance(user, View):
            return (user, levels) if isinstance(user, GroupSum) else (None, (0.0, 1.0))
        value = user.output
    return None, (0.0, 1.0)


def export_verilog(
    model: HLSModel,
    folder: str | Path,
    x: Any = None,
    *,
    primitives: str = "LUT6",
    registers: bool | Sequence[bool] = True,
    sums: bool = True,
) -> list[Path]:
    """Write the LUT layers of a converted model as Verilog; returns the files.

    The top module has the name of the project: ``x`` holds the bits the first layer reads, element 0 in bit 0, and
    ``y`` the bits of the last one, or the counts of ones of every group where the model sums them, group 0 lowest. It
    answers one sample a cycle; the latency is the number of registers. ``<name>_stream`` has valid and ready as well.

    Args:
        model: A converted model; a compiled one if `x` is given.
        folder: Where the files go; it is made if it is missing.
        x: Samples as for :meth:`~kconvert.HLSModel.predict`: vectors for the test bench are made of them.
        primitives: ``"LUT6"`` instantiates the LUT1 to LUT6 of Xilinx devices, ``"RTL"`` writes any device's Verilog.
        registers: Whether a register follows each layer: one for all, or one for each.
        sums: Whether the counters of ones are part of it where the model sums bits; ``y`` is the bits otherwise.

    Raises:
        GraphError: the model has no LUT layers, or they are not one chain.
        ConfigError: an option is not valid.
        WriteError: a file cannot be written; no file has changed then.
    """
    part = design(model)
    part = part if sums else replace(part, sums=None)
    if primitives not in PRIMITIVES:
        raise ConfigError(
            f"primitives {primitives!r}: choose from {', '.join(PRIMITIVES)}{did_you_mean(primitives, PRIMITIVES)}"
        )
    flags = [registers] * len(part.stages) if isinstance(registers, bool) else list(registers)
    if len(flags) != len(part.stages):
        raise ConfigError(f"{len(flags)} values of registers for {len(part.stages)} LUT layers")
    files = {
        f"{part.name}.v": render("verilog/network.v.j2", part=part, primitives=primitives, registers=flags),
        f"{part.name}_stream.v": render("verilog/stream.v.j2", part=part, latency=sum(flags)),
        f"{part.name}_synth.ys": render("verilog/synth.ys.j2", part=part, primitives=primitives),
    }
    if primitives == "LUT6":
        files["lut_models.v"] = render("verilog/lut_models.v.j2")
    if x is not None:
        inputs, outputs = vectors(model, part, x)
        files[f"{part.name}_tb.v"] = render("verilog/test_bench.v.j2", part=part, samples=len(inputs))
        files |= {f"{part.name}_x.mem": "".join(f"{v}\n" for v in inputs)}
        files |= {f"{part.name}_y.mem": "".join(f"{v}\n" for v in outputs)}
    return _write(Path(folder), files)


def vectors(model: HLSModel, part: Design, x: Any) -> tuple[list[str], list[str]]:
    """Return what the top module is given and what it has to answer, a binary number a sample, highest bit first."""
    tensors = {id(value): array for value, array in model.library.tensors(x)}
    given, made = (tensors[id(storage_of(v))] > 0.5 for v in (part.source, part.stages[-1].node.output))
    counts = part.counts(made.reshape(len(made), -1))
    shifts = np.arange(part.count_width)
    answers = (counts[:, :, np.newaxis] >> shifts & 1).reshape(len(counts), -1)
    return _binary(given.reshape(len(given), -1)), _binary(answers)


def _binary(bits: npt.NDArray[Any]) -> list[str]:
    return ["".join(map(str, row)) for row in bits[:, ::-1].astype(int).tolist()]


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write all files beside those there are, then put them in place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as fresh:
            for name, text in files.items():
                (Path(fresh) / name).write_text(text, encoding="utf-8")
            return [(Path(fresh) / name).replace(folder / name) for name in files]
    except OSError as error:
        raise WriteError(f"cannot write Verilog into {folder}: {error.strerror or error}") from error
