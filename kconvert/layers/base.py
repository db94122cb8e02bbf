"""The parts every layer of the intermediate representation (IR) is made of: values, constants and nodes."""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from kconvert.errors import ConfigError, GraphError
from kconvert.types import FixedType

log = logging.getLogger(__name__)

MAX_WIDTH = 64
"""Widest type a value may have; products and sums of two such values still fit the 128 bits of the csim."""


@dataclass(eq=False, slots=True)
class Value:
    """A tensor on an edge of the graph.

    Attributes:
        producer: The node that computes it.
        shape: Its shape without the batch axis.
        type: The fixed-point type of its elements; ``None`` until it is inferred.
        names: The Keras tensors it equals, as keys of ``trace``: a value has several after an identity was dropped.
        users: The nodes that read it, one entry per read.
    """

    producer: Node
    shape: tuple[int, ...]
    type: FixedType | None = None
    names: list[str] = field(default_factory=list)
    users: list[Node] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return math.prod(self.shape)

    @property
    def positions(self) -> int:
        """Number of positions: elements of all axes but the last."""
        return math.prod(self.shape[:-1])

    def known_type(self) -> FixedType:
        """Return the type, or raise :class:`GraphError` if it was not inferred yet."""
        if self.type is None:
            raise GraphError(f"the output of layer {self.producer.name!r} has no type yet")
        return self.type


@dataclass(frozen=True, slots=True)
class Constant:
    """An array a layer is born with (weights, a table), and the type the hardware keeps it in."""

    values: np.ndarray
    type: FixedType
    exact: np.ndarray | None = None
    """The elements as integers in units of the type's last bit, where doubles cannot hold them."""
    one_bit: bool = False
    """True if every element is plus or minus one step of the type, and the hardware keeps its sign alone."""
    template: str | None = None
    """Template of the file it is written into, where that is more than an array; it is given the node, too."""

    @property
    def raw(self) -> np.ndarray:
        """The quantised elements as integers in units of the type's last bit, flattened in C order."""
        return self.type.to_raw(np.asarray(self.values).ravel()) if self.exact is None else self.exact

    @property
    def stored(self) -> np.ndarray:
        """What the hardware keeps: the raw elements, or 1 for plus and 0 for minus."""
        return (self.raw > 0).astype(np.int64) if self.one_bit else self.raw

    @property
    def stored_type(self) -> str:
        """The C++ type of what the hardware keeps."""
        return "ap_uint<1>" if self.one_bit else str(self.type)


def image(value: Value) -> tuple[int, int, int]:
    """Return (height, width, channels) of a tensor of rank 2 or 3; rank 2 is an image of height 1."""
    *space, channels = value.shape
    return (1, space[0], channels) if len(space) == 1 else (space[0], space[1], channels)


def narrowed(exact: FixedType) -> FixedType:
    """Return `exact`, or the type of its upper bits if it has more than a value may have."""
    return FixedType(min(exact.width, MAX_WIDTH), exact.integer, exact.signed, exact.rounding, exact.overflow)


def identifier(name: str) -> str:
    """Return `name` reduced to letters, digits and underscores that may stand in a C++ identifier.

    The result may still be a keyword and need not be unique: code adds a suffix, :meth:`HLSModel.add` a number.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:48].strip("_")
    return words if words and words[0].isalpha() else f"layer_{words}".rstrip("_")


@dataclass(eq=False, kw_only=True)
class Node:
    """One operation. Subclasses add their options and weights as typed fields.

    Class attributes say what a subclass offers to the configuration:

    ``roles`` maps a precision role (``"weight"``, ``"accum"``, ``"result"``, ...) to the field that holds its type.
    ``tunables`` names the other settings it takes (``"reuse_factor"``, ``"table_size"``, ...).
    ``template`` is the file in ``templates/layers`` and ``kernel`` the header in ``templates/kernels`` it needs.
    """

    name: str
    layer: str = ""
    """Name of the Keras layer it was made from: the key of its settings."""
    layer_class: str = ""
    """Class of that Keras layer: the key of the settings of its type."""
    cpp: str = ""
    """Base of its C++ identifiers, set when it joins a model."""

    preset: Mapping[str, FixedType] = field(default_factory=dict, repr=False)
    """Types by role that the model itself demands (of its quantizers); the settings may still replace them."""

    stays_wide: bool = False
    """True if its result is lossless unless the settings say otherwise: a tensor the model does not quantise."""

    inputs: list[Value] = field(default_factory=list, repr=False)
    output: Value = field(init=False, repr=False)

    roles: ClassVar[Mapping[str, str]] = {"result": "result_type"}
    tunables: ClassVar[frozenset[str]] = frozenset()
    template: ClassVar[str] = ""
    kernel: ClassVar[str] = ""
    absorbs: ClassVar[bool] = False
    """True if it makes the result of the layer before it narrow again, so that one may stay lossless."""
    narrows: ClassVar[bool] = False
    """True if its result is where a tensor gets its working width, unless it leaves the model."""
    keeps_values: ClassVar[bool] = False
    """True if its results are (a subset of) its inputs' values, so that it needs no type of its own."""
    pointwise: ClassVar[bool] = False
    """True if it computes every position (all axes but the last) alike and alone; see :meth:`at_position`."""
    chooses: ClassVar[bool] = False
    """True if it picks its results from constants and rounds nothing: one that is a bit is an ``ap_uint<1>``."""
    stores_input_in: ClassVar[FixedType | None] = None
    """Type that it stores its input in before all else: that of an input of the model that nothing else reads."""

    def __post_init__(self) -> None:
        self.layer = self.layer or self.name

    # ***** what a subclass defines *****

    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of the output without the batch axis, from the shapes of the inputs."""
        return self.inputs[0].shape

    def at_position(self) -> Self | None:
        """Return the layer that computes one position (all axes but the last) of this one, if there is one.

        There is if every position is computed alike and from nothing but the same position of the inputs.
        """
        if not self.pointwise or len({value.positions for value in (*self.inputs, self.output)}) > 1:
            return None
        one = copy.copy(self)
        one.inputs = [Value(v.producer, v.shape[-1:], v.type) for v in self.inputs]
        one.output = Value(one, self.output.shape[-1:], self.output.type)
        return one

    def choose_options(self, default: FixedType) -> None:
        """Choose the options that go with the model's default type; what the settings say comes after."""

    def infer_types(self, default: FixedType) -> None:
        """Choose every type that is still ``None``, so that nothing is lost; parameters get `default`."""
        if self.output.type is None:
            self.output.type = self.inputs[0].known_type()

    def constants(self) -> dict[str, Constant]:
        """Return the arrays the layer needs in hardware, by role."""
        return {}

    def headers(self) -> dict[str, str]:
        """Return the C++ headers it needs besides its kernel: text by file name; equal ones are written once."""
        return {}

    @property
    def on_planes(self) -> bool:
        """Whether its inputs and result are single bits, and the simulation runs its kernel on planes of them."""
        return False

    @property
    def scratch(self) -> int:
        """Elements its kernel keeps beside its input and output, such as a window and its accumulators."""
        return 0

    def check(self) -> None:
        """Raise :class:`ConfigError` if settings contradict each other or the layer's shape."""

    # ***** what all share *****

    def connect(self, *inputs: Value) -> Self:
        """Read `inputs`, become their user, and make the output value."""
        self.inputs = list(inputs)
        for value in inputs:
            value.users.append(self)
        self.output = Value(self, self.output_shape(), names=[self.name])
        return self

    @property
    def result_type(self) -> FixedType | None:
        """Type of the output."""
        return self.output.type

    @result_type.setter
    def result_type(self, value: FixedType | None) -> None:
        self.output.type = value

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """Return the type of `role` when the settings say nothing; ``None`` stands for ``auto``.

        Accumulators are lossless. A result gets `default`, unless nothing is gained by it: where the next layer
        narrows it anyway, where it leaves the model, or where the values are those of the input.
        """
        if role == "accum" or (role == "result" and self._result_may_stay_wide()):
            return None
        return default

    def _result_may_stay_wide(self) -> bool:
        if self.stays_wide:
            return True
        if self.narrows and self.output.users:
            return False
        return self.keeps_values or all(user.absorbs or user.passes_on() for user in self.output.users)

    def passes_on(self) -> bool:
        """True if it hands its input's elements to readers that absorb them."""
        return False

    def in_type(self, index: int = 0) -> FixedType:
        """Type of input number `index`."""
        return self.inputs[index].known_type()

    def typed(self, role: str) -> FixedType:
        """Return the type of `role`, or raise :class:`GraphError` if it was not inferred yet."""
        value = getattr(self, self.roles[role])
        if not isinstance(value, FixedType):
            raise GraphError(f"layer {self.name!r}: the {role} type is not known yet")
        return value

    def describe(self) -> str:
        """One line for ``str(hls_model)``: name, operation, inputs, shape and types."""
        reads = ", ".join(v.producer.name for v in self.inputs)
        shape = "x".join(map(str, self.output.shape)) or "scalar"
        types = []
        for role, attribute in self.roles.items():
            value = getattr(self, attribute)
            types.append(f"{role} {value if value is not None else 'auto'}")
        return f"{self.name} = {type(self).__name__}({reads}) -> {shape}  {', '.join(types)}"

    def lossless(self, exact: FixedType, role: str) -> FixedType:
        """Return `exact` if it is narrow enough for a value, else as many of its upper bits as are.

        Integer bits are never dropped, so nothing can overflow.

        Raises:
            ConfigError: not even the fraction bits of the inputs would be left; the message says what to set.
        """
        if exact.width <= MAX_WIDTH:
            return exact
        widest = FixedType(MAX_WIDTH, exact.integer, exact.signed)
        if widest.fraction >= max(value.known_type().fraction for value in self.inputs):
            log.info("layer %r: an exact %s needs %s; it gets %s", self.name, role, exact, widest)
            return widest
        sources = ", ".join(repr(v.producer.name) for v in self.inputs)
        raise ConfigError(
            f"layer {self.name!r}: a lossless {role} needs {exact}, and {MAX_WIDTH} bits are the most; set "
            f"Precision → {role} of {self.name!r}, or Precision → result of what it reads ({sources})"
        )


class OnImages:
    """What layers over one or two spatial axes share; a tensor [length, channels] is an image of height 1."""

    inputs: list[Value]
    output: Value

    @property
    def image_in(self) -> tuple[int, int, int]:
        """(height, width, channels) of the input."""
        return image(self.inputs[0])

    @property
    def image_out(self) -> tuple[int, int, int]:
        """(height, width, channels) of the output."""
        return image(self.output)


def walk_types(node: Node) -> Iterator[tuple[str, FixedType | None]]:
    """Yield every precision role of `node` with its type."""
    for role, attribute in node.roles.items():
        yield role, getattr(node, attribute)
