"""Live models of Keras 2 (tf.keras, tf_keras) and Keras 3, without importing either."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from kconvert.converters.readers.architecture import Graph, flatten, parse_model, subclassed
from kconvert.converters.readers.weights import Weights, as_numbers, with_all_weights
from kconvert.converters.spec import ModelSpec
from kconvert.errors import ModelError

_KERAS_PACKAGES = frozenset({"keras", "tf_keras", "tensorflow", "keras_core"})


def _keras_bases(model: object) -> dict[str, str]:
    """Return class name and package of every class of Keras that `model` derives from."""
    roots = ((c.__name__, c.__module__.partition(".")[0]) for c in type(model).__mro__)
    return {name: root for name, root in roots if root in _KERAS_PACKAGES}


def is_keras_model(model: object) -> bool:
    """Whether `model` is a model of any Keras, told by the names of its classes alone."""
    return "Model" in _keras_bases(model)


def read_live(model: Any) -> ModelSpec:
    """Read a live Keras model, which is left as it is.

    Raises:
        ModelError: The model is subclassed, not built, or does not say how it is made.
    """
    bases = _keras_bases(model)
    if not bases.keys() & {"Functional", "Sequential"}:
        raise ModelError(subclassed(type(model).__name__))
    try:
        raw = json.loads(model.to_json())
    except Exception as error:  # of get_config() of the user's own layers, which may fail in any way
        raise ModelError(f"model {model.name!r} cannot describe itself: to_json() raises {error!r}") from error
    graph = parse_model(raw)
    graph = _with_all_options(model, graph)
    weights = dict(_weights(model, graph, ""))
    version = raw.get("keras_version") or getattr(sys.modules.get(bases["Model"]), "__version__", None)
    spec = replace(flatten(graph), keras_version=version)
    return with_all_weights(spec, weights, "build the model first: model.build((None, ...))")


def _with_all_options(model: Any, graph: Graph) -> Graph:
    """Add to the configs of quantizers the options that QKeras leaves out of them, as the live quantizers have them."""
    layers = {layer.name: layer for layer in model.layers}
    nodes = []
    for node in graph.nodes:
        layer = layers.get(node.spec.name)
        if layer is None:
            nodes.append(node)  # the InputLayer of a Sequential
        elif node.graph is not None:
            nodes.append(replace(node, graph=_with_all_options(layer, node.graph)))
        else:
            config = {key: _completed(value, layer, key) for key, value in node.spec.config.items()}
            nodes.append(replace(node, spec=replace(node.spec, config=config)))
    return replace(graph, nodes=tuple(nodes))


def _completed(value: Any, layer: Any, key: str) -> Any:
    """Return an entry of a layer's config; that of a quantizer with every option which is not at its default."""
    if not (isinstance(value, dict) and isinstance(value.get("config"), dict)):
        return value
    quantizer = next((q for q in (getattr(layer, a, None) for a in (f"{key}_internal", key)) if _is_quantizer(q)), None)
    if quantizer is None:
        return value
    parameters = inspect.signature(type(quantizer).__init__).parameters.values()
    hidden = [p for p in parameters if p.name not in value["config"] and hasattr(quantizer, p.name)]
    options = {p.name: getattr(quantizer, p.name) for p in hidden}
    changed = {p.name: options[p.name] for p in hidden if not np.array_equal(options[p.name], p.default)}
    return {**value, "module": type(quantizer).__module__, "config": {**value["config"], **changed}}


def _is_quantizer(value: object) -> bool:
    return any(base.__name__ == "BaseQuantizer" for base in type(value).__mro__)


def _weights(model: Any, graph: Graph, prefix: str) -> Iterator[tuple[str, Weights]]:
    layers = {layer.name: layer for layer in model.layers}
    for node in graph.nodes:
        layer = layers.get(node.spec.name)
        if layer is None:
            continue  # the InputLayer of a Sequential
        name = prefix + node.spec.name
        if node.graph is not None:
            yield from _weights(layer, node.graph, f"{name}/")
        else:
            names = [w.name.rpartition("/")[2].partition(":")[0] for w in layer.weights]
            # not get_weights(), from which a QAdaptiveActivation withholds what it has
            values = [as_numbers(np.asarray(w), f"a weight of layer {name!r}") for w in layer.weights]
            yield name, list(zip(names, values, strict=True))
