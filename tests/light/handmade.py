"""A Keras model file made without Keras: the layout of a legacy .h5, written with h5py and json."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np


def write_h5(path: Path, first: str = "conv", last: str = "output") -> None:
    """Write a small image classifier of Keras 2, the first and last layer with weights called `first` and `last`."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (random.integers(-16, 16, shape) / 16).astype(np.float32)

    layers = [
        ("InputLayer", "image", {"batch_input_shape": [None, 6, 6, 1], "dtype": "float32"}, {}),
        (
            "Conv2D",
            first,
            {"filters": 3, "kernel_size": [3, 3], "strides": [1, 1], "padding": "valid", "activation": "relu"},
            {"kernel": weights(3, 3, 1, 3), "bias": weights(3)},
        ),
        ("MaxPooling2D", "pool", {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"}, {}),
        ("Flatten", "flatten", {}, {}),
        ("Dense", last, {"units": 4, "activation": "softmax"}, {"kernel": weights(12, 4), "bias": weights(4)}),
    ]
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "handmade",
            "layers": [{"class_name": kind, "config": {"name": name, **options}} for kind, name, options, _ in layers],
        },
    }
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for _, name, _, _ in layers]
        for _, name, _, arrays in layers:
            place = group.create_group(name)
            place.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in arrays]
            for weight, array in arrays.items():
                place.create_dataset(f"{name}/{weight}:0", data=array)
