"""Readers: every way into the neutral form gives the same model, and every bad file a clear error."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.converters.readers import read_model
from kconvert.converters.spec import ModelSpec, TensorRef
from kconvert.errors import MissingPackageError, ModelError, UnsupportedLayerError
from tests.conftest import golden
from tests.models import MODELS

h5py = pytest.importorskip("h5py")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own

# what one format stores and another does not
_VERSION_DEPENDENT = ("initializer", "regularizer", "constraint", "dtype", "layer")


def assert_same(a: ModelSpec, b: ModelSpec) -> None:
    assert (a.name, a.inputs, a.outputs) == (b.name, b.inputs, b.outputs)
    assert [layer.name for layer in a.layers] == [layer.name for layer in b.layers]
    for x, y in zip(a.layers, b.layers, strict=True):
        assert (x.class_name, x.calls, x.weight_names) == (y.class_name, y.calls, y.weight_names)
        assert plain_config(x.config) == plain_config(y.config)
        for v, w in zip(x.weights, y.weights, strict=True):
            assert v.dtype == w.dtype
            np.testing.assert_array_equal(v, w)


def plain_config(config: Any) -> dict[str, Any]:
    return {k: v for k, v in config.items() if not k.endswith(_VERSION_DEPENDENT)}


def saved(model: Any, folder: Path) -> list[ModelSpec]:
    """Save `model` in all ways there are and read it back."""
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    model.save_weights(folder / "m.weights.h5")
    (folder / "m.json").write_text(model.to_json())
    names = ("m.weights.h5", "m.h5", "m.keras")
    files = [read_model(folder / "m.keras"), read_model(str(folder / "m.h5"))]
    return files + [read_model(folder / "m.json", folder / name) for name in names]


# ---- Keras 3


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras", minversion="3")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_all_ways_give_the_same_model(keras: Any, name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    before = model.get_weights()
    live = read_model(model)
    assert live.keras_version == keras.__version__
    assert live.source == "live model"
    arrays = [w for layer in live.layers for w in layer.weights]
    assert sum(a.size for a in arrays) == sum(w.size for w in before)
    for spec in saved(model, tmp_path):
        assert_same(live, spec)
    for v, w in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(v, w)


def test_arrays_are_copies(keras: Any) -> None:
    model = MODELS["mlp"]()
    kernel = read_model(model)["fc1"].weight("kernel")
    assert kernel is not None
    assert not kernel.flags.writeable
    expected = model.get_layer("fc1").get_weights()[0].copy()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    np.testing.assert_array_equal(kernel, expected)


def test_graph_of_functional_model(keras: Any) -> None:
    spec = read_model(MODELS["residual_two_inputs"]())
    assert spec.inputs == (TensorRef("tracks"), TensorRef("clusters"))
    assert spec.outputs == (TensorRef("output"),)
    assert spec["merge"].calls == ((TensorRef("fc_tracks"), TensorRef("clusters")),)
    assert spec["residual"].calls == ((TensorRef("stem"), TensorRef("branch")),)
    assert spec["tracks"].calls == ((),)
    assert spec["tracks"].config["batch_shape"] == [None, 6]
    order = [layer.name for layer in spec.layers]
    for layer in spec.layers:
        assert all(order.index(r.layer) < order.index(layer.name) for call in layer.calls for r in call)


def test_layer_called_twice(keras: Any) -> None:
    spec = read_model(MODELS["shared_tensor_net"]())
    assert spec["embed"].calls == ((TensorRef("left"),), (TensorRef("right"),))
    assert spec["total"].calls == ((TensorRef("embed"), TensorRef("embed", call=1)),)
    assert spec["difference"].calls == ((TensorRef("embed"), TensorRef("left")),)


def test_outputs_in_order(keras: Any) -> None:
    assert read_model(MODELS["multi_output"]()).outputs == (TensorRef("label"), TensorRef("energy"))


def test_nested_models_are_flattened(keras: Any) -> None:
    spec = read_model(MODELS["nested_net"]())
    names = ["features", "block/fc", "block/head/fc", "block/head/bn", "block/skip", "output"]
    assert sorted(layer.name for layer in spec.layers) == sorted(names)
    assert spec["block/fc"].calls == ((TensorRef("features"),), (TensorRef("block/skip"),))
    assert spec["block/skip"].calls == (
        (TensorRef("block/head/bn"), TensorRef("features")),
        (TensorRef("block/head/bn", call=1), TensorRef("block/skip")),
    )
    assert spec.outputs == (TensorRef("output"), TensorRef("block/skip", call=1))


def test_weights_of_composite_layers(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4, 3)),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both"),
            layers.TimeDistributed(layers.Dense(2), name="each"),
            layers.GRU(2, name="gru"),
        ]
    )
    live = read_model(model)
    assert live["both"].weight_names[:4] == (
        "forward_kernel",
        "forward_recurrent_kernel",
        "forward_bias",
        "backward_kernel",
    )
    assert live["each"].weight_names == ("kernel", "bias")
    for spec in saved(model, tmp_path):
        assert_same(live, spec)


def test_weights_of_qkeras_folded_layers(keras: Any, tmp_path: Path) -> None:
    qkeras = pytest.importorskip("qkeras")
    if not hasattr(qkeras, "QDenseBatchnorm") or not issubclass(qkeras.QDense, keras.layers.Layer):
        pytest.skip("needs QKeras on Keras 3")
    x = keras.Input((3,), name="x")
    model = keras.Model(x, qkeras.QDenseBatchnorm(2, kernel_quantizer="quantized_bits(8,0,1)", name="fc")(x))
    live = read_model(model)
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    assert live["fc"].weight_names == ("kernel", "bias", "iteration", *norm)
    assert live["fc"].config["kernel_quantizer"]["class_name"] == "quantized_bits"
    for spec in saved(model, tmp_path):
        assert_same(live, spec)


def test_a_layer_of_unknown_class_keeps_weights_of_any_shape(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((4, 6))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x))
    for spec in saved(model, tmp_path):
        layer = next(layer for layer in spec.layers if layer.name == "attention")
        assert [w.shape for w in layer.weights] == [w.shape for w in model.get_weights()]


def test_half_precision_weights_become_float32(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    for dtype in ("bfloat16", "float16"):
        model = keras.Sequential([layers.Input((3,)), layers.Dense(2, dtype=dtype, name="fc")])
        live = read_model(model)
        np.testing.assert_array_equal(live["fc"].weights[0], model.layers[0].get_weights()[0].astype(np.float32))
        model.save(tmp_path / "m.keras")
        assert_same(live, read_model(tmp_path / "m.keras"))
        assert live["fc"].weights[0].dtype == np.float32


def test_sequential_without_input(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(2, name="a"), keras.layers.Dense(1, name="b")])
    with pytest.raises(ModelError, match=r"input shape is not known; build"):
        read_model(model)
    model.build((None, 3))
    live = read_model(model)
    assert live.layers[0].config["batch_shape"] == [None, 3]
    for spec in saved(model, tmp_path):
        assert_same(live, spec)


def test_subclassed_models_are_refused(keras: Any, tmp_path: Path) -> None:
    class Custom(keras.Model):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.fc = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.fc(x)

    model = Custom()
    model(np.zeros((1, 2)))
    with pytest.raises(ModelError, match=r"Custom is a subclassed model.*functional API"):
        read_model(model)
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"m.keras: 'Custom' is a subclassed model"):
        read_model(tmp_path / "m.keras")


@pytest.mark.filterwarnings("ignore")
def test_operations_keep_their_arguments(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    y = keras.ops.transpose(keras.ops.expand_dims(keras.ops.subtract(1.0, x), 1), (0, 2, 1))
    model = keras.Model(x, keras.ops.add(y, y))
    model.save(tmp_path / "m.h5")
    for source in (model, tmp_path / "m.h5"):
        _, *layers = read_model(source).layers
        assert {layer.class_name for layer in layers} == {"Operation"}
        assert [(layer.config["operation"], layer.config["arguments"]) for layer in layers] == [
            ("Subtract", [1.0, {"tensor": 0}]),
            ("ExpandDims", [{"tensor": 0}]),
            ("Transpose", [{"tensor": 0}]),
            ("Add", [{"tensor": 0}, {"tensor": 1}]),
        ]
        assert layers[2].config["options"] == {"axes": [0, 2, 1]}
        assert layers[3].calls == ((TensorRef(layers[2].name), TensorRef(layers[2].name)),)


def test_tensors_given_by_name_follow_those_given_by_place(keras: Any) -> None:
    x, state = keras.Input((3, 2), name="x"), keras.Input((4,), name="state")
    y = keras.layers.SimpleRNN(4, name="rnn")(x, initial_state=state)
    assert read_model(keras.Model([x, state], y))["rnn"].calls == ((TensorRef("x"), TensorRef("state")),)
    other = keras.Input((5, 2), name="other")
    y = keras.layers.MultiHeadAttention(1, 2, name="heads")(x, key=other, value=other)
    refs = (TensorRef("x"), TensorRef("other"), TensorRef("other"))
    assert read_model(keras.Model([x, other], y))["heads"].calls == (refs,)


def test_other_call_options_are_refused(keras: Any) -> None:
    x = keras.Input((3, 2), name="x")
    causal = keras.layers.MultiHeadAttention(1, 2, name="heads")(x, x, use_causal_mask=True)
    with pytest.raises(UnsupportedLayerError, match=r"'heads' is called with use_causal_mask=True"):
        read_model(keras.Model(x, causal))
    with pytest.raises(UnsupportedLayerError, match=r"'drop' is called with training=True"):
        read_model(keras.Model(x, keras.layers.Dropout(0.1, name="drop")(x, training=True)))


def test_lambda_stays_in_the_spec(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Lambda(lambda v: v * 2, name="double")])
    model.save(tmp_path / "m.keras")
    assert read_model(tmp_path / "m.keras")["double"].class_name == "Lambda"
    assert_same(read_model(model), read_model(tmp_path / "m.keras"))


def test_weights_of_another_model_with_automatic_names(keras: Any, tmp_path: Path) -> None:
    def make(units: int) -> Any:
        return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(units), keras.layers.Dense(2)])

    first, second, wide = make(4), make(4), make(5)  # dense, dense_1 and dense_2, dense_3
    (tmp_path / "m.json").write_text(first.to_json())
    second.save(tmp_path / "second.h5")
    second.save_weights(tmp_path / "second.weights.h5")
    for name in ("second.h5", "second.weights.h5"):
        spec = read_model(tmp_path / "m.json", tmp_path / name)
        np.testing.assert_array_equal(spec.layers[1].weights[0], second.layers[0].get_weights()[0])
    wide.save(tmp_path / "wide.h5")
    with pytest.raises(ModelError, match=r"'kernel' has shape \(3, 5\); its config asks for \(any, 4\)"):
        read_model(tmp_path / "m.json", tmp_path / "wide.h5")


def test_live_model_takes_no_weights(keras: Any) -> None:
    with pytest.raises(ModelError, match="already holds its weights"):
        read_model(MODELS["mlp"](), weights="m.h5")


def test_spec_is_returned_as_it_is() -> None:
    spec = ModelSpec("m", (), (), ())
    assert read_model(spec) is spec


def test_other_objects_are_refused() -> None:
    with pytest.raises(ModelError, match=r"cannot read a model from builtins\.dict"):
        read_model({})


# ---- Keras 2


@pytest.fixture(scope="module")
def tf_keras() -> Any:
    return pytest.importorskip("tf_keras")


@pytest.mark.filterwarnings("ignore")
def test_keras2_sequential(tf_keras: Any, tmp_path: Path) -> None:
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(2, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.Flatten(name="flatten"),
            layers.Dense(2, activation="softmax", name="output"),
        ]
    )
    model.build((None, 6, 6, 2))
    live = read_model(model)
    assert live.layers[0].name == "depthwise_input"
    assert live.layers[0].config["batch_shape"] == [None, 6, 6, 2]
    assert live["depthwise"].weight_names == ("depthwise_kernel", "bias")
    assert live["bn"].weight_names == ("gamma", "beta", "moving_mean", "moving_variance")
    assert live.keras_version == tf_keras.__version__
    for spec in saved(model, tmp_path):
        assert_same(live, spec)


@pytest.mark.filterwarnings("ignore")
def test_keras2_graph_with_nested_models(tf_keras: Any, tmp_path: Path) -> None:
    layers = tf_keras.layers
    late = tf_keras.Sequential([layers.Dense(4, name="late_fc"), layers.ReLU(name="late_relu")], name="late")
    early = tf_keras.Sequential([layers.Input((4,)), layers.Dense(4, name="early_fc")], name="early")
    a, b = layers.Input((4,), name="a"), layers.Input((4,), name="b")
    block = tf_keras.Model([a, b], [layers.Add(name="sum")([early(a), b]), b], name="block")
    x = layers.Input((4,), name="x")
    y, same = block([x, x])
    y, _ = block([late(y), same])
    model = tf_keras.Model(x, [layers.Dense(2, name="fc")(y), late(y)], name="outer")
    live = read_model(model)
    assert live["block/early/early_fc"].calls == ((TensorRef("x"),), (TensorRef("late/late_relu"),))
    assert live["block/sum"].calls == (
        (TensorRef("block/early/early_fc"), TensorRef("x")),
        (TensorRef("block/early/early_fc", call=1), TensorRef("x")),
    )
    assert live.outputs == (TensorRef("fc"), TensorRef("late/late_relu", call=1))
    for spec in saved(model, tmp_path):
        assert_same(live, spec)


@pytest.mark.filterwarnings("ignore")
def test_keras2_operations_are_called_as_in_keras_3(tf_keras: Any) -> None:
    x = tf_keras.layers.Input((3,), name="x")
    _, layer = read_model(tf_keras.Model(x, 1.0 - x)).layers
    assert layer.class_name == "Operation"
    assert (layer.config["operation"], layer.config["arguments"]) == ("Subtract", [1.0, {"tensor": 0}])
    assert layer.calls == ((TensorRef("x"),),)


# ---- files of real users


@pytest.mark.parametrize(
    ("stem", "layers", "first"),
    [
        ("KERAS_3layer", 5, "input_1"),
        ("KERAS_3layer_batch_norm", 13, "input_1"),
        ("KERAS_3layer_binary_smaller", 12, "fc1_input"),
        ("KERAS_3layer_ternary_small", 12, "fc1_input"),
        ("KERAS_conv1d_small", 7, "input_1"),
        ("KERAS_conv2d_model", 5, "conv2d_1_input"),
        ("jetTagger_Conv2D_Small", 11, "input_1"),
        ("qkeras_3layer", 9, "fc1_input"),
    ],
)
def test_example_models(stem: str, layers: int, first: str) -> None:
    path = golden("example-models") / "keras" / f"{stem}.json"
    weights = path.with_name(f"{stem}_weights.h5")
    spec = read_model(path, weights)
    raw = json.loads(path.read_text())["config"]
    stored = [layer["config"]["name"] for layer in (raw if isinstance(raw, list) else raw["layers"])]
    names = [layer.name for layer in spec.layers]
    assert names == (stored if first in stored else [first, *stored])
    assert len(names) == layers
    assert names[0] == first
    assert spec.outputs == (TensorRef(names[-1]),)
    with h5py.File(weights) as file:
        for layer in spec.layers[1:]:
            for name, values in zip(layer.weight_names, layer.weights, strict=True):
                np.testing.assert_array_equal(values, file[f"{layer.name}/{layer.name}/{name}:0"])
        assert sum(len(group.attrs["weight_names"]) for group in file.values()) == sum(
            len(layer.weights) for layer in spec.layers
        )


def test_example_archive() -> None:
    spec = read_model(golden("example-models") / "keras" / "qkeras-v3_3layer.keras")
    assert [(layer.name, layer.class_name) for layer in spec.layers] == [
        ("fc1_input", "InputLayer"),
        *((f"{kind}{i}", cls) for i in (1, 2, 3) for kind, cls in (("fc", "QDense"), ("relu", "QActivation"))),
        ("output", "QDense"),
        ("softmax", "Activation"),
    ]
    assert [w.shape for w in spec["fc2"].weights] == [(64, 32), (32,)]
    assert spec["fc1"].config["kernel_quantizer"]["config"]["bits"] == 6
    assert (spec["fc1"].registered_name, spec["fc1"].module) == ("qkeras>QDense", "qkeras.qlayers")
    assert spec.keras_version == "3.14.1"


def test_files_are_read_without_keras(tmp_path: Path) -> None:
    folder = golden("example-models") / "keras"
    write_model(tmp_path / "m.h5", dense_model())
    program = """
import sys
from pathlib import Path
import kconvert
from kconvert.converters.readers import read_model

folder = Path(sys.argv[1])
read_model(folder / "qkeras-v3_3layer.keras")
read_model(folder / "KERAS_3layer.json", folder / "KERAS_3layer_weights.h5")
read_model(sys.argv[2])
print([m for m in sys.modules if m.partition(".")[0] in ("keras", "tf_keras", "tensorflow", "qkeras")])
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "m.h5")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


# ---- json forms, made by hand


def dense(name: str, inbound: Any, units: int = 2, **more: Any) -> dict[str, Any]:
    config = {"name": name, "units": units, "use_bias": True}
    return {"class_name": "Dense", "name": name, "config": config, "inbound_nodes": inbound, **more}


def input_layer(name: str = "x", shape: Any = (None, 2)) -> dict[str, Any]:
    config = {"name": name, "batch_input_shape": shape, "dtype": "float32"}
    return {"class_name": "InputLayer", "name": name, "config": config, "inbound_nodes": []}


def functional(layers: list[Any], inputs: Any = None, outputs: Any = None) -> dict[str, Any]:
    config = {
        "name": "m",
        "layers": layers,
        "input_layers": inputs or [["x", 0, 0]],
        "output_layers": outputs or [[layers[-1]["name"], 0, 0]],
    }
    return {"class_name": "Model", "config": config, "keras_version": "2.2.4"}


def dense_model() -> dict[str, Any]:
    return functional([input_layer(), dense("fc", [[["x", 0, 0, {}]]])])


FC = {"fc": {"kernel": np.ones((2, 2), np.float32), "bias": np.arange(2, dtype=np.float32)}}


def write_weights(group: Any, weights: dict[str, dict[str, Any]], encode: Callable[[str], Any] = str.encode) -> None:
    group.attrs["layer_names"] = [encode(name) for name in weights]
    for layer, arrays in weights.items():
        inner = group.create_group(layer)
        inner.attrs["weight_names"] = [encode(f"{layer}/{name}:0") for name in arrays]
        for name, values in arrays.items():
            inner[f"{layer}/{name}:0"] = values


def write_model(path: Path, model: dict[str, Any] | None, weights: Any = None) -> Path:
    with h5py.File(path, "w") as file:
        if model is not None:
            file.attrs["model_config"] = json.dumps(model)
            file.attrs["keras_version"] = b"2.2.4"
        write_weights(file.create_group("model_weights"), FC if weights is None else weights)
    return path


def read_json(tmp_path: Path, model: Any) -> ModelSpec:
    path = tmp_path / "m.json"
    path.write_text(json.dumps(model))
    return read_model(path, write_model(tmp_path / "w.h5", None))


@pytest.mark.parametrize(
    "inbound",
    [
        [[["x", 0, 0, {}]]],
        [[["x", 0, 0]]],
        [["x", 0, 0, {}]],
        [[["x", 0, 0, {"mask": None, "training": False}]]],
        [
            {
                "args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}],
                "kwargs": {},
            }
        ],
    ],
)
def test_forms_of_a_call(tmp_path: Path, inbound: Any) -> None:
    spec = read_json(tmp_path, functional([input_layer(), dense("fc", inbound)]))
    assert spec["fc"].calls == ((TensorRef("x"),),)
    assert spec.keras_version == "2.2.4"


@pytest.mark.parametrize("refs", [["x", 0, 0], [["x", 0, 0]], {"x": ["x", 0, 0]}])
def test_forms_of_the_inputs(tmp_path: Path, refs: Any) -> None:
    assert read_json(tmp_path, functional([input_layer(), dense("fc", [[["x", 0, 0]]])], refs)).inputs == (
        TensorRef("x"),
    )


def test_layers_come_in_topological_order(tmp_path: Path) -> None:
    layers = [dense("fc", [[["mid", 0, 0]]]), {**input_layer("mid"), "class_name": "ReLU"}, input_layer()]
    layers[1]["inbound_nodes"] = [[["x", 0, 0]]]
    spec = read_json(tmp_path, functional(layers, outputs=[["fc", 0, 0]]))
    assert [layer.name for layer in spec.layers] == ["x", "mid", "fc"]


def test_shapes_written_as_tuples(tmp_path: Path) -> None:
    shape = {"class_name": "__tuple__", "items": [None, 2]}
    spec = read_json(tmp_path, functional([input_layer(shape=shape), dense("fc", [[["x", 0, 0]]])]))
    assert spec["x"].config["batch_shape"] == [None, 2]


@pytest.mark.parametrize("encode", [str, str.encode])
def test_attributes_as_text_or_bytes(tmp_path: Path, encode: Callable[[str], Any]) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = encode(json.dumps(dense_model()))
        write_weights(file.create_group("model_weights"), FC, encode)
    np.testing.assert_array_equal(read_model(tmp_path / "m.h5")["fc"].weights[1], [0, 1])


def test_attributes_in_pieces(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.h5", dense_model())
    with h5py.File(path, "a") as file:
        group = file["model_weights/fc"]
        for i, name in enumerate(group.attrs["weight_names"]):
            group.attrs[f"weight_names{i}"] = [name]
        del group.attrs["weight_names"]
    assert read_model(path)["fc"].weight_names == ("kernel", "bias")


def test_big_endian_weights(tmp_path: Path) -> None:
    weights = {"fc": {name: values.astype(">f4") for name, values in FC["fc"].items()}}
    read = read_model(write_model(tmp_path / "m.h5", dense_model(), weights))["fc"].weights[1]
    assert read.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(read, [0, 1])


# ---- errors


def replaced(name: str, values: Any) -> dict[str, Any]:
    return {"fc": {**FC["fc"], name: values}}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, r"layer 'fc' \(Dense\) needs 'kernel', 'bias' and has none"),
        ({"fc": {"kernel": np.ones((2, 2))}}, r"'fc' \(Dense\) has 1 weights; its config asks for 2"),
        (
            replaced("kernel", np.ones((2, 3))),
            r"weight 'kernel' has shape \(2, 3\); its config asks for \(any, 2\)",
        ),
        (replaced("kernel", np.ones(2)), r"weight 'kernel' has shape \(2,\)"),
        (replaced("bias", np.array([1, np.nan])), r"'fc': 1 of 2 values of weight 'bias' are not finite"),
        (
            replaced("kernel", np.full((2, 2), np.inf)),
            r"'fc': 4 of 4 values of weight 'kernel' are not finite",
        ),
        (replaced("bias", np.array([b"a", b"b"])), r"fc/bias:0 holds \|S1 objects instead of numbers"),
        (replaced("bias", np.ones(2, complex)), r"fc/bias:0 holds complex128 values instead of numbers"),
        (
            {"other": FC["fc"], "more": FC["fc"]},
            r"the weights belong to another model: they are for layers 'other', 'more'",
        ),
    ],
)
def test_bad_weights(tmp_path: Path, weights: Any, message: str) -> None:
    with pytest.raises(ModelError, match=rf"m\.h5: .*{message}"):
        read_model(write_model(tmp_path / "m.h5", dense_model(), weights))


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.h5", dense_model(), {"fc": {"kernel": FC["fc"]["kernel"]}})
    with h5py.File(path, "a") as file:
        group = file["model_weights/fc"]
        group.attrs["weight_names"] = [b"fc/kernel:0", b"bias"]
        group.create_dataset("bias", data=["a", "b"], dtype=h5py.string_dtype())
    with pytest.raises(ModelError, match="holds object objects"):
        read_model(path)


def test_datasets_in_other_files_are_refused(tmp_path: Path) -> None:
    secret = write_model(tmp_path / "secret.h5", None)
    path = write_model(tmp_path / "m.h5", dense_model())
    with h5py.File(path, "a") as file:
        group = file["model_weights/fc/fc"]
        del group["bias:0"]
        group["bias:0"] = h5py.ExternalLink(str(secret), "model_weights/fc/fc/bias:0")
    with pytest.raises(ModelError, match="is a link to another place"):
        read_model(path)
    with h5py.File(path, "a") as file:
        group = file["model_weights/fc/fc"]
        del group["bias:0"]
        group.create_dataset("bias:0", (2,), "f4", external=[(str(secret), 0, 8)])
    with pytest.raises(ModelError, match="lies in another file"):
        read_model(path)


def test_exhausting_sizes_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.h5", dense_model(), {"fc": {"kernel": FC["fc"]["kernel"]}})
    with h5py.File(path, "a") as file:
        group = file["model_weights/fc"]
        group.attrs["weight_names"] = [b"fc/kernel:0", b"bias"]
        group.create_dataset("bias", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")
    with pytest.raises(ModelError, match=r"would unpack from 0 to \d+ bytes"):
        read_model(path)
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (1 << 26) + b" ")
    with pytest.raises(ModelError, match=r"m\.keras: config\.json would unpack"):
        read_model(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="not valid json"):
        read_model(tmp_path / "m.keras", allow_unsafe=True)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.keras does not exist"):
        read_model(tmp_path / "nowhere.keras")
    with pytest.raises(ModelError, match=r"is a folder; a model file is \.keras"):
        read_model(tmp_path)
    for name in ("m.onnx", "m"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ModelError, match=rf"{name}: a model file is \.keras, \.h5, \.hdf5, or \.json"):
            read_model(tmp_path / name)
    path = write_model(tmp_path / "m.h5", dense_model())
    with pytest.raises(ModelError, match=r"m\.onnx: weights are read from"):
        read_model(path, tmp_path / "m.onnx")


def test_damaged_files(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.h5", dense_model())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"m\.h5: not an HDF5 file, or a truncated one"):
        read_model(path)
    for data in (b"no zip", zipped({"config.json": b"{}"})[:-30]):
        (tmp_path / "m.keras").write_bytes(data)
        with pytest.raises(ModelError, match=r"m\.keras: not a \.keras archive, or a damaged one"):
            read_model(tmp_path / "m.keras")
    (tmp_path / "m.json").write_text('{"class_name": "Model",\n "config": }')
    with pytest.raises(ModelError, match=r"m\.json: not valid json at line 2, column 12"):
        read_model(tmp_path / "m.json")
    (tmp_path / "m.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(ModelError, match=r"byte 7 is not UTF-8"):
        read_model(tmp_path / "m.json")
    (tmp_path / "m.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        read_model(tmp_path / "m.json")


def test_parts_missing_in_a_file(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "w.h5", None)
    with pytest.raises(ModelError, match=r"w\.h5: this file holds weights only; give the architecture too"):
        read_model(weights)
    (tmp_path / "m.json").write_text(json.dumps(dense_model()))
    with pytest.raises(ModelError, match=r"layer 'fc' .* has none; give the file that holds them: weights="):
        read_model(tmp_path / "m.json")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ModelError, match=r"empty\.h5: the file has no Keras weights in it"):
        read_model(tmp_path / "m.json", tmp_path / "empty.h5")
    for members, message in (
        ({"other": b""}, r"no config\.json"),
        ({"config.json": json.dumps(dense_model()).encode()}, r"no model\.weights\.h5"),
    ):
        (tmp_path / "m.keras").write_bytes(zipped(members))
        with pytest.raises(ModelError, match=message):
            read_model(tmp_path / "m.keras")


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_paths_in_archives_and_names_are_never_followed(tmp_path: Path) -> None:
    write_model(tmp_path / "w.h5", None)
    name = "../../fc"
    model = functional([input_layer(), {**dense(name, [[["x", 0, 0]]]), "class_name": "ReLU"}])
    members = {
        "../evil.txt": b"out",
        "config.json": json.dumps(model).encode(),
        "model.weights.h5": (tmp_path / "w.h5").read_bytes(),
    }
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "m.keras").write_bytes(zipped(members))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError, match="belong to another model"):
        read_model(folder / "m.keras")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        write_weights(file, {})
    spec = read_model(folder / "m.keras", tmp_path / "w.h5")
    assert spec.layers[1].name == name
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ([], "the model should be a json object but is list"),
        ({"class_name": "MyModel", "config": {}}, "'MyModel' is a subclassed model"),
        ({"class_name": "Sequential", "config": []}, "has no layers"),
        (
            {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": {}}]},
            "'Dense' has no name",
        ),
        ({"class_name": "Sequential", "config": [dense("fc", [])]}, "input shape is not known"),
        (functional([input_layer(), {"name": "fc", "config": {}}]), "layer 'fc' has no class_name"),
        (functional([input_layer(), dense("fc", [])]), "'fc' is not connected to any input"),
        (
            functional([input_layer(), dense("fc", [[["y", 0, 0]]])]),
            "layer 'fc' refer to an unknown layer 'y'",
        ),
        (functional([input_layer(), dense("fc", [[["x", 1, 0]]])]), "refer to tensor x@1, which"),
        (functional([input_layer(), dense("fc", [[["x", 0, -1]]])]), "is not a tensor of a layer"),
        (functional([input_layer(), dense("fc", "x")]), "inbound_nodes should be a list"),
        (functional([input_layer(), dense("fc", [[7]])]), "inbound_nodes of layer 'fc': cannot read 7"),
        (functional([input_layer(), input_layer()]), "two layers named 'x'"),
        (
            functional([input_layer(), dense("fc", [[["x", 0, 0]]])], [["fc", 0, 0]]),
            "'x', which is none of its inputs",
        ),
        (functional([input_layer(), dense("fc", [[["fc", 0, 0]]])]), "'fc' feed each other in a loop"),
        (
            functional([input_layer(), dense("fc", [[["x", 0, 0, {"scale": 2}]]])]),
            "'fc' is called with scale=2",
        ),
        (functional([input_layer(), dense("fc", [{"args": [1.5]}])]), "'fc' is called on 1.5 besides"),
    ],
)
def test_bad_architectures(tmp_path: Path, model: Any, message: str) -> None:
    with pytest.raises(ModelError, match=rf"m\.json: .*{message}"):
        read_json(tmp_path, model)


def test_clashing_names_of_nested_models(tmp_path: Path) -> None:
    block = functional([input_layer("i"), dense("fc", [[["i", 0, 0]]])], [["i", 0, 0]])
    block |= {"name": "block", "inbound_nodes": [[["x", 0, 0]]]}
    model = functional([input_layer(), block, dense("block/fc", [[["block", 1, 0]]])])
    with pytest.raises(ModelError, match="two layers are named 'block/fc' once nested models are flattened"):
        read_json(tmp_path, model)


def test_missing_h5py_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "m.h5", dense_model())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match="pip install h5py"):
        read_model(path)


# ---- files that hold code


def lambda_model(keras: Any, function: Any) -> Any:
    layers = keras.layers
    model = keras.Sequential([layers.Input((2, 3), name="x"), layers.Lambda(function, name="code"), layers.Flatten()])
    return keras.Sequential([model, layers.Dense(2, name="fc")])


@pytest.mark.parametrize("suffix", ["keras", "h5", "json"])
def test_code_is_run_only_where_that_is_asked_for(
    keras: Any, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trace = tmp_path / f"m.{suffix}", tmp_path / "was run"
    monkeypatch.setenv("TRACE_OF_CODE", str(trace))  # a stored function has its code and nothing around it
    model = lambda_model(
        keras, lambda v: (open(__import__("os").environ["TRACE_OF_CODE"], "w").close(), v * [2.0, 1.0, 0.5] + 1.0)[1]
    )
    weights = None if suffix != "json" else tmp_path / "m.weights.h5"
    if weights is None:
        model.save(path)
    else:
        path.write_text(model.to_json())
        model.save_weights(weights)
    trace.unlink()
    with pytest.raises(
        UnsupportedLayerError, match=r"'sequential.*/code' is a Lambda: its Python code is not run.*unsafe"
    ):
        kconvert.convert_from_keras_model(read_model(path, weights))
    assert not trace.exists()
    spec = read_model(path, weights, allow_unsafe=True)
    assert trace.exists()
    (layer,) = [layer for layer in spec.layers if layer.name.endswith("/code")]
    assert layer.class_name == "BatchNormalization"
    assert np.allclose(layer.weight("gamma"), [2, 1, 0.5])
    assert np.allclose(layer.weight("beta"), 1)
    hls_model = kconvert.convert_from_keras_model(spec)
    hls_model.compile()
    x = np.round(np.random.default_rng(0).normal(size=(9, 2, 3)) * 8) / 8
    np.testing.assert_allclose(hls_model.predict(x), model.predict(x, verbose=0), atol=0.02)


def test_code_that_computes_anything_else_is_refused(keras: Any, tmp_path: Path) -> None:
    lambda_model(keras, lambda v: v * v).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedLayerError, match=r"code' \(Lambda\) holds Python code; of such only"):
        read_model(tmp_path / "m.keras", allow_unsafe=True)
    lambda_model(keras, lambda v: v).save(tmp_path / "m.keras")
    spec = read_model(tmp_path / "m.keras", allow_unsafe=True)
    assert [layer.class_name for layer in spec.layers if layer.name.endswith("code")] == ["Activation"]
