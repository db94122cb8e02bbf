"""Firmware whose tensors are streams: every layer a function of its own, all of them running side by side.

A word of a stream holds the channels of one position (all axes but the last). A layer has one of three forms:

* ``position``: it computes every position alike (:meth:`~kconvert.layers.Node.at_position`), so its function is a loop
  around the kernel for one position;
* ``stream``: its template has a macro ``stream``, the call of a kernel that reads and writes words;
* ``whole``: neither; its function collects the whole tensor and calls the same kernel as in ``io_parallel``.

A stream has one writer and one reader. What several layers read is cloned, and where a reader wants words of another
size than they were written in, they are repacked; not for a layer that works by position and wants longer words, as a
Dense layer behind a Flatten: it collects them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kconvert.errors import ConfigError, ConfigWarning, GraphError, did_you_mean
from kconvert.firmware import Firmware, Port, glue, render, storage_of, variable_of
from kconvert.layers import Conv, Input, Node, Pool, Value

if TYPE_CHECKING:
    from kconvert.model import HLSModel

SHALLOW = 2
"""Words that a stream holds where nothing asks for more."""


def firmware_of(model: HLSModel) -> Firmware:
    """Return the firmware of `model` in the form its settings ask for."""
    return StreamFirmware(model) if model.settings.io_type == "io_stream" else Firmware(model)


def check_streams(model: HLSModel) -> None:
    """Raise :class:`ConfigError` if the settings say something about streams that the firmware does not have.

    What they say that means nothing in streams is left out with a warning.
    """
    if model.settings.io_type == "io_stream":
        StreamFirmware(model)
        for node in model.nodes:
            if isinstance(node, Conv) and node.parallelization_factor > 1 and form_of(node) == "stream":
                warnings.warn(
                    f"layer {node.name!r}: positions come one by one in 'io_stream'; its ParallelizationFactor "
                    f"{node.parallelization_factor} is left out",
                    ConfigWarning,
                    stacklevel=3,
                )
                node.parallelization_factor = 1
    elif model.config.fifo_depths:
        raise ConfigError(f"FIFODepths: {model.settings.io_type!r} has no streams; take it out, or use 'io_stream'")


@dataclass(frozen=True, slots=True)
class Stream:
    """A queue of words from one function to another.

    Attributes:
        variable: Its C++ name.
        type: C++ type of an element.
        words: How many words pass for one sample.
        width: Elements of a word.
        depth: Most words it holds at a time.
        writer: The layer, or clones or repacking, that writes it; None where it is an input of the top function.
        reader: What reads it; None where it is an output.
    """

    variable: str
    type: str
    words: int
    width: int
    depth: int = SHALLOW
    writer: str | None = None
    reader: str | None = None

    @property
    def port(self) -> bool:
        """Whether it is an argument of the top function."""
        return self.writer is None or self.reader is None

    @property
    def word(self) -> str:
        """C++ type of a word."""
        return f"nnet::word<{self.type}, {self.width}>"

    @property
    def size(self) -> int:
        """Elements that pass for one sample."""
        return self.words * self.width


@dataclass(frozen=True, slots=True)
class Process:
    """A function of the firmware.

    Attributes:
        name: Its C++ name.
        form: ``position``, ``stream`` or ``whole`` for a layer, else ``clone`` or ``repack``.
        reads: The streams it reads.
        writes: The streams it writes.
        node: The layer it computes, if it does.
        part: The layer for one position (``position``).
        body: What its body calls.
    """

    name: str
    form: str
    reads: Sequence[Stream]
    writes: Sequence[Stream]
    node: Node | None = None
    part: Node | None = None
    body: str = ""

    @property
    def call(self) -> str:
        """The statement that calls it."""
        return f"{self.name}({', '.join(s.variable for s in (*self.reads, *self.writes))});"

    @property
    def definition(self) -> str:
        """The function."""
        return render("project/process.cpp.j2", p=self).strip()

    @property
    def positions(self) -> int:
        """How many times it applies its kernel (``position``)."""
        return self.writes[0].words

    @property
    def interval(self) -> int | None:
        """Cycles from one position to the next; None where one ends before the next begins (``position``)."""
        resource = getattr(self.node, "strategy", "Latency") == "Resource"
        several = any(stream.words > self.positions for stream in self.reads)
        return None if resource or several else getattr(self.node, "reuse_factor", 1)


@dataclass(frozen=True, slots=True)
class _Read:
    """A reader of a stored value: input number `index` of `node`, or output number `index` of the model."""

    value: Value
    node: Node | None
    index: int


def form_of(node: Node) -> str:
    """Return how the function of a layer works: ``position``, ``stream`` or ``whole``."""
    if node.at_position() is not None:
        return "position"
    names = [f"x{i}" for i in range(len(node.inputs))]
    return "stream" if glue(node, "stream", node, names, "y") else "whole"


def _buffered(node: Node) -> int:
    """Elements that a layer with a window keeps of its input: that many rows of the padded image as the window has."""
    if not isinstance(node, Conv | Pool):
        return 0
    _, width, channels = node.image_in
    return node.window.size[0] * (sum(node.window.padding[2:]) + width) * channels


class StreamFirmware(Firmware):
    """The pieces of the generated source, with streams between the layers."""

    common_header = "nnet_stream.h"

    def _connect(self, model: HLSModel) -> None:
        self.backend = model.settings.backend
        self._forms = {id(node): form_of(node) for node in self.computed}
        self._outputs = list(model.outputs)
        self._depths = dict(model.config.fifo_depths)
        self.streams: list[Stream] = []
        self.processes: list[Process] = []
        self._wanted: dict[tuple[int | None, int], Stream] = {}
        """The stream for each read, by node and index."""
        for value in model.inputs:
            self.processes += self._deliver(value)[1]
        for node in self.computed:
            made, others = self._deliver(node.output)
            self.processes += [self._layer(node, made), *others]
        self._check()
        self.ports_in = [Port(s.variable, s.type, v) for s, v in zip(self._entries(model), model.inputs, strict=True)]
        exits = [self._wanted[None, i] for i in range(len(model.outputs))]
        self.ports_out = [Port(s.variable, s.type, v) for s, v in zip(exits, model.outputs, strict=True)]

    def _entries(self, model: HLSModel) -> list[Stream]:
        named = {s.variable: s for s in self.streams}
        return [named[variable_of(v)] for v in model.inputs]

    # ***** streams *****

    def _deliver(self, stored: Value) -> tuple[Stream, list[Process]]:
        """Make the streams between a value and its readers; returns the one it is written to, and clones if any."""
        reads = list(self._reads(stored))
        name, writer = variable_of(stored), stored.producer.name
        given = isinstance(stored.producer, Input)
        own = Stream(
            name, self._type_name(stored), stored.positions, stored.shape[-1], writer=None if given else writer
        )
        if len(reads) == 1:
            return self._hand_over(own, reads[0])
        # whoever reads slowly must not keep the others waiting: each clone can hold all words
        clone = replace(own, writer=writer, depth=max(own.words, SHALLOW))
        handed = [self._hand_over(replace(clone, variable=f"{name}_{i}"), read) for i, read in enumerate(reads, 1)]
        own = self._add(replace(own, reader=f"the clones of {writer}"))
        clones = Process(f"{name}_clones", "clone", [own], [stream for stream, _ in handed])
        return own, [clones, *(process for _, others in handed for process in others)]

    def _reads(self, stored: Value) -> Iterator[_Read]:
        for node in self.computed:
            for i, value in enumerate(node.inputs):
                if storage_of(value) is stored:
                    yield _Read(value, node, i)
        for i, value in enumerate(self._outputs):
            if storage_of(value) is stored:
                yield _Read(value, None, i)

    def _hand_over(self, own: Stream, read: _Read) -> tuple[Stream, list[Process]]:
        """Bring the words of `own` to a reader, in the size it wants; returns the stream to be written to."""
        reader = read.node.name if read.node is not None else None
        key = (id(read.node) if read.node is not None else None, read.index)
        form = self._forms[id(read.node)] if read.node is not None else "output"
        fits = read.value.shape[-1] == own.width
        fits |= form == "whole" or (form == "position" and read.value.shape[-1] % own.width == 0)
        if fits and (own.writer, reader) != (None, None):  # an input that is an output has a function of its own
            self._wanted[key] = own = self._add(replace(own, reader=reader))
            return own, []
        made = replace(own, variable=f"{own.variable}_words", words=read.value.positions, width=read.value.shape[-1])
        made = replace(made, writer=f"the words of {own.variable}", reader=reader, depth=SHALLOW)
        own = self._add(replace(own, reader=f"the words of {own.variable}"))
        self._wanted[key] = made = self._add(made)
        return own, [Process(f"{own.variable}_repack", "repack", [own], [made])]

    def _add(self, stream: Stream) -> Stream:
        if not stream.port and stream.variable in self._depths:
            stream = replace(stream, depth=self._depths[stream.variable])
        self.streams.append(stream)
        return stream

    def _layer(self, node: Node, made: Stream) -> Process:
        form, part = self._forms[id(node)], node.at_position()
        reads = [self._wanted[id(node), i] for i in range(len(node.inputs))]
        if form == "stream":
            body = glue(node, "stream", node, [f"x{i}" for i in range(len(reads))], "y")
        else:
            body = glue(node, "call", part or node, [f"in{i}" for i in range(len(reads))], "out")
        return Process(f"{node.cpp}_layer", form, reads, [made], node, part, body)

    def _check(self) -> None:
        """Every stream has one writer and one reader, depths are given to streams that there are, names are free."""
        writers = Counter(stream.variable for process in self.processes for stream in process.writes)
        readers = Counter(stream.variable for process in self.processes for stream in process.reads)
        writers.update(stream.variable for stream in self.streams if stream.writer is None)
        readers.update(stream.variable for stream in self.streams if stream.reader is None)
        for name in {stream.variable for stream in self.streams}:
            if (writers[name], readers[name]) != (1, 1):
                raise GraphError(
                    f"the stream {name!r} has {writers[name]} writers and {readers[name]} readers, not one"
                )
        if self.name in {process.name for process in self.processes}:
            raise ConfigError(f"project_name {self.name!r} is a name in the generated code; choose another")
        known = [s.variable for s in self.streams if not s.port]
        for name in self._depths:
            if name not in known:
                raise ConfigError(
                    f"FIFODepths → {name}: there is no such stream{did_you_mean(name, known)} (there are: "
                    f"{', '.join(known)})"
                )

    # ***** sources *****

    def _call(self, node: Node) -> str:
        return next(p.call for p in self.processes if p.node is node)

    def _config(self, node: Node) -> str:
        return glue(node, "config", node.at_position() or node)

    @property
    def signature(self) -> str:
        """Declaration of the top function."""
        ports = [f"hls::stream<{s.word}> &{s.variable}" for s in self._ports()]
        return f"void {self.name}({', '.join(ports)})"

    def _ports(self) -> list[Stream]:
        named = {s.variable: s for s in self.streams}
        return [named[p.variable] for p in (*self.ports_in, *self.ports_out)]

    def top_function(self, *, with_depths: bool = True) -> str:
        """The source of the top function and of those it calls."""
        return render(
            "project/firmware_stream.cpp.j2",
            name=self.name,
            signature=self.signature,
            ports=self._ports(),
            streams=[s for s in self.streams if not s.port],
            processes=self.processes,
            trace={f"{step.node.cpp}_layer": number for number, step in enumerate(self.steps)},
            packed=self.backend == "Vivado",
            with_depths=with_depths,
        )

    def test_bench(self) -> str:
        """The C++ test bench."""
        named = {s.variable: s for s in self.streams}
        return render(
            "project/test_bench.cpp.j2", name=self.name, ports_in=self.ports_in, ports_out=self.ports_out, streams=named
        )

    def bridge(self) -> str:
        """The source that makes a shared object of the firmware."""
        return self._render_bridge("project/bridge_stream.cpp.j2")

    def network(self) -> str:
        """The source of a shared object that runs the functions side by side, to measure the depths of the streams."""
        return self._render_bridge("project/network.cpp.j2")

    def _render_bridge(self, template: str) -> str:
        named = {s.variable: s for s in self.streams}
        return render(
            template,
            name=self.name,
            ports_in=[named[p.variable] for p in self.ports_in],
            ports_out=[named[p.variable] for p in self.ports_out],
            streams=self.streams,
            processes=self.processes,
            constants=self.constants,
            scratch=max((n.scratch + _buffered(n) for n in self.computed), default=0),
        )
