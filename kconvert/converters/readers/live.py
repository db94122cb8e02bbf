"""Live models of Keras 2 (tf.keras, tf_keras) and Keras 3, without importing either."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

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
    weights = dict(_weights(model, graph, ""))
    version = raw.get("keras_version") or getattr(sys.modules.get(bases["Model"]), "__version__", None)
    spec = replace(flatten(graph), keras_version=version)
    return with_all_weights(spec, weights, "build the model first: model.build((None, ...))")


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
            values = [as_numbers(v, f"a weight of layer {name!r}") for v in layer.get_weights()]
            yield name, list(zip(names, values, strict=True))
