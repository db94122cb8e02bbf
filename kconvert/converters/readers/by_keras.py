"""Model files loaded by Keras itself: to compare with it, and for files that hold code, which nothing else can run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kconvert.converters.readers.live import is_keras_model, read_live
from kconvert.converters.spec import LayerSpec, ModelSpec
from kconvert.errors import MissingPackageError, ModelError, UnsupportedLayerError
from kconvert.packages import import_package

_CODE = ("Lambda", "__lambda__")  # the layer, and a function written as "lambda ..." anywhere else


def code_in(layer: LayerSpec) -> bool:
    """Whether the description of a layer holds Python code."""
    return layer.class_name == "Lambda" or any(map(_holds_code, layer.config.values()))


def _holds_code(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("class_name") in _CODE or any(map(_holds_code, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_code, value))


def load_with_keras(
    path: str | os.PathLike[str], weights: str | os.PathLike[str] | None, spec: ModelSpec, *, allow_unsafe: bool = False
) -> Any:
    """Return the live model of a file.

    Args:
        path: The model file.
        weights: The file of its weights, if they are in one of their own.
        spec: The model, as `read_model` reads it.
        allow_unsafe: Load files that hold code too. Loading them runs it.

    Raises:
        UnsupportedLayerError: the file holds code, and `allow_unsafe` is not set.
        MissingPackageError: Keras, what it runs on, or QKeras is needed and not installed.
        ModelError: this Keras cannot load the file; files of older versions are often refused.
    """
    carriers = [layer.name for layer in spec.layers if code_in(layer)]
    if carriers and not allow_unsafe:
        raise UnsupportedLayerError(f"{path}: layer {carriers[0]!r} holds Python code, which is not run; {HINT}")
    purpose = "loading a model by Keras"
    try:
        keras = import_package("keras", purpose)
    except ImportError as error:
        if isinstance(error, MissingPackageError):
            raise
        raise MissingPackageError(f"{purpose} needs a backend: pip install tensorflow ({error})") from error
    known = _quantized_classes(purpose) if any(_is_quantized(layer) for layer in spec.layers) else {}
    file = Path(path)
    try:
        if file.suffix.lower() == ".json":
            raw = json.loads(file.read_text(encoding="utf-8"))
            model = keras.saving.deserialize_keras_object(raw, custom_objects=known, safe_mode=not allow_unsafe)
        else:
            model = keras.models.load_model(file, custom_objects=known, compile=False, safe_mode=not allow_unsafe)
        if weights is not None:
            model.load_weights(weights)
    except Exception as error:  # Keras raises whatever an odd file leads it to
        first = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"Keras {keras.__version__} cannot load {file.name}: {first}") from error
    return model


HINT = "where you trust the file, load it with allow_unsafe=True (--allow-unsafe on the command line)"


def _is_quantized(layer: LayerSpec) -> bool:
    return layer.class_name.startswith("Q") or "qkeras" in f"{layer.module} {layer.registered_name}"


def _quantized_classes(purpose: str) -> dict[str, Any]:
    qkeras = import_package("qkeras", purpose, "qkeras-v3")
    names = [name for name in dir(qkeras) if not name.startswith("_")]
    return {name: found for name in names if callable(found := getattr(qkeras, name))}


# ***** Lambda layers *****


def read_unsafe(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None, spec: ModelSpec) -> ModelSpec:
    """Return a model whose file holds code, having run it: each Lambda layer as the layer that computes the same.

    Raises:
        UnsupportedLayerError: a Lambda layer computes something else than ``scale * x + bias``.
        MissingPackageError, ModelError: as `load_with_keras`.
    """
    model = load_with_keras(path, weights, spec, allow_unsafe=True)
    live = dict(_layers(model))
    read = read_live(model)
    layers = tuple(_without_code(layer, live[layer.name]) if code_in(layer) else layer for layer in read.layers)
    return replace(read, layers=layers, source=Path(path).name)


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if is_keras_model(layer):
            yield from _layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _without_code(layer: LayerSpec, live: Any) -> LayerSpec:
    """Return a normalisation, or nothing but a name, in the place of a Lambda layer.

    Code cannot be read, so it is tried: at 0 and 1 for bias and scale, then on values of all magnitudes.
    """
    refusal = UnsupportedLayerError(
        f"layer {layer.name!r} ({layer.class_name}) holds Python code; of such only a Lambda that computes "
        "scale * x + bias, a number or one a channel, converts; use Keras' own layers for the rest"
    )
    if layer.class_name != "Lambda" or any(len(call) != 1 for call in layer.calls):
        raise refusal
    shape = tuple(live.input.shape)[1:]
    if not shape or any(n is None for n in shape):
        raise refusal
    random = np.random.default_rng(0)
    probes = random.normal(size=(65, *shape)) * 10.0 ** random.uniform(-3, 3, (65, *[1] * len(shape)))
    probes[0], probes[1] = 0, 1
    answers = np.asarray(live(probes.astype(np.float32)), dtype=np.float64)
    if answers.shape != probes.shape:
        raise refusal
    per_channel = answers[:2].reshape(2, -1, shape[-1])
    bias, scale = per_channel[0, 0], per_channel[1, 0] - per_channel[0, 0]
    if not np.allclose(answers, probes * scale + bias, rtol=1e-5, atol=1e-6 * (1 + np.abs(bias).max())):
        raise refusal
    if np.all(scale == 1) and np.all(bias == 0):
        return replace(layer, class_name="Activation", config={"name": layer.name, "activation": "linear"})
    parameters = {"gamma": scale, "beta": bias, "moving_mean": 0 * scale, "moving_variance": 1 + 0 * scale}
    return replace(
        layer,
        class_name="BatchNormalization",
        config={"name": layer.name, "axis": -1, "epsilon": 0.0},
        weights=tuple(parameters.values()),
        weight_names=tuple(parameters),
    )
