"""Layers as Keras 1 describes and stores them, in the terms of Keras 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import ModelError, UnsupportedLayerError

Array = npt.NDArray[Any]
Weights = list[tuple[str, Array]]

_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
_MERGES = {
    "concat": "Concatenate",
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
}
_RECURRENT = ("SimpleRNN", "LSTM", "GRU")
# old name of an option -> the name since, wherever it occurs
_OPTIONS = {
    "border_mode": "padding",
    "nb_filter": "filters",
    "subsample": "strides",
    "subsample_length": "strides",
    "filter_length": "kernel_size",
    "atrous_rate": "dilation_rate",
    "pool_length": "pool_size",
    "stride": "strides",
    "inner_activation": "recurrent_activation",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "W_regularizer": "kernel_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "b_constraint": "bias_constraint",
}
# Options that only Keras 1 writes: they tell its files from newer ones.
_ONLY_OLD = {*_OPTIONS, "dim_ordering", "nb_row", "input_dtype", "b_constraint", "mode_type"}


def modernised(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a layer's json with the class and option names of Keras 2, or as it is where it has them already.

    Raises:
        UnsupportedLayerError: Keras 2 has no layer that does the same.
    """
    class_name, config = layer.get("class_name"), layer.get("config")
    if not isinstance(config, dict) or not (_ONLY_OLD & config.keys() or class_name in (*_CLASSES, "Merge")):
        return layer
    if class_name == "Merge":
        return _merge(layer, config)
    options = {_OPTIONS.get(key, key): value for key, value in config.items()}
    if "nb_row" in options:
        options["kernel_size"] = [options.pop("nb_row"), options.pop("nb_col")]
    if class_name in ("Dense", *_RECURRENT):
        options["units"] = options.pop("output_dim", options.get("units"))
    if isinstance(options.get("bias"), bool):
        options["use_bias"] = options.pop("bias")
    if "dim_ordering" in options:
        options["data_format"] = {"th": "channels_first"}.get(options.pop("dim_ordering"), "channels_last")
    if "p" in options:
        options["rate"] = options.pop("p")
    if options.get("mode", 0) not in (0, "max"):
        raise UnsupportedLayerError(
            f"layer {options.get('name')!r} ({class_name}): mode={options['mode']!r} of Keras 1 is not supported"
        )
    return {**layer, "class_name": _CLASSES.get(str(class_name), class_name), "config": options}


def _merge(layer: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    mode, name = config.get("mode"), config.get("name")
    if mode not in _MERGES or config.get("mode_type", "raw") != "raw" or not layer.get("inbound_nodes"):
        what = f"mode={mode!r}" if layer.get("inbound_nodes") else "a Merge inside a Sequential model"
        raise UnsupportedLayerError(f"layer {name!r} (Merge): {what} is not supported, only {', '.join(_MERGES)}")
    axis = {"axis": config.get("concat_axis", -1)} if mode == "concat" else {}
    return {**layer, "class_name": _MERGES[mode], "config": {"name": name, **axis}}


# ***** weights *****


def modern_weights(class_name: str, weights: Weights) -> Weights:
    """Return the weights of a layer in the shapes of Keras 2.

    Raises:
        ModelError: arrays that belong together do not fit each other.
    """
    if class_name == "Conv1D" and weights and weights[0][1].ndim == 4:
        (name, kernel), *rest = weights
        if kernel.shape[1] != 1:  # that of Theano: [filters, channels, length, 1]
            kernel = kernel.transpose(2, 3, 1, 0)
        return [(name, kernel[:, 0]), *rest]
    gates = _GATES.get(class_name)
    if gates is None or len(weights) != 3 * len(gates):
        return weights
    # Keras 1 keeps the three arrays of each gate: those of one kind are put side by side
    try:
        joined = [np.concatenate([weights[3 * gate + kind][1] for gate in gates], axis=-1) for kind in range(3)]
    except ValueError as error:
        raise ModelError(f"a {class_name} whose gates do not fit each other: {error}") from error
    return list(zip(("kernel", "recurrent_kernel", "bias"), joined, strict=True))


# The order of Keras 2 (i f c o; z r h) in terms of that of Keras 1 (i c f o; z r h).
_GATES: Mapping[str, tuple[int, ...]] = {"LSTM": (0, 2, 1, 3), "GRU": (0, 1, 2)}


def numbered_weights(
    root: Any, layers: list[str], array: Callable[[Any, str], Array], group: Callable[[Any, str], Any]
) -> dict[str, Weights] | None:
    """Return the weights in the oldest layout, which numbers layers and weights, or None for another layout.

    Args:
        root: The h5py group.
        layers: Names of the model's layers in its order, without inputs that Keras 1 did not count.
        array, group: Read what is at a path below a group.
    """
    if "nb_layers" not in root.attrs:
        return None
    count = int(root.attrs["nb_layers"])
    if count != len(layers):
        raise ModelError(f"the file has weights for {count} layers, the model has {len(layers)}")
    found: dict[str, Weights] = {}
    for number, name in enumerate(layers):
        place = group(root, f"layer_{number}")
        if place is None:
            raise ModelError(f"the file has no weights group layer_{number}")
        names = [f"param_{index}" for index in range(int(place.attrs.get("nb_params", 0)))]
        if names:
            found[name] = [("", array(place, parameter)) for parameter in names]
    return found
