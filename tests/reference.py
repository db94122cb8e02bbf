"""The slow, obvious model of every layer: the oracle that the generated C++ has to match bit for bit.

Numbers are Python integers of any size, so nothing here can overflow or round by accident; the one rounding there is
happens where a number is stored in a :class:`~kconvert.FixedType`, and that is :meth:`FixedType.requantize`.
"""

from __future__ import annotations

import functools
import itertools
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
    BilinearUpSampling,
    Concatenate,
    Constant,
    Contraction,
    Conv,
    Cropping,
    Dense,
    DepthwiseConv,
    Embedding,
    Exponential,
    Gather,
    GroupedConv,
    Input,
    Maximum,
    Merge,
    Minimum,
    Multiply,
    Node,
    Permute,
    Pool,
    PRelu,
    Recurrent,
    Relu,
    Repeat,
    RepeatVector,
    SampleNormalization,
    ScaledQuantize,
    SimpleRNN,
    Slice,
    Softmax,
    Softsign,
    Subtract,
    TableActivation,
    ThresholdRelu,
    Thresholds,
    View,
    Weighted,
    Window,
    ZeroPadding,
)
from kconvert.layers.hard_activation import HardActivation
from kconvert.layers.lookup import Lookup

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
            read = [Exact(repeated(node, v.raw), v.fraction, v.type) for v in (values[id(v)] for v in node.inputs)]
            answer = exact(node, *read).to(node.output.known_type())
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
            answer = real(node, *(repeated(node, values[id(v)]) for v in node.inputs))
            values[id(node.output)] = answer.reshape(len(answer), *node.output.shape)
    return [values[id(v)] for v in model.outputs]


def in_order(model: HLSModel, x: Any) -> Sequence[Array]:
    return list(x) if len(model.inputs) > 1 else [np.asarray(x)]


# ---- the same for integers and floats ----


def repeated(node: Node, x: Array) -> Array:
    """Return an input of an element-wise layer in its output's shape: axes of size 1 repeated, missing ones first."""
    if not isinstance(node, Merge):
        return x
    missing = len(node.output.shape) + 1 - x.ndim
    x = x.reshape(len(x), *(1,) * missing, *x.shape[1:])
    return np.broadcast_to(x, (len(x), *node.output.shape))


def moved(node: Gather, x: Array) -> Array:
    """Return the elements of a layer that computes nothing."""
    if isinstance(node, Permute):
        return x.transpose(0, *(axis + 1 for axis in node.axes))
    if isinstance(node, Cropping):
        return x[(slice(None), *(slice(a, a + n) for a, n in zip(node.first, node.shape, strict=True)))]
    if isinstance(node, RepeatVector):
        return np.stack([x] * node.times, axis=1)
    assert isinstance(node, Repeat)
    for axis, times in enumerate(node.times, 1):
        x = np.repeat(x, times, axis=axis)
    return x


def bilinear_weights(pixels: int, factor: int) -> Array:
    """Return the weight of every pixel for every output along an axis, in units of 1 / (2 factor)."""
    weights = np.zeros((pixels * factor, pixels), dtype=object)
    for i in range(pixels * factor):
        at = Fraction(2 * i + 1 - factor, 2 * factor)
        below = at.numerator // at.denominator
        for pixel, weight in ((below, 1 - (at - below)), (below + 1, at - below)):
            weights[i, min(max(pixel, 0), pixels - 1)] += int(weight * 2 * factor)
    return weights


def up_sampled(node: BilinearUpSampling, x: Array) -> Array:
    """Return the weighted sums, not yet divided by the sum of the weights."""
    height, width, _ = node.image_in
    rows, columns = bilinear_weights(height, node.factors[0]), bilinear_weights(width, node.factors[1])
    return np.asarray(np.einsum("ir,nrcf,jc->nijf", rows, x.astype(object), columns, optimize=False))


def in_sets(node: SampleNormalization, x: Array) -> Array:
    """Return [n, outer, sets, members]."""
    part = node.layout
    parted = x.reshape(len(x), part.outer, part.first, part.sets, part.last)
    return parted.transpose(0, 1, 3, 2, 4).reshape(len(x), part.outer, part.sets, -1)


def out_of_sets(node: SampleNormalization, y: Array) -> Array:
    part = node.layout
    parted = y.reshape(len(y), part.outer, part.sets, part.first, part.last)
    return parted.transpose(0, 1, 3, 2, 4).reshape(len(y), *node.output.shape)


def per_member(node: SampleNormalization, parameter: Array) -> Array:
    """Return scale or bias as [sets or 1, members]."""
    if not node.by_set:
        return parameter.reshape(1, -1)
    return np.tile(parameter.reshape(node.layout.sets, node.layout.last), (1, node.layout.first))


def per_channel(node: BatchNormalization, parameter: Array) -> Array:
    """Return scale or bias for every element of the output."""
    spread = np.repeat(parameter.reshape(-1), node.inner)
    return np.tile(spread, node.output.size // len(spread)).reshape(node.output.shape)


# ---- windows ----


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
    under = [np.arange(size) * gap for size, gap in zip(window.size, window.dilation, strict=True)]
    r = np.arange(rows)[:, None, None, None] * window.strides[0] + under[0][:, None] - top
    c = np.arange(columns)[:, None, None] * window.strides[1] + under[1] - left
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
    if isinstance(node, GroupedConv):
        groups = np.split(seen, node.groups, axis=-1)
        columns = [part.reshape(*part.shape[:3], -1, 1) for part in groups]
        return np.repeat(np.concatenate(columns, axis=-1), node.group_filters, axis=-1)
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
    weight = Exact.of(constants["weight"])
    if isinstance(node, GroupedConv):  # stored one matrix after the other
        weight = Exact(weight.raw.transpose(1, 0, 2), weight.fraction, weight.type)
    weight = weight.reshape(node.fan_in, node.fan_out)
    terms = Exact(columns_of(node, x.raw), x.fraction)
    return weighted_sum(terms, weight, Exact.of(constants["bias"]), node.typed("accum"))


def weighted_sum(terms: Exact, weight: Exact, bias: Exact, accum_type: FixedType) -> Exact:
    """Return bias + sum of terms [..., fan-in, 1 or outputs] * weight [fan-in, outputs], every sum stored."""
    accum = bias.to(accum_type)
    for k in range(len(weight.raw)):
        accum = (accum + terms[..., k, :] * weight[k]).to(accum_type)
    return accum


@exact.register
def _(node: Recurrent, x: Exact, *given: Exact) -> Exact:
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
    started = zip(node.quantizers.items(), given or [zeros] * 2, strict=False)
    h, *cells = (gate(quantizer, start.to(node.new_type(role))) for (role, quantizer), start in started)
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
    kept = [a.to(node.typed("result")) for a in (answers if node.return_sequences else answers[-1:])]
    if isinstance(node, LSTM) and node.return_cell:
        kept.append(memory.to(node.typed("result")))
    elif not node.return_sequences:
        return kept[0]
    return Exact(np.stack([a.raw for a in kept], axis=1), kept[0].fraction, kept[0].type)


@exact.register
def _(node: Contraction, a: Exact, b: Exact) -> Exact:
    first, second, output = node.terms
    accum = Exact(np.zeros((len(a.raw), *node.output.shape), dtype=object), 0).to(node.typed("accum"))
    summed = [range(node.sizes[letter]) for letter in node.summed]
    equation = f"z{first},z{second}->z{output}"
    for chosen in itertools.product(*summed):
        at = dict(zip(node.summed, chosen, strict=True))
        keys = [tuple(slice(at[n], at[n] + 1) if n in at else slice(None) for n in t) for t in (first, second)]
        one, other = (x.raw[:, *key] for x, key in zip((a, b), keys, strict=True))
        product = np.einsum(equation, one, other).reshape(accum.raw.shape)
        accum = (accum + Exact(product, a.fraction + b.fraction)).to(node.typed("accum"))
    return accum


@exact.register
def _(node: Embedding, x: Exact) -> Exact:
    rows = np.minimum(x.to(node.index_type).raw.astype(int), len(node.weight) - 1)
    return Exact.of(Constant(node.weight, node.typed("weight")))[rows]


@exact.register
def _(node: Slice, x: Exact) -> Exact:
    return x[:, *node.key]


@exact.register
def _(node: BatchNormalization, x: Exact) -> Exact:
    scale, bias = (Exact.of(node.constants()[role]) for role in ("scale", "bias"))
    y = x * Exact(per_channel(node, scale.raw), scale.fraction)
    return y + Exact(per_channel(node, bias.raw), bias.fraction)


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


def read(found: Lookup, constants: dict[str, Constant], x: Exact, role: str = "") -> Exact:
    """Return the entry nearest to each number, or the point on the line between two."""
    table = constants[f"{role}table"]
    if not found.linear:
        return look_up(table, x.to(found.nearest))
    position = x.to(found.position)
    index = position.to(found.index)
    return look_up(table, index) + (position + -index) * look_up(constants[f"{role}slope"], index)


@exact.register
def _(node: TableActivation, x: Exact) -> Exact:
    constants = node.constants()
    y = read(node.found, constants, x)
    if node.lines is not None:
        above, below = (Exact.of(constants["line"])[i] for i in (0, 1))
        y = y + Exact(np.maximum(x.raw, 0), x.fraction) * above + Exact(np.minimum(x.raw, 0), x.fraction) * below
    return y


def shifted_down(x: Exact, places: Array, fraction: int) -> Exact:
    """Return x / 2**places rounded down to `fraction` bits."""
    shift = fraction - x.fraction
    scaled = [Fraction(int(v)) * Fraction(2) ** (shift - int(k)) for v, k in zip(x.raw.flat, places.flat, strict=True)]
    raw = np.array([r.numerator // r.denominator for r in scaled], dtype=object)
    return Exact(raw.reshape(x.raw.shape), fraction)


@exact.register
def _(node: Exponential, x: Exact) -> Exact:
    constants = node.constants()
    exponent = (x * Exact.of(constants["factor"])).to(node.exponent_type)
    whole = exponent.raw >> exponent.fraction
    rest = Exact(exponent.raw - (whole << exponent.fraction), exponent.fraction)
    octave = read(node.found, constants, rest)
    places = np.clip(node.highest - whole, 0, node.shift_type.raw_max) - node.highest
    return shifted_down(octave, places, node.value_type.fraction)


@exact.register
def _(node: Softsign, x: Exact) -> Exact:
    kind = node.magnitude_type
    one = 1 << kind.fraction
    magnitude = np.abs(Exact(x.raw, x.fraction).at(kind.fraction)) + one
    places = np.vectorize(int.bit_length, otypes=[object])(magnitude) - 1  # of the leading bit
    fraction = Exact((magnitude << (kind.width - 1 - places)) - (1 << kind.width - 1), kind.width - 1)
    octave = read(node.found, node.constants(), fraction).to(node.typed("table"))
    inverse = shifted_down(octave, places - kind.fraction, octave.fraction)
    rest = (1 << octave.fraction) - inverse.raw
    return Exact(np.where(x.raw < 0, -rest, rest), octave.fraction)


@exact.register
def _(node: SampleNormalization, x: Exact) -> Exact:
    constants = node.constants()
    spread, sets = node.spread_type, Exact(in_sets(node, x.raw), x.fraction)
    squares = (sets * sets).raw.sum(axis=-1, keepdims=True)
    distance, variance = sets, Exact(squares, 2 * x.fraction)
    if node.centred:
        n, total = node.members, sets.raw.sum(axis=-1, keepdims=True)
        distance = Exact(n * sets.raw - total, x.fraction)
        variance = Exact(n * squares - total**2, 2 * x.fraction)
    v = (variance + Exact.of(constants["added"])).at(spread.fraction)
    pairs = np.vectorize(lambda raw: (spread.width - raw.bit_length()) // 2 if raw else 0, otypes=[object])(v)
    inverse = read(node.found, constants, Exact(v << 2 * pairs, spread.width - 2)).to(node.typed("table"))
    scaled = Exact(distance.raw << pairs, x.fraction + spread.integer // 2 - 1).to(node.short_type)
    normal = (scaled * inverse).to(node.normal_type)
    scale, bias = (Exact.of(constants[role]) for role in ("scale", "bias"))
    y = normal * Exact(per_member(node, scale.raw), scale.fraction) + Exact(per_member(node, bias.raw), bias.fraction)
    return Exact(out_of_sets(node, y.raw), y.fraction)


@exact.register
def _(node: PRelu, x: Exact) -> Exact:
    result_type = node.typed("result")
    slope = Exact.of(node.constants()["slope"])
    every = np.tile(slope.raw, node.output.size // len(slope.raw)).reshape(node.output.shape)
    below = (x * Exact(every, slope.fraction)).to(result_type)
    return Exact(np.where(x.raw < 0, below.raw, x.to(result_type).raw), result_type.fraction, result_type)


@exact.register
def _(node: ThresholdRelu, x: Exact) -> Exact:
    result_type, c = node.typed("result"), {role: Exact.of(k) for role, k in node.constants().items()}
    above = x.to(result_type).raw
    if node.max_value is not None:
        above = Exact(np.maximum(x.raw, 0), x.fraction, x.type).to(result_type).raw
        above = np.minimum(above, c["limit"].to(result_type).raw)
    below = (x * c["slope"] + c["offset"]).to(result_type).raw
    beyond = np.array([Fraction(int(raw)) / Fraction(2) ** x.fraction > Fraction(node.threshold) for raw in x.raw.flat])
    return Exact(np.where(beyond.reshape(x.raw.shape), above, below), result_type.fraction, result_type)


@exact.register
def _(node: ScaledQuantize, x: Exact) -> Exact:
    constants = node.constants()
    factor = constants.get("factor")
    code = (x if factor is None else x * Exact.of(factor)).to(node.typed("code"))
    return code * Exact.of(constants["scale"])


@exact.register
def _(node: Softmax, x: Exact) -> Exact:
    last = np.moveaxis(x.raw, node.axis if node.axis < 0 else node.axis + 1, -1)
    rows = Exact(last.reshape(-1, node.classes), x.fraction, x.type)
    top = rows[np.arange(len(rows.raw)), rows.raw.argmax(axis=1)].reshape(-1, 1)
    if node.implementation == "argmax":
        first = np.arange(node.classes) == rows.raw.argmax(axis=1)[:, None]
        return Exact(back(node, first.astype(int).astype(object), last.shape), 0)
    constants = node.constants()
    argument = rows if node.implementation == "latency" else top + -rows
    e = read(node.exp_found, constants, argument, "exp_").to(node.typed("exp_table"))
    inverse = [reciprocal(node, constants, total, e.fraction) for total in e.raw.sum(axis=1)]
    y = e * Exact(np.array(inverse, dtype=object)[:, None], node.inverse_type.fraction)
    return Exact(back(node, y.raw, last.shape), y.fraction)


def back(node: Softmax, y: Array, shape: tuple[int, ...]) -> Array:
    """Return the classes to their axis."""
    return np.moveaxis(y.reshape(shape), -1, node.axis if node.axis < 0 else node.axis + 1)


def reciprocal(node: Softmax, constants: dict[str, Constant], total: int, fraction: int) -> int:
    """Return ``1 / (total * 2**-fraction)`` in units of the last bit of the node's inverse type."""
    if total == 0:
        return 0  # what it is multiplied with is 0
    up = fraction + 1 - total.bit_length()  # brings the sum into [1, 2)
    scaled = total << up if up >= 0 else total >> -up
    beyond_one = Exact(np.array([scaled - (1 << fraction)], dtype=object), fraction)
    found = read(node.inv_found, constants, beyond_one, "inv_").to(node.typed("inv_table"))
    (entry,) = found.raw
    down = node.inverse_type.fraction - found.fraction
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


@exact.register
def _(node: Gather, x: Exact) -> Exact:
    return Exact(moved(node, x.raw), x.fraction, x.type)


@exact.register
def _(node: BilinearUpSampling, x: Exact) -> Exact:
    quotient_type = node.division.quotient_type
    accum = Exact(up_sampled(node, x.raw), x.fraction).to(node.typed("accum"))
    return Exact(accum.at(quotient_type.fraction) // node.weight, quotient_type.fraction)


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
def _(node: Contraction, a: Array, b: Array) -> Array:
    first, second, output = node.terms
    return np.einsum(f"z{first},z{second}->z{output}", a, b)


@real.register
def _(node: Embedding, x: Array) -> Array:
    return node.weight[np.clip(np.round(x).astype(int), 0, len(node.weight) - 1)]


@real.register
def _(node: Slice, x: Array) -> Array:
    return x[:, *node.key]


@real.register
def _(node: Recurrent, x: Array, *given: Array) -> Array:
    started = given or [np.zeros((len(x), node.units))] * 2
    h, *cells = (real(q, start) for q, start in zip(node.quantizers.values(), started, strict=False))
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
    kept = answers if node.return_sequences else answers[-1:]
    kept = [*kept, memory] if isinstance(node, LSTM) and node.return_cell else kept
    return np.stack(kept, axis=1)


@real.register
def _(node: BatchNormalization, x: Array) -> Array:
    return x * per_channel(node, node.scale) + per_channel(node, node.bias)


@real.register
def _(node: SampleNormalization, x: Array) -> Array:
    sets = in_sets(node, x)
    if node.centred:
        sets = sets - sets.mean(axis=-1, keepdims=True)
    squares = (sets**2).mean(axis=-1, keepdims=True) if node.centred else (sets**2).sum(axis=-1, keepdims=True)
    y = sets / np.sqrt(np.maximum(squares + node.epsilon, 1e-24))
    return out_of_sets(node, y * per_member(node, node.scale) + per_member(node, node.bias))


@real.register
def _(node: Exponential, x: Array) -> Array:
    return np.exp(x)


@real.register
def _(node: Softsign, x: Array) -> Array:
    return np.asarray(x / (1 + np.abs(x)))


@real.register
def _(node: PRelu, x: Array) -> Array:
    slope = np.tile(node.slope, node.output.size // node.slope.size).reshape(node.output.shape)
    return np.where(x < 0, x * slope, x)


@real.register
def _(node: ThresholdRelu, x: Array) -> Array:
    above = x if node.max_value is None else np.clip(x, 0, node.max_value)
    return np.where(x > node.threshold, above, node.negative_slope * (x - node.threshold))


@real.register
def _(node: Gather, x: Array) -> Array:
    return moved(node, x)


@real.register
def _(node: BilinearUpSampling, x: Array) -> Array:
    return np.asarray(up_sampled(node, x) / node.weight, dtype=np.float64)


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
    return node.values(x) if node.curve is None else node.curve(x)


@real.register
def _(node: ScaledQuantize, x: Array) -> Array:
    return x * node.scale if node.factor is None else x * node.factor * node.scale


@real.register
def _(node: Softmax, x: Array) -> Array:
    axis = node.axis if node.axis < 0 else node.axis + 1
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


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
