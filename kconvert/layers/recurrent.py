"""Recurrent layers: one step of the sequence after the other, with a state that each step reads and replaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kconvert.errors import ConfigError, PrecisionError
from kconvert.layers.activations import TABLE_TYPE, check_table_size
from kconvert.layers.base import Constant, Node, Value
from kconvert.types import FixedType, grow, union


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that is applied once a step: its name in the config struct and how it is laid out in hardware."""

    name: str
    fan_in: int
    fan_out: int
    reuse_factor: int
    strategy: str


@dataclass(eq=False, kw_only=True)
class Recurrent(Node):
    """What SimpleRNN, LSTM and GRU share: two matrices, whose sums go through activation functions into the state h.

    Attributes:
        weight: Float weights of the input [features, gates * units].
        recurrent_weight: Float weights of the state [units, gates * units].
        bias: Float bias of the sums over the input [gates * units].
        recurrent_bias: Float bias of the sums over the state [gates * units]; zeros where Keras has none.
        activation: Activation of the new values: any node that works element by element.
        recurrent_activation: The same of the gates; None where there are no gates.
        return_sequences: The output is the state after every step [steps, units]; else after the last [units].
        go_backwards: The last element of the sequence comes first; the output is in the order of computation.
        state_type: Type of h.
        table_type: Type of the entries of the activations' tables; an activation without a table has the state's type.
        reuse_factor: How many times one multiplier is used in one step.
        strategy: ``Latency`` (all in parallel) or ``Resource`` (weights in block memory).
    """

    weight: np.ndarray
    recurrent_weight: np.ndarray
    bias: np.ndarray
    recurrent_bias: np.ndarray
    activation: Node
    recurrent_activation: Node | None = None
    return_sequences: bool = False
    go_backwards: bool = False
    weight_type: FixedType | None = None
    recurrent_weight_type: FixedType | None = None
    bias_type: FixedType | None = None
    accum_type: FixedType | None = None
    state_type: FixedType | None = None
    table_type: FixedType | None = None
    table_size: int = 1024
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
        return (self.steps, self.units) if self.return_sequences else (self.units,)

    @property
    def scratch(self) -> int:
        """One step's input, sums and activations, and the state."""
        return self.features + (3 * self.gates + 4) * self.units

    # ***** what the template writes *****

    @property
    def cell(self) -> str:
        """The struct of the kernel that computes one step."""
        raise NotImplementedError

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
    def functions(self) -> dict[str, Node]:
        """The activations by their name in the config struct, as nodes that read a value inside of this layer."""
        found = {"recurrent_activation": self.recurrent_activation, "activation": self.activation}
        return {name: node for name, node in found.items() if node is not None}

    def constants(self) -> dict[str, Constant]:
        """Weights, biases, and what the activations need."""
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

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """Tables are finer than the default type by default; the result is the state as it is."""
        if role == "table":
            return TABLE_TYPE
        return None if role == "result" else super().default_type(role, default)

    def infer_types(self, default: FixedType) -> None:
        """The accumulators hold every sum the operand types allow; the result is the state."""
        for role, attribute in self.roles.items():
            if role not in ("accum", "result", "table"):
                setattr(self, attribute, getattr(self, attribute) or default)
        self.table_type = self.table_type or TABLE_TYPE
        self.accum_type = self.accum_type or self.lossless(self._exact_accum(), "accum")
        self.result_type = self.result_type or self.state_type
        try:
            if self.recurrent_activation is not None:
                self._infer_function("recurrent_activation", self.sum_type, default)
            self._infer_function("activation", self.activation_input, default)
            self.check_update()
        except PrecisionError as error:
            raise ConfigError(
                f"layer {self.name!r}: its exact intermediate values are too wide ({error}); set Precision → "
                f"{', '.join(r for r in self.roles if r in ('accum', 'state', 'cell', 'table'))} of {self.name!r} to "
                f"types with fewer bits"
            ) from error

    def _exact_accum(self) -> FixedType:
        bias = self.typed("bias")
        over_input = grow(self.in_type() * self.typed("weight"), self.features) + bias
        over_state = grow(self.typed("state") * self.typed("recurrent_weight"), self.units) + bias
        return union(over_input, over_state)

    def _infer_function(self, name: str, source: FixedType, default: FixedType) -> None:
        """Give an activation its place inside of this layer: a value of type `source` to read, and its types."""
        function = self.functions[name]
        function.cpp = f"{self.cpp}_{name}"
        function.connect(Value(self, (self.units,), source))
        table = "table" in function.roles
        for role, attribute in function.roles.items():
            own = {"table": self.table_type, "result": None if table else self.state_type}.get(role)
            setattr(function, attribute, function.preset.get(role) or own)
        if "table_size" in function.tunables:
            setattr(function, "table_size", self.table_size)  # noqa: B010  not every activation has one
        function.infer_types(default)

    def value_type(self, name: str) -> FixedType:
        """Type of the values of the activation called `name`."""
        return self.functions[name].output.known_type()

    @property
    def sum_type(self) -> FixedType:
        """Exact type of the sum over the input plus the sum over the state."""
        return self.typed("accum") + self.typed("accum")

    @property
    def activation_input(self) -> FixedType:
        """Exact type of all that the activation is applied to."""
        return self.sum_type

    def check_update(self) -> None:
        """Raise :class:`PrecisionError` if a value between the activations and the state has no exact type."""

    def check(self) -> None:
        """Refuse a table that no bits address, and a reuse factor that does not divide every matrix."""
        if "table_size" in self.tunables:
            check_table_size(self, self.table_size)
        products = [m.fan_in * m.fan_out for m in self.matrices]
        if self.strategy == "Resource" and any(n % self.reuse_factor for n in products):
            common = math.gcd(*products)
            valid = [n for n in range(1, common + 1) if common % n == 0]
            near = sorted(valid, key=lambda n: abs(n - self.reuse_factor))[:4]
            raise ConfigError(
                f"layer {self.name!r}: ReuseFactor {self.reuse_factor} does not divide the products of each of its "
                f"matrices ({', '.join(f'{m.fan_in} x {m.fan_out}' for m in self.matrices)}); the nearest that do: "
                f"{sorted(near)}"
            )


@dataclass(eq=False, kw_only=True)
class SimpleRNN(Recurrent):
    """``h = activation(x W + b + h U)``."""

    @property
    def cell(self) -> str:
        """The plain cell."""
        return "simple_rnn_cell"


@dataclass(eq=False, kw_only=True)
class LSTM(Recurrent):
    """``c = f c + i g``, ``h = o activation(c)``; the gates in the order i, f, g (the candidate), o.

    Attributes:
        cell_type: Type of c.
    """

    cell_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {**Recurrent.roles, "cell": "cell_type"}
    gates = 4

    @property
    def cell(self) -> str:
        """The cell with a memory c beside h."""
        return "lstm_cell"

    @property
    def activation_input(self) -> FixedType:
        """It is applied to the candidate's sum and to c."""
        return union(self.sum_type, self.typed("cell"))

    def check_update(self) -> None:
        """``f c + i g`` and ``o activation(c)``."""
        gate, value = self.value_type("recurrent_activation"), self.value_type("activation")
        _ = gate * self.typed("cell") + gate * value


@dataclass(eq=False, kw_only=True)
class GRU(Recurrent):
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

    def constants(self) -> dict[str, Constant]:
        """The weights of the state are split where they are applied one after the other."""
        found = super().constants()
        if not self.reset_after:
            kind, split = self.typed("recurrent_weight"), 2 * self.units
            found["recurrent_weight"] = Constant(self.recurrent_weight[:, :split], kind)
            found["candidate_weight"] = Constant(self.recurrent_weight[:, split:], kind)
        return found

    @property
    def activation_input(self) -> FixedType:
        """The gate may scale a sum before it gets there."""
        if not self.reset_after:
            return self.sum_type
        accum = self.typed("accum")
        return accum + self.value_type("recurrent_activation") * accum

    def check_update(self) -> None:
        """``g + z (h - g)``, and ``r h``."""
        gate, value = self.value_type("recurrent_activation"), self.value_type("activation")
        _ = value + gate * (self.typed("state") - value)
