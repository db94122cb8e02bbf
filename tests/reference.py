"""The slow, obvious model of every layer: the oracle that the generated C++ has to match bit for bit.

Numbers are Python integers of any size, so nothing here can overflow or round by accident; the one rounding there is
happens where a number is stored in a :class:`~kconvert.FixedType`, and that is :meth:`FixedType.requantize`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from kconvert import FixedType, HLSModel
from kconvert.layers import (
    GRU,
    LSTM,
    Add,
    Average,
    BatchNormalization,
    Concatenate,
    Constant,
    Conv,
    Dense,
    DepthwiseConv,
    Input,
    Maximum,
    Minimum,
    Multiply,
    Node,
    Pool,
    Recurrent,
    Relu,
    ScaledQuantize,
    SimpleRNN,
    Softmax,
    Subtract,
    TableActivation,
    Thresholds,
    View,
    Weighted,
    Window,
    ZeroPadding,
)
from kconvert.layers.hard_activation import HardActivation

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Exact:
    """The numbers ``raw * 2**-fraction``; `type` is set where they are stored in a type."""

    raw: Array  # Python ints
    fraction: int
    type: FixedType | None = None

    @classmethod
    def of(cls, constant: Constant) -> Exact:
        raw = constant.raw.astype(object).reshape(np.shape(constant.values))
        return cls(raw, constant.type.fraction, constant.type)

    def to(self, kind: FixedType) -> Exact:
        """Store the numbers in `kind`: round, then make them fit."""
        source = self.type or FixedType(128, 128 - self.fraction)
        return Exact(kind.requantize(self.raw, source).astype(object), kind.fraction, kind)

    def floats(self) -> Array:
        assert self.type is not None
        return self.type.from_raw(self.raw)

    def __getitem__(self, index: Any) -> Exact:
        return Exact(np.asarray(self.raw[index], dtype=object), self.fraction, self.type)

    def reshape(self, *shape: int) -> Exact:
        return Exact(self.raw.reshape(shape), self.fraction, self.type)

    def __mul__(self, other: Exact) -> Exact:
        return Exact(self.raw * other.raw, self.fraction + other.fraction)

    def __add__(self, other: Exact) -> Exact:
        fraction = max(self.fraction, other.fraction)
        return Exact(self.at(fraction) + other.at(fraction), fraction)

    def __neg__(self) -> Exact:
        return Exact(-self.raw, self.fraction)

    def at(self, fraction: int) -> Array:
        """Return the numbers in units of ``2**-fraction``, which must not be coarser than they are."""
        assert fraction >= self.fraction
        return self.raw * (1 << (fraction - self.fraction))


def run(model: HLSModel, x: Any) -> tuple[list[Array], dict[str, Array]]:
    """Return (outputs, trace) of a typed model as ``predict`` (always a list) and ``trace`` have to give them."""
    values: dict[int, Exact] = {}
    for value, array in zip(model.inputs, in_order(model, x), strict=True):
        kind = value.known_type()
        values[id(value)] = Exact(kind.to_raw(array).astype(object), kind.fraction, kind)
    trace: dict[str, Array] = {}
    for node in model.nodes:
        if not isinstance(node, Input):
            answer = exact(node, *(values[id(v)] for v in node.inputs)).to(node.output.known_type())
            values[id(node.output)] = answer.reshape(len(answer.raw), *node.output.shape)
        own = {node.name} if isinstance(node, Input) else set()
        names = [name for name in node.output.names if name not in own]
        trace.update(dict.fromkeys(names, values[id(node.output)].floats()))
    return [values[id(v)].floats() for v in model.outputs], trace


def run_float(model: HLSModel, x: Any) -> list[Array]:
    """Return the outputs of a graph, typed or not, computed in float64: types and tables play no part."""
    values = {id(v): np.asarray(a, dtype=np.float64) for v, a in zip(model.inputs, in_order(model, x), strict=True)}
    for node in model.nodes:
        if not isinstance(node, Input):
            answer = real(node, *(values[id(v)] for v in node.inputs))
            values[id(node.output)] = answer.reshape(len(answer), *node.output.shape)
    return [values[id(v)] for v in model.outputs]


def in_order(model: HLSModel, x: Any) -> Sequence[Array]:
    return list(x) if len(model.inputs) > 1 else [np.asarray(x)]


# ---- windows, the same for integers and floats ----


def as_image(x: Array) -> Array:
    """Return [n, height, width, channels]; [n, length, channels] is an image of height 1."""
    return x[:, None] if x.ndim == 3 else x


def patches(window: Window, image: Array) -> tuple[Array, Array]:
    """Return what each window position sees, and which of it lies inside the image.

    The first is [n, rows, columns, area, channels] with zeros for the padding, the second [rows, columns, area].
    """
    height, width = image.shape[1:3]
    rows, columns = window.output((height, width))
    top, _, left, _ = window.padding
    r = np.arange(rows)[:, None, None, None] * window.strides[0] + np.arange(window.size[0])[:, None] - top
    c = np.arange(columns)[:, None, None] * window.strides[1] + np.arange(window.size[1]) - left
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    seen = image[:, np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)]
    seen = np.where(inside[..., None], seen, 0)
    n, channels = image.shape[0], image.shape[-1]
    return seen.reshape(n, rows, columns, window.area, channels), inside.reshape(rows, columns, window.area)


def columns_of(node: Weighted, x: Array) -> Array:
    """Return what is multiplied with the rows of the weight matrix: [..., fan-in, 1 or outputs]."""
    if isinstance(node, Dense):
        return x[..., None]
    assert isinstance(node, Conv)
    seen, _ = patches(node.window, as_image(x))
    if isinstance(node, DepthwiseConv):
        return np.repeat(seen, node.depth_multiplier, axis=-1)
    return seen.reshape(*seen.shape[:3], -1, 1)


def pad(node: ZeroPadding, x: Array) -> Array:
    top, bottom, left, right = node.padding
    image = as_image(x)
    n, height, width, channels = image.shape
    rows, columns = node.spread
    spread = np.zeros((n, (height - 1) * rows + 1, (width - 1) * columns + 1, channels), dtype=x.dtype)
    spread[:, ::rows, ::columns] = image
    return np.pad(spread, ((0, 0), (top, bottom), (left, right), (0, 0)))


# ---- fixed point ----


@functools.singledispatch
def exact(node: Node, *x: Exact) -> Exact:
    """Return what `node` computes of its inputs, before it is stored in the result's type."""
    raise NotImplementedError(f"no reference for {type(node).__name__}")


@exact.register
def _(node: Weighted, x: Exact) -> Exact:
    constants = node.constants()
    weight = Exact.of(constants["weight"]).reshape(node.fan_in, node.fan_out)
    terms = Exact(columns_of(node, x.raw), x.fraction)
    return weighted_sum(terms, weight, Exact.of(constants["bias"]), node.typed("accum"))


def weighted_sum(terms: Exact, weight: Exact, bias: Exact, accum_type: FixedType) -> Exact:
    """Return bias + sum of terms [..., fan-in, 1 or outputs] * weight [fan-in, outputs], every sum stored."""
    accum = bias.to(accum_type)
    for k in range(len(weight.raw)):
        accum = (accum + terms[..., k, :] * weight[k]).to(accum_type)
    return accum


@exact.register
def _(node: Recurrent, x: Exact) -> Exact:
    c = {role: Exact.of(constant) for role, constant in node.constants().items()}
    accum_type, units = node.typed("accum"), node.units

    def sums(values: Exact, weight: str, bias: Exact) -> Exact:
        return weighted_sum(Exact(values.raw[..., None], values.fraction), c[weight], bias, accum_type)

    def gate(function: Node | None, value: Exact) -> Exact:
        assert function is not None
        return exact(function, value).to(function.output.known_type())

    def part(values: Exact, index: int) -> Exact:
        return values[:, index * units : (index + 1) * units]

    n, steps = x.raw.shape[:2]
    zeros = Exact(np.zeros((n, units), dtype=object), 0)
    h, *cells = (gate(quantizer, zeros.to(node.new_type(role))) for role, quantizer in node.quantizers.items())
    answers = []
    for t in reversed(range(steps)) if node.go_backwards else range(steps):
        of_input = sums(x[:, t], "weight", c["bias"])
        of_state = sums(h, "recurrent_weight", c["recurrent_bias"][: c["recurrent_weight"].raw.shape[1]])
        if isinstance(node, SimpleRNN):
            new = gate(node.activation, of_input + of_state)
        elif isinstance(node, LSTM):
            total = of_input + of_state
            i, f, o = (gate(node.recurrent_activation, part(total, index)) for index in (0, 1, 3))
            g = gate(node.activation, part(total, 2))
            memory = (f * cells[0] + i * g).to(node.new_type("cell"))
            cells[0] = gate(node.cell_quantizer, memory)
            new = o * gate(node.activation, memory)
        elif isinstance(node, GRU):
            z, r = (gate(node.recurrent_activation, part(of_input, k) + part(of_state, k)) for k in (0, 1))
            if node.reset_after:
                of_reset = r * part(of_state, 2)
            else:
                of_reset = sums((r * h).to(node.reset_type), "candidate_weight", c["recurrent_bias"][2 * units :])
            g = gate(node.activation, part(of_input, 2) + of_reset)
            one = Exact(np.array(1, dtype=object), 0)
            new = z * h + (one + -z) * g
        answers.append(new.to(node.new_type("state")))
        h = gate(node.state_quantizer, answers[-1])
    if not node.return_sequences:
        return answers[-1]
    return Exact(np.stack([a.raw for a in answers], axis=1), answers[-1].fraction, answers[-1].type)


@exact.register
def _(node: BatchNormalization, x: Exact) -> Exact:
    constants = node.constants()
    return x * Exact.of(constants["scale"]) + Exact.of(constants["bias"])


@exact.register
def _(node: Pool, x: Exact) -> Exact:
    seen, inside = patches(node.window, as_image(x.raw))
    n, rows, columns, area, channels = seen.shape
    if not node.average:
        lowest = min(seen.min(), 0) - 1
        return Exact(np.where(inside[..., None], seen, lowest).max(axis=3), x.fraction, x.type)
    accum_type, quotient_type = node.typed("accum"), node.division.quotient_type
    accum = Exact(np.zeros((n, rows, columns, channels), dtype=object), 0).to(accum_type)
    for k in range(area):
        accum = (accum + Exact(seen[:, :, :, k], x.fraction)).to(accum_type)
    count = inside.sum(axis=-1).astype(object)[..., None]
    return Exact(accum.at(quotient_type.fraction) // count, quotient_type.fraction)


@exact.register
def _(node: Relu, x: Exact) -> Exact:
    result_type, constants = node.typed("result"), node.constants()
    if node.negative_slope:
        below = (x * Exact.of(constants["slope"])).to(result_type)
        y = np.where(x.raw < 0, below.raw, x.to(result_type).raw)
    else:
        y = Exact(np.maximum(x.raw, 0), x.fraction, x.type).to(result_type).raw
    if node.max_value is not None:
        y = np.minimum(y, Exact.of(constants["limit"]).to(result_type).raw)
    if node.min_value is not None:
        y = np.maximum(y, Exact.of(constants["lower_limit"]).to(result_type).raw)
    return Exact(y, result_type.fraction, result_type)


@exact.register
def _(node: HardActivation, x: Exact) -> Exact:
    c = {role: Exact.of(constant) for role, constant in node.constants().items()}
    y = (x * c["slope"] + c["offset"]).to(node.typed("result"))
    low, high = (c[role].to(node.typed("result")).raw for role in ("lower_limit", "limit"))
    return Exact(np.clip(y.raw, low, high), y.fraction, y.type)


def look_up(table: Constant, index: Exact) -> Exact:
    """Return the entries at the bits of `index`, read as an unsigned number."""
    assert index.type is not None
    address = (index.raw % (1 << index.type.width)).astype(np.int64)
    return Exact.of(table)[address]


@exact.register
def _(node: TableActivation, x: Exact) -> Exact:
    return look_up(node.constants()["table"], x.to(node.index_type))


@exact.register
def _(node: ScaledQuantize, x: Exact) -> Exact:
    constants = node.constants()
    factor = constants.get("factor")
    code = (x if factor is None else x * Exact.of(factor)).to(node.typed("code"))
    return code * Exact.of(constants["scale"])


@exact.register
def _(node: Softmax, x: Exact) -> Exact:
    rows = x.reshape(-1, node.classes)
    top = rows[np.arange(len(rows.raw)), rows.raw.argmax(axis=1)].reshape(-1, 1)
    if node.implementation == "argmax":
        first = np.arange(node.classes) == rows.raw.argmax(axis=1)[:, None]
        return Exact(first.astype(int).astype(object), 0).reshape(*x.raw.shape)
    constants = node.constants()
    argument = rows if node.implementation == "latency" else top + -rows
    e = look_up(constants["exp_table"], argument.to(node.exp_index_type))
    inverse = [reciprocal(node, constants["inv_table"], total, e.fraction) for total in e.raw.sum(axis=1)]
    return (e * Exact(np.array(inverse, dtype=object)[:, None], node.inverse_type.fraction)).reshape(*x.raw.shape)


def reciprocal(node: Softmax, table: Constant, total: int, fraction: int) -> int:
    """Return ``1 / (total * 2**-fraction)`` in units of the last bit of the node's inverse type."""
    if total == 0:
        return 0  # what it is multiplied with is 0
    up = fraction + 1 - total.bit_length()  # brings the sum into [1, 2)
    scaled = total << up if up >= 0 else total >> -up
    beyond_one = Exact(np.array([scaled - (1 << fraction)], dtype=object), fraction)
    (entry,) = look_up(table, beyond_one.to(node.inv_index_type)).raw
    down = node.inverse_type.fraction - table.type.fraction
    return int(entry) << down + up


@exact.register
def _(node: Thresholds, x: Exact) -> Exact:
    value = np.array([Fraction(int(raw)) / Fraction(2) ** x.fraction for raw in x.raw.flat], dtype=object)
    levels = Exact.of(Constant(node.channel_levels, node.level_type))
    return levels[level_index(node, value.reshape(x.raw.shape))]


def steps_reached(node: Thresholds, x: Array) -> Array:
    """Return for each number how many thresholds it has reached."""
    reached = [np.where(at, x >= t, x > t) for t, at in zip(node.thresholds, node.channel_inclusive, strict=True)]
    return np.sum(reached, axis=0, dtype=int)


def level_index(node: Thresholds, x: Array) -> tuple[Array, Array]:
    """Return where each number's level stands in ``node.channel_levels``."""
    reached = steps_reached(node, x)
    channels = np.arange(x.shape[-1]) if node.level_channels > 1 else np.zeros(x.shape[-1], dtype=int)
    return reached, np.broadcast_to(channels, reached.shape)


@exact.register
def _(node: Add, *x: Exact) -> Exact:
    return functools.reduce(lambda a, b: a + b, x)


@exact.register
def _(node: Subtract, x: Exact, y: Exact) -> Exact:
    return x + -y


@exact.register
def _(node: Multiply, *x: Exact) -> Exact:
    return functools.reduce(lambda a, b: a * b, x)


@exact.register
def _(node: Maximum | Minimum, *x: Exact) -> Exact:
    fraction = max(part.fraction for part in x)
    choose = np.maximum if isinstance(node, Maximum) else np.minimum
    return Exact(functools.reduce(choose, [part.at(fraction) for part in x]), fraction)


@exact.register
def _(node: Average, *x: Exact) -> Exact:
    accum_type, quotient_type = node.typed("accum"), node.division.quotient_type
    accum = Exact(np.zeros_like(x[0].raw), 0).to(accum_type)
    for part in x:
        accum = (accum + part).to(accum_type)
    return Exact(accum.at(quotient_type.fraction) // len(x), quotient_type.fraction)


@exact.register
def _(node: Concatenate, *x: Exact) -> Exact:
    kind = node.typed("result")
    joined = np.concatenate([part.to(kind).raw for part in x], axis=node.axis + 1)
    return Exact(joined, kind.fraction, kind)


@exact.register
def _(node: View, x: Exact) -> Exact:
    return x


@exact.register
def _(node: ZeroPadding, x: Exact) -> Exact:
    return Exact(pad(node, x.raw), x.fraction, x.type)


# ---- floats ----


@functools.singledispatch
def real(node: Node, *x: Array) -> Array:
    """Return what `node` means, in float64."""
    raise NotImplementedError(f"no reference for {type(node).__name__}")


@real.register
def _(node: Weighted, x: Array) -> Array:
    weight = node.weight.reshape(node.fan_in, node.fan_out)
    y = (columns_of(node, x) * weight).sum(axis=-2) + node.bias
    return y if node.activation is None else real(node.activation, y)


@real.register
def _(node: Recurrent, x: Array) -> Array:
    h, *cells = (real(quantizer, np.zeros((len(x), node.units))) for quantizer in node.quantizers.values())
    answers = []
    for t in reversed(range(node.steps)) if node.go_backwards else range(node.steps):
        a = np.split(x[:, t] @ node.weight + node.bias, node.gates, axis=1)
        b = np.split(h @ node.recurrent_weight + node.recurrent_bias, node.gates, axis=1)
        gate = node.recurrent_activation
        gates = [] if gate is None else [real(gate, p + q) for p, q in zip(a, b, strict=True)]
        if isinstance(node, SimpleRNN):
            new = real(node.activation, a[0] + b[0])
        elif isinstance(node, LSTM):
            i, f, _, o = gates
            memory = f * cells[0] + i * real(node.activation, a[2] + b[2])
            cells[0] = real(node.cell_quantizer, memory)
            new = o * real(node.activation, memory)
        elif isinstance(node, GRU):
            z, r, _ = gates
            of_reset = r * b[2] if node.reset_after else (r * h) @ node.recurrent_weight[:, 2 * node.units :]
            new = z * h + (1 - z) * real(node.activation, a[2] + of_reset)
        answers.append(new)
        h = real(node.state_quantizer, new)
    return np.stack(answers, axis=1) if node.return_sequences else answers[-1]


@real.register
def _(node: BatchNormalization, x: Array) -> Array:
    return x * node.scale + node.bias


@real.register
def _(node: Pool, x: Array) -> Array:
    seen, inside = patches(node.window, as_image(x))
    if node.average:
        return np.asarray(seen.sum(axis=3) / inside.sum(axis=-1)[..., None])
    return np.asarray(np.where(inside[..., None], seen, -np.inf).max(axis=3))


@real.register
def _(node: Relu, x: Array) -> Array:
    return np.clip(np.where(x < 0, x * node.negative_slope, x), node.min_value, node.max_value)


@real.register
def _(node: HardActivation, x: Array) -> Array:
    return np.clip(x * node.slope + node.offset, node.min_value, node.max_value)


@real.register
def _(node: TableActivation, x: Array) -> Array:
    return node.values(x)


@real.register
def _(node: ScaledQuantize, x: Array) -> Array:
    return x * node.scale if node.factor is None else x * node.factor * node.scale


@real.register
def _(node: Softmax, x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


@real.register
def _(node: Thresholds, x: Array) -> Array:
    return np.asarray(node.channel_levels[level_index(node, x)])


@real.register
def _(node: Add, *x: Array) -> Array:
    return np.sum(x, axis=0)


@real.register
def _(node: Subtract, x: Array, y: Array) -> Array:
    return x - y


@real.register
def _(node: Multiply, *x: Array) -> Array:
    return np.prod(x, axis=0)


@real.register
def _(node: Maximum | Minimum, *x: Array) -> Array:
    return np.max(x, axis=0) if isinstance(node, Maximum) else np.min(x, axis=0)


@real.register
def _(node: Average, *x: Array) -> Array:
    return np.mean(x, axis=0)


@real.register
def _(node: Concatenate, *x: Array) -> Array:
    return np.concatenate(x, axis=node.axis + 1)


@real.register
def _(node: View, x: Array) -> Array:
    return x


@real.register
def _(node: ZeroPadding, x: Array) -> Array:
    return pad(node, x)
