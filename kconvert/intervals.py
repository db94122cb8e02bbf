"""What a type that wraps cannot hold: found when a model is compiled, before anybody has data.

Two steps, both about values within the type of the model's inputs:

1. *Intervals* go from layer to layer, per channel where that is cheap: bounds of all that a layer may compute, with
   its actual weights. A type that holds its interval cannot overflow; mostly that is all of them, and nothing more is
   done.
2. *Witnesses* for the others. Intervals of layers behind each other are too wide, since the channels of a tensor depend
   on each other, so they prove nothing. Inputs that drive the suspected sums up and down (the sign of every weight,
   taken back through the layers before) are simulated, and only values that leave their type for one of them are told
   of.

So a warning is never wrong; that there is none is no proof.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import PrecisionWarning
from kconvert.firmware import storage_of
from kconvert.layers import BatchNormalization, Conv, Dense, DepthwiseConv, GroupedConv, Input, Node, Pool, Relu, Value
from kconvert.layers.core import ApplyAlpha, View, Weighted
from kconvert.layers.merge import Add
from kconvert.types import FixedType, Overflow, exact_type

if TYPE_CHECKING:
    from kconvert.csim import Library
    from kconvert.model import HLSModel

Array = npt.NDArray[np.float64]

RANDOM_SAMPLES = 8
"""Inputs of extreme values in random places that are tried besides those made for a layer."""
MOST_TERMS = 1 << 22
"""Most numbers under the windows of a layer, for all its positions, for which a witness is looked for."""
MOST_DRIVEN = 16
"""Types that inputs are made for; those of the others, and random ones, are tried for all."""
EXACT_WIDTH = 53
"""Most bits of an input whose largest value a double holds."""
WRAPS = (Overflow.WRAP, Overflow.WRAP_SM)


@dataclass(frozen=True)
class Interval:
    """Bounds of the values of a tensor: one pair for each channel of its last axis, or one for all."""

    low: Array
    high: Array

    @classmethod
    def of(cls, kind: FixedType) -> Interval:
        """All values of a type."""
        return cls(np.array([kind.min]), np.array([kind.max]))

    def widened(self, by: Array | float) -> Interval:
        """Return it with room on both sides."""
        return Interval(self.low - by, self.high + by)

    def within(self, kind: FixedType) -> bool:
        """Whether a type holds all of it, whatever is rounded."""
        return bool(self.low.min() >= kind.min and self.high.max() <= kind.max)

    @property
    def whole(self) -> Interval:
        """One pair for all channels."""
        return Interval(self.low.min(keepdims=True), self.high.max(keepdims=True))


@dataclass(frozen=True)
class Suspect:
    """A type that may not hold what a layer computes: its values before they are stored lie in `interval`."""

    node: Node
    role: str
    interval: Interval

    @property
    def type(self) -> FixedType:
        """The type."""
        return self.node.typed(self.role)

    def line(self, low: float, high: float) -> str:
        """Return what to say when values from `low` to `high` were seen."""
        kind, node = self.type, self.node
        reach = self.interval.whole
        bits = exact_type([math.floor(reach.low[0]), math.ceil(reach.high[0])]).integer
        bits += kind.signed and reach.low[0] >= 0
        return (
            f"layer {node.name!r}: {self.role} reaches [{low:.6g}, {high:.6g}] for inputs within their type, and "
            f"{kind} wraps outside of [{kind.min:.6g}, {kind.max:.6g}]; {bits} integer bits hold all that is "
            f"possible, and a mode such as AP_SAT limits the damage: LayerName → {node.layer} → Precision → {self.role}"
        )


def warn_of_overflow(model: HLSModel, library: Library) -> None:
    """Warn, with one :class:`PrecisionWarning`, of all types that wrap for some input within the inputs' types."""
    suspects = find_suspects(model)
    if not suspects or any(v.known_type().width > EXACT_WIDTH for v in model.inputs):
        return
    seen = _witness(model, library, suspects)
    lines = [s.line(*seen[i]) for i, s in enumerate(suspects) if i in seen]
    if lines:
        warnings.warn("\n".join(lines), PrecisionWarning, stacklevel=3)


# ***** intervals *****


def find_suspects(model: HLSModel) -> list[Suspect]:
    """Return the types that wrap and do not hold the interval of what is stored in them."""
    if not any(kind.overflow in WRAPS for node in model.nodes for kind in _kinds(node)):
        return []
    found: list[Suspect] = []
    known: dict[int, Interval] = {}
    for node in model.nodes:
        kind = node.output.known_type()
        interval = _computed(node, known)
        if interval is None or isinstance(node, Input):
            known[id(node.output)] = Interval.of(kind)
            continue
        for role in ("accum", "result"):
            if role not in node.roles:
                continue
            stored = node.typed(role)
            interval = interval.widened(_rounding(node, role))
            if interval.within(stored):
                continue
            if stored.overflow in WRAPS and node.preset.get(role) != stored:
                found.append(Suspect(node, role, interval))
            if role == "accum":  # what is left of its values is anything that fits
                interval = Interval.of(stored)
                break
        fits = interval.within(kind)
        known[id(node.output)] = interval if fits else Interval.of(kind)
    return found


def _kinds(node: Node) -> Iterator[FixedType]:
    for role in ("accum", "result"):
        if role in node.roles:
            yield node.typed(role)


def _rounding(node: Node, role: str) -> float:
    """Return how far values move at most when they are stored, with a little for the float64 they are computed in."""
    kind = node.typed(role)
    if role == "accum" and isinstance(node, Weighted):
        exact = max(node.in_type().fraction + node.typed("weight").fraction, node.typed("bias").fraction)
        return 0.0 if kind.fraction >= exact else (node.fan_in + 1) * kind.step
    source = max(v.known_type().fraction for v in node.inputs)
    if "accum" in node.roles:
        source = node.typed("accum").fraction
    elif isinstance(node, BatchNormalization):
        source = max(source + node.typed("scale").fraction, node.typed("bias").fraction)
    return 0.0 if kind.fraction >= source else kind.step


def _computed(node: Node, known: Mapping[int, Interval]) -> Interval | None:
    """Return bounds of what a layer computes before it is stored; None where nothing is known but its type."""
    inputs = [known.get(id(v), Interval.of(v.known_type())) for v in node.inputs]
    if _sums(node):
        return _of_sums(node, inputs[0])
    if type(node) in (BatchNormalization, ApplyAlpha):
        return _of_scaling(node, inputs[0])
    if isinstance(node, View):
        return inputs[0] if node.inputs[0].shape[-1:] == node.output.shape[-1:] else inputs[0].whole
    if isinstance(node, Relu) and not node.negative_slope and node.min_value is None:
        # stored before it is limited to its largest value
        return Interval(np.maximum(inputs[0].low, 0), np.maximum(inputs[0].high, 0))
    if isinstance(node, Pool) and not node.average:
        return inputs[0]
    if isinstance(node, Add) and len({v.shape for v in node.inputs}) == 1:
        return Interval(sum(i.low for i in inputs), sum(i.high for i in inputs))  # type: ignore[arg-type]  # no ints
    return None


def _sums(node: Node) -> bool:
    """Whether a layer is one of those whose sums are known here; those of plugins may multiply otherwise."""
    return type(node) in (Dense, Conv, GroupedConv, DepthwiseConv)


def _of_sums(node: Any, x: Interval) -> Interval:
    """Bounds of bias + sum of x * weight, with zeros among x where the image is padded."""
    channels = node.inputs[0].shape[-1]
    low, high = (np.broadcast_to(bound, (channels,)) for bound in (x.low, x.high))
    if isinstance(node, Conv) and any(node.window.padding):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    matrix = _Sum(node).matrix.reshape(-1, channels, node.fan_out)
    up, down = np.maximum(matrix, 0), np.minimum(matrix, 0)
    total_low = np.einsum("kco,c->o", up, low) + np.einsum("kco,c->o", down, high)
    total_high = np.einsum("kco,c->o", up, high) + np.einsum("kco,c->o", down, low)
    bias = _stored(node, "bias")
    return Interval(total_low + bias, total_high + bias)


def _of_scaling(node: Any, x: Interval) -> Interval | None:
    if not node.of_last_axis:
        return None
    scale, bias = _stored(node, "scale"), _stored(node, "bias")
    ends = [x.low * scale + bias, x.high * scale + bias]
    return Interval(np.minimum(*ends), np.maximum(*ends))


def _stored(node: Node, role: str) -> Array:
    """Return a constant as the hardware has it."""
    constant = node.constants()[role]
    return constant.type.from_raw(constant.raw).reshape(np.shape(constant.values))


# ***** witnesses *****


class _Sum:
    """A layer as windows [positions, terms] over its flat input, and one matrix [terms, outputs]."""

    def __init__(self, node: Weighted) -> None:
        self.node = node
        weight = node.typed("weight").quantize(node.weight)
        channels = node.inputs[0].shape[-1]
        if isinstance(node, GroupedConv):
            full = np.zeros((*weight.shape[:2], channels, node.fan_out))
            size, filters = channels // node.groups, node.group_filters
            for g in range(node.groups):
                outputs = slice(g * filters, (g + 1) * filters)
                full[:, :, g * size : (g + 1) * size, outputs] = weight[..., outputs]
            weight = full
        elif isinstance(node, DepthwiseConv):
            owner = np.arange(node.fan_out) // node.depth_multiplier
            weight = weight[:, :, None, :] * (np.arange(channels)[:, None] == owner)
        self.matrix: Array = weight.reshape(-1, node.fan_out)
        self.bias = _stored(node, "bias")

    @property
    def terms(self) -> int:
        """Numbers under all windows of one sample."""
        return self.node.output.positions * len(self.matrix)

    def places(self) -> npt.NDArray[np.int64]:
        """Return which elements of the flat input the windows see; its size stands for a zero of the padding."""
        node, size = self.node, self.node.inputs[0].size
        if isinstance(node, Conv):
            return _windows(node).reshape(node.output.positions, -1)
        return np.arange(size).reshape(-1, node.fan_in)

    def exact(self, x: Array) -> Array:
        """Return the sums [n, positions, outputs] for inputs [n, ...], none of them rounded."""
        flat = np.concatenate([x.reshape(len(x), -1), np.zeros((len(x), 1))], axis=1)
        places = self.places()
        return np.stack([sample[places] @ self.matrix + self.bias for sample in flat])

    def back(self, wanted: Array) -> Array:
        """Return how every element of the input changes the sums, weighted with `wanted` [positions, outputs]."""
        size = self.node.inputs[0].size
        return _gathered(self.places(), wanted @ self.matrix.T, size)


def _gathered(places: npt.NDArray[np.int64], pulls: Array, size: int) -> Array:
    """Return the sum of `pulls` for each of `size` elements, `places` saying whose they are."""
    return np.bincount(places.ravel(), pulls.ravel(), size + 1)[:size].astype(np.float64)


def _windows(node: Conv | Pool) -> npt.NDArray[np.int64]:
    """Return which elements of the flat input windows see [positions, area, channels]; its size stands for padding."""
    (height, width, channels), (rows, columns, _), w = node.image_in, node.image_out, node.window
    size = node.inputs[0].size
    around = (w.padding[:2], w.padding[2:], (0, 0))
    padded = np.pad(np.arange(size).reshape(height, width, channels), around, constant_values=size)
    r = np.arange(rows)[:, None] * w.strides[0] + np.arange(w.size[0]) * w.dilation[0]
    c = np.arange(columns)[:, None] * w.strides[1] + np.arange(w.size[1]) * w.dilation[1]
    seen: npt.NDArray[np.int64] = padded[r[:, None, :, None], c[None, :, None, :]].reshape(rows * columns, -1, channels)
    return seen


def _witness(model: HLSModel, library: Library, suspects: list[Suspect]) -> dict[int, tuple[float, float]]:
    """Return, for the suspects that are found guilty, the lowest and the highest value seen."""
    samples = _inputs_for(model, suspects)
    values = {id(value): array for value, array in library.tensors(samples)}
    found = {}
    for number, suspect in enumerate(suspects):
        exact = _exact(suspect, values)
        if exact is None:
            continue
        kind, slack = (
            suspect.type,
            sum(_rounding(suspect.node, r) for r in {"accum", suspect.role} & {*suspect.node.roles}),
        )
        slack += 1e-9 * max(float(np.abs(exact).max()), kind.step)  # float64 sums of wide types are not exact
        low, high = float(exact.min()), float(exact.max())
        if low < kind.min - slack or high > kind.max + slack:
            found[number] = (low, high)
    return found


def _exact(suspect: Suspect, values: Mapping[int, Array]) -> Array | None:
    """Return what a layer computes from its inputs in hardware, before it is stored; None where that is too much."""
    node = suspect.node
    inputs = [values[id(storage_of(v))].reshape(-1, *v.shape) for v in node.inputs]
    if isinstance(node, Weighted):
        total = _Sum(node)
        return total.exact(inputs[0]) if total.terms <= MOST_TERMS else None
    if isinstance(node, BatchNormalization):
        return inputs[0] * _stored(node, "scale") + _stored(node, "bias")
    if isinstance(node, Relu):
        return np.maximum(inputs[0], 0)
    if isinstance(node, Add):
        return np.asarray(np.sum(inputs, axis=0), dtype=np.float64)
    if isinstance(node, Pool):
        flat = np.concatenate([inputs[0].reshape(len(inputs[0]), -1), np.full((len(inputs[0]), 1), -math.inf)], axis=1)
        return np.stack([sample[_windows(node)].max(axis=1) for sample in flat])
    return inputs[0]


def _inputs_for(model: HLSModel, suspects: list[Suspect]) -> list[Array]:
    """Return samples for every input: its extreme values, in random places and where they drive a suspect's sums."""
    random = np.random.default_rng(0)
    kinds = [v.known_type() for v in model.inputs]
    signs = [
        [np.ones(v.size), -np.ones(v.size), *random.choice([-1.0, 1.0], (RANDOM_SAMPLES, v.size))] for v in model.inputs
    ]
    for suspect, direction, rectified in itertools.product(suspects[:MOST_DRIVEN], (1.0, -1.0), (False, True)):
        for of_input, pull in zip(signs, _drive(suspect, model.inputs, direction, rectified), strict=True):
            of_input.append(np.where(pull >= 0, 1.0, -1.0))
    return [
        np.where(np.stack(s) > 0, kind.max, kind.min).reshape(-1, *v.shape)
        for s, kind, v in zip(signs, kinds, model.inputs, strict=True)
    ]


def _drive(suspect: Suspect, inputs: Sequence[Value], direction: float, rectified: bool) -> list[Array]:
    """Return how the elements of the model's inputs move the most suspicious value of a layer, as far as is known.

    Behind a ReLU only what is above zero counts: if `rectified`, nothing is asked of what pulls the other way.
    """
    value, kind, interval = suspect.node.output, suspect.type, suspect.interval
    excess = interval.high - kind.max if direction > 0 else kind.min - interval.low
    wanted = np.zeros((value.positions, value.shape[-1]))
    wanted[value.positions // 2, int(np.argmax(excess)) if excess.size > 1 else 0] = direction
    pull: Array | None = wanted.ravel()
    while pull is not None and not isinstance(value.producer, Input):  # one way back: that of the first input
        node = value.producer
        if rectified and isinstance(node, Relu):
            pull = np.maximum(pull, 0)
        pull, value = _back(node, pull), node.inputs[0]
    return [pull if pull is not None and v is value else np.zeros(v.size) for v in inputs]


def _back(node: Node, pull: Array) -> Array | None:
    """Return how the elements of a layer's input move its output, weighted with `pull`; None where nobody knows."""
    if _sums(node):
        total = _Sum(node)  # type: ignore[arg-type]  # it is one of them
        return total.back(pull.reshape(-1, node.output.shape[-1])) if total.terms <= MOST_TERMS else None
    if type(node) in (BatchNormalization, ApplyAlpha) and node.of_last_axis:  # type: ignore[attr-defined]
        return (pull.reshape(-1, node.output.shape[-1]) * _stored(node, "scale")).ravel()
    if isinstance(node, Pool):
        places = _windows(node)
        spread = np.broadcast_to(pull.reshape(len(places), 1, -1), places.shape)
        return _gathered(places, spread, node.inputs[0].size)
    if isinstance(node, Add) or (isinstance(node, View | Relu) and node.inputs[0].size == pull.size):
        return pull
    return None
