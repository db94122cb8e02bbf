"""States of recurrent layers, Bidirectional and TimeDistributed: every output, merge mode and kind of layer inside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.profiling import get_ymodel_keras
from tests.layers.common import as_list, assert_exact, check_layers, check_with_32_bits, convert, inputs_of
from tests.models import randomise


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    layers = keras.layers
    x, image, state = keras.Input((4, 6), name="x"), keras.Input((2, 3, 2), name="image"), keras.Input((3,), name="h")
    around, each = layers.Bidirectional, layers.TimeDistributed
    outputs = [
        layers.LSTM(3, return_state=True, name="lstm")(x),
        layers.LSTM(3, return_state=True, return_sequences=True, go_backwards=True, name="lstm_sequence")(x),
        layers.GRU(3, return_state=True, return_sequences=True, name="gru")(x),
        layers.SimpleRNN(2, return_state=True, name="rnn")(x),
        [layers.GRU(3, name="gru_from")(x, initial_state=state)],
        layers.LSTM(3, return_state=True, name="lstm_from")(x, initial_state=[state, state]),
        [layers.RNN(layers.LSTMCell(2), name="lstm_cell")(x)],
        [layers.RNN([layers.GRUCell(2)][0], return_sequences=True, name="gru_cell")(x)],
        [around(layers.LSTM(2, return_sequences=True), name="both")(x)],
        [around(layers.GRU(2), merge_mode="sum", name="both_summed")(x)],
        [around(layers.GRU(2, return_sequences=True), merge_mode="mul", name="both_multiplied")(x)],
        around(layers.SimpleRNN(2, return_sequences=True), merge_mode=None, name="both_apart")(x),
        around(layers.LSTM(2, return_state=True), merge_mode="ave", name="both_states")(x),
        [around(layers.GRU(2), backward_layer=layers.GRU(3, go_backwards=True), name="different")(x)],
        [each(layers.Dense(2, activation="relu"), name="each_dense")(x)],
        [each(layers.BatchNormalization(axis=1), name="each_norm")(x)],
        [each(layers.Conv1D(2, 2, activation="relu"), name="each_conv")(image)],
        [each(layers.MaxPooling1D(2), name="each_pool")(image)],
        [each(layers.Flatten(), name="each_flat")(image)],
        [each(layers.SimpleRNN(2), name="each_rnn")(image)],
    ]
    return randomise(keras.Model([x, image, state], [output for group in outputs for output in group]))


def test_every_wrapper_and_output(model: Any) -> None:
    check_layers(model, "default", tolerance=2**-6)


def test_errors_with_32_bits_are_those_of_the_tables(model: Any) -> None:
    check_with_32_bits(model, bound=2**-13)


def test_every_key_of_trace_is_a_keras_tensor(model: Any) -> None:
    hls_model = convert(model)
    x = [np.clip(a, -2, 2) for a in inputs_of(hls_model)]
    ours, theirs = hls_model.trace(x), get_ymodel_keras(model, x)
    assert set(ours) - set(theirs) == {"each_dense"}  # before the activation, which Keras does not give
    assert {"lstm", "lstm[1]", "lstm[2]", "both", "both_apart[1]", "each_dense_relu"} <= set(theirs)
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() < 2**-6, name


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_gives_the_same_answers(model: Any, tmp_path: Path, suffix: str) -> None:
    model.save(tmp_path / f"model{suffix}")
    live, stored = convert(model), convert(tmp_path / f"model{suffix}")
    x = inputs_of(live)
    for one, other in zip(as_list(live.predict(x)), as_list(stored.predict(x)), strict=True):
        assert np.array_equal(one, other)


def test_quantised_layers_go_both_ways() -> None:
    import keras

    qkeras = pytest.importorskip("qkeras")
    bits = {f"{kind}_quantizer": "quantized_bits(6,2,1,alpha=1)" for kind in ("kernel", "recurrent", "bias", "state")}
    inner = qkeras.QLSTM(2, activation="quantized_tanh(6)", recurrent_activation="quantized_sigmoid(6)", **bits)
    x = keras.Input((3, 2), name="x")
    model = randomise(keras.Model(x, keras.layers.Bidirectional(inner, name="both")(x)))
    hls_model = convert(model)
    assert [type(node).__name__ for node in hls_model.nodes][1:3] == ["LSTM", "LSTM"]
    assert_exact(hls_model, inputs_of(hls_model))


# ***** what is refused *****


def wrapped(wrapper: str, inner: Any, shape: tuple[int, ...], **options: Any) -> Any:
    import keras

    x = keras.Input(shape)
    return keras.Model(x, getattr(keras.layers, wrapper)(inner, name="layer", **options)(x))


def test_a_model_inside_a_wrapper_is_refused() -> None:
    import keras

    inner = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(UnsupportedLayerError, match=r"'layer' \(TimeDistributed\): a model inside is not supported"):
        kconvert.convert_from_keras_model(wrapped("TimeDistributed", inner, (2, 3)))


def test_a_state_that_outlives_a_call_is_refused() -> None:
    import keras

    x = keras.Input((4, 3), batch_size=1)
    layer = keras.layers.Bidirectional(keras.layers.GRU(2, stateful=True), name="layer")
    with pytest.raises(UnsupportedLayerError, match=r"'layer_forward' \(GRU\): stateful=True is not supported"):
        kconvert.convert_from_keras_model(keras.Model(x, layer(x)))


@pytest.mark.parametrize("name", ["Masking", "ConvLSTM1D"])
def test_layers_that_need_more_than_tensors_are_refused(name: str) -> None:
    import keras

    x = keras.Input((3, 4, 2) if name == "ConvLSTM1D" else (3, 2))
    layer = keras.layers.ConvLSTM1D(2, 2, name="layer") if name == "ConvLSTM1D" else keras.layers.Masking(name="layer")
    with pytest.raises(UnsupportedLayerError, match=f"'layer': class '{name}' is not supported"):
        kconvert.convert_from_keras_model(keras.Model(x, layer(x)))


def test_a_cell_of_the_users_own_and_stacked_cells_are_refused() -> None:
    import keras

    x = keras.Input((4, 3))
    stack = keras.layers.RNN([keras.layers.GRUCell(2), keras.layers.GRUCell(2)], name="layer")
    with pytest.raises(UnsupportedLayerError, match=r"'layer' \(RNN\): cell 'StackedRNNCells' is not supported"):
        kconvert.convert_from_keras_model(keras.Model(x, stack(x)))


def test_states_and_weights_that_do_not_fit_are_named() -> None:
    import keras

    x, state = keras.Input((4, 3), name="x"), keras.Input((2,), name="h")
    spec = kconvert.read_model(keras.Model([x, state], keras.layers.GRU(2, name="layer")(x, initial_state=state)))
    layers = {layer.name: layer for layer in spec.layers}
    wide = replace(layers["h"], config={**layers["h"].config, "batch_shape": [None, 5]})
    with pytest.raises(ModelError, match=r"'layer'.*initial state has shape \(5,\), expected \(2,\)"):
        kconvert.convert_from_keras_model(replace(spec, layers=(layers["x"], wide, layers["layer"])))
    spec = kconvert.read_model(wrapped("Bidirectional", keras.layers.GRU(2), (4, 3)))
    short = replace(spec.layers[1], weights=spec.layers[1].weights[:5], weight_names=spec.layers[1].weight_names[:5])
    with pytest.raises(ModelError, match=r"'layer' \(Bidirectional\): its 5 weights are not those of two layers"):
        kconvert.convert_from_keras_model(replace(spec, layers=(spec.layers[0], short)))
