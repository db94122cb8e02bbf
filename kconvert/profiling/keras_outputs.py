"""What Keras computes at every tensor of a converted model."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.converters import build_model, read_model
from kconvert.converters.readers.live import is_keras_model
from kconvert.errors import InputError, ModelError
from kconvert.layers import Input, Node, Value, Weighted
from kconvert.model import HLSModel
from kconvert.optimizers import PIPELINE, split_activations

if TYPE_CHECKING:
    from kconvert.model import Arrays

Array = npt.NDArray[Any]

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
    graph.run(PIPELINE)
    return keras_outputs(model, X, traced(graph))


def traced(graph: HLSModel) -> dict[str, Value]:
    """Return the keys of ``trace`` and the values they stand for, in its order."""
    computed = [node.output for node in graph if not isinstance(node, Input)]
    return {name: value for value in computed for name in value.names}


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
    """Return Keras' value of the tensors called `wanted`; names that the model does not have are left out.

    Every tensor has a name here, also those that vanish in hardware.
    """
    graph = build_model(read_model(model))
    fused = {id(n.activation): n for n in graph if isinstance(n, Weighted) and n.activation is not None}
    # Splitting the activations is all that gives names; from here on a node is one Keras layer or one activation.
    graph.run((split_activations,), final=False)
    live = dict(_live_layers(model))
    functions = {}
    for node in graph:
        if id(node) in fused:
            functions[node.name] = _activation_of(live[fused[id(node)].layer])
        elif not isinstance(node, Input):
            functions[node.name] = _layer_of(live[node.layer], node)
    names = [name for name in wanted if name in functions]
    arrays = input_arrays(graph.inputs, X)
    found = {name: np.empty((0, *graph[name].output.shape), np.float32) for name in names}
    batches = [
        _run(graph, functions, [a[start : start + BATCH] for a in arrays], names)
        for start in range(0, len(arrays[0]), BATCH)
    ]
    return {name: np.concatenate([b[name] for b in batches]) if batches else found[name] for name in names}


def _run(
    graph: HLSModel, functions: Mapping[str, Callable[..., Array]], arrays: Sequence[Array], names: Iterable[str]
) -> dict[str, Array]:
    values = {value: array for value, array in zip(graph.inputs, arrays, strict=True)}
    for node in graph:
        if node.name in functions:
            values[node.output] = functions[node.name](*(values[v] for v in node.inputs))
    return {name: values[graph[name].output] for name in names}


def _live_layers(model: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the layers of a model by the name the neutral form gives them."""
    for layer in model.layers:
        if is_keras_model(layer):
            yield from _live_layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _layer_of(layer: Any, node: Node) -> Callable[..., Array]:
    """Return a function that computes the layer without its activation, by a copy of it."""
    changes = {"activation": "linear"} if isinstance(node, Weighted) else {}
    copy = _copy(layer, changes)
    # The only layers that are called on a list; one of them may hold a single tensor.
    joins = any(c.__name__ in ("Merge", "_Merge") for c in type(layer).__mro__)
    options = {"training": False} if "training" in inspect.signature(layer.call).parameters else {}

    def call(*inputs: Array) -> Array:
        return _numpy(copy(list(inputs) if joins else inputs[0], **options))

    call(*(np.zeros((1, *v.shape), np.float32) for v in node.inputs))  # makes the weights to be set
    copy.set_weights(layer.get_weights())
    return call


def _activation_of(layer: Any) -> Callable[..., Array]:
    """Return a function that computes the activation inside a layer: a function, or itself a layer."""
    function = layer.activation
    if hasattr(function, "get_config"):
        function = _copy(function, {})
    tensor = _tensor_function(layer)
    return lambda x: _numpy(function(tensor(x)))


def _copy(layer: Any, changes: Mapping[str, Any]) -> Any:
    try:
        return type(layer).from_config({**layer.get_config(), **changes})
    except Exception as error:  # of the user's own layers, which may fail in any way
        raise ModelError(f"layer {layer.name!r} cannot be copied: from_config(get_config()) raises {error!r}") from error
