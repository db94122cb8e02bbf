"""HLSModel and its verbs: compile, predict and trace, for every kind of model, batch and array."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import HLSModel
from kconvert.csim import compiler
from kconvert.csim.compiler import cache_folder
from kconvert.errors import CompileError, PrecisionWarning
from tests import reference
from tests.conftest import ROOT
from tests.layers.common import as_list, assert_exact, inputs_of, keras_answers
from tests.models import MODELS, mlp, mlp_batchnorm, randomise, residual_two_inputs


def compiled(model: Any, config: Any = None) -> HLSModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        hls_model = kconvert.convert_from_keras_model(model, config)
    hls_model.compile()
    return hls_model


@pytest.fixture(scope="module")
def small() -> tuple[Any, HLSModel]:
    model = mlp()
    return model, compiled(model)


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_are_exact_and_near_keras(name: str) -> None:
    model = MODELS[name]()
    hls_model = compiled(model)
    x = [np.random.default_rng(i).normal(size=(19, *v.shape)) for i, v in enumerate(hls_model.inputs)]
    answers = assert_exact(hls_model, x)
    for ours, theirs in zip(answers, keras_answers(model, x), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float64
        assert np.abs(ours - theirs).max() < 0.02 * max(1.0, np.abs(theirs).max())


# ---- several inputs and outputs ----


def test_inputs_as_list_tuple_and_dict() -> None:
    hls_model = compiled(residual_two_inputs())
    tracks, clusters = inputs_of(hls_model)
    expected = reference.run(hls_model, [tracks, clusters])[0][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        for given in ([tracks, clusters], (tracks, clusters), {"clusters": clusters, "tracks": tracks}):
            assert np.array_equal(hls_model.predict(given), expected)
            assert np.array_equal(hls_model.trace(given)["output"], expected)


def test_one_input_may_come_in_a_list_or_dict(small: tuple[Any, HLSModel]) -> None:
    x = np.random.default_rng(0).normal(size=(3, 16))
    expected = small[1].predict(x)
    for given in ([x], (x,), {"jet_features": x}, x.tolist()):
        assert np.array_equal(small[1].predict(given), expected)


def test_several_outputs_are_a_list_in_the_models_order() -> None:
    model = MODELS["multi_output"]()
    hls_model = compiled(model)
    answers = hls_model.predict(np.zeros((2, 7)))
    assert isinstance(answers, list)
    assert [a.shape for a in answers] == [(2, 4), (2, 1)]
    trace = hls_model.trace(np.zeros((2, 7)))
    assert np.array_equal(trace["energy"], answers[1])
    assert list(trace) == ["trunk", "trunk_relu", "energy", "with_energy", "label", "label_softmax"]


def test_a_layer_called_twice_and_a_tensor_with_three_readers() -> None:
    import keras

    layers = keras.layers
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    embed = layers.Dense(5, activation="relu", name="embed")
    a, b = embed(left), embed(right)
    merged = layers.Concatenate(name="merge")([layers.Add(name="total")([a, b]), a, left])
    model = randomise(keras.Model([left, right], [layers.Dense(2, name="output")(merged), b]))
    hls_model = compiled(model)
    x = inputs_of(hls_model)
    answers = assert_exact(hls_model, x)
    assert [a.shape for a in answers] == [(21, 2), (21, 5)]
    assert {"embed", "embed:1", "embed_relu", "embed_relu:1"} <= set(hls_model.trace(x))


def test_one_tensor_as_two_outputs_and_an_input_as_an_output() -> None:
    import keras

    x = keras.Input((3,), name="x")
    y = keras.layers.Dense(2, name="fc")(x)
    hls_model = compiled(randomise(keras.Model(x, [y, y, keras.layers.Dropout(0.1, name="dropout")(x)])))
    answers = assert_exact(hls_model, [np.random.default_rng(0).normal(size=(5, 3))])
    assert np.array_equal(answers[0], answers[1])


def test_inputs_in_another_order_than_they_are_read() -> None:
    import keras

    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    joined = keras.layers.Concatenate(name="joined")([b, a])
    hls_model = compiled(keras.Model([b, a], joined))
    assert np.array_equal(hls_model.predict([np.ones((1, 3)), np.zeros((1, 2))]), [[1, 1, 1, 0, 0]])


# ---- batches and arrays ----


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
def test_batches_of_any_size(small: tuple[Any, HLSModel], count: int) -> None:
    x = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    everything = small[1].predict(x)
    answers, trace = small[1].predict(x[:count]), small[1].trace(x[:count])
    assert answers.shape == (count, 5)
    assert np.array_equal(answers, everything[:count])
    assert trace["fc1"].shape == (count, 32)
    assert np.array_equal(trace["softmax"], everything[:count])


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_threads_change_nothing(small: tuple[Any, HLSModel], threads: int) -> None:
    x = np.random.default_rng(0).normal(size=(1111, 16))
    assert np.array_equal(small[1].predict(x, threads=threads), small[1].predict(x))
    assert np.array_equal(small[1].trace(x, threads=threads)["fc2"], small[1].trace(x)["fc2"])


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float32, np.float64, np.longdouble, np.uint8, np.int8, np.int16, np.int32, np.int64, np.bool_],
)
def test_every_real_dtype(small: tuple[Any, HLSModel], dtype: Any) -> None:
    x = np.random.default_rng(0).uniform(0, 8, size=(20, 16)).astype(dtype)
    expected = reference.run(small[1], x.astype(np.float64))[0][0]
    assert np.array_equal(small[1].predict(x), expected)


def test_float64_keeps_bits_that_float32_has_not() -> None:
    import keras

    x = keras.Input((1,), name="x")
    model = keras.Model(x, keras.layers.Flatten(name="flat")(x))
    hls_model = compiled(model, {"LayerName": {"x": {"Precision": {"result": "ap_fixed<50,10>"}}}})
    value = np.array([[1 + 2.0**-39]])
    assert hls_model.predict(value) == value
    assert hls_model.predict(value.astype(np.float32)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_every_layout_in_memory(dtype: Any) -> None:
    model = MODELS["conv1d_net"]()
    hls_model = compiled(model)
    x = (np.random.default_rng(0).random((24, 20, 3)) * 4).astype(dtype)
    expected = hls_model.predict(x)
    strided = np.zeros((48, 40, 6), dtype)[::2, ::2, ::2]
    strided[:] = x
    swapped = x.astype(np.dtype(dtype).newbyteorder())
    read_only = x.copy()
    read_only.flags.writeable = False
    for given in (np.asfortranarray(x), strided, x[::-1][::-1], swapped, read_only):
        assert np.array_equal(hls_model.predict(given), expected)
        assert np.array_equal(hls_model.trace(given)["output"], expected)
    assert np.array_equal(hls_model.predict(x[::-1]), expected[::-1])


def test_answers_belong_to_the_caller(small: tuple[Any, HLSModel]) -> None:
    x = np.ones((3, 16))
    given, first = x.copy(), small[1].predict(x)
    kept = first.copy()
    small[1].predict(-x)
    assert np.array_equal(first, kept)
    assert np.array_equal(x, given)
    first[:] = 0
    assert np.array_equal(small[1].predict(x), kept)


# ---- values outside the range ----


def test_values_outside_the_range_warn_and_name_the_input(small: tuple[Any, HLSModel]) -> None:
    x = np.zeros((20, 16))
    x[3, 2], x[17, 5] = 50.0, -33.0
    with pytest.warns(PrecisionWarning, match=r"input 'jet_features': 2 of 320 values are outside.*\[-32, 31.99"):
        small[1].predict(x)


def test_values_that_fit_do_not_warn(small: tuple[Any, HLSModel]) -> None:
    kind = small[1].inputs[0].known_type()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small[1].predict(np.resize([kind.min, kind.max, 0.0], (17, 16)))
        small[1].trace(np.resize([kind.min, kind.max, 0.0], (17, 16)).astype(np.float32))


def test_weights_that_do_not_fit_warn_at_conversion() -> None:
    import keras

    x = keras.Input((2,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, name="fc")(x))
    model.set_weights([np.array([[1.0, 40.0], [2.0, -50.0]]), np.zeros(2)])
    with pytest.warns(PrecisionWarning, match=r"layer 'fc': 2 of 4 values of weight \(up to 50\) do not fit"):
        kconvert.convert_from_keras_model(model)


# ---- compiling ----


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Return the list of compiler runs from here on, with an empty cache."""
    runs: list[list[str]] = []
    run = compiler._run

    def counted(command: list[str]) -> None:
        runs.append(command)
        run(command)

    monkeypatch.setenv("KCONVERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "_run", counted)
    return runs


def test_predict_before_compile_says_so() -> None:
    hls_model = kconvert.convert_from_keras_model(mlp())
    for verb in (hls_model.predict, hls_model.trace):
        with pytest.raises(CompileError, match=r"call compile\(\) first"):
            verb(np.zeros((1, 16)))


def test_retraining_compiles_nothing_and_both_models_live(compilations: list[list[str]]) -> None:
    model = mlp()
    old = compiled(model)
    x = np.random.default_rng(0).normal(size=(20, 16))
    before = old.predict(x)
    new = compiled(randomise(model, seed=2))
    after = new.predict(x)
    assert len(compilations) == 1
    assert not np.array_equal(before, after)
    assert np.array_equal(after, reference.run(new, x)[0][0])
    assert np.array_equal(old.predict(x), before), "the older model still has its own weights"
    old.compile()
    assert len(compilations) == 1
    assert np.array_equal(old.predict(x), before)


def test_other_types_compile_anew(compilations: list[list[str]]) -> None:
    import keras

    x = keras.Input((2,), name="x")
    model = randomise(keras.Model(x, keras.layers.Dense(2, name="fc")(x)))
    compiled(model)
    compiled(model, {"Model": {"Precision": "ap_fixed<12,4>"}})
    compiled(model)
    assert len(compilations) == 2


@pytest.mark.parametrize("damage", [b"", b"\0" * 5000, b"\x7fELF"], ids=["empty", "zeros", "head only"])
def test_a_damaged_object_in_the_cache_is_compiled_again(
    damage: bytes, compilations: list[list[str]], tmp_path: Path
) -> None:
    import keras

    x = keras.Input((2,), name="x")
    model = randomise(keras.Model(x, keras.layers.Dense(3, name="fc")(x)))
    before = compiled(model).predict(np.ones((1, 2)))
    (cached,) = (tmp_path / "cache").glob("*.so")
    cached.write_bytes(damage)
    assert np.array_equal(compiled(model).predict(np.ones((1, 2))), before)
    assert len(compilations) == 2
    assert not list((tmp_path / "cache").glob("build-*")), "nothing is left behind"


def test_a_compiler_that_fails_shows_its_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "g++-broken"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "error: out of registers" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    monkeypatch.setenv("KCONVERT_CACHE", str(tmp_path / "cache"))
    hls_model = kconvert.convert_from_keras_model(mlp(), output_dir=tmp_path / "project")
    hls_model.write()
    before = sorted((tmp_path / "project").rglob("*"))
    with pytest.raises(CompileError, match="error: out of registers"):
        hls_model.compile()
    assert sorted((tmp_path / "project").rglob("*")) == before
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("error", "shown"),
    [(OSError(errno.ENOSPC, "No space left on device"), CompileError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["disk full", "Ctrl-C"],
)
def test_a_compilation_that_breaks_off_leaves_nothing_behind(
    error: BaseException, shown: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(command: list[str]) -> None:
        raise error

    hls_model = kconvert.convert_from_keras_model(mlp())
    monkeypatch.setenv("KCONVERT_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_run", broken)
        with pytest.raises(shown) as caught:
            hls_model.compile()
    assert str(error.args[-1] if error.args else "") in str(caught.value)
    assert not list(tmp_path.iterdir())
    hls_model.compile()
    assert hls_model.predict(np.zeros((1, 16))).shape == (1, 5)


def test_no_compiler_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hls_model = kconvert.convert_from_keras_model(mlp())
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match=r"apt-get install g\+\+"):
        hls_model.compile()
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(CompileError, match="CXX='no-such-compiler -O1' is not on PATH"):
        hls_model.compile()


@pytest.mark.parametrize("name", ["mlp", "conv2d_net"])
def test_clang_gives_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("clang++") is None or shutil.which("g++") is None:
        pytest.skip("needs both g++ and clang++")
    model = MODELS[name]()
    monkeypatch.setenv("CXX", "g++")
    gcc = compiled(model)
    monkeypatch.setenv("CXX", "clang++")
    clang = compiled(model)
    x = [np.random.default_rng(0).normal(size=(50, *v.shape)) * 4 for v in gcc.inputs]
    for one, other in zip(as_list(gcc.predict(x)), as_list(clang.predict(x)), strict=True):
        assert np.array_equal(one, other)
    assert_exact(clang, x)


def test_a_cache_that_cannot_be_written_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("KCONVERT_CACHE", str(blocker / "cache"))
    import keras

    x = keras.Input((2,), name="x")
    assert compiled(keras.Model(x, keras.layers.ReLU(name="relu")(x))).predict(np.ones((1, 2))).tolist() == [[1, 1]]


def test_two_processes_may_compile_the_same_at_once(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np, kconvert\n"
        "from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef\n"
        "x = LayerSpec('InputLayer', 'x', {'batch_shape': (None, 3)}, ((),))\n"
        "fc = LayerSpec('Dense', 'fc', {'units': 2}, ((TensorRef('x'),),), (np.ones((3, 2)), np.ones(2)), ('', ''))\n"
        "spec = ModelSpec('m', (x, fc), (TensorRef('x'),), (TensorRef('fc'),))\n"
        "h = kconvert.convert_from_keras_model(spec); h.compile(); print(h.predict(np.ones((1, 3))).tolist())\n"
    )
    environment = {**os.environ, "KCONVERT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [p.communicate()[0].strip() for p in processes] == ["[[4.0, 4.0]]"] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 1


# ---- where a model comes from ----


def test_a_file_converts_to_the_same_as_the_live_model(small: tuple[Any, HLSModel], tmp_path: Path) -> None:
    model, live = small
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "model.weights.h5")
    x = np.random.default_rng(0).normal(size=(20, 16))
    for source in (
        tmp_path / "model.keras",
        str(tmp_path / "model.h5"),
        kconvert.read_model(tmp_path / "model.json", tmp_path / "model.weights.h5"),
    ):
        hls_model = compiled(source)
        assert str(hls_model) == str(live)
        assert np.array_equal(hls_model.predict(x), live.predict(x))


def test_a_tf_keras_model_converts() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Conv2D(3, 3, activation="relu", input_shape=(6, 6, 1), name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.LeakyReLU(0.25, name="leaky"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(4, activation="softmax", name="output"),
        ]
    )
    randomise_weights = np.random.default_rng(0)
    model.set_weights([np.abs(randomise_weights.normal(size=w.shape)) * 0.5 for w in model.get_weights()])
    hls_model = compiled(model)
    x = np.random.default_rng(1).normal(size=(20, 6, 6, 1))
    (ours,) = assert_exact(hls_model, [x])
    assert np.abs(ours - model.predict(x, verbose=0)).max() < 0.02


def test_a_model_trained_further_is_not_changed_behind_its_back() -> None:
    model = mlp_batchnorm()
    hls_model = compiled(model)
    x = np.random.default_rng(0).normal(size=(5, 8))
    before = hls_model.predict(x)
    randomise(model, seed=3)
    hls_model.compile()
    assert np.array_equal(hls_model.predict(x), before)


def test_summary_and_text(small: tuple[Any, HLSModel]) -> None:
    lines = small[1].summary().splitlines()
    assert lines[0].split() == ["layer", "operation", "shape", "result", "parameters"]
    assert lines[2].split() == ["fc1", "Dense", "32", str(small[1]["fc1"].output.type), "544"]
    assert len(lines) == 1 + len(small[1].nodes)
    assert "fc1 = Dense(jet_features) -> 32" in str(small[1])


def test_a_full_disk_at_load_is_named_and_costs_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    hls_model = kconvert.convert_from_keras_model(MODELS["mlp"]())
    hls_model.compile()
    objects = set(cache_folder().glob("*-*.so"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kconvert.csim.library.shutil.copyfile", full)
    with pytest.raises(CompileError, match="No space left on device"):
        hls_model.compile()
    assert objects <= set(cache_folder().glob("*-*.so"))
