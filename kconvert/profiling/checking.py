"""What the types do to the values: overflow, underflow, idle bits, and the settings that would mend each.

Every layer is computed a second time in types that lose nothing, on the inputs it has in hardware: what is counted is
the effect of its own types and not of those before it. All layers of a model share one compiled object for this, in
which each reads inputs of its own.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert import progress
from kconvert.config import ProjectSettings
from kconvert.converters.spec import ModelSpec, TensorRef
from kconvert.errors import ConfigError, InputError, PrecisionError, PrecisionWarning
from kconvert.firmware import storage_of
from kconvert.inputs import input_arrays
from kconvert.layers import Input, Node, Recurrent, Softmax, Value
from kconvert.layers.base import MAX_WIDTH
from kconvert.model import HLSModel
from kconvert.profiling.numbers import constants_of, label_of, ready
from kconvert.tables import html_table, text_table
from kconvert.types import FixedType, Overflow

if TYPE_CHECKING:
    from kconvert.model import Arrays

Array = npt.NDArray[Any]
Row = dict[str, Any]

BATCH = 1024
"""Most samples looked at together."""
MOST_VALUES = 1 << 24
"""Most values of all layers looked at together: bounds the memory taken."""
INNER_ROLES = ("accum", "state", "cell")
"""Types inside of a layer, whose values are not its result."""
ROOM = 8
"""Integer bits that a state is given to see whether it overflows."""

TITLES = (
    *("layer", "role", "type", "values", "wrapped", "saturated", "underflowed"),
    *("unused integer bits", "unused fraction bits", "constant outputs", "change"),
)


@dataclass(frozen=True)
class Check:
    """What one type does to its values.

    Attributes:
        layer: Name for a reader, with what was folded into the layer.
        role: ``"result"``, ``"weight"``, ``"accum"``, ...
        type: The type.
        values: How many values were looked at.
        wrapped: Values outside of the range of a type that wraps. Of an accumulator or a state: results that are
            wrong because it overflowed.
        saturated: The same for a type that saturates.
        underflowed: Values that are not zero and became zero.
        unused_integer_bits: High bits that no value needed.
        unused_fraction_bits: Low bits that were zero in all values.
        constant_outputs: Elements of the result that are the same for all samples.
        path: Where in the settings the type is chosen; empty where the settings have no place for it.
        change: The type that mends what is wrong, or, where nothing is, the one without idle bits; None if there is
            nothing to change, or the model's own quantizer demands the type.
        demanded: The model's own quantizer demands the type: what it does to the values is what the model means.
    """

    layer: str
    role: str
    type: FixedType
    values: int
    wrapped: int = 0
    saturated: int = 0
    underflowed: int = 0
    unused_integer_bits: int = 0
    unused_fraction_bits: int = 0
    constant_outputs: int = 0
    path: tuple[str, ...] = ()
    change: FixedType | None = None
    demanded: bool = False

    @property
    def damaged(self) -> bool:
        """True if a value was lost that the model did not mean to lose: wrapped, saturated or underflowed."""
        return not self.demanded and bool(self.wrapped or self.saturated or self.underflowed)

    @property
    def advice(self) -> str:
        """The change as a line of text: ``LayerName → fc1 → Precision → result: ap_fixed<18,8>``."""
        if self.demanded:
            return "as the model's quantizer demands"
        return f"{' → '.join(self.path)}: {self.change}" if self.change is not None else ""

    @property
    def badness(self) -> tuple[float, ...]:
        """What rows are sorted by: share of values lost to overflow, wrapped, to underflow, constants, idle bits."""
        n = max(self.values, 1)
        idle = self.unused_integer_bits + self.unused_fraction_bits
        overflow = (self.wrapped + self.saturated) / n
        return (not self.demanded, overflow, self.wrapped / n, self.underflowed / n, self.constant_outputs / n, idle)

    def row(self) -> Row:
        """Return the numbers by name."""
        return {
            "layer": self.layer,
            "role": self.role,
            "type": str(self.type),
            "values": self.values,
            "wrapped": self.wrapped,
            "saturated": self.saturated,
            "underflowed": self.underflowed,
            "unused_integer_bits": self.unused_integer_bits,
            "unused_fraction_bits": self.unused_fraction_bits,
            "constant_outputs": self.constant_outputs,
            "change": self.advice or None,
        }


class Checks(Sequence[Check]):
    """The checks of all types of a model, worst first; printing it gives a table, a notebook shows one."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = sorted(checks, key=lambda check: check.badness, reverse=True)

    def __len__(self) -> int:
        return len(self._checks)

    def __getitem__(self, index: Any) -> Any:
        return self._checks[index]

    @property
    def table(self) -> list[Row]:
        """A row of plain numbers and texts for each type."""
        return [check.row() for check in self]

    @property
    def damaged(self) -> list[Check]:
        """The types that lost values."""
        return [check for check in self if check.damaged]

    def mend(self, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return a copy of the settings with the changes of all types that lost values; idle bits stay."""
        mended: dict[str, Any] = copy.deepcopy(dict(config or {}))
        for check in self.damaged:
            if check.change is None:
                continue
            place = mended
            for key in check.path[:-1]:
                inner = place.get(key)
                if key == "Precision" and isinstance(inner, str | FixedType):  # one type for the whole layer
                    inner = {"default": str(inner)}
                place[key] = inner if inner is not None else {}
                place = place[key]
            place[check.path[-1]] = str(check.change)
        return mended

    def __str__(self) -> str:
        return text_table(TITLES, [tuple(row.values()) for row in self.table])

    def _repr_html_(self) -> str:
        return html_table(TITLES, [tuple(row.values()) for row in self.table])


def checks(hls_model: HLSModel, X: Arrays) -> Checks:
    """Count what every type of a model does to its values on samples `X`.

    Args:
        hls_model: The conversion; compiled here if it was not.
        X: Samples as for :meth:`HLSModel.predict`, such as a validation set: what they do not reach is not seen.

    Returns:
        One row for the input, every array of weights and every layer's result, and one for every accumulator and
        state that its type does not hold for certain.

    Raises:
        KConvertError: `X` does not fit, or the C++ compiler failed.
    """
    ready(hls_model)
    arrays = input_arrays(hls_model.inputs, X)
    if not len(arrays[0]):
        raise InputError("X holds no samples: there are no values to look at")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)  # what they say stands in the table
        found = _of_values(hls_model, arrays) + _of_constants(hls_model)
    return Checks(_agreed(found))


def _of_values(hls_model: HLSModel, arrays: Sequence[Array]) -> list[Check]:
    """Check inputs, results, and what may overflow inside of layers."""
    probe = _Probe(hls_model)
    tallies = {node: _Tally(node.output.known_type(), node.output.size) for node in probe.stored}
    wrong: dict[tuple[Node, str], int] = dict.fromkeys(probe.roomier, 0)
    batch = max(16, min(BATCH, MOST_VALUES // sum(node.output.size for node in probe.stored)))
    starts = range(0, len(arrays[0]), batch)
    for start in progress.steps(starts, f"checking {len(probe.stored)} layers"):
        exact, differing = probe.run([a[start : start + batch] for a in arrays])
        for node, values in exact.items():
            tallies[node].add(values)
        for key, count in differing.items():
            wrong[key] += count
    found = [tally.check(_blank(hls_model, node, "result")) for node, tally in tallies.items()]
    for (node, role), count in wrong.items():
        blank, roomier = _blank(hls_model, node, role), probe.roomier[node, role]
        found.append(_inner_check(blank, tallies[node].values, count, roomier))
    return found


def _of_constants(hls_model: HLSModel) -> list[Check]:
    """Check weights, biases, scales."""
    found = []
    for node in hls_model:
        for role, constant in constants_of(node):
            if constant.exact is None and not constant.one_bit:
                tally = _Tally(constant.type, constant.values.size)
                tally.add(np.asarray(constant.values, dtype=np.float64).reshape(1, -1))
                found.append(tally.check(_blank(hls_model, node, role)))
    return found


def _blank(hls_model: HLSModel, node: Node, role: str) -> Check:
    """Return a check without counts."""
    kind = node.typed(role)
    demanded = node.preset.get(role) == kind and not isinstance(node, Input)
    return Check(label_of(node), role, kind, 0, path=_path(hls_model, node, role), demanded=demanded)


def _path(hls_model: HLSModel, node: Node, role: str) -> tuple[str, ...]:
    """Return where in the settings a type is chosen.

    A layer that computes what was another's, such as a normalisation folded into it, has its result's type from there.
    One whose result is a step on the way to that of the same Keras layer has no place for it.
    """
    name, names = node.layer, node.output.names
    if role == "result" and not isinstance(node, Input) and node.name not in names:
        if not names:
            behind = (user.layer for user in node.output.users)
            return () if name in behind else ("LayerName", name, "Precision", role)
        first, _, call = names[0].rpartition(":")
        known = {layer.name for layer in hls_model.spec.layers}
        name = names[0] if names[0] in known or not call.isdigit() else first
    return ("LayerName", name, "Precision", role)


def _agreed(found: Sequence[Check]) -> list[Check]:
    """Give calls of one layer, which share their types, the one change that suits all of them."""
    wanted: dict[tuple[str, ...], list[FixedType]] = {}
    for check in found:
        wanted.setdefault(check.path, []).append(check.change or check.type)
    demanded = {check.path for check in found if check.demanded}  # by a quantizer, of one of the nodes of a layer
    agreed = []
    for check in found:
        change = _holding(wanted[check.path]) if check.path and check.path not in demanded else None
        agreed.append(dataclasses.replace(check, change=None if change == check.type else change))
    return agreed


def _holding(kinds: Sequence[FixedType]) -> FixedType:
    """Return a type with the integer and the fraction bits of all `kinds`, and the modes of the first."""
    if len(kinds) == 1:
        return kinds[0]
    signed = any(k.signed for k in kinds)
    integer, fraction = max(k.integer + (signed and not k.signed) for k in kinds), max(k.fraction for k in kinds)
    return kinds[0].with_(width=min(max(integer + fraction, 1), MAX_WIDTH), integer=integer, signed=signed)


# ***** counting *****


@dataclass
class _Tally:
    """Counts of the values stored in one type; fed with the exact values."""

    kind: FixedType
    size: int
    values: int = 0
    overflowed: int = 0
    underflowed: int = 0
    highest: int = 0
    lowest: int = 0
    bits: int = 0
    """Every bit set in the magnitude of any value."""
    smallest: float = math.inf
    low: Array | None = field(default=None, repr=False)
    high: Array | None = field(default=None, repr=False)

    def add(self, exact: Array) -> None:
        """Count values [n, ...] before they are stored."""
        exact = exact.reshape(len(exact), -1)
        kind = self.kind
        # rounded as the type does, with room above it: only the overflow is left out
        raw = FixedType(MAX_WIDTH, MAX_WIDTH - kind.fraction, True, kind.rounding, Overflow.SAT).to_raw(exact)
        lowest = kind.raw_min + (kind.signed and kind.overflow is Overflow.SAT_SYM)
        self.values += exact.size
        self.overflowed += int(np.count_nonzero((raw > kind.raw_max) | (raw < lowest)))
        self.underflowed += int(np.count_nonzero((raw == 0) & (exact != 0)))
        self.highest, self.lowest = max(self.highest, int(raw.max())), min(self.lowest, int(raw.min()))
        self.bits |= int(np.bitwise_or.reduce(np.abs(raw), axis=None))
        self.smallest = min(self.smallest, float(np.abs(exact[exact != 0]).min(initial=math.inf)))
        stored = kind.quantize(exact)
        low, high = stored.min(axis=0), stored.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    @property
    def needed_integer(self) -> int:
        """Integer bits, with the sign bit, that hold every value seen."""
        symmetric = self.kind.overflow is Overflow.SAT_SYM
        below = -self.lowest - (0 if symmetric else 1) if self.lowest < 0 else 0
        signed = self.kind.signed or self.lowest < 0
        return max(self.highest, below).bit_length() + signed - self.kind.fraction

    def check(self, blank: Check) -> Check:
        """Fill in the counts, and the change they ask for."""
        kind = self.kind
        wraps = kind.overflow in (Overflow.WRAP, Overflow.WRAP_SM)
        unused_high = min(max(kind.integer - self.needed_integer, 0), kind.width - 1) if self.bits else 0
        trailing_zeros = (self.bits & -self.bits).bit_length() - 1 if self.bits else 0
        several = self.values > self.size
        found = dataclasses.replace(
            blank,
            values=self.values,
            wrapped=self.overflowed if wraps else 0,
            saturated=0 if wraps else self.overflowed,
            underflowed=self.underflowed,
            unused_integer_bits=unused_high,
            unused_fraction_bits=min(trailing_zeros, kind.width - unused_high - 1),
            constant_outputs=int(np.count_nonzero(self.low == self.high)) if several else 0,
        )
        return dataclasses.replace(found, change=self._change(found))

    def _change(self, found: Check) -> FixedType | None:
        kind = self.kind
        if not found.damaged:
            integer, fraction = kind.integer - found.unused_integer_bits, kind.fraction - found.unused_fraction_bits
            changed = kind.with_(width=integer + fraction, integer=integer)
            return None if changed == kind else changed
        signed = kind.signed or self.lowest < 0
        integer = max(kind.integer + (signed and not kind.signed), self.needed_integer)
        fraction = max(kind.fraction, math.ceil(-math.log2(self.smallest))) if self.underflowed else kind.fraction
        return kind.with_(width=min(integer + fraction, MAX_WIDTH), integer=integer, signed=signed)


def _inner_check(blank: Check, values: int, wrong: int, roomier: FixedType) -> Check:
    """Fill in the check of a type inside of a layer, of which only the effect on the result is known."""
    wraps = blank.type.overflow in (Overflow.WRAP, Overflow.WRAP_SM)
    return dataclasses.replace(
        blank,
        values=values,
        wrapped=wrong if wraps else 0,
        saturated=0 if wraps else wrong,
        change=roomier if wrong else None,
    )


# ***** computing every layer without loss *****


class _Probe:
    """A compiled object with wide copies of every layer of a model, each with inputs of its own.

    Attributes:
        stored: The inputs of the model, and the layers that store a result.
        roomier: (layer, role) of the types inside of layers that may overflow -> a type that does not.
    """

    def __init__(self, hls_model: HLSModel) -> None:
        self._model = hls_model
        self.stored: list[Node] = [n for n in hls_model if isinstance(n, Input) or storage_of(n.output) is n.output]
        self.roomier: dict[tuple[Node, str], FixedType] = {}
        self._copies: list[tuple[Node, str]] = []
        self._sources: dict[str, Value] = {}
        copies: list[Node] = []
        for node in self.stored:
            if isinstance(node, Input):
                continue
            copies.append(_copy(node, result=_exact_result(node)))
            self._copies.append((node, "result"))
            for role in (r for r in INNER_ROLES if r in node.roles):
                kind = _roomier(node, role, hls_model.config.default)
                if kind != node.typed(role):
                    self.roomier[node, role] = kind
                    copies.append(_copy(node, **{role: kind, "result": _exact_result(node)}))
                    self._copies.append((node, role))
        self._graph = self._compiled(copies)

    def _compiled(self, copies: Sequence[Node]) -> HLSModel | None:
        reads = [value for node, _ in self._copies for value in node.inputs]
        self._sources = {f"x{number}": value for number, value in enumerate(reads)}
        spec = ModelSpec("probe", (), tuple(TensorRef(name) for name in self._sources), ())
        graph = HLSModel(spec, settings=ProjectSettings(project_name="probe"))
        names = iter(self._sources.items())
        for copied, (node, _) in zip(copies, self._copies, strict=True):
            inputs = []
            for _ in node.inputs:
                name, value = next(names)
                inputs.append(graph.add(Input(name=name, shape=value.shape)))
                inputs[-1].type = value.known_type()
            kept = copied.result_type
            graph.outputs.append(graph.add(copied, *inputs))
            copied.result_type = kept
            copied.infer_types(self._model.config.default)
        if not copies:
            return None
        graph.compile()
        return graph

    def run(self, arrays: list[Array]) -> tuple[dict[Node, Array], dict[tuple[Node, str], int]]:
        """Compute a batch.

        Returns:
            Every layer's results before they are stored, and how many results are wrong because of an overflow in a
            type inside of the layer.
        """
        values = {id(value): array for value, array in self._model.library.tensors(arrays)}
        exact: dict[Node, Array] = {
            value.producer: array.astype(np.float64) for value, array in zip(self._model.inputs, arrays, strict=True)
        }
        wrong: dict[tuple[Node, str], int] = {}
        if self._graph is None:
            return exact, wrong
        given = {name: values[id(storage_of(v))].reshape(len(arrays[0]), *v.shape) for name, v in self._sources.items()}
        answers = self._graph.predict(given)
        outputs = answers if isinstance(answers, list) else [answers]
        for (node, role), array in zip(self._copies, outputs, strict=True):
            if role == "result":
                exact[node] = array
            else:
                wrong[node, role] = _differing(node, array, exact[node])
        return exact, wrong


def _copy(node: Node, **types: FixedType | None) -> Node:
    """Return a copy of a layer without inputs, with other types of some roles; it shares the weights."""
    copied = copy.copy(node)
    for part in dataclasses.fields(copied):  # a recurrent layer holds its activations as nodes
        value = getattr(copied, part.name, None)
        if isinstance(value, Node):
            setattr(copied, part.name, copy.copy(value))
    copied.output = Value(copied, node.output.shape, node.output.type)
    for role, kind in types.items():
        setattr(copied, copied.roles[role], kind)
    return copied


def _exact_result(node: Node) -> FixedType | None:
    """Return a type for the result of a layer before it is stored; None where the layer finds it itself."""
    if isinstance(node, Softmax) and node.implementation != "argmax":  # its own choice is narrower than the product
        exact = node.typed("exp_table") * node.inverse_type
        return FixedType(min(exact.width, MAX_WIDTH), exact.integer, exact.signed)
    return None


def _roomier(node: Node, role: str, default: FixedType) -> FixedType:
    """Return the type of a role inside of a layer with integer bits for everything it may meet."""
    kind = node.typed(role)
    bits = ROOM
    if role == "accum":
        open_ = _copy(node, accum=None)
        try:
            open_.infer_types(default)
            exact = open_.typed("accum")
            signed = exact.signed or kind.signed
            bits = exact.integer + (signed and not exact.signed) - kind.integer
        except (ConfigError, PrecisionError):  # no type holds every sum
            bits = MAX_WIDTH
    bits = max(min(bits, MAX_WIDTH - kind.width), 0)
    return kind.with_(width=kind.width + bits, integer=kind.integer + bits)


def _differing(node: Node, roomier: Array, exact: Array) -> int:
    """Return how many results, before they are stored, are others with more room inside of a layer."""
    tolerance = 0.0
    if isinstance(node, Recurrent):
        # an activation's table may be addressed otherwise, which moves its answer within its own resolution
        tables = [f.index_type.step for f in node.functions.values() if hasattr(f, "index_type")]
        tolerance = 2 * max(tables, default=0.0) + node.typed("state").step
    return int(np.count_nonzero(np.abs(roomier - exact) > tolerance))
