"""Operations on tensors in functional models, such as ``x + y``, where they equal a layer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kconvert.converters.readers.operations import OPERATION
from kconvert.converters.registry import Block, read_layer, reads, supported_activations
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError, did_you_mean
from kconvert.layers import ApplyAlpha, Contraction, Node, Pool, Relu, Reshape, Slice, Value, Window
from kconvert.layers.moves import Permute

_Function = Callable[[LayerSpec, list[Value]], Node | tuple[Node, ...] | Block]
_functions: dict[str, _Function] = {}


def _operation(*names: str) -> Callable[[_Function], _Function]:
    def register(function: _Function) -> _Function:
        _functions.update(dict.fromkeys(names, function))
        return function

    return register


@reads(OPERATION)
def operation(layer: LayerSpec, inputs: list[Value]) -> Node | tuple[Node, ...] | Block:
    """The node of the layer that an operation equals."""
    name = str(layer.config["operation"])
    plain = replace(layer, class_name=name)
    if name in _functions:
        return _functions[name](plain, inputs)
    function = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    if function in supported_activations() and _tensors_alone(layer) and len(inputs) == 1 and not _options(layer):
        return _as_layer(plain, inputs, "Activation", activation=function)
    raise _unsupported(layer)


def _unsupported(layer: LayerSpec, why: str = "") -> UnsupportedLayerError:
    name = str(layer.config["operation"])
    known = sorted(_functions)
    return UnsupportedLayerError(
        f"{layer.name!r} is not a layer but the plain operation {name}"
        f"{f', {why},' if why else did_you_mean(name, known)} which equals no layer that converts (supported: "
        f"{', '.join(known)}, and activation functions); use Keras' layers instead, such as keras.layers.Add"
    )


def _options(layer: LayerSpec) -> Mapping[str, Any]:
    """Return the options of an operation; False and None are what leaving them out means."""
    return {key: value for key, value in layer.config["options"].items() if value is not None and value is not False}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {"tensor"}


def _tensors_alone(layer: LayerSpec) -> bool:
    return all(map(_is_tensor, layer.config["arguments"]))


def _argument(layer: LayerSpec, number: int, option: str) -> Any:
    """Return an argument that is given by its place or by its name."""
    arguments = layer.config["arguments"]
    return arguments[number] if len(arguments) > number else layer.config["options"].get(option)


def _as_layer(layer: LayerSpec, inputs: list[Value], class_name: str, **config: Any) -> Block:
    return read_layer(replace(layer, class_name=class_name, config={"name": layer.name, **config}), inputs)


# ***** of two operands *****


@_operation("Add", "Subtract", "Multiply", "Maximum", "Minimum")
def _element_wise(layer: LayerSpec, inputs: list[Value]) -> Node | Block:
    if not _tensors_alone(layer):
        return _with_constant(layer)
    if len({len(value.shape) for value in inputs}) > 1:
        raise _unsupported(layer, f"of tensors of shapes {', '.join(str(v.shape) for v in inputs)}")
    arguments = [argument["tensor"] for argument in layer.config["arguments"]]
    return _as_layer(layer, [inputs[i] for i in arguments], layer.class_name)


def _with_constant(layer: LayerSpec) -> Node:
    """``x scale + bias`` for one number, on either side."""
    arguments, name = layer.config["arguments"], layer.class_name
    constants = [value for value in arguments if not _is_tensor(value)]
    if len(arguments) != 2 or len(constants) != 1 or not isinstance(constants[0], int | float):
        raise _unsupported(layer, "of a tensor and more than one number")
    value, first = float(constants[0]), not _is_tensor(arguments[0])
    if not math.isfinite(value):
        raise ModelError(f"{layer.name!r}, the operation {name}: its number is {value}")
    if name == "Maximum" and value == 0:
        return Relu(name=layer.name)
    if name in ("Divide", "TrueDivide") and not first and value:
        return _affine(layer, 1 / value, 0.0)
    scale, bias = {"Add": (1.0, value), "Multiply": (value, 0.0), "Subtract": (1.0, -value)}.get(name, (None, 0.0))
    if scale is None:
        raise _unsupported(layer, f"of a tensor and {value:g}")
    return _affine(layer, -1.0, value) if name == "Subtract" and first else _affine(layer, scale, bias)


def _affine(layer: LayerSpec, scale: float, bias: float) -> Node:
    return ApplyAlpha(name=layer.name, scale=np.array([scale]), bias=np.array([bias]))


@_operation("Divide", "TrueDivide")
def _divide(layer: LayerSpec, inputs: list[Value]) -> Node:
    if _tensors_alone(layer):
        raise _unsupported(layer, "of two tensors")
    return _with_constant(layer)


@_operation("Matmul")
def _matmul(layer: LayerSpec, inputs: list[Value]) -> Node:
    rank = len(inputs[0].shape)
    if len(inputs) != 2 or rank < 2 or len(inputs[1].shape) != rank or not _tensors_alone(layer):
        raise _unsupported(layer, f"of tensors of shapes {', '.join(str(v.shape) for v in inputs)}")
    first, second = (inputs[argument["tensor"]] for argument in layer.config["arguments"])
    if first is not inputs[0] or second is not inputs[1]:
        raise _unsupported(layer, "of tensors in another order")
    options = _options(layer)
    outer = "abcdefgh"[: rank - 2]
    one = "ki" if options.get("transpose_a") else "ik"
    other = "jk" if options.get("transpose_b") else "kj"
    if options.keys() - {"transpose_a", "transpose_b"}:
        raise _unsupported(layer, f"with {', '.join(options)}")
    return Contraction(name=layer.name, equation=f"{outer}{one},{outer}{other}->{outer}ij")


# ***** of one *****


@_operation("Negative")
def _negative(layer: LayerSpec, inputs: list[Value]) -> Node:
    return _affine(layer, -1.0, 0.0)


@_operation("Square")
def _square(layer: LayerSpec, inputs: list[Value]) -> Block:
    return _as_layer(layer, inputs * 2, "Multiply")


@_operation("LeakyRelu")
def _leaky_relu(layer: LayerSpec, inputs: list[Value]) -> Block:
    return _as_layer(layer, inputs, "LeakyReLU", negative_slope=layer.config["options"].get("negative_slope", 0.2))


@_operation("Softmax")
def _softmax(layer: LayerSpec, inputs: list[Value]) -> Block:
    axis = _argument(layer, 1, "axis")
    return _as_layer(layer, inputs, "Softmax", axis=-1 if axis is None else axis)


@_operation("Mean", "Max")
def _reduce(layer: LayerSpec, inputs: list[Value]) -> Block:
    """Pooling over neighbouring axes: what is before them is the height of an image, what is behind its channels."""
    shape = inputs[0].shape
    axes = _axes(layer, _argument(layer, 1, "axis"), len(shape))
    if not axes or axes != list(range(axes[0], axes[-1] + 1)):
        raise _unsupported(layer, f"over axis={_argument(layer, 1, 'axis')!r}")
    if layer.config["options"].get("initial") is not None:
        raise _unsupported(layer, "with an initial value")
    before, behind = shape[: axes[0]], shape[axes[-1] + 1 :]
    n = math.prod(shape[axes[0] : axes[-1] + 1])
    kept = [1] * len(axes) if layer.config["options"].get("keepdims") else []
    window, block = Window((1, n), (1, 1)), Block()
    pool = Pool(name=layer.name, layer=layer.name, window=window, average=layer.class_name == "Mean")
    value = _shaped(block, f"{layer.name}_image", inputs[0], (math.prod(before), n, math.prod(behind)))
    value = block.add(pool, value)
    block.outputs = (_shaped(block, f"{layer.name}_shape", value, (*before, *kept, *behind) or (1,)),)
    return block


def _shaped(block: Block, name: str, value: Value, shape: tuple[int, ...]) -> Value:
    return value if value.shape == shape else block.add(Reshape(name=name, shape=shape), value)


def _axes(layer: LayerSpec, given: object, rank: int) -> list[int]:
    """Return axes without the batch's, counted from 0; none if that is among them."""
    axes = [axis for axis in (given if isinstance(given, list) else [given]) if isinstance(axis, int)]
    if isinstance(given, list) and len(axes) < len(given):
        return []
    found = sorted(axis - 1 if axis >= 0 else axis + rank for axis in axes)
    return found if found and found[0] >= 0 and found[-1] < rank else []


# ***** shapes *****


@_operation("Concatenate")
def _concatenate(layer: LayerSpec, inputs: list[Value]) -> Block:
    axis = _argument(layer, 1, "axis")
    return _as_layer(layer, inputs, "Concatenate", axis=-1 if axis is None else axis)


@_operation("Reshape")
def _reshape(layer: LayerSpec, inputs: list[Value]) -> Block:
    shape = _argument(layer, 1, "newshape")
    if not isinstance(shape, list) or not shape or not all(n is None or isinstance(n, int) for n in shape[1:]):
        raise _unsupported(layer, f"to {shape!r}")
    target = [-1 if n is None else n for n in shape[1:]]
    if shape[0] not in (-1, None) or not target:
        raise _unsupported(layer, f"to {shape!r}, whose first axis is not that of the batch (-1)")
    return _as_layer(layer, inputs, "Reshape", target_shape=target)


@_operation("ExpandDims", "Squeeze")
def _one_axis(layer: LayerSpec, inputs: list[Value]) -> Node:
    shape, more = list(inputs[0].shape), layer.class_name == "ExpandDims"
    axes = _axes(layer, _argument(layer, 1, "axis"), len(shape) + more)
    if len(axes) != 1 or not (more or shape[axes[0]] == 1):
        raise _unsupported(layer, f"at axis={_argument(layer, 1, 'axis')!r}")
    shape = [*shape[: axes[0]], 1, *shape[axes[0] :]] if more else shape[: axes[0]] + shape[axes[0] + 1 :]
    return Reshape(name=layer.name, shape=tuple(shape) or (1,))


@_operation("Transpose")
def _transpose(layer: LayerSpec, inputs: list[Value]) -> Node:
    axes, rank = _argument(layer, 1, "axes"), len(inputs[0].shape)
    if not isinstance(axes, list) or sorted(axes) != list(range(rank + 1)) or axes[0] != 0:
        raise _unsupported(layer, f"with axes={axes!r}")
    return Permute(name=layer.name, axes=tuple(axis - 1 for axis in axes[1:]))


@_operation("GetItem")
def _get_item(layer: LayerSpec, inputs: list[Value]) -> Node:
    raw = _argument(layer, 1, "key")
    entries = [_entry(layer, item) for item in (raw if isinstance(raw, list) else [raw])]
    rank = len(inputs[0].shape) + 1
    if entries.count(...) > 1 or len(entries) - entries.count(...) > rank:
        raise _unsupported(layer, f"with {len(entries)} indices")
    if ... in entries:
        at = entries.index(...)
        entries[at : at + 1] = [slice(None)] * (rank - len(entries) + 1)
    entries += [slice(None)] * (rank - len(entries))
    if entries[0] != slice(None):
        raise _unsupported(layer, "of a part of the batch")
    return Slice(name=layer.name, key=tuple(entries[1:]))


def _entry(layer: LayerSpec, item: Any) -> Any:
    if isinstance(item, Mapping):
        if item.get("class_name") == "__ellipsis__":
            return ...
        parts = item.get("config", item)
        parts = [parts.get(key) for key in ("start", "stop", "step")] if isinstance(parts, Mapping) else [item]
        if all(part is None or isinstance(part, int) for part in parts):
            return slice(*parts)
    elif isinstance(item, int) and not isinstance(item, bool):
        return item
    raise _unsupported(layer, f"with the index {item!r}")
