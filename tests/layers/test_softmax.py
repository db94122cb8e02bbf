"""Softmax: bit-exact in all implementations, and right with untouched defaults, whatever the range of its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ConfigError
from tests.layers.common import assert_exact, check_layers, convert, inputs_of, keras_answers, typed_config
from tests.models import randomise

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")  # of one class


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    x, one, two = keras.Input((6,), name="x"), keras.Input((1,), name="one"), keras.Input((2,), name="two")
    matrix, image = keras.Input((3, 4), name="matrix"), keras.Input((2, 2, 3), name="image")
    outputs = [
        layers.Activation("softmax", name="by_name")(x),
        layers.Softmax(name="layer")(two),
        layers.Softmax(axis=-1, name="one_class")(one),
        layers.Softmax(axis=2, name="rows")(matrix),
        layers.Softmax(name="pixels")(image),
        layers.Dense(10, activation="softmax", name="dense")(x),
    ]
    return randomise(keras.Model([x, one, two, matrix, image], outputs))


# exp is looked up at the nearest of 1024 points 2**-6 apart, the reciprocal is 2**-11 off; entries round to 2**-10
@pytest.mark.parametrize("setting", ["default", "narrow-wrap", "accum-saturates", "wide", "no-integer-bits"])
def test_stable(model: Any, setting: str) -> None:
    tables = (
        {} if setting == "default" else dict.fromkeys(("exp_table_t", "inv_table_t"), "ap_fixed<18,8,AP_RND,AP_SAT>")
    )
    check_layers(model, setting, tolerance=0.01, **tables)


@pytest.mark.parametrize("implementation", ["latency", "argmax"])
@pytest.mark.parametrize("setting", ["default", "narrow-wrap"])
def test_the_other_implementations(model: Any, setting: str, implementation: str) -> None:
    hls_model = convert(model, typed_config(model, setting, Implementation=implementation))
    answers = assert_exact(hls_model, inputs_of(hls_model))
    if implementation == "argmax":
        assert all(set(np.unique(a)) <= {0.0, 1.0} for a in answers)
        assert all(np.array_equal(a.sum(axis=-1), np.ones(a.shape[:-1])) for a in answers)


@pytest.mark.parametrize("implementation", ["stable", "latency"])
@pytest.mark.parametrize("size", [8, 4096])
def test_table_sizes(model: Any, size: int, implementation: str) -> None:
    hls_model = convert(model, typed_config(model, "default", table_size=size, Implementation=implementation))
    assert_exact(hls_model, inputs_of(hls_model))


@pytest.mark.parametrize("implementation", ["stable", "latency"])
def test_unsigned_tables(model: Any, implementation: str) -> None:
    config = typed_config(
        model,
        "default",
        Implementation=implementation,
        exp_table_t="ap_ufixed<17,1,AP_RND,AP_SAT>",
        inv_table_t="ap_ufixed<12,1>",
    )
    hls_model = convert(model, config)
    assert_exact(hls_model, inputs_of(hls_model))


def test_argmax_gives_a_tie_to_the_first(model: Any) -> None:
    hls_model = convert(model, typed_config(model, "default", Implementation="argmax"))
    x = [np.zeros((2, *v.shape)) for v in hls_model.inputs]
    x[0][:] = [0, 2, 1, 2, 0, 2]
    assert np.array_equal(hls_model.trace(x)["by_name"], [[0, 1, 0, 0, 0, 0]] * 2)


def test_a_table_that_cannot_hold_one_is_refused(model: Any) -> None:
    config = typed_config(model, "default", exp_table_t="ap_ufixed<16,0>")
    with pytest.raises(ConfigError, match=r"exp_table type ap_ufixed<16,0> cannot hold 1"):
        kconvert.convert_from_keras_model(model, config)


# ---- right with untouched defaults ----


@pytest.fixture(scope="module")
def digits() -> tuple[Any, np.ndarray]:
    """A classifier trained on scikit-learn's digits, and images it has not seen."""
    import keras
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(0)
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((64,), name="pixels"),
            layers.Dense(24, activation="relu", name="fc1"),
            layers.Dense(10, name="fc2"),
            layers.Activation("softmax", name="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=12, batch_size=32, verbose=0)
    return model, x[1200:]


@pytest.mark.parametrize("granularity", ["model", "type", "name"])
def test_untouched_defaults_agree_with_keras(digits: tuple[Any, np.ndarray], granularity: str) -> None:
    model, images = digits
    hls_model = convert(model, kconvert.config_from_keras_model(model, granularity=granularity))
    wide = hls_model["fc2"].output.known_type()
    assert wide.width > 32, "the logits are those of a lossless accumulator, which is the point of this test"
    (theirs,) = keras_answers(model, [images])
    ours = hls_model.predict(images)
    assert np.array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    assert np.abs(ours - theirs).max() < 0.02


def test_1024_entries_of_18_bits(digits: tuple[Any, np.ndarray]) -> None:
    model, images = digits
    config = kconvert.config_from_keras_model(model, granularity="name")
    config["LayerName"]["softmax"].update(
        table_size=1024, exp_table_t="ap_fixed<18,8>", inv_table_t="ap_fixed<18,8>", Implementation="stable"
    )
    hls_model = convert(model, config)
    (theirs,) = keras_answers(model, [images])
    assert np.abs(assert_exact(hls_model, [images[:40]])[0] - theirs[:40]).max() < 0.02
    assert np.abs(hls_model.predict(images) - theirs).max() < 0.02


@pytest.mark.parametrize("kind", ["ap_fixed<16,8>", "ap_fixed<40,20>", "ap_fixed<18,18>"])
def test_logits_of_a_hundred(kind: str) -> None:
    """exp(100) fits no table: what counts is the distance to the largest."""
    import keras

    x = keras.Input((5,), name="logits")
    model = keras.Model(x, keras.layers.Softmax(name="softmax")(x))
    hls_model = convert(model, {"LayerName": {"logits": {"Precision": {"result": kind}}}})
    logits = hls_model["logits"].output.known_type().quantize(np.random.default_rng(0).uniform(-100, 100, (500, 5)))
    (theirs,) = keras_answers(model, [logits])
    (ours,) = assert_exact(hls_model, [logits])
    assert np.array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    assert np.abs(ours - theirs).max() < 0.02


@pytest.mark.parametrize("classes", [3, 100])
def test_any_number_of_classes(classes: int) -> None:
    """Equal logits of any number: the reciprocal of the sum is as precise for 100 classes as for 2."""
    import keras

    x = keras.Input((classes,), name="logits")
    hls_model = convert(keras.Model(x, keras.layers.Softmax(name="softmax")(x)))
    logits = np.concatenate([np.zeros((1, classes)), 4 * np.eye(classes)])
    (ours,) = assert_exact(hls_model, [logits])
    theirs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(ours - theirs).max() < 0.005
