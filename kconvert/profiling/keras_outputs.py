"""What Keras computes at every tensor of a converted model."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.converters import build_model, read_model
from kconvert.converters.readers.live import is_keras_model
from kconvert.converters.readers.operations import OPERATION
from kconvert.errors import ModelError
from kconvert.inputs import input_arrays
from kconvert.layers import Input, Node, Value, Weighted
from kconvert.optimizers import split_activations

if TYPE_CHECKING:
    from kconvert.converters.spec import LayerSpec
    from kconvert.model import Arrays, HLSModel, LayerCall

Array = npt.NDArray[Any]
Function = Callable[..., Any]

BATCH = 1024
"""Samples computed at once: bounds the memory taken besides the result."""


def get_ymodel_keras(model: Any, X: Arrays) -> dict[str, Array]:
    """Return Keras' output of every layer, under the keys of ``hls_model.trace(X)`` and in its order.

    A layer's own name is the value before its activation and ``<layer>_<activation>`` the value after it. A layer that
    conversion folds into the next (a convolution before a batch normalisation) has no key. The model is only read:
    its layers are copied, one at a time, and the copies are called, in inference mode.

    Args:
        model: A live Keras 2 or 3 model.
        X: Samples as for :meth:`HLSModel.predict`.

    Returns:
        Layer name -> [n, ...], of the dtype Keras computes in.

    Raises:
        ModelError: `model` is a file or no Keras model, or a layer cannot be copied.
        UnsupportedLayerError: the model does not convert.
        InputError: the shape or dtype of `X` does not fit.
    """
    require_live(model)
    graph = build_model(read_model(model))
    graph.run()
    return keras_outputs(model, X, graph.traced())


def require_live(model: Any) -> None:
    """Raise :class:`ModelError` unless `model` is a Keras model that can compute."""
    if is_keras_model(model):
        return
    if isinstance(model, str | os.PathLike):
        raise ModelError(
            f"Keras' own outputs need a live model, not the file {os.fspath(model)!r}; "
            "load it first: keras.models.load_model(...)"
        )
    raise ModelError(
        f"Keras' own outputs need a live Keras model, not {type(model).__module__}.{type(model).__qualname__}"
    )


def keras_outputs(model: Any, X: Arrays, wanted: Iterable[str]) -> dict[str, Array]:
    """Return Keras' value of the tensors called `wanted`; a name that the model does not have is left out.

    Every tensor has a name here, also one that vanishes in hardware.
    """
    graph = build_model(read_model(model))
    fused = {id(n.activation): n for n in graph if isinstance(n, Weighted) and n.activation is not None}
    # With the activations split off, a node is a call of a Keras layer, a part of one, or the activation inside of one.
    graph.run((split_activations,), final=False)
    steps = list(_steps(graph, fused, dict(_live_layers(model))))
    known = {name: value for step in steps for value in step.outputs for name in value.names}
    values = {name: known[name] for name in wanted if name in known}
    # Keras rounds floats to the type it computes in, but takes integers for indices.
    arrays = [a if a.dtype.kind == "f" else a.astype(np.float32) for a in input_arrays(graph.inputs, X)]
    found: dict[str, list[Array]] = {name: [] for name in values}
    for start in range(0, len(arrays[0]), BATCH):
        tensors = _run(graph.inputs, [a[start : start + BATCH] for a in arrays], steps)
        for name, value in values.items():
            found[name].append(_numpy(tensors[value]))
    empty = {name: np.empty((0, *value.shape), np.float32) for name, value in values.items()}
    return {name: np.concatenate(parts) if parts else empty[name] for name, parts in found.items()}


@dataclass(frozen=True)
class _Step:
    """What Keras computes at once: a call of a layer, without its activation where that is split off, or that."""

    function: Function
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def _steps(graph: HLSModel, fused: Mapping[int, Node], live: Mapping[str, Any]) -> Iterator[_Step]:
    last = {id(call.nodes[-1]): call for call in graph.calls if call.nodes}
    for node in graph:
        call = last.get(id(node))
        if id(node) in fused:
            layer = live[fused[id(node)].layer] if node.output.names else None  # None: inside of one with several nodes
            if hasattr(layer, "activation"):
                yield _Step(_activation_of(layer), tuple(node.inputs), (node.output,))
        elif call is not None and not isinstance(node, Input):
            inputs = tuple(_activated(value, fused) for value in call.inputs)
            whole = not hasattr(live.get(call.layer), "activation")  # a TimeDistributed computes its activation, too
            outputs = tuple(_activated(value, fused) for value in call.outputs) if whole else call.outputs
            yield _Step(_layer_of(live, graph.spec[call.layer], call, inputs), inputs, outputs)


def _activated(value: Value, fused: Mapping[int, Node]) -> Value:
    """Return what a layer reads of another: the value behind the activation that was split off."""
    users = [user for user in value.users if fused.get(id(user)) is value.producer]
    return users[0].output if users else value


def _run(inputs: list[Value], arrays: list[Array], steps: list[_Step]) -> dict[Value, Any]:
    """Return the tensor of every value of the graph for one batch."""
    tensors: dict[Value, Any] = dict(zip(inputs, arrays, strict=True))
    for step in steps:
        results = list(_flat(step.function(*(tensors[v] for v in step.inputs))))
        tensors.update(zip(step.outputs, results, strict=True))
    return tensors


def _flat(results: Any) -> Iterator[Any]:
    if isinstance(results, list | tuple):
        for result in results:
            yield from _flat(result)
    else:
        yield results


def _unchanged(tensor: Any) -> Any:
    return tensor


def _live_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the layers of a model by the names the neutral form gives them."""
    for layer in getattr(model, "operations", model.layers):
        if is_keras_model(layer):
            yield from _live_layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _operation_of(live: Mapping[str, Any], spec: LayerSpec) -> Function:
    """Return a function that computes an operation of Keras 3, from its tensors."""
    operation: Any = live.get(spec.name)
    if not hasattr(operation, "symbolic_call"):
        raise ModelError(f"{spec.name!r}, an operation of TensorFlow, cannot be computed apart from its model")

    def filled(value: Any, tensors: tuple[Any, ...]) -> Any:
        if isinstance(value, list):
            return [filled(item, tensors) for item in value]
        if isinstance(value, Mapping):
            return tensors[value["tensor"]] if "tensor" in value else _index(value)
        return value

    def call(*tensors: Any) -> Any:
        arguments = [filled(value, tensors) for value in spec.config["arguments"]]
        if spec.config["operation"] == "GetItem" and isinstance(arguments[1], list):
            arguments[1] = tuple(arguments[1])
        return operation.call(*arguments)

    return call


def _index(value: Mapping[str, Any]) -> Any:
    """Return the slice or ellipsis that Keras stores as a dictionary."""
    if value.get("class_name") == "__ellipsis__":
        return ...
    return slice(*(value["config"][key] for key in ("start", "stop", "step")))


def _layer_of(live: Mapping[str, Any], spec: LayerSpec, made: LayerCall, inputs: tuple[Value, ...]) -> Function:
    """Return a function that computes a layer, without its activation if that is split off.

    It is computed by a copy. Where the layer cannot be made anew from its config and weights (some of QKeras' cannot),
    a stand-in that shares its variables computes, which inference does not change.
    """
    if spec.class_name == OPERATION:
        return _operation_of(live, spec)
    layer = live[spec.name]
    split = isinstance(made.outputs[0].producer, Weighted) and hasattr(layer, "activation")
    changes = {"activation": "linear"} if split else {}
    copied = not _has_hidden_state(layer)
    try:
        function = _copy(layer, changes) if copied else _sharing(layer, {})
    except ModelError:
        copied = False
        linear = layer.get_config().get("activation") in (None, "linear")
        if not linear and changes and not callable(vars(layer).get("activation")):
            raise
        function = _sharing(layer, {"activation": _unchanged} if changes and not linear else {})
    options = {"training": False} if "training" in inspect.signature(layer.call).parameters else {}
    # Keras calls merging layers, and no others, on a list, even on a list of one.
    classes = {base.__name__ for base in type(layer).__mro__}
    as_list = bool(classes & {"Merge", "_Merge", "Attention"})

    def call(*tensors: Any) -> Any:
        if len(tensors) > 1 and "RNN" in classes:
            return function(tensors[0], initial_state=list(tensors[1:]), **options)
        return function(list(tensors), **options) if as_list else function(*tensors, **options)

    call(*(np.zeros((1, *value.shape), np.float32) for value in inputs))  # makes the weights to be set
    if copied:
        function.set_weights(layer.get_weights())
    return call


def _activation_of(layer: Any) -> Function:
    """Return the activation inside a layer: a function, or a copy of what is itself a layer."""
    activation: Function = layer.activation
    return _copy(activation, {}) if hasattr(activation, "get_config") else activation


def _has_hidden_state(layer: Any) -> bool:
    """Whether a quantizer holds variables that are not among the layer's weights, as that of QAdaptiveActivation."""
    quantizer = getattr(layer, "quantizer", None)
    return any(hasattr(value, "assign") for value in getattr(quantizer, "__dict__", {}).values())


def _sharing(layer: Any, changes: Mapping[str, Any]) -> Any:
    """Return a stand-in for a layer, with the same variables and some attributes changed."""
    stand_in = object.__new__(type(layer))
    vars(stand_in).update({**vars(layer), **changes})  # past Keras' own bookkeeping of attributes, which the two share
    return stand_in


def _copy(layer: Any, changes: Mapping[str, Any]) -> Any:
    try:
        return type(layer).from_config({**layer.get_config(), **changes})
    except Exception as error:  # of the user's own layers, which may fail in any way
        name = getattr(layer, "name", type(layer).__name__)
        raise ModelError(f"layer {name!r} cannot be copied: from_config(get_config()) raises {error!r}") from error


def _numpy(tensor: Any) -> Array:
    if hasattr(tensor, "detach"):  # PyTorch's tensors remember how they were made, and may be on a GPU
        tensor = tensor.detach().cpu()
    return np.asarray(tensor)
