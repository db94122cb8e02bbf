"""What kconvert loads: the readers of approximate layers, their pass and their templates.

A file is not trusted: what it says a multiplier computes is its table. The C++ of a multiplier in a file is never
used; where a member of our own library, or a multiplier that the caller hands over, has that name and that table, its
own C++ is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kconvert.converters.keras import core, windows
from kconvert.converters.registry import Reader, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import ApplyAlpha, Input, Node, Value, Weighted
from kconvert.optimizers import add_pass, whole
from kconvert.plugins import add_templates
from kconvert.types import FixedType, Overflow, Rounding

from .errors import ApproxError
from .families import library
from .multipliers import ApproximateMultiplier, compiled_tables
from .nodes import CODE_BITS, Codes, approximate
from .stored import bias_type, normalisation_types

if TYPE_CHECKING:
    from kconvert.model import HLSModel

MODES = ("float", "quantised", "noisy", "approximate")

_given: ContextVar[tuple[ApproximateMultiplier, ...]] = ContextVar("multipliers of the caller", default=())


@contextlib.contextmanager
def trusting(multipliers: Iterable[ApproximateMultiplier]) -> Iterator[None]:
    """Let conversions inside this context use the behavioural C++ of these multipliers, too.

    It has to compute the multiplier's table: that is compiled and tried for all operands.

    Raises:
        ApproxError: it does not.
        CompileError: the C++ compiler rejects it.
    """
    given = tuple(dict.fromkeys(multipliers))
    own = {id(member) for member in library()}
    sources = [m for m in given if m.cpp is not None and id(m) not in own]
    for multiplier, table in zip(sources, compiled_tables(sources) if sources else (), strict=True):
        wrong = int((table != multiplier.table).sum())
        if wrong:
            raise ApproxError(
                f"multiplier {multiplier.name!r}: its C++ makes other products than its table for {wrong} of "
                f"{table.size} pairs of operands"
            )
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


def _reader(plain: Reader) -> Reader:
    def read(layer: LayerSpec, inputs: list[Value]) -> Any:  # what the plain reader returns, or a chain
        mode = layer.config.get("mode", "float")
        if mode not in MODES:
            raise ModelError(f"layer {layer.name!r} ({layer.class_name}): mode {mode!r} is none of {', '.join(MODES)}")
        arrays = _arrays(layer)
        if mode == "float":
            return plain(_with(layer, {key: arrays[key] for key in arrays if key in ("kernel", "bias")}), inputs)
        return _quantised(layer, inputs, plain, arrays, multiplies=mode == "approximate")

    return read


def _with(layer: LayerSpec, arrays: Mapping[str, np.ndarray]) -> LayerSpec:
    return replace(layer, weights=tuple(arrays.values()), weight_names=tuple(arrays))


def _quantised(
    layer: LayerSpec, inputs: list[Value], plain: Reader, arrays: dict[str, np.ndarray], *, multiplies: bool
) -> tuple[Node, ...]:
    """Return a node that makes codes of the inputs, and the layer with codes as weights."""
    of_input, of_weight = (_exponent(layer, what, arrays[f"{what}_scale"]) for what in ("input", "weight"))
    largest = 2 ** (CODE_BITS - 1) - 1
    codes = np.clip(np.rint(np.ldexp(arrays["kernel"], -of_weight)), -largest, largest)
    bias = {"bias": arrays["bias"]} if "bias" in arrays else {}
    node = plain(_with(layer, {"kernel": np.ldexp(codes, of_weight), **bias}), inputs)
    if not isinstance(node, Weighted):
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}) is no layer of weights")
    node.preset = {"weight": FixedType(CODE_BITS, CODE_BITS + of_weight)}
    node.preset |= {key: bias_type(values, of_input + of_weight) for key, values in bias.items()}
    multiplier = _multiplier(layer, arrays.get("table")) if multiplies else None
    if multiplier is not None and not multiplier.exact:
        node = approximate(node, multiplier)
    return codes_of(f"{layer.name}_codes", of_input), node


def codes_of(name: str, exponent: int) -> Codes:
    """Return the node that rounds to codes times ``2 ** exponent``: to nearest, ties to even, +-127 at most."""
    kind = FixedType(CODE_BITS, CODE_BITS + exponent, True, Rounding.RND_CONV, Overflow.SAT_SYM)
    return Codes(name=name, preset={"result": kind})


def _exponent(layer: LayerSpec, what: str, scale: np.ndarray) -> int:
    """Return the exponent of a scale that is a power of two."""
    where = f"layer {layer.name!r} ({layer.class_name})"
    if scale.size != 1:
        raise ModelError(f"{where}: it has one {what} scale, not {scale.size}")
    mantissa, exponent = np.frexp(scale.item())
    if mantissa != 0.5:
        raise UnsupportedLayerError(
            f"{where}: its {what} scale {scale.item():g} is no power of two, so that hardware would have to multiply "
            f"by it; train with scales that are powers of two"
        )
    return int(exponent) - 1


def _arrays(layer: LayerSpec) -> dict[str, np.ndarray]:
    """Return the weights of a layer by name."""
    names = [
        "kernel",
        *(["bias"] if layer.config.get("use_bias", True) else []),
        "input_scale",
        "weight_scale",
        "sigma",
    ]
    found = weights(layer, len(layer.weights))
    if len(found) not in (len(names), len(names) + 1):
        raise ModelError(
            f"layer {layer.name!r} ({layer.class_name}): {len(found)} weights; it has {', '.join(names)}, and a table"
        )
    return dict(zip([*names, "table"], found, strict=False))


def _multiplier(layer: LayerSpec, table: np.ndarray | None) -> ApproximateMultiplier | None:
    """Return the multiplier of a layer, with behavioural C++ where it is one we know; None where it is exact."""
    described: Any = layer.config.get("multiplier")
    if described is None:
        return None
    if table is None or not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}): a multiplier is a name, a metric and a table")
    name, products = described["name"], np.rint(table).astype(np.int64)
    for known in (*_given.get(), *library()):
        if known.name == name and np.array_equal(known.table, products):
            return known
    try:
        return ApproximateMultiplier.from_table(name, float(described.get("metric", 1.0)), products)
    except ApproxError as error:
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}): {error}") from error


_READERS = {
    "ApproxDense": _reader(core.dense),
    "ApproxConv2D": _reader(windows.conv),
    "ApproxDepthwiseConv2D": _reader(windows.depthwise_conv),
}
for _name, _read in _READERS.items():
    reads(_name)(_read)


@whole
def round_inputs_once(model: HLSModel) -> bool:
    """Store an input in the codes its readers make of it: rounded to another type before, it would be rounded twice.

    Unlike an input that kconvert itself stores as a reader does, it may be read behind layers such as a maximum
    pooling, and saturates as a part of the model, of which nobody need be warned.
    """
    changed = False
    for node in model.nodes:
        kinds = _read_as(node.output) if isinstance(node, Input) and node.output not in model.outputs else set()
        kind = next(iter(kinds)) if len(kinds) == 1 else None
        if kind is not None:
            node.preset = {"result": kind, **node.preset}
            changed = True
    return changed


def _read_as(value: Value) -> set[FixedType | None]:
    """Return the types of codes that all readers of a tensor make, also behind layers that only pass values on."""
    found: set[FixedType | None] = set()
    for user in value.users:
        if isinstance(user, Codes):
            found.add(user.preset.get("result"))
        elif user.keeps_values and user.output.users:
            found |= _read_as(user.output)
        else:
            found.add(None)
    return found or {None}


@whole
def store_normalisations(model: HLSModel) -> bool:
    """Keep as much of a normalisation between layers of codes as of other parameters there."""
    if not any(node.layer_class in _READERS for node in model.nodes):
        return False
    for node in model.nodes:
        if isinstance(node, ApplyAlpha):
            of_scale, of_bias = normalisation_types(node.scale, node.bias)
            node.scale_type, node.bias_type = node.scale_type or of_scale, node.bias_type or of_bias
    return True


add_pass(round_inputs_once, before="apply_settings")
add_pass(store_normalisations)
add_templates(__package__)
