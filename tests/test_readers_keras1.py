"""Files of Keras 1, made by hand: old names of classes and options, old shapes and layouts of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kconvert
from kconvert.converters.spec import TensorRef
from kconvert.errors import ModelError, UnsupportedLayerError

RANDOM = np.random.default_rng(3)


def array(*shape: int) -> np.ndarray:
    return (RANDOM.integers(-8, 8, shape) / 8).astype(np.float32)


def old(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, "trainable": True, **config}}


REGULARIZERS = dict.fromkeys(("W_regularizer", "b_regularizer", "activity_regularizer", "W_constraint", "b_constraint"))
DENSE = {"init": "glorot_uniform", "bias": True, "input_dim": None, **REGULARIZERS}
CONV = {"init": "glorot_uniform", "border_mode": "valid", "subsample": [1, 1], "dim_ordering": "tf", "bias": True}


def sequential(*layers: dict[str, Any], shape: tuple[int | None, ...]) -> dict[str, Any]:
    layers[0]["config"] |= {"batch_input_shape": shape, "input_dtype": "float32"}
    return {"class_name": "Sequential", "config": list(layers), "keras_version": "1.2.2"}


def write(folder: Path, model: dict[str, Any], weights: dict[str, dict[str, np.ndarray]]) -> kconvert.HLSModel:
    """Write json and weights as Keras 1.2 does, and convert them."""
    (folder / "m.json").write_text(json.dumps(model))
    with h5py.File(folder / "w.h5", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, arrays in weights.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, values in arrays.items():
                group[name] = values
    raw = {"KerasJson": str(folder / "m.json"), "KerasH5": str(folder / "w.h5"), "OutputDir": str(folder / "prj")}
    return kconvert.convert_from_config(raw)


def test_an_image_classifier(tmp_path: Path) -> None:
    kernel, fc = array(3, 2, 1, 4), array(24, 2)
    norm = [np.abs(array(4)) + 1 for _ in range(4)]
    model = sequential(
        old("Convolution2D", "conv", nb_filter=4, nb_row=3, nb_col=2, activation="relu", **CONV),
        old("BatchNormalization", "bn", epsilon=1e-3, mode=0, axis=-1, momentum=0.99),
        old("MaxPooling2D", "pool", pool_size=[2, 1], strides=[2, 1], border_mode="valid", dim_ordering="tf"),
        old("Dropout", "drop", p=0.5),
        old("Flatten", "flat"),
        old("Dense", "fc", output_dim=2, activation="linear", **DENSE),
        shape=(None, 6, 4, 1),
    )
    names = ("bn_gamma", "bn_beta", "bn_running_mean", "bn_running_std")
    hls_model = write(
        tmp_path,
        model,
        {
            "conv": {"conv_W": kernel, "conv_b": np.zeros(4)},
            "bn": dict(zip(names, norm, strict=True)),
            "pool": {},
            "drop": {},
            "flat": {},
            "fc": {"fc_W": fc, "fc_b": np.zeros(2)},
        },
    )
    hls_model.compile()
    x = np.round(np.random.default_rng(0).normal(size=(5, 6, 4, 1)) * 8) / 8
    windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 2), axis=(1, 2))
    image = np.maximum(np.einsum("nhwij,ijc->nhwc", windows, kernel[:, :, 0]), 0)
    gamma, beta, mean, variance = norm
    image = gamma * (image - mean) / np.sqrt(variance + 1e-3) + beta
    image = image.reshape(5, 2, 2, 3, 4).max(axis=2)
    np.testing.assert_allclose(hls_model.predict(x), image.reshape(5, -1) @ fc, atol=0.05)
    assert hls_model.spec["conv"].config["kernel_size"] == [3, 2]


@pytest.mark.parametrize("theano", [False, True])
def test_a_kernel_over_time(theano: bool, tmp_path: Path) -> None:
    kernel = array(3, 2, 4)
    stored = kernel.transpose(2, 1, 0)[..., None] if theano else kernel[:, None]
    options = {"subsample_length": 2, "border_mode": "same", "filter_length": 3, "nb_filter": 4, "bias": True}
    model = sequential(
        old("Convolution1D", "conv", activation="linear", init="uniform", **options),
        old("AveragePooling1D", "pool", pool_length=2, stride=2, border_mode="valid"),
        shape=(None, 8, 2),
    )
    hls_model = write(tmp_path, model, {"conv": {"conv_W": stored, "conv_b": array(4)}, "pool": {}})
    assert np.array_equal(hls_model.spec["conv"].weights[0], kernel)
    assert [n.output.shape for n in hls_model] == [(8, 2), (4, 4), (2, 4)]


def test_layers_that_meet(tmp_path: Path) -> None:
    def layer(class_name: str, name: str, inbound: list[Any], **config: Any) -> dict[str, Any]:
        return {**old(class_name, name, **config), "name": name, "inbound_nodes": inbound}

    shape = {"batch_input_shape": [None, 3], "input_dtype": "float32", "sparse": False}
    merge = {"mode_type": "raw", "concat_axis": -1, "dot_axes": -1, "output_shape": None, "arguments": {}}
    layers = [
        layer("InputLayer", "x", [], **shape),
        layer("Dense", "fc", [[["x", 0, 0]]], output_dim=3, activation="relu", **DENSE),
        layer("Merge", "sum", [[["x", 0, 0], ["fc", 0, 0]]], mode="sum", **merge),
        layer("Merge", "both", [[["sum", 0, 0], ["x", 0, 0]]], mode="concat", **merge),
    ]
    config = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["both", 0, 0]]}
    weights = {"x": {}, "fc": {"fc_W": array(3, 3), "fc_b": array(3)}, "sum": {}, "both": {}}
    model = {"class_name": "Model", "config": config, "keras_version": "1.2.0"}
    hls_model = write(tmp_path, model, weights)
    assert [type(n).__name__ for n in hls_model] == ["Input", "Dense", "Relu", "Add", "Concatenate"]
    assert hls_model.spec["both"].calls == ((TensorRef("sum"), TensorRef("x")),)
    layers[2]["config"]["mode"] = "cos"
    with pytest.raises(UnsupportedLayerError, match=r"'sum' \(Merge\): mode='cos' is not supported, only concat, sum"):
        write(tmp_path, model, weights)


@pytest.mark.parametrize(("class_name", "gates"), [("LSTM", "icfo"), ("GRU", "zrh")])
def test_recurrent_layers_with_arrays_of_each_gate(class_name: str, gates: str, tmp_path: Path) -> None:
    arrays = {f"{kind}_{g}": array(*s) for g in gates for kind, s in (("W", (2, 3)), ("U", (3, 3)), ("b", (3,)))}
    model = sequential(
        old(class_name, "rnn", output_dim=3, init="uniform", inner_init="uniform", activation="tanh", input_dim=2) | {},
        shape=(None, 4, 2),
    )
    model["config"][0]["config"] |= {"inner_activation": "sigmoid", "return_sequences": False, "go_backwards": False}
    hls_model = write(tmp_path, model, {"rnn": {f"rnn_{name}": values for name, values in arrays.items()}})
    order = "ifco" if class_name == "LSTM" else "zrh"
    for found, kind in zip(hls_model.spec["rnn"].weights, "WUb", strict=True):
        assert np.array_equal(found, np.concatenate([arrays[f"{kind}_{g}"] for g in order], axis=-1))
    del arrays[f"b_{gates[0]}"]
    with pytest.raises(ModelError, match="'rnn'"):
        write(tmp_path, model, {"rnn": {f"rnn_{name}": values for name, values in arrays.items()}})


def test_the_layout_that_numbers_layers(tmp_path: Path) -> None:
    kernel, bias = array(4, 2), array(2)
    layers = (
        old("Activation", "act", activation="relu"),
        old("Dense", "fc", output_dim=2, activation="linear", **DENSE),
    )
    (tmp_path / "m.json").write_text(json.dumps(sequential(*layers, shape=(None, 4))))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["nb_layers"] = 2
        file.create_group("layer_0").attrs["nb_params"] = 0
        group = file.create_group("layer_1")
        group.attrs["nb_params"] = 2
        group["param_0"], group["param_1"] = kernel, bias
    spec = kconvert.read_model(tmp_path / "m.json", tmp_path / "w.h5")
    assert np.array_equal(spec["fc"].weight("kernel"), kernel)
    assert np.array_equal(spec["fc"].weight("bias"), bias)
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file.attrs["nb_layers"] = 3
    with pytest.raises(ModelError, match="weights for 3 layers, the model has 2"):
        kconvert.read_model(tmp_path / "m.json", tmp_path / "w.h5")


def test_a_normalisation_that_keras_2_does_not_have(tmp_path: Path) -> None:
    layer = old("BatchNormalization", "bn", mode=1, axis=-1, epsilon=1e-3, gamma_regularizer=None, b_constraint=None)
    with pytest.raises(UnsupportedLayerError, match=r"'bn' \(BatchNormalization\): mode=1 of Keras 1"):
        write(tmp_path, sequential(layer, shape=(None, 3)), {})
