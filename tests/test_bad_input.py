"""Hostile and careless input: a KConvertError that names the thing, or a safe identifier; never code from a name."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.errors import ConfigError, InputError, KConvertError, ModelError, UnsupportedLayerError
from kconvert.layers import identifier
from tests import reference
from tests.light.handmade import write_h5

# ---- names ----

NAMES = {
    "shell": '"); system("x',
    "path": "../../x",
    "absolute path": "/etc/passwd",
    "japanese": "全結合層",
    "long": "x" * 300,
    "keyword": "int",
    "other keyword": "template",
    "namespace": "nnet",
    "the top function": "myproject",
    "main": "main",
    "digit first": "1st",
    "empty": "",
    "spaces": "  a  b ",
    "comment": "*/ // \\",
    "line break": 'a\n#include "/etc/passwd"',
    "nul": "a\0b",
    "jinja": "{{ 7 * 7 }}{% raw %}",
    "tcl": "[exec touch pwned]$env(HOME)",
    "macro": "NNET_COMMON_H_",
    "underscores": "__init__",
    "trailing _t": "result_t",
    "suffix of another": "fc_weight",
    "yaml": "a: [b, {c: !!python/object:os.system x}]",
    "number": "1e5",
    "null": "null",
}


def dense_net(*names: str, activation: str = "relu") -> ModelSpec:
    """Return a chain of dense layers of these names, as a reader would."""
    random = np.random.default_rng(0)
    specs = [LayerSpec("InputLayer", "in", {"batch_shape": (None, 3)}, ((),))]
    for name in names:
        weights = (random.integers(-4, 4, (3, 3)) / 4, random.integers(-4, 4, 3) / 4)
        config = {"units": 3, "activation": activation}
        specs.append(LayerSpec("Dense", name, config, ((TensorRef(specs[-1].name),),), weights, ("kernel", "bias")))
    return ModelSpec("chain", tuple(specs), (TensorRef("in"),), (TensorRef(names[-1]),))


def all_files(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def hostile() -> ModelSpec:
    return dense_net(*NAMES.values())


def test_any_name_converts_compiles_and_is_the_key_of_its_trace(hostile: ModelSpec) -> None:
    config = kconvert.config_from_keras_model(hostile, granularity="name")
    assert set(NAMES.values()) < set(config["LayerName"])
    hls_model = kconvert.convert_from_keras_model(hostile, config)
    hls_model.compile()
    x = np.random.default_rng(1).integers(-8, 8, (20, 3)) / 8
    outputs, expected = reference.run(hls_model, x)
    trace = hls_model.trace(x)
    for name in NAMES.values():
        assert np.array_equal(trace[name], expected[name])
        assert np.array_equal(trace[f"{name}_relu"], expected[f"{name}_relu"])
    assert np.array_equal(hls_model.predict(x), outputs[0])


def test_any_name_is_written_within_the_folder_as_an_identifier(hostile: ModelSpec, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c" / "project"
    hls_model = kconvert.convert_from_keras_model(hostile, output_dir=folder)
    hls_model.write()
    outside = {
        p for p in all_files(tmp_path) if p.parts[: min(4, len(p.parts))] != ("a", "b", "c", "project")[: len(p.parts)]
    }
    assert not outside
    for path in all_files(folder):
        assert path.as_posix().replace("/", "").replace(".", "").replace("_", "").isalnum()
        assert path.as_posix().isascii()
        assert len(path.name) < 100
    for path in (folder / "firmware").glob("*.[ch]*"):
        text = path.read_text()
        assert text.isascii()
        assert not [name for name in NAMES.values() if re.search(r"[^A-Za-z0-9_]", name) and name in text]
    again = kconvert.convert_from_config(folder / "kconvert_config.yml")
    assert [n.name for n in again.nodes] == [n.name for n in hls_model.nodes]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_identifiers_are_identifiers(name: str) -> None:
    found = identifier(name)
    assert found.isidentifier()
    assert found.isascii()
    assert "__" not in found
    assert not found.startswith("_")
    assert len(found) <= 60


def test_names_that_become_the_same_identifier_stay_apart() -> None:
    names = ["a-b", "a b", "a/b", "a_b", "a.b", "a_b_2", "日本", "中国", "fc", "fc_relu_2"]
    hls_model = kconvert.convert_from_keras_model(dense_net(*names))
    assert len({n.cpp for n in hls_model.nodes}) == len(hls_model.nodes)
    hls_model.compile()
    x = np.eye(3)
    trace, expected = hls_model.trace(x), reference.run(hls_model, x)[1]
    assert list(trace) == list(expected)
    assert all(np.array_equal(trace[n], expected[n]) for n in names)


@pytest.mark.parametrize(
    "names", [("a", "a_weight"), ("a", "a_result"), ("a_relu", "a"), ("a_out", "a"), ("in_result", "in_in")]
)
def test_names_that_look_like_generated_ones_do_not_clash(names: tuple[str, ...]) -> None:
    hls_model = kconvert.convert_from_keras_model(dense_net(*names))
    hls_model.compile()
    x = np.eye(3)
    assert np.array_equal(hls_model.predict(x), reference.run(hls_model, x)[0][0])


def test_hostile_names_in_a_file(tmp_path: Path) -> None:
    write_h5(tmp_path / "model.h5", first='"); system("x', last="全結合層")
    hls_model = kconvert.convert_from_keras_model(tmp_path / "model.h5", output_dir=tmp_path / "prj")
    hls_model.compile()
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 1))
    assert np.array_equal(hls_model.predict(x), reference.run(hls_model, x)[0][0])
    assert {'"); system("x', "全結合層", "全結合層_softmax"} < set(hls_model.trace(x))
    hls_model.write()
    assert {p.name for p in tmp_path.iterdir()} == {"model.h5", "prj"}


def test_a_live_keras_layer_with_a_name_from_afar() -> None:
    import keras

    x = keras.Input((3,), name="入力")
    model = keras.Model(x, keras.layers.Dense(2, name='全結合"); system("x')(x))
    hls_model = kconvert.convert_from_keras_model(model)
    hls_model.compile()
    assert list(hls_model.trace({"入力": np.zeros((1, 3))})) == ['全結合"); system("x']


@pytest.mark.parametrize(
    "name",
    [
        "",
        "my-project",
        "1st",
        "my project",
        "../x",
        "プロジェクト",
        "int",
        "main",
        "nnet",
        "a__b",
        "_a",
        "x" * 65,
        "a;b",
        "std",
        "hls",
    ],
)
def test_project_names_that_are_no_identifier_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="project_name"):
        kconvert.convert_from_keras_model(dense_net("fc"), project_name=name)


@pytest.mark.parametrize("name", ["fc_weight", "fc_result_t", "fc_bias"])
def test_a_project_name_that_the_code_uses_is_refused(name: str) -> None:
    hls_model = kconvert.convert_from_keras_model(dense_net("fc"), project_name=name)
    with pytest.raises(ConfigError, match=f"project_name '{name}' is a name in the generated code"):
        hls_model.compile()


@pytest.mark.parametrize("name", ["fc", "fc_out", "in_in", "fc_config", "relu", "dense", "weight", "x"])
def test_project_names_near_generated_ones_compile_or_are_refused(name: str) -> None:
    try:
        hls_model = kconvert.convert_from_keras_model(dense_net("fc"), project_name=name)
        hls_model.compile()
    except ConfigError as error:
        assert "project_name" in str(error)  # noqa: PT017
        return
    assert np.array_equal(hls_model.predict(np.eye(3)), reference.run(hls_model, np.eye(3))[0][0])


# ---- models ----


def _replaced(spec: ModelSpec, **changes: Any) -> ModelSpec:
    return dataclasses.replace(spec, layers=(spec.layers[0], dataclasses.replace(spec.layers[1], **changes)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_with_place_and_count(value: float) -> None:
    weights = (np.array([[1.0, value, 1.0], [value, 1, 1], [1, 1, 1]]), np.zeros(3))
    with pytest.raises(ModelError, match=r"layer 'fc': 2 of 9 values of weight 'kernel' are NaN or infinite"):
        kconvert.convert_from_keras_model(_replaced(dense_net("fc"), weights=weights))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((np.ones((4, 3)), np.ones(3)), "'fc'"),
        ((np.ones((3, 3)), np.ones(4)), "'fc'"),
        ((np.ones(3), np.ones(3)), "'fc'"),
        ((np.ones((3, 3)),), r"'fc' \(Dense\): expected 2 weight arrays, found 1"),
        ((np.ones((3, 3), complex), np.ones(3)), "'fc'"),
        ((np.ones((3, 3)).astype(str), np.ones(3)), "'fc'"),
        ((np.ones((3, 0)), np.ones(0)), "'fc'"),
    ],
)
def test_weights_that_do_not_fit_the_layer(weights: tuple[Any, ...], message: str) -> None:
    names = ("kernel", "bias")[: len(weights)]
    with pytest.raises(ModelError, match=message):
        kconvert.convert_from_keras_model(_replaced(dense_net("fc"), weights=weights, weight_names=names))


def test_an_unsupported_layer_says_its_name_its_class_and_what_is_near() -> None:
    message = (
        r"layer 'fc': class 'Densee' is not supported; did you mean 'Dense'\? \(supported: .*Conv2D.*registry.reads"
    )
    with pytest.raises(UnsupportedLayerError, match=message):
        kconvert.convert_from_keras_model(_replaced(dense_net("fc"), class_name="Densee"))


def test_an_unsupported_activation_says_what_there_is() -> None:
    with pytest.raises(
        UnsupportedLayerError, match=r"layer 'fc': activation 'reluu' is not supported; did you mean 'relu'"
    ):
        kconvert.convert_from_keras_model(dense_net("fc", activation="reluu"))
    with pytest.raises(UnsupportedLayerError, match=r"layer 'fc': cannot read its activation 7"):
        kconvert.convert_from_keras_model(_replaced(dense_net("fc"), config={"units": 3, "activation": 7}))


def _keras_layer(kind: str, shape: tuple[int | None, ...], **options: Any) -> Any:
    import keras

    x = keras.Input(shape, name="x")
    return keras.Model(x, getattr(keras.layers, kind)(name="layer", **options)(x))


@pytest.mark.parametrize(
    ("kind", "shape", "options", "message"),
    [
        ("Softmax", (4, 3), {"axis": (1, 2)}, "axis"),
        ("LayerNormalization", (2, 4, 3), {"axis": (1, 3)}, "axes next to each other"),
        ("UpSampling2D", (2, 4, 3), {"interpolation": "bicubic"}, "interpolation"),
        ("Conv2D", (3, 8, 8), {"filters": 2, "kernel_size": 3, "data_format": "channels_first"}, "data_format"),
        ("Cropping2D", (3, 8, 8), {"data_format": "channels_first"}, "move the channels to the last axis"),
        ("LSTM", (4, 3), {"units": 2, "activation": "softmax"}, "softmax"),
        ("Masking", (4, 3), {}, "Masking"),
        ("MaxPooling2D", (4, 8, 8), {"data_format": "channels_first"}, "data_format"),
    ],
)
def test_options_that_do_not_convert_are_named(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedLayerError, match=f"'layer'.*{message}"):
        kconvert.convert_from_keras_model(_keras_layer(kind, shape, **options))


def test_an_open_axis_is_refused() -> None:
    with pytest.raises(ModelError, match=r"input layer 'x' has shape \(None, 3\)"):
        kconvert.convert_from_keras_model(_keras_layer("Dense", (None, 3), units=2))


@pytest.mark.parametrize("source", [3, None, "no-such-file.h5", [], object(), b"model.h5"])
def test_what_is_no_model_is_refused(source: Any) -> None:
    with pytest.raises(ModelError):
        kconvert.convert_from_keras_model(source)
    with pytest.raises(ModelError):
        kconvert.config_from_keras_model(source)


def test_a_spec_that_reads_a_missing_tensor() -> None:
    calls = ((TensorRef("nowhere"),),)
    with pytest.raises(ModelError, match=r"'fc' reads a tensor that no layer makes"):
        kconvert.convert_from_keras_model(_replaced(dense_net("fc"), calls=calls))


# ---- data ----


@pytest.fixture(scope="module")
def compiled() -> kconvert.HLSModel:
    hls_model = kconvert.convert_from_keras_model(dense_net("fc"))
    hls_model.compile()
    return hls_model


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_inputs_that_are_not_finite(compiled: kconvert.HLSModel, value: float, dtype: Any) -> None:
    x = np.zeros((40, 3), dtype)
    x[33, 1] = x[35, 0] = value
    for verb in (compiled.predict, compiled.trace):
        with pytest.raises(InputError, match=r"input 'in': 2 of 120 values are NaN or infinite.*first at \(33, 1\)"):
            verb(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2)), r"expected shape \(n, 3\), got \(4, 2\)"),
        (np.zeros(3), r"expected shape \(n, 3\), got \(3,\)"),
        (np.zeros((4, 3, 1)), r"expected shape \(n, 3\), got \(4, 3, 1\)"),
        (np.float64(3), r"expected shape \(n, 3\), got \(\)"),
        (np.zeros((4, 3), complex), "complex128"),
        (np.array([["a", "b", "c"]]), "<U1"),
        (np.array([[1, None, 3]]), "object"),
        (np.zeros((2, 3), "datetime64[s]"), "datetime64"),
        ([[1, 2, 3], [4, 5]], "'in'"),
        (None, "'in'"),
        ("abc", "'in'"),
        ({"out": np.zeros((1, 3))}, r"inputs \['in'\], got \['out'\]"),
        ({}, r"inputs \['in'\]"),
        ([np.zeros((1, 3))] * 2, r"expected shape"),
    ],
    ids=lambda v: str(v)[:30].replace("\n", " "),
)
def test_inputs_that_do_not_fit(compiled: kconvert.HLSModel, x: Any, message: str) -> None:
    for verb in (compiled.predict, compiled.trace):
        with pytest.raises(InputError, match=message):
            verb(x)


def test_inputs_of_several_that_do_not_fit() -> None:
    a, b = (LayerSpec("InputLayer", n, {"batch_shape": (None, 3)}, ((),)) for n in "ab")
    total = LayerSpec("Add", "sum", {}, ((TensorRef("a"), TensorRef("b")),))
    spec = ModelSpec("two", (a, b, total), (TensorRef("a"), TensorRef("b")), (TensorRef("sum"),))
    hls_model = kconvert.convert_from_keras_model(spec)
    hls_model.compile()
    three, four = np.zeros((3, 3)), np.zeros((4, 3))
    for x, message in (
        ([three, four], r"different numbers of samples \('a': 3, 'b': 4\)"),
        ([three], r"2 inputs \['a', 'b'\]: give a list of arrays, got 1 of them"),
        (three, r"2 inputs \['a', 'b'\]: give a list of arrays, got ndarray"),
        ({"a": three}, r"inputs \['a', 'b'\], got \['a'\]"),
        ([three, np.zeros((3, 2))], r"input 'b': expected shape \(n, 3\), got \(3, 2\)"),
    ):
        with pytest.raises(InputError, match=message):
            hls_model.predict(x)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_bad_number_of_threads(compiled: kconvert.HLSModel, threads: Any) -> None:
    with pytest.raises(InputError, match=r"threads=.* is not a positive integer"):
        compiled.predict(np.zeros((1, 3)), threads=threads)


def test_every_error_of_the_package_is_a_kconvert_error() -> None:
    from kconvert import errors

    kinds = [
        k
        for k in vars(errors).values()
        if isinstance(k, type) and issubclass(k, Exception) and not issubclass(k, Warning)
    ]
    assert len(kinds) > 8
    assert all(issubclass(k, KConvertError) for k in kinds)
