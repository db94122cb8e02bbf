"""A kmodel, version 4: reading, writing, running."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from kconvert.errors import KModelError, WriteError
from kconvert.kpu.nodes import Node, opcode_of, read_node
from kconvert.kpu.wire import BODY_ALIGNMENT, RANGE, SHAPE, MemoryRange, Reader, Shape, Writer

if TYPE_CHECKING:
    from kconvert.kpu.simulator import Simulator

Array = npt.NDArray[Any]
Layout = Literal["nchw", "nhwc"]

IDENTIFIER = 0x4B4D444C
VERSION = 4
TARGETS = ("cpu", "k210")
HEADER = 40  # bytes
MAX_FILE = 64 * 1024 * 1024  # bytes; four times the flash of a board
MAX_NODES = 65536
MAX_PORTS = 256  # inputs, and outputs


@dataclass(frozen=True)
class Input:
    """An input: where the application writes it, and its shape."""

    range: MemoryRange
    shape: Shape


@dataclass(frozen=True)
class KModel:
    """A compiled network: its operations in order, and the memory they work on.

    Made by :meth:`load`, or by a compiler from records. Two are equal when their files are.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[MemoryRange, ...]
    nodes: tuple[Node, ...]
    constants: bytes = b""  # the constant pool
    main_memory: int = 0  # bytes of working memory
    flags: int = 0
    target: int = 1  # 1 K210, 0 CPU; the runtime takes both
    reserved: int = 0  # the original writes whatever was in memory
    tail: int = 0  # zeros stored behind the last body, which the original leaves out
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> KModel:
        """Read a kmodel from a file, or from its bytes.

        What it accepts, :meth:`to_bytes` writes back byte for byte. Besides the records it holds no more than
        a copy of the file, which may have 64 MiB.

        Raises:
            KModelError: the file cannot be read, is not a kmodel v4, is damaged, or is beyond the bounds.
        """
        data = _file_bytes(source) if isinstance(source, str | os.PathLike) else bytes(source)
        if len(data) > MAX_FILE:
            raise KModelError(f"{len(data)} bytes are more than the {MAX_FILE} that a kmodel may have")
        model = _parse(data)
        if (written := model.to_bytes()) != data:
            _refuse_hidden(data, written)
        return model

    def to_bytes(self) -> bytes:
        """Return the file.

        Raises:
            KModelError: a value does not fit its field, or an array has another length than its node says.
        """
        out = Writer()
        counts = (len(self.nodes), len(self.inputs), len(self.outputs), self.reserved)
        head = (IDENTIFIER, VERSION, self.flags, self.target, len(self.constants), self.main_memory)
        out.numbers("10I", *head, *counts, what="header")
        for i, port in enumerate(self.inputs):
            RANGE.write(out, port.range, {}, f"range of input {i}")
        for i, port in enumerate(self.inputs):
            SHAPE.write(out, port.shape, {}, f"shape of input {i}")
        for i, where in enumerate(self.outputs):
            RANGE.write(out, where, {}, f"range of output {i}")
        out.data += self.constants
        headers = len(out.data)
        out.data += bytes(8 * len(self.nodes))
        gap = self._write_nodes(out, headers)
        if gap:  # the original seeks over the padding of the last body and never writes it
            del out.data[-gap:]
        out.data += bytes(self.tail)
        return bytes(out.data)

    def _write_nodes(self, out: Writer, headers: int) -> int:
        """Append the bodies, fill in the headers; return how many bytes of padding are at the end."""
        gap = 0
        for i, node in enumerate(self.nodes):
            start = len(out.data)
            try:
                node.write(out)
            except KModelError as error:
                raise KModelError(f"node {i}: {error}") from None
            gap = out.align(BODY_ALIGNMENT)
            words = np.array([opcode_of(node), len(out.data) - start], dtype="<u4")
            out.data[headers + 8 * i : headers + 8 * i + 8] = words.tobytes()
        return gap

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; it appears whole or not at all.

        Raises:
            KModelError: see :meth:`to_bytes`.
            WriteError: the file cannot be written; what was there before is unchanged.
        """
        data, target = self.to_bytes(), Path(path)
        name = None
        try:
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".kconvert-", delete=False) as file:
                name = file.name
                file.write(data)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, target)
        except OSError as error:
            if name is not None:
                Path(name).unlink(missing_ok=True)
            raise WriteError(f"cannot write {str(target)!r}: {error.strerror or error}") from error

    def infer(self, X: Array | list[Array], layout: Layout = "nchw", threads: int | None = None) -> list[Array]:
        """Run the model as the device does, bit for bit, and return a list of its outputs.

        Args:
            X: samples [n, channels, height, width], or [n, elements] for an input without height and width, or [n, ...]
                without dimensions of size 1 in front; a list of arrays if there are several inputs. Integers from 0
                to 255 for an input of uint8, else real numbers.
            layout: "nhwc" for samples and outputs [n, height, width, channels].
            threads: how many samples are computed at the same time; all processors by default.

        Returns:
            One array an output, float32 (uint8 if the model ends with one), [n, ...].

        Raises:
            InputError: the samples do not fit.
            KModelError: the model cannot be run, see :meth:`check`.
            CompileError: there is no C++ compiler.
        """
        return self.simulator().run(X, layout, threads)

    def check(self) -> None:
        """Check that the model can be run: every access inside its memory, nothing beyond the bounds.

        Raises:
            KModelError: it cannot; the message names the node.
        """
        from kconvert.kpu.verify import verify

        verify(self)

    def simulator(self) -> Simulator:
        """Return the simulator of this model; it is made once."""
        from kconvert.kpu.simulator import Simulator

        if "simulator" not in self._cache:
            self._cache["simulator"] = Simulator(self)
        made: Simulator = self._cache["simulator"]
        return made

    def summary(self) -> str:
        """Return a table of the operations, the memory they use, and an estimate of the time they take.

        Raises:
            KModelError: an operation makes no sense, see :meth:`check`.
        """
        from kconvert.kpu.summary import summary

        return summary(self)

    def __hash__(self) -> int:
        return hash(self.to_bytes())


def _file_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise KModelError(f"cannot read {os.fspath(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


# ***** reading *****


def _parse(data: bytes) -> KModel:
    source = Reader(data, 0, len(data), "header")
    identifier, version, flags, target = source.numbers("IIII", "identification")
    if identifier != IDENTIFIER:
        raise KModelError(f"not a kmodel: it starts with {data[:4]!r} instead of {b'LDMK'!r}")
    if version != VERSION:
        raise KModelError(f"kmodel version {version}: only version {VERSION} is known")
    if target >= len(TARGETS):
        raise KModelError(f"target {target} is neither 0 (CPU) nor 1 (K210)")
    constants, main_memory, nodes, inputs, outputs, reserved = source.numbers("6I", "header")
    for what, count, bound in (("nodes", nodes, MAX_NODES), ("inputs", inputs, MAX_PORTS)):
        _bounded(what, count, bound)
    _bounded("outputs", outputs, MAX_PORTS)
    where = [RANGE.read(source, {}, f"range of input {i}") for i in range(inputs)]
    shapes = [SHAPE.read(source, {}, f"shape of input {i}") for i in range(inputs)]
    out = tuple(RANGE.read(source, {}, f"range of output {i}") for i in range(outputs))
    pool = source.take(constants, "constant pool")
    headers = source.array("<u4", 2 * nodes, "node headers").reshape(-1, 2)
    read, tail = _read_nodes(data, source.position, headers.tolist())
    ports = tuple(map(Input, where, shapes))
    return KModel(ports, out, read, pool, main_memory, flags, target, reserved, tail)


def _bounded(what: str, count: int, bound: int) -> None:
    if count > bound:
        raise KModelError(f"header: {count} {what} are more than the {bound} that a kmodel may have")


def _read_nodes(data: bytes, position: int, headers: list[list[int]]) -> tuple[tuple[Node, ...], int]:
    """Read the bodies; return them and how many zeros of padding there are behind the last one."""
    nodes, read_to = [], position
    for i, (opcode, size) in enumerate(headers):
        where = f"node {i} (code {opcode:#x}) at byte {position}"
        end = position + size
        if end > len(data) + (BODY_ALIGNMENT - 1 if i == len(headers) - 1 else 0):
            raise KModelError(f"{where}: its {size} bytes end {end - len(data)} behind the end of the file")
        body = Reader(data, position, min(end, len(data)), where)
        nodes.append(read_node(opcode, body))
        read_to = body.position
        if end - read_to >= BODY_ALIGNMENT or end % BODY_ALIGNMENT:
            raise KModelError(f"{where}: its size {size} is not that of its content, {read_to - position}")
        position = end
    return tuple(nodes), len(data) - read_to


def _refuse_hidden(data: bytes, written: bytes) -> None:
    """Say where a file has something that no record holds."""
    if len(data) != len(written):
        raise KModelError(f"the file has {len(data)} bytes, and its content makes {len(written)}")
    at = next(i for i, (a, b) in enumerate(zip(data, written, strict=True)) if a != b)
    raise KModelError(f"byte {at} is {data[at]:#04x}, where the format has {written[at]:#04x} and no field")
