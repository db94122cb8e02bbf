"""SimpleRNN, LSTM and GRU: every gate, direction and output, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType
from kconvert.errors import ConfigError, UnsupportedLayerError
from kconvert.layers import GRU, Quantize, SimpleRNN, TableActivation, Thresholds
from tests import reference
from tests.layers.common import (
    as_list,
    assert_exact,
    check_layers,
    convert,
    every_setting,
    inputs_of,
    keras_answers,
    typed_config,
)
from tests.layers.handmade import compiled
from tests.models import randomise

FINE_TABLES = {"table_size": 1 << 16, "table_t": "ap_fixed<32,8,AP_RND,AP_SAT>"}
FINE = 2**-11
"""The bound with these: tanh over [-16, 16) is up to 2**-12 off, and a step hands on part of the error before it."""


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    rnn, lstm, gru = keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU
    x, short, thin = keras.Input((6, 3), name="x"), keras.Input((1, 2), name="short"), keras.Input((4, 1), name="thin")
    outputs = [
        rnn(4, name="rnn")(x),
        rnn(3, return_sequences=True, go_backwards=True, name="rnn_backwards")(x),
        rnn(2, activation="relu", use_bias=False, name="rnn_relu")(x),
        rnn(2, activation="linear", name="rnn_linear")(short),
        lstm(4, name="lstm")(x),
        lstm(3, return_sequences=True, unit_forget_bias=False, name="lstm_sequences")(x),
        lstm(2, activation="relu", use_bias=False, return_sequences=True, go_backwards=True, name="lstm_relu")(x),
        lstm(1, recurrent_activation="relu", activation="linear", name="lstm_without_tables")(thin),
        gru(4, name="gru")(x),
        gru(3, return_sequences=True, name="gru_sequences")(x),
        gru(3, reset_after=False, name="gru_before")(x),
        gru(2, reset_after=False, return_sequences=True, go_backwards=True, name="gru_before_backwards")(thin),
        gru(2, use_bias=False, activation="relu", name="gru_relu")(short),
        gru(2, use_bias=False, reset_after=False, recurrent_activation="tanh", name="gru_without_bias")(x),
    ]
    return randomise(keras.Model([x, short, thin], outputs))


@pytest.fixture(scope="module")
def small() -> Any:
    import keras

    x = keras.Input((4, 2), name="x")
    layers = [keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU]
    outputs = [layer(4, name=layer.__name__.lower())(x) for layer in layers]
    return randomise(keras.Model(x, [*outputs, keras.layers.GRU(2, reset_after=False, name="gru_before")(x)]))


# A table of 1024 entries is up to 2**-8 off (see test_table_activation); a step hands on part of the error before it.
@every_setting
def test_every_layer_and_option(model: Any, setting: str) -> None:
    options = FINE_TABLES if setting == "32-bit" else {}
    check_layers(model, setting, tolerance=2**-6, **options)


def test_fine_types_and_tables_are_near_to_keras(model: Any) -> None:
    hls_model = convert(model, typed_config(model, "32-bit", **FINE_TABLES))
    x = [
        v.known_type().quantize(np.clip(a, -2, 2)) for v, a in zip(hls_model.inputs, inputs_of(hls_model), strict=True)
    ]
    answers = as_list(hls_model.predict(x))
    for name, ours, theirs in zip(model.output_names, answers, keras_answers(model, x), strict=True):
        assert np.abs(ours - theirs).max() <= FINE, name


def test_the_nodes_mean_what_keras_computes(model: Any) -> None:
    hls_model = kconvert.convert_from_keras_model(model)
    x = inputs_of(hls_model)
    for ours, theirs in zip(reference.run_float(hls_model, x), keras_answers(model, x), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5


def test_what_is_left_open_is_lossless_and_fine(model: Any) -> None:
    hls_model = kconvert.convert_from_keras_model(model)
    node = hls_model["lstm"]
    default = "ap_fixed<16,6,AP_RND,AP_SAT>"
    types = {role: str(node.typed(role)) for role in node.roles}
    # 4 products of 16 x 16 bits take 2 bits more than one, and the bias another
    assert types.pop("accum") == "ap_fixed<35,15>"
    assert types.pop("table") == "ap_fixed<18,8,AP_RND,AP_SAT>"
    assert types == dict.fromkeys(["weight", "recurrent_weight", "bias", "state", "cell", "result"], default)
    assert "cell" not in hls_model["gru"].roles
    assert "table" not in hls_model["rnn_relu"].roles


@pytest.mark.parametrize("reuse_factor", [2, 4])
def test_resource_strategy_sums_to_the_same_bits(small: Any, reuse_factor: int) -> None:
    shared = convert(small, typed_config(small, "accum-saturates", Strategy="Resource", ReuseFactor=reuse_factor))
    parallel = convert(small, typed_config(small, "accum-saturates"))
    x = inputs_of(shared)
    for one, other in zip(assert_exact(shared, x), assert_exact(parallel, x), strict=True):
        assert np.array_equal(one, other)


def test_a_reuse_factor_has_to_divide_every_matrix(small: Any) -> None:
    config = typed_config(small, "default", Strategy="Resource", ReuseFactor=16)
    with pytest.raises(ConfigError, match=r"'simplernn'.*16 does not divide.*2 x 4, 4 x 4.*\[1, 2, 4, 8\]"):
        kconvert.convert_from_keras_model(small, config)


def test_a_layer_without_a_table_has_no_table_to_set(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"rnn_relu → Precision → table.*unknown key"):
        kconvert.convert_from_keras_model(model, {"LayerName": {"rnn_relu": {"table_t": "ap_fixed<18,8>"}}})
    with pytest.raises(ConfigError, match=r"rnn_relu → table_size.*no such setting"):
        kconvert.convert_from_keras_model(model, {"LayerName": {"rnn_relu": {"table_size": 512}}})
    with pytest.raises(ConfigError, match=r"'lstm'.*table of 1000 entries cannot be addressed"):
        kconvert.convert_from_keras_model(model, {"LayerName": {"lstm": {"table_size": 1000}}})


def test_intermediate_values_too_wide_to_be_exact_are_refused(small: Any) -> None:
    wide = {"Precision": {"accum": "ap_fixed<64,20>"}, "table_t": "ap_fixed<64,8>"}
    with pytest.raises(ConfigError, match=r"'gru'.*too wide.*set Precision → accum, state, table"):
        kconvert.convert_from_keras_model(small, {"LayerName": {"gru": wide}})


# ***** presets and other activations *****


def quantised(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, shape) / 2


def test_types_that_the_model_demands_are_those_of_the_weights() -> None:
    """Layers as a quantised one is read: types for its weights, and quantizers as activations."""
    code = FixedType(3, 2)
    steps = Thresholds(
        name="steps",
        thresholds=np.array([[-1.0], [0.5]]),
        levels=np.array([-0.5, 0.0, 0.75]),
        preset={"result": FixedType(3, 1)},
    )
    gate = TableActivation(
        name="gate", function="sigmoid", preset={"table": FixedType(5, 1), "result": FixedType(4, 1)}
    )
    presets = {"weight": code, "recurrent_weight": code, "bias": code}
    rnn = SimpleRNN(
        name="rnn",
        weight=quantised(1, 3, 5),
        recurrent_weight=quantised(2, 5, 5),
        bias=quantised(3, 5),
        recurrent_bias=np.zeros(5),
        activation=steps,
        return_sequences=True,
        preset=presets,
    )
    gru = GRU(
        name="gru",
        weight=quantised(4, 3, 6),
        recurrent_weight=quantised(5, 2, 6),
        bias=quantised(6, 6),
        recurrent_bias=quantised(7, 6),
        activation=Quantize(name="quantize", preset={"result": FixedType(6, 2)}),
        recurrent_activation=gate,
        preset=presets,
    )
    hls_model = compiled([("wave", rnn), ("wave", gru)])
    assert {str(c.type) for r, c in rnn.constants().items() if r.endswith(("weight", "bias"))} == {"ap_fixed<3,2>"}
    assert str(gru.value_type("recurrent_activation")) == "ap_fixed<4,1>"
    values, _ = assert_exact(hls_model, inputs_of(hls_model))
    assert set(np.unique(values)) == {-0.5, 0.0, 0.75}


def test_a_layer_called_twice_has_a_state_for_each_call() -> None:
    import keras

    one, other = keras.Input((4, 2), name="one"), keras.Input((4, 2), name="other")
    shared = keras.layers.LSTM(3, name="shared")
    model = randomise(keras.Model([one, other], [shared(one), shared(other)]))
    hls_model = convert(model)
    x = inputs_of(hls_model)
    first, second = assert_exact(hls_model, x)
    swapped = as_list(hls_model.predict(x[::-1]))
    assert np.array_equal(first, swapped[1])
    assert np.array_equal(second, swapped[0])


def test_a_stack_of_layers_on_many_threads() -> None:
    """Large enough for a thread's stack to matter."""
    import keras

    layers = keras.layers
    stack = [layers.Input((12, 8)), layers.LSTM(96, return_sequences=True, name="first"), layers.GRU(64, name="last")]
    model = randomise(keras.Sequential([*stack, layers.Dense(3, name="out")]))
    hls_model = convert(model)
    x = np.random.default_rng(3).uniform(-1, 1, (512, 12, 8))
    assert np.array_equal(hls_model.predict(x, threads=4), hls_model.predict(x, threads=1))
    assert np.array_equal(as_list(hls_model.predict(x[:2]))[0], reference.run(hls_model, x[:2])[0][0])


# ***** files, Keras 2, and what is refused *****


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_gives_the_same_answers(small: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    small.save(path)
    live, stored = convert(small), convert(path)
    x = inputs_of(live)
    for one, other in zip(as_list(live.predict(x[0])), as_list(stored.predict(x[0])), strict=True):
        assert np.array_equal(one, other)


def test_keras_2_layers_convert() -> None:
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    x = layers.Input((5, 3), name="x")
    outputs = [
        layers.SimpleRNN(3, name="rnn")(x),
        layers.LSTM(3, return_sequences=True, name="lstm")(x),
        layers.GRU(3, name="gru")(x),
        layers.GRU(3, reset_after=False, go_backwards=True, name="gru_before")(x),
    ]
    model = randomise(tf_keras.Model(x, outputs))
    hls_model = convert(model, typed_config(model, "32-bit", **FINE_TABLES))
    given = [hls_model.inputs[0].known_type().quantize(np.clip(inputs_of(hls_model)[0], -2, 2))]
    for ours, theirs in zip(assert_exact(hls_model, given), keras_answers(model, given), strict=True):
        assert np.abs(ours - theirs).max() <= FINE
    timed = tf_keras.Model(x, layers.LSTM(2, time_major=True, name="timed")(x))
    with pytest.raises(UnsupportedLayerError, match=r"'timed'.*time_major=True"):
        kconvert.convert_from_keras_model(timed)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("GRU", {"stateful": True}, "stateful=True"),
        ("SimpleRNN", {"activation": "softmax"}, "activation='softmax'"),
    ],
)
def test_options_that_do_not_convert_are_named(kind: str, options: dict[str, Any], message: str) -> None:
    import keras

    x = keras.Input((4, 3), batch_size=1)
    model = keras.Model(x, getattr(keras.layers, kind)(2, name="layer", **options)(x))
    with pytest.raises(UnsupportedLayerError, match=f"'layer'.*{message}"):
        kconvert.convert_from_keras_model(model)
