"""The generated C++: what the templates are given, and the files they make, as text."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from kconvert.errors import ConfigError
from kconvert.layers import Constant, Input, Node, Value, View
from kconvert.planes import plan
from kconvert.plugins import template_folder, template_packages
from kconvert.types import FixedType

if TYPE_CHECKING:
    from kconvert.model import HLSModel


def _environment() -> jinja2.Environment:
    return _environment_of(template_packages())


@functools.cache
def _environment_of(packages: tuple[str, ...]) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "templates") for package in packages]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C++ and Tcl: names are reduced to identifiers, free text never gets in  # noqa: S701
    )


def render(template: str, **values: Any) -> str:
    """Return a file of ``templates/`` filled in."""
    return _environment().get_template(template).render(**values)


def glue(node: Node, macro: str, *arguments: Any) -> str:
    """Return what a macro of the template of `node` gives; nothing if the template has no such macro."""
    module = _environment().get_template(f"layers/{node.template}.j2").module
    return str(getattr(module, macro)(*arguments)).strip() if hasattr(module, macro) else ""


@dataclass(frozen=True, slots=True)
class Port:
    """An argument of the top function."""

    variable: str
    type: str
    value: Value
    copy_of: str | None = None
    """The variable that is copied to it at the end, where no layer writes to it directly."""

    @property
    def size(self) -> int:
        """Elements of one sample."""
        return self.value.size


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a kernel in the top function."""

    node: Node
    variable: str
    type: str
    call: str
    local: bool

    @property
    def size(self) -> int:
        """Elements of one sample of its result."""
        return self.node.output.size


@dataclass(frozen=True, slots=True)
class NamedConstant:
    """A constant of a layer under its C++ name."""

    variable: str
    constant: Constant
    node: Node


def storage_of(value: Value) -> Value:
    """Return the value whose array holds `value`: views share the array of what they look at."""
    node = value.producer
    while isinstance(node, View) and not node.changes_type:
        value = node.inputs[0]
        node = value.producer
    return value


def variable_of(value: Value) -> str:
    """C++ name of the array that holds `value`."""
    stored = storage_of(value)
    return f"{stored.producer.cpp}_{'in' if isinstance(stored.producer, Input) else 'out'}"


class Firmware:
    """The pieces of the generated source, in the order of the graph."""

    def __init__(self, model: HLSModel) -> None:
        self.name = model.settings.project_name
        self.nodes = model.nodes
        self.computed = [n for n in model.nodes if not isinstance(n, Input) and storage_of(n.output) is n.output]
        self._connect(model)
        written = {p.variable for p in self.ports_out}
        self.steps = [
            Step(
                n,
                variable_of(n.output),
                self._type_name(n.output),
                self._call(n),
                variable_of(n.output) not in written,
            )
            for n in self.computed
        ]
        self.constants = [
            NamedConstant(f"{n.cpp}_{role}", constant, n)
            for n in self.computed
            for role, constant in n.constants().items()
        ]
        taken = {name for name, _ in self._typedefs()} | {c.variable for c in self.constants}
        if self.name in taken | {f"{n.cpp}_config" for n in self.computed}:
            raise ConfigError(f"project_name {self.name!r} is a name in the generated code; choose another")

    def _connect(self, model: HLSModel) -> None:
        """Say what the top function takes and returns."""
        self.ports_in = [Port(variable_of(v), self._type_name(v), v) for v in model.inputs]
        self.ports_out = list(self._output_ports(model))

    @staticmethod
    def _type_name(value: Value) -> str:
        return f"{storage_of(value).producer.cpp}_result_t"

    def _output_ports(self, model: HLSModel) -> Iterator[Port]:
        taken: set[str] = set()
        for number, value in enumerate(model.outputs):
            variable, kind = variable_of(value), self._type_name(value)
            if variable in taken or isinstance(storage_of(value).producer, Input):
                yield Port(f"{value.producer.cpp}_copy{number}", kind, value, copy_of=variable)
            else:
                taken.add(variable)
                yield Port(variable, kind, value)

    def _call(self, node: Node) -> str:
        return glue(node, "call", node, [variable_of(v) for v in node.inputs], variable_of(node.output))

    def _config(self, node: Node) -> str:
        return glue(node, "config", node)

    def _typedefs(self) -> Iterator[tuple[str, str]]:
        for node in [n for n in self.nodes if isinstance(n, Input)] + self.computed:
            found = {role: str(getattr(node, attribute)) for role, attribute in node.roles.items()}
            if node.chooses and node.result_type == FixedType(1, 1, signed=False):
                found["result"] = "ap_uint<1>"
            found |= {role: constant.stored_type for role, constant in node.constants().items()}
            yield from ((f"{node.cpp}_{role}_t", kind) for role, kind in found.items())

    @property
    def signature(self) -> str:
        """Declaration of the top function."""
        inputs = [f"const nnet::lanes<{p.type}> {p.variable}[{p.size}]" for p in self.ports_in]
        outputs = [f"nnet::lanes<{p.type}> {p.variable}[{p.size}]" for p in self.ports_out]
        return f"void {self.name}({', '.join(inputs + outputs)})"

    @property
    def kernels(self) -> list[str]:
        """Kernel headers the layers need."""
        copies = {"nnet_shape.h"} if any(p.copy_of for p in self.ports_out) else set()
        return sorted({n.kernel for n in self.computed if n.kernel} | copies)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that layers bring along, text by file name."""
        return {file: text for n in self.computed for file, text in n.headers().items()}

    def sources(self, *, with_weights: bool) -> dict[str, str]:
        """Return the files of ``firmware/`` by path. Without weights, the constants are arrays to be filled later."""
        name = self.name
        files = {
            f"firmware/{name}.h": render("project/firmware.h.j2", guard=name.upper(), signature=self.signature),
            f"firmware/{name}.cpp": self.top_function(with_depths=with_weights),
            "firmware/defines.h": render(
                "project/defines.h.j2", typedefs=list(self._typedefs()), common=self.common_header
            ),
            "firmware/parameters.h": render(
                "project/parameters.h.j2",
                kernels=self.kernels,
                headers=sorted(self.headers),
                constants=self.constants,
                configs=[text for text in map(self._config, self.computed) if text],
            ),
        }
        files |= {f"firmware/{file}": text for file, text in self.headers.items()}
        for constant in self.constants:
            files[f"firmware/weights/{constant.variable}.h"] = _weight_header(constant, with_weights)
        for kernel in self._kernel_files():
            files[f"firmware/nnet_utils/{kernel.name}"] = kernel.read_text(encoding="utf-8")
        return files

    common_header = "nnet_common.h"
    """The kernel header that declarations of the top function need."""

    def top_function(self, *, with_depths: bool = True) -> str:
        """The source of the top function; without the depths of streams, what is compiled does not depend on them."""
        # a matrix applied at several positions, or from block memory, is a process of its own in a dataflow region
        dataflow = any(
            getattr(n, "strategy", "Latency") == "Resource" or any(len(v.shape) > 1 for v in (*n.inputs, n.output))
            for n in self.computed
        )
        return render(
            "project/firmware.cpp.j2",
            name=self.name,
            signature=self.signature,
            ports_in=self.ports_in,
            ports_out=self.ports_out,
            steps=self.steps,
            dataflow=dataflow,
            interval=max([getattr(n, "reuse_factor", 1) for n in self.computed], default=1),
        )

    def _kernel_files(self) -> Iterator[Traversable]:
        """All kernels of kconvert, and of those plugins whose kernels are used."""
        for package in template_packages():
            folder = template_folder(package) / "kernels"
            found = sorted(folder.iterdir(), key=lambda file: file.name) if folder.is_dir() else []
            if package == "kconvert" or any(file.name in self.kernels for file in found):
                yield from found

    def test_bench(self) -> str:
        """The C++ test bench."""
        return render("project/test_bench.cpp.j2", name=self.name, ports_in=self.ports_in, ports_out=self.ports_out)

    def bridge(self) -> str:
        """The source that makes a shared object of the firmware."""
        planes = any(node.on_planes for node in self.computed)
        return render(
            "project/bridge_planes.cpp.j2" if planes else "project/bridge.cpp.j2",
            **(plan(self) if planes else {}),
            name=self.name,
            ports_in=self.ports_in,
            ports_out=self.ports_out,
            steps=self.steps,
            constants=self.constants,
            scratch=max((n.scratch for n in self.computed), default=0),
        )


def _weight_header(named: NamedConstant, with_values: bool) -> str:
    constant = named.constant
    return render(
        constant.template or "project/weight.h.j2",
        node=named.node,
        with_values=with_values,
        variable=named.variable,
        type=_meaning(constant),
        shape="x".join(map(str, np.shape(constant.values))),
        size=constant.values.size,
        values=_initialisers(named) if with_values and constant.template is None else None,
    )


def _meaning(constant: Constant) -> str:
    if not constant.one_bit:
        return str(constant.type)
    return f"{constant.stored_type}: 1 for {constant.type.step:g}, 0 for {-constant.type.step:g}"


def _initialisers(named: NamedConstant) -> str:
    """Return the quantised values in decimal, each read back by a compiler as exactly the same double; or the bits."""
    constant = named.constant
    if constant.one_bit:
        return _rows([str(bit) for bit in constant.stored])
    return _rows([_literal(int(raw), constant.type) for raw in constant.raw])


def _literal(raw: int, kind: FixedType) -> str:
    """Return C++ for ``raw`` steps of a type: a double, or the sum of two where one has too few bits."""
    spare = max(abs(raw).bit_length() - 53, 0)
    low = raw % (1 << spare)
    parts = [repr(math.ldexp(part, -kind.fraction)) for part in (raw - low, low)]
    return f"{kind}({parts[0]}) + {kind}({parts[1]})" if low else parts[0]


def _rows(texts: list[str], width: int = 16) -> str:
    return ",\n".join(", ".join(texts[i : i + width]) for i in range(0, len(texts), width))
