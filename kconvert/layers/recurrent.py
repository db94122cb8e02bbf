"""Recurrent layers: one step of the sequence after the other, with a state that each step reads and replaces."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from kconvert.errors import ConfigError, PrecisionError, PrecisionWarning
from kconvert.layers.activations import Quantize, TableActivation, check_table_size
from kconvert.layers.base import MAX_WIDTH, Constant, Node, Value
from kconvert.layers.core import nearest_divisors
from kconvert.layers.hard_activation import HardActivation
from kconvert.layers.lookup import TABLE_SIZE, default_table_size, default_table_type
from kconvert.types import FixedType, Overflow, Rounding, grow, union

STATE_WIDTH = 32
"""Most bits of a state that the model does not quantise, unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that is applied once a step: its name in the config struct and how it is laid out in hardware."""

    name: str
    fan_in: int
    fan_out: int
    reuse_factor: int
    strategy: str


@dataclass(eq=False, kw_only=True)
class Recurrent(Node, ABC):
    """What SimpleRNN, LSTM and GRU share: two matrices, whose sums go through activation functions into the state h.

    It reads a sequence, and the state to begin with if that is not zero: h, and c of an LSTM.

    Attributes:
        weight: Float weights of the input [features, gates * units].
        recurrent_weight: Float weights of the state [units, gates * units].
        bias: Float bias of the sums over the input [gates * units].
        recurrent_bias: Float bias of the sums over the state [gates * units]; zeros where Keras has none.
        activation: Activation of the new values: any node that works element by element.
        recurrent_activation: The same of the gates; None where there are no gates.
        exact_steps: New values stay exact, and are the output; `state_quantizer` makes the state that the next step
            reads of them. Else a new value is stored in the state's type first, and the output is the state.
        state_quantizer: What makes the state of the new h: any node that works element by element. Its type is that
            of the state.
        return_sequences: The output is h after every step [steps, units]; else after the last [units].
        go_backwards: The last element of the sequence comes first; the output is in the order of computation.
        state_type: Type of h.
        table_type: Type of the entries of the activations' tables; an activation without a table has the state's type,
            or an exact one where steps are exact.
        reuse_factor: How many times one multiplier is used in one step.
        strategy: ``Latency`` (all in parallel), ``Resource`` (weights in block memory) or ``Unrolled`` (in
            parallel, weights in the logic).
    """

    weight: np.ndarray
    recurrent_weight: np.ndarray
    bias: np.ndarray
    recurrent_bias: np.ndarray
    activation: Node
    recurrent_activation: Node | None = None
    exact_steps: bool = False
    state_quantizer: Node = field(default_factory=lambda: Quantize(name="state"))
    return_sequences: bool = False
    go_backwards: bool = False
    weight_type: FixedType | None = None
    recurrent_weight_type: FixedType | None = None
    bias_type: FixedType | None = None
    accum_type: FixedType | None = None
    state_type: FixedType | None = None
    table_type: FixedType | None = None
    table_size: int = TABLE_SIZE
    reuse_factor: int = 1
    strategy: str = "Latency"

    roles: ClassVar[Mapping[str, str]] = {
        "weight": "weight_type",
        "recurrent_weight": "recurrent_weight_type",
        "bias": "bias_type",
        "accum": "accum_type",
        "state": "state_type",
        "result": "result_type",
    }
    tunables = frozenset({"reuse_factor", "strategy"})
    template = "recurrent"
    kernel = "nnet_recurrent.h"
    gates: ClassVar[int] = 1
    """Groups of `units` sums."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any("table" in function.roles for function in self.functions.values()):
            self.roles = {**self.roles, "table": "table_type"}  # type: ignore[misc]  # others have no table to set
            self.tunables = self.tunables | {"table_size"}  # type: ignore[misc]
        tables = [node.table_size for node in self.functions.values() if isinstance(node, TableActivation)]
        self.table_size = max([self.table_size, *tables])
        demanded = {role: quantizer.preset.get("result") for role, quantizer in self.quantizers.items()}
        self.preset = {**{role: kind for role, kind in demanded.items() if kind is not None}, **self.preset}

    # ***** shapes *****

    @property
    def features(self) -> int:
        """Elements of the input that one step reads."""
        return int(self.weight.shape[0])

    @property
    def units(self) -> int:
        """Elements of the state."""
        return int(self.recurrent_weight.shape[0])

    @property
    def steps(self) -> int:
        """Length of the sequence."""
        return self.inputs[0].shape[0]

    def output_shape(self) -> tuple[int, ...]:
        """The units, for every step or for the last."""
        for state in self.inputs[1:]:
            if state.shape != (self.units,):
                raise ValueError(f"an initial state has shape {state.shape}, expected {(self.units,)}")
        return (self.steps, self.units) if self.return_sequences else (self.units,)

    @property
    def scratch(self) -> int:
        """One step's input, sums and activations, the new values and the state."""
        return self.features + (3 * self.gates + 6) * self.units

    # ***** what the template writes *****

    @property
    @abstractmethod
    def cell(self) -> str:
        """The struct of the kernel that computes one step."""

    @property
    def matrices(self) -> list[Matrix]:
        """Every matrix that one step applies."""
        outputs = self.gates * self.units
        return [self._matrix("input", self.features, outputs), self._matrix("state", self.units, outputs)]

    def _matrix(self, name: str, fan_in: int, fan_out: int) -> Matrix:
        return Matrix(name, fan_in, fan_out, self.reuse_factor, self.strategy)

    @property
    def parameters(self) -> list[str]:
        """Weights and biases, in the order in which the kernel takes them."""
        return ["weight", "bias", "recurrent_weight", "recurrent_bias"]

    @property
    def quantizers(self) -> dict[str, Node]:
        """What makes each part of the state of its new value, by the role of its type."""
        return {"state": self.state_quantizer}

    @property
    def functions(self) -> dict[str, Node]:
        """The nodes that read a value inside of this layer, by their name in the config struct."""
        activations = {"recurrent_activation": self.recurrent_activation, "activation": self.activation}
        return {
            **{name: node for name, node in activations.items() if node is not None},
            **{f"{role}_quantizer": node for role, node in self.quantizers.items()},
        }

    @property
    def local_types(self) -> dict[str, FixedType]:
        """Types that the cell needs beside those of its roles and functions."""
        return {}

    def constants(self) -> dict[str, Constant]:
        """Weights, biases, and what the functions need."""
        return {
            "weight": Constant(self.weight, self.typed("weight")),
            "bias": Constant(self.bias, self.typed("bias")),
            "recurrent_weight": Constant(self.recurrent_weight, self.typed("recurrent_weight")),
            "recurrent_bias": Constant(self.recurrent_bias, self.typed("bias")),
            **{
                f"{name}_{role}": constant
                for name, function in self.functions.items()
                for role, constant in function.constants().items()
            },
        }

    # ***** types *****

    def choose_options(self, default: FixedType) -> None:
        """Tables get the size that they have in activations of their own."""
        if any(isinstance(node, TableActivation) and node.steps is None for node in self.functions.values()):
            self.table_size = max(self.table_size, default_table_size(default))

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """Tables are finer than the default type by default; the result is what the steps give."""
        if role == "table":
            return default_table_type(default)
        open_ = role == "result" or (self.exact_steps and role in self.quantizers)
        return None if open_ else super().default_type(role, default)

    def infer_types(self, default: FixedType) -> None:
        """The accumulators hold every sum the operand types allow; the result is the state, or the exact new value."""
        for role in ("weight", "recurrent_weight", "bias", *(() if self.exact_steps else self.quantizers)):
            setattr(self, self.roles[role], getattr(self, self.roles[role]) or default)
        self.table_type = self.table_type or default_table_type(default)
        try:
            if self.exact_steps:
                self._infer_states(default)
            else:
                self._infer_step(default, self.accum_type)
        except PrecisionError as error:
            raise ConfigError(
                f"layer {self.name!r}: its exact intermediate values are too wide ({error}); set Precision → "
                f"{', '.join(r for r in self.roles if r in ('accum', 'state', 'cell', 'table'))} of {self.name!r} to "
                f"types with fewer bits"
            ) from error
        self.result_type = self.result_type or self._returned_type()

    def _returned_type(self) -> FixedType:
        """Type of all that is returned."""
        return self.new_type("state")

    def _infer_states(self, default: FixedType) -> None:
        """Find the types of what one step hands to the next, where they are open: step by step, until nothing grows."""
        accum, still_open = self.accum_type, {r for r in self.quantizers if getattr(self, self.roles[r]) is None}
        for role in still_open:
            setattr(self, self.roles[role], FixedType(1, 1, signed=False))  # the zeros at the start
        self._infer_step(default, accum)
        for _ in range(self.steps - 1 if still_open else 0):
            grown = {role: self._holding(role) for role in still_open}
            grown = {role: kind for role, kind in grown.items() if kind != self.typed(role)}
            if not grown:
                break
            for role, kind in grown.items():
                setattr(self, self.roles[role], _narrowed(kind, STATE_WIDTH))
                if kind.width > STATE_WIDTH:
                    still_open.remove(role)
                    self._warn_of_rounding(role)
            self._infer_step(default, accum)

    def _holding(self, role: str) -> FixedType:
        """Return a type for the new value, within what it can reach in all steps; it grows with that of the state."""
        new = self.new_type(role)
        integer = min(new.integer, math.frexp(self.reach(role))[1] + new.signed)
        return FixedType(integer + new.fraction, integer, new.signed)

    def _warn_of_rounding(self, role: str) -> None:
        warnings.warn(
            f"layer {self.name!r}: nothing quantises its {role}, which gets more bits with every step; it is rounded "
            f"to {self.typed(role)}. Give the layer a state_quantizer, or set LayerName → {self.layer} → Precision → "
            f"{role}",
            PrecisionWarning,
            stacklevel=2,
        )

    def _infer_step(self, default: FixedType, accum: FixedType | None) -> None:
        """Give types to all that is between a state and the next; `accum` is None where it is to hold every sum."""
        self.accum_type = accum or self.lossless(self._exact_accum(), "accum")
        self._infer_activations(default, widen=accum is None)
        exact = self.new_types()
        for role in self.quantizers:
            kind = _narrowed(exact[role], MAX_WIDTH) if self.exact_steps else self.typed(role)
            self._infer_function(f"{role}_quantizer", kind, default, self.typed(role))

    def _exact_accum(self) -> FixedType:
        bias = self.typed("bias")
        over_input = grow(self.in_type() * self.typed("weight"), self.features) + bias
        return union(over_input, self._over_state(self.typed("state")))

    def _over_state(self, state: FixedType) -> FixedType:
        return grow(state * self.typed("recurrent_weight"), self.units) + self.typed("bias")

    def _infer_activations(self, default: FixedType, *, widen: bool) -> None:
        """Give types to the activations; `accum` may be made wider if `widen`."""
        if self.recurrent_activation is not None:
            self._infer_function("recurrent_activation", self.sum_type, default)
        self._infer_function("activation", self.sum_type, default)

    def _infer_function(
        self, name: str, source: FixedType, default: FixedType, result: FixedType | None = None
    ) -> None:
        """Give a function its place inside of this layer: a value of type `source` to read, and its types."""
        function = self.functions[name]
        function.cpp = f"{self.cpp}_{name}"
        function.connect(Value(self, (self.units,), source))
        for role, attribute in function.roles.items():
            own = self.table_type if role == "table" else None
            setattr(function, attribute, function.preset.get(role) or own)
        if result is not None:
            function.result_type = result
        elif "table" not in function.roles and not self.exact_steps:
            function.result_type = function.result_type or self.state_type
        if "table_size" in function.tunables:
            setattr(function, "table_size", self.table_size)  # noqa: B010  not every activation has one
        function.infer_types(default)

    def value_type(self, name: str) -> FixedType:
        """Type of the values of the function called `name`."""
        return self.functions[name].output.known_type()

    def new_type(self, role: str) -> FixedType:
        """Type of a new value before it becomes the state of this role."""
        return self.quantizers[role].in_type()

    @property
    def sum_type(self) -> FixedType:
        """Exact type of the sum over the input plus the sum over the state."""
        return self.typed("accum") + self.typed("accum")

    @abstractmethod
    def new_types(self) -> dict[str, FixedType]:
        """Return the exact type of the new value of every part of the state.

        Raises:
            PrecisionError: Something on the way to it has no exact type.
        """

    @abstractmethod
    def reach(self, role: str) -> float:
        """Return a bound of the magnitude of a part of the state after all steps."""

    def check(self) -> None:
        """Refuse a table that no bits address, and a reuse factor that does not divide every matrix."""
        if "table_size" in self.tunables:
            check_table_size(self, self.table_size)
        products = [m.fan_in * m.fan_out for m in self.matrices]
        if self.strategy == "Resource" and any(n % self.reuse_factor for n in products):
            common = math.gcd(*products)
            raise ConfigError(
                f"layer {self.name!r}: ReuseFactor {self.reuse_factor} does not divide the products of each of its "
                f"matrices ({', '.join(f'{m.fan_in} x {m.fan_out}' for m in self.matrices)}); the nearest that do: "
                f"{nearest_divisors(common, self.reuse_factor)}"
            )


def _narrowed(kind: FixedType, width: int) -> FixedType:
    """Return `kind`, or the type of its upper bits if it has more than `width`; integer bits are never dropped."""
    return kind if kind.width <= width else FixedType(width, kind.integer, kind.signed, Rounding.RND, Overflow.SAT)


def _bounds(function: Node) -> tuple[float, float]:
    """Return the lowest and the highest value a function can have."""
    kind = function.output.known_type()
    low, high = -math.inf, math.inf
    if isinstance(function, TableActivation) and function.curve is not None:
        low, high = function.curve.bounds
    elif isinstance(function, HardActivation):
        low, high = function.min_value, function.max_value
    return max(kind.min, low), min(kind.max, high)


def _reach(function: Node) -> float:
    """Return the largest magnitude a function can have."""
    low, high = _bounds(function)
    return max(-low, high)


@dataclass(eq=False, kw_only=True)
class SimpleRNN(Recurrent):
    """``h = activation(x W + b + h U)``."""

    @property
    def cell(self) -> str:
        """The plain cell."""
        return "simple_rnn_cell"

    def new_types(self) -> dict[str, FixedType]:
        """The activation's value."""
        return {"state": self.value_type("activation")}

    def reach(self, role: str) -> float:
        """That of the activation."""
        return _reach(self.activation)


@dataclass(eq=False, kw_only=True)
class Gated(Recurrent, ABC):
    """A recurrent layer whose gates have an activation of their own."""

    recurrent_activation: Node

    @property
    def gate_type(self) -> FixedType:
        """Type of a gate."""
        return self.value_type("recurrent_activation")


@dataclass(eq=False, kw_only=True)
class LSTM(Gated):
    """``c = f c + i g``, ``h = o activation(c)``; the gates in the order i, f, g (the candidate), o.

    Attributes:
        cell_quantizer: What makes the c that the next step reads of the new c.
        return_cell: The output has rows, and the new c of the last step is the last of them, after those of h.
        cell_type: Type of c.
    """

    cell_quantizer: Node = field(default_factory=lambda: Quantize(name="cell"))
    return_cell: bool = False
    cell_type: FixedType | None = None
    candidate_type: FixedType | None = field(default=None, init=False, repr=False)
    """Type that holds g; that of the activation holds its values of c as well."""

    roles: ClassVar[Mapping[str, str]] = {**Recurrent.roles, "cell": "cell_type"}
    gates = 4

    @property
    def cell(self) -> str:
        """The cell with a memory c beside h."""
        return "lstm_cell"

    def output_shape(self) -> tuple[int, ...]:
        """The last c is one row more."""
        shape = super().output_shape()
        return ((self.steps if self.return_sequences else 1) + 1, self.units) if self.return_cell else shape

    @property
    def quantizers(self) -> dict[str, Node]:
        """A memory c beside h."""
        return {**super().quantizers, "cell": self.cell_quantizer}

    def _infer_activations(self, default: FixedType, *, widen: bool) -> None:
        """The activation is applied to the candidate's sum and to c."""
        super()._infer_activations(default, widen=widen)
        self.candidate_type = self.value_type("activation")
        memory = _narrowed(self.new_types()["cell"], MAX_WIDTH) if self.exact_steps else self.typed("cell")
        self._infer_function("activation", union(self.sum_type, memory), default)

    def _returned_type(self) -> FixedType:
        """Type of all that is returned: c may be among it."""
        state = self.new_type("state")
        return self.lossless(union(state, self.new_type("cell")), "result") if self.return_cell else state

    def new_types(self) -> dict[str, FixedType]:
        """``o activation(c)`` and ``f c + i g``."""
        value = self.value_type("activation")
        _ = self.gate_type * self.typed("cell") + self.gate_type * value  # as the kernel spells it
        memory = self.gate_type * self.typed("cell") + self.gate_type * (self.candidate_type or value)
        return {"state": self.gate_type * value, "cell": memory}

    def reach(self, role: str) -> float:
        """c is a sum over the steps, in which the forget gate comes once more with each."""
        gate = _reach(self.recurrent_activation)
        if role == "state":
            return gate * _reach(self.activation)
        candidate = self.candidate_type or self.value_type("activation")
        added, total = gate * min(_reach(self.activation), max(-candidate.min, candidate.max)), 0.0
        for _ in range(self.steps):
            total = min(gate * total + added, 2.0**MAX_WIDTH)
        return total


@dataclass(eq=False, kw_only=True)
class GRU(Gated):
    """``h = z h + (1 - z) g``; the gates in the order z, r, g (the candidate).

    Attributes:
        reset_after: The gate r scales the candidate's sum over the state; else it scales the state itself, before the
            candidate's matrix is applied to it.
    """

    reset_after: bool = True

    gates = 3

    @property
    def cell(self) -> str:
        """One cell for each place of the reset gate."""
        return "gru_cell" if self.reset_after else "gru_reset_before_cell"

    @property
    def matrices(self) -> list[Matrix]:
        """A state that is scaled for the candidate needs a matrix of its own."""
        of_input, of_state = super().matrices
        if self.reset_after:
            return [of_input, of_state]
        return [
            of_input,
            self._matrix("state", self.units, 2 * self.units),
            self._matrix("candidate", self.units, self.units),
        ]

    @property
    def parameters(self) -> list[str]:
        """The candidate's matrix is the last."""
        return [*super().parameters, *([] if self.reset_after else ["candidate_weight"])]

    @property
    def local_types(self) -> dict[str, FixedType]:
        """The state after the reset gate."""
        return {} if self.reset_after else {"reset": self.reset_type}

    @property
    def reset_type(self) -> FixedType:
        """Type of r h."""
        state = self.typed("state")
        return _narrowed(self.gate_type * state, MAX_WIDTH) if self.exact_steps else state

    def constants(self) -> dict[str, Constant]:
        """The weights of the state are split where they are applied one after the other."""
        found = super().constants()
        if not self.reset_after:
            kind, split = self.typed("recurrent_weight"), 2 * self.units
            found["recurrent_weight"] = Constant(self.recurrent_weight[:, :split], kind)
            found["candidate_weight"] = Constant(self.recurrent_weight[:, split:], kind)
        return found

    def _infer_activations(self, default: FixedType, *, widen: bool) -> None:
        """The candidate's sum has the gate r in it, in one of two places."""
        self._infer_function("recurrent_activation", self.sum_type, default)
        source = self.sum_type
        if self.reset_after:
            accum = self.typed("accum")
            source = accum + self.gate_type * accum
        elif widen:
            gate, accum = self.gate_type, union(self.typed("accum"), self._over_state(self.reset_type))
            self.accum_type = self.lossless(accum, "accum")
            self._infer_function("recurrent_activation", self.sum_type, default, gate)  # its sums are what they were
            source = self.sum_type
        self._infer_function("activation", source, default)

    def new_types(self) -> dict[str, FixedType]:
        """``g + z (h - g)``."""
        value = self.value_type("activation")
        return {"state": value + self.gate_type * (self.typed("state") - value)}

    def reach(self, role: str) -> float:
        """That of the candidate: the new h lies between h and g, unless the gate leaves [0, 1]."""
        (low, high), value = _bounds(self.recurrent_activation), _reach(self.activation)
        return value if low >= 0 and high <= 1 else 2.0**MAX_WIDTH
