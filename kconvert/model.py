"""HLSModel: the graph of a model, and the verbs its user has."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from kconvert.config import HLSConfig, ProjectSettings
from kconvert.errors import CompileError, ConfigError, GraphError
from kconvert.layers import Input, Node, Value, identifier
from kconvert.optimizers import Pass, pipeline
from kconvert.optimizers.verify import verify
from kconvert.plugins import load_plugins
from kconvert.progress import working
from kconvert.tables import html_table

if TYPE_CHECKING:
    from kconvert.converters.spec import ModelSpec
    from kconvert.csim import Library
    from kconvert.profiling import Checks

Array = npt.NDArray[Any]
Arrays = Array | Sequence[Array] | Mapping[str, Array]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer of the Keras model: its name, and the nodes and values of the graph as it was read."""

    layer: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


class HLSModel:
    """A model on its way to hardware.

    Attributes:
        nodes: The layers, every one after those it reads.
        outputs: The tensors the model returns.
        calls: Every call of a Keras layer, as it was read.
        config: The checked conversion settings.
        settings: Project name, folder, part, clock, ...
        history: (pass, graph as text) for every pass that changed the graph; the first entry is the graph as read.
    """

    def __init__(
        self,
        spec: ModelSpec,
        hls_config: Mapping[str, Any] | None = None,
        settings: ProjectSettings | None = None,
    ) -> None:
        """Make an empty graph; :func:`kconvert.converters.build_model` fills it."""
        self.spec = spec
        load_plugins()
        self.raw_config: Mapping[str, Any] = hls_config or {}
        self.config = HLSConfig(hls_config)
        self.settings = settings or ProjectSettings()
        self.nodes: list[Node] = []
        self.outputs: list[Value] = []
        self.calls: list[LayerCall] = []
        self.history: list[tuple[str, str]] = []
        self.keras_model: Any = None
        """The live model it was made from, if it was."""
        self.test_bench_data: tuple[list[Array], list[Array]] | None = None
        self._members: set[int] = set()
        self._identifiers: set[str] = set()
        self._names: set[str] = set()
        self._library: Library | None = None

    # ***** the graph *****

    @property
    def inputs(self) -> list[Value]:
        """The tensors the caller provides, in the order of the Keras model's inputs."""
        found = {n.layer: n.output for n in self.nodes if isinstance(n, Input)}
        return [found[ref.layer] for ref in self.spec.inputs]

    def __contains__(self, node: object) -> bool:
        return id(node) in self._members

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        """Return the node called `name`; raises :class:`GraphError` if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError(f"the model has no layer {name!r} (layers: {', '.join(n.name for n in self.nodes)})")

    def add(self, node: Node, *inputs: Value, at: int | None = None) -> Value:
        """Connect `node` to `inputs` and add it, at the end or at a position; returns its output."""
        node.connect(*inputs)
        return self.adopt(node, at=at)

    def adopt(self, node: Node, *, at: int | None = None) -> Value:
        """Add a node that reads values of this graph already, at the end or at a position; returns its output."""
        node.name = self._unique(node.name, self._names)
        node.cpp = self._unique(identifier(node.name), self._identifiers)
        node.output.names = [node.name]
        self.nodes.insert(len(self.nodes) if at is None else at, node)
        self._members.add(id(node))
        return node.output

    def insert_after(self, value: Value, node: Node) -> Value:
        """Let `node` read `value`, and everything that read `value` before read `node` instead."""
        users = list(value.users)
        after = self.add(node, value, at=self.nodes.index(value.producer) + 1)
        self._redirect(value, after, users)
        return after

    def remove(self, node: Node) -> None:
        """Take out a node of one input: its readers read that input, which takes over its names."""
        (source,) = node.inputs
        source.users.remove(node)
        self._redirect(node.output, source, list(node.output.users))
        source.names += node.output.names
        self.nodes.remove(node)
        self._members.discard(id(node))

    def replace(self, old: Node, new: Node) -> Value:
        """Put `new` in the place of `old`: same inputs, same readers, same names."""
        inputs, users, names = list(old.inputs), list(old.output.users), old.output.names
        for value in set(inputs):
            value.users = [u for u in value.users if u is not old]
        position = self.nodes.index(old)
        self.nodes.remove(old)
        self._members.discard(id(old))
        self._names.discard(old.name)
        after = self.add(new, *inputs, at=position)
        after.names = names
        self._redirect(old.output, after, users)
        return after

    def _redirect(self, before: Value, after: Value, users: Iterable[Node]) -> None:
        for user in users:
            user.inputs = [after if v is before else v for v in user.inputs]
            before.users = [u for u in before.users if u is not user]
            after.users += [user] * sum(v is after for v in user.inputs)
        self.outputs = [after if v is before else v for v in self.outputs]

    @staticmethod
    def _unique(name: str, taken: set[str]) -> str:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        return candidate

    def run(self, passes: Sequence[Pass] | None = None, *, final: bool = True) -> None:
        """Apply `passes`, or all of a conversion, in order, verifying the graph after each and keeping the history."""
        self.history.append(("read", str(self)))
        verify(self)
        for step in pipeline() if passes is None else passes:
            if step.run(self):
                verify(self)
                text = str(self)
                if text != self.history[-1][1]:
                    self.history.append((step.name, text))
        verify(self, final=final)

    def __str__(self) -> str:
        lines = [node.describe() for node in self.nodes]
        return "\n".join([*lines, f"return {', '.join(v.producer.name for v in self.outputs)}"])

    def summary(self) -> str:
        """Return the layers as a table: name, operation, shape, result type, parameters."""
        rows = self._summary_rows()
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _summary_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("layer", "operation", "shape", "result", "parameters")]
        for node in self.nodes:
            count = sum(c.values.size for c in node.constants().values())
            shape = "x".join(map(str, node.output.shape))
            rows.append((node.name, type(node).__name__, shape, str(node.result_type), str(count or "")))
        return rows

    def traced(self) -> dict[str, Value]:
        """Return the keys of :meth:`trace`, in its order, and the values they stand for.

        An input is no key by its own name; a layer that vanished behind it, such as a Dropout, is.
        """
        found: dict[str, Value] = {}
        for node in self.nodes:
            own = node.name if isinstance(node, Input) else None
            found.update(dict.fromkeys([n for n in node.output.names if n != own], node.output))
        return found

    # ***** bit-exact simulation *****

    def compile(self) -> None:
        """Compile the generated C++ into a shared object and load the weights into it.

        The object depends on the architecture and the types only and is kept in a cache: compiling the same again,
        with other weights too, takes milliseconds. Nothing is written into the project folder.

        Types that wrap for some input within the type of the inputs are told of in a :class:`PrecisionWarning`.

        Raises:
            CompileError: there is no C++ compiler, or it rejected the source (its message is shown).
        """
        from kconvert.csim import load
        from kconvert.intervals import warn_of_overflow

        with working(f"compiling {len(self.nodes)} layers"):
            self._library = load(self)
            warn_of_overflow(self, self._library)

    @property
    def compiled(self) -> bool:
        """Whether :meth:`compile` has been called."""
        return self._library is not None

    @property
    def library(self) -> Library:
        """The loaded shared object; raises :class:`CompileError` before :meth:`compile`."""
        if self._library is None:
            raise CompileError("the model is not compiled yet: call compile() first")
        return self._library

    def predict(self, x: Arrays, *, threads: int | None = None) -> Array | list[Array]:
        """Return what the hardware answers, to the bit.

        Args:
            x: Samples shaped like the Keras model's input, [n, ...], of any real dtype; for several inputs a list
                in the model's order or a dict by input layer name. Values are quantised to the input's type.
            threads: How many threads share the batch; all cores by default.

        Returns:
            float64 [n, ...] shaped like Keras' ``predict``; a list of them for several outputs. Every fixed-point
            value of up to 53 bits is exact in float64.

        Raises:
            InputError: the shape or dtype does not fit, or a value is NaN or infinite.
        """
        return self.library.predict(x, threads=threads)

    def trace(self, x: Arrays, *, threads: int | None = None) -> dict[str, Array]:
        """Return the output of every layer, in network order: layer name -> float64 [n, ...].

        A key is the Keras layer whose output the array is; the activation inside a layer is ``<layer>_<activation>``
        and the layer's own name is then the value before it. A layer that was folded into the next has no value in
        hardware and no key. Arguments and errors are those of :meth:`predict`.
        """
        with working(f"tracing {len(self.nodes)} layers"):
            return self.library.trace(x, threads=threads)

    def fifo_depths(self, *, keep: bool = False) -> dict[str, int]:
        """Measure how deep the streams of an ``io_stream`` firmware have to be: stream name -> words.

        The functions of the generated C++ run side by side, each taking and making one word of a stream a cycle, and
        the most words that ever waited in a stream are its depth; then they run again with streams of those depths,
        also at random speeds. Functions that wait for words and for room alone give the same words at whatever speed
        each of them runs, so the depths suffice in hardware too.

        Args:
            keep: Use the depths in what :meth:`write` writes, its ``kconvert_config.yml`` included.

        Raises:
            ConfigError: the model has no streams.
            StreamError: functions wait for each other for ever: the kernel of a layer reads or writes too few words.
            CompileError: as for :meth:`compile`.
        """
        from kconvert.csim.network import Network

        if self.settings.io_type != "io_stream":
            raise ConfigError(f"io_type {self.settings.io_type!r} has no streams to measure; use 'io_stream'")
        with working(f"running {len(self.nodes)} layers side by side"):
            network = Network(self)
            depths = network.measure()
            network.check(depths)
        if keep:
            self.raw_config = {**self.raw_config, "FIFODepths": depths}
            self.config = HLSConfig(self.raw_config)
        return depths

    # ***** looking at it *****

    def check(self, x: Arrays) -> Checks:
        """Return what every type does to its values: overflow, underflow, idle bits, and the settings that mend them.

        See :func:`kconvert.profiling.checks`.
        """
        from kconvert.profiling import checks

        return checks(self, x)

    def plot(self, to_file: str | Path | None = None, when: str = "after") -> str:
        """Draw the graph, with shapes and types, into an ``.svg`` or ``.png`` file; returns it as SVG.

        Args:
            to_file: Where to write the picture; nothing is written if left out.
            when: ``"after"`` or ``"before"`` the optimisation.

        Raises:
            KConvertError: an argument is unknown, or the file cannot be written.
        """
        from kconvert.drawing import plot

        return plot(self, to_file, when)

    def report(
        self,
        x: Arrays,
        y: Any = None,
        path: str | Path = "report.html",
        *,
        others: Mapping[str, Any] | None = None,
        keras_model: Any = None,
        labels: Sequence[str] | None = None,
    ) -> Path:
        """Write one HTML page about the model that needs no network: the graph, comparisons, ranges, costs, settings.

        Args:
            x: Samples as for :meth:`predict`.
            y: What is right for them: class numbers, one-hot rows or numbers; for several outputs a list or a dict by
                output name.
            path: The page.
            others: Answers of other implementations to the same samples, such as ``{"tflite": y1, "kmodel": y2}``.
            keras_model: The live Keras model, if it was converted from a file.
            labels: Names of the classes.

        Returns:
            The path of the page.

        Raises:
            InputError: shapes do not fit.
            WriteError: the page cannot be written; what was there before is unchanged.
        """
        from kconvert.profiling.page import write_page

        return write_page(self, x, y, path, others=others, keras_model=keras_model, labels=labels)

    def _repr_html_(self) -> str:
        titles, *rows = self._summary_rows()
        return html_table(titles, rows, f"{self.settings.project_name}: {self.settings.part}")

    # ***** the project *****

    def write(self) -> Path:
        """Write the project folder for the vendor tool; returns its path.

        It is first written beside the old one and moved in place at the end, so that a failure leaves all as it was.
        ``firmware/`` and ``tb/`` are replaced whole; other files in the folder stay.

        Raises:
            WriteError: the folder cannot be made or written.
        """
        from kconvert.project import write_project

        return write_project(self)

    def build(
        self,
        *,
        reset: bool = False,
        csim: bool = False,
        synth: bool = True,
        cosim: bool = False,
        validation: bool = False,
        export: bool = False,
        vsynth: bool = False,
    ) -> dict[str, Any]:
        """Write the project, run the vendor tool on it, and return its reports as a dict.

        Raises:
            ToolError: the tool is not on PATH, or failed.
        """
        from kconvert import vendor

        vendor.find_tools(self.settings.backend, vsynth=vsynth)  # before anything is written
        folder = self.write()
        return vendor.build(
            folder,
            self.settings.project_name,
            self.settings.backend,
            csim=csim,
            synth=synth,
            cosim=cosim,
            validation=validation,
            export=export,
            vsynth=vsynth,
            reset=reset,
        )
