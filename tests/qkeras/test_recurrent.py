"""QSimpleRNN, QLSTM and QGRU on numbers that float32 computes exactly: the hardware has to answer as Keras does."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import HLSModel
from kconvert.errors import ConfigError, PrecisionWarning, UnsupportedLayerError
from kconvert.layers import Recurrent
from tests import reference
from tests.layers.common import as_list

qkeras: Any = pytest.importorskip("qkeras")

STEPS, FEATURES, UNITS = 4, 3, 3
BITS = "quantized_bits(4,0,alpha=1)"
QUANTIZED = {
    "kernel_quantizer": BITS,
    "recurrent_quantizer": BITS,
    "bias_quantizer": BITS,
    "state_quantizer": "quantized_bits(5,0,alpha=1)",
    "activation": "quantized_tanh(4)",
    "recurrent_activation": "quantized_sigmoid(4)",
}
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("QSimpleRNN", {}),
    "lstm": ("QLSTM", {}),
    "gru": ("QGRU", {"reset_after": True}),
    "gru before": ("QGRU", {"reset_after": False}),
}
GATED = ("lstm", "gru", "gru before")


def make(*names: str, seed: int = 0, steps: int = STEPS, batch_size: int | None = None, **options: Any) -> Any:
    """Return a model of these layers (all of them by default) side by side, with weights on a grid.

    `options` are those of the layers, beside QUANTIZED; None takes a quantizer away.
    """
    import keras

    x = keras.Input((steps, FEATURES), batch_size=batch_size, name="x")
    outputs = []
    for name in names or LAYERS:
        kind, own = LAYERS[name]
        given = {**QUANTIZED, **own, **options}
        if kind == "QSimpleRNN":
            del given["recurrent_activation"]
        outputs.append(getattr(qkeras, kind)(UNITS, **given)(x))
    return randomise(keras.Model(x, outputs), seed)


def randomise(model: Any, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    model.set_weights([np.round(random.normal(size=w.shape) * 40) / 64 for w in model.weights])
    return model


def convert(model: Any, config: dict[str, Any] | None = None) -> HLSModel:
    hls_model = kconvert.convert_from_keras_model(model, config)
    hls_model.compile()
    return hls_model


def samples(seed: int = 1, steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(seed).integers(-16, 17, (50, steps, FEATURES)) / 8


def check(model: Any, *, tolerance: float = 0.0, seed: int = 1) -> HLSModel:
    """Demand the answers of the integers, and those of Keras to the last bit or within a tolerance."""
    hls_model = convert(model)
    x = samples(seed, model.input_shape[1])
    keras = as_list(model.predict(x.astype(np.float32), verbose=0))
    wanted, _ = reference.run(hls_model, x)
    for ours, integers, theirs, layer in zip(
        as_list(hls_model.predict(x)), wanted, keras, hls_model.outputs, strict=True
    ):
        name = type(layer.producer).__name__
        assert np.array_equal(ours, integers), f"{name} differs from the integers"
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance, f"{name} differs from Keras"
        assert len(np.unique(ours)) > 1, "a layer that always answers the same shows nothing"
    return hls_model


def nodes_of(hls_model: HLSModel) -> list[Recurrent]:
    return [node for node in hls_model if isinstance(node, Recurrent)]


def layer_of(hls_model: HLSModel) -> Recurrent:
    (node,) = nodes_of(hls_model)
    return node


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("state", ["quantized_bits(5,0,alpha=1)", None])
def test_a_layer_answers_as_keras_does(seed: int, state: str | None) -> None:
    check(make(seed=seed, steps=STEPS - (state is None), state_quantizer=state), seed=seed)


OPTIONS: dict[str, dict[str, Any]] = {
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "without bias": {"use_bias": False},
    "dropout": {"dropout": 0.5, "recurrent_dropout": 0.25},
    "quantisers with other types": {
        "kernel_quantizer": "quantized_bits(3,1,alpha=1)",
        "recurrent_quantizer": "quantized_bits(5,0,1,alpha=1)",
        "bias_quantizer": "quantized_bits(6,2,alpha=1)",
    },
    "signs": {"kernel_quantizer": "ternary(alpha=1)", "recurrent_quantizer": "binary(alpha=1)"},
    "powers of two": {"kernel_quantizer": "quantized_po2(3)", "recurrent_quantizer": "quantized_po2(3,1)"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(options: dict[str, Any]) -> None:
    check(make(**options))


def test_the_other_implementation_is_the_same_arithmetic() -> None:
    check(make("lstm", "gru", implementation=2))


def test_the_bias_of_the_forget_gate_is_only_where_training_starts() -> None:
    check(make("lstm", unit_forget_bias=False))


# ***** states and activations *****


@pytest.mark.parametrize(
    "state",
    [
        "quantized_bits(3,0,1,alpha=1)",
        "quantized_bits(6,2)",
        "quantized_relu(4,0)",
        "quantized_relu(4,1,negative_slope=0.25)",
        "quantized_tanh(4)",
        "quantized_sigmoid(3)",
        "ternary(alpha=1)",
        "quantized_po2(3,1)",
    ],
)
def test_any_quantizer_makes_the_state(state: str) -> None:
    check(make(state_quantizer=state, return_sequences=True))


@pytest.mark.parametrize(
    "activation",
    [
        "quantized_bits(4,1,alpha=1)",
        "quantized_relu(4,1)",
        "quantized_tanh(4,use_real_tanh=True)",
        "quantized_tanh(8,use_real_tanh=True)",
        "hard_tanh",
        "binary(alpha=1)",
    ],
)
def test_activations(activation: str) -> None:
    check(make(activation=activation))


@pytest.mark.parametrize(
    "gate",
    ["hard_sigmoid", "smooth_sigmoid", "quantized_relu(3,1)", "quantized_bits(4,1,alpha=1)", "binary(1,1)"],
)
def test_gates(gate: str) -> None:
    # 0.1875 x is four bits more than x, which float32 has no room for over many steps
    check(make(*GATED, steps=2, recurrent_activation=gate, state_quantizer="quantized_bits(4,0,alpha=1)"))


def test_unquantised_functions_are_read_from_tables() -> None:
    check(make(*GATED, activation="tanh", recurrent_activation="sigmoid"), tolerance=2**-4)


def test_what_the_next_step_reads_is_quantised_and_the_output_is_not() -> None:
    node = layer_of(convert(make("lstm", return_sequences=True)))
    types = {role: str(node.typed(role)) for role in ("state", "cell", "result")}
    assert types["state"] == types["cell"] == "ap_fixed<5,1,AP_RND_CONV,AP_SAT>"
    assert types["result"] == "ap_fixed<8,1>"  # a gate of ap_ufixed<4,0> times an ap_fixed<4,1>


# ***** states that nothing quantises *****


def test_a_state_that_nothing_quantises_is_exact_where_it_can_be() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        rnn = layer_of(convert(make("rnn", state_quantizer=None, steps=20)))
        lstm = layer_of(convert(make("lstm", state_quantizer=None, steps=3)))
    assert str(rnn.typed("state")) == "ap_fixed<4,1>"
    assert str(lstm.typed("state")) == "ap_fixed<8,1>"
    assert lstm.typed("cell").fraction == 4 + 3 + 4  # a product, and the second step's forget gate
    assert lstm.typed("cell").max >= 2


@pytest.mark.parametrize(("name", "role"), [("lstm", "cell"), ("gru", "state"), ("gru before", "state")])
def test_a_state_that_grows_with_every_step_is_rounded_with_a_warning(name: str, role: str) -> None:
    model = make(name, state_quantizer=None, steps=20)
    with pytest.warns(PrecisionWarning, match=f"nothing quantises its {role}.*ap_fixed<32,.,AP_RND,AP_SAT>"):
        hls_model = check(model, tolerance=1e-5)
    assert layer_of(hls_model).typed(role).width == 32
    layer = model.layers[1].name
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        chosen = convert(model, {"LayerName": {layer: {"Precision": {role: "ap_fixed<12,4,AP_RND,AP_SAT>"}}}})
    assert str(layer_of(chosen).typed(role)) == "ap_fixed<12,4,AP_RND,AP_SAT>"
    x = samples(steps=20)
    assert np.array_equal(chosen.predict(x), reference.run(chosen, x)[0][0])


def test_the_defaults_of_qkeras() -> None:
    """A hard sigmoid that nothing rounds gives h more bits with every step."""
    open_ = {"state_quantizer": None, "recurrent_activation": "hard_sigmoid", "activation": "quantized_tanh"}
    model = make(*GATED, steps=8, **open_)
    with pytest.warns(PrecisionWarning, match="nothing quantises"):
        check(model, tolerance=1e-5)


def test_a_layer_without_quantizers_has_exact_steps_and_default_weights() -> None:
    free = dict.fromkeys(("kernel_quantizer", "recurrent_quantizer", "bias_quantizer", "state_quantizer"))
    for node in nodes_of(check(make(steps=2, **free))):
        assert str(node.typed("weight")) == "ap_fixed<16,6,AP_RND,AP_SAT>"


# ***** scales *****


@pytest.mark.parametrize("alpha", ["0.5", "4", "'auto_po2'", "None"])
def test_powers_of_two_as_scales(alpha: str) -> None:
    matrix = f"quantized_bits(4,0,alpha={alpha})"
    model = make(kernel_quantizer=matrix, recurrent_quantizer="quantized_bits(3,0,alpha='auto_po2')")
    for node in nodes_of(check(model)):
        if alpha in ("0.5", "4"):
            assert node.typed("weight").width == 4, "one shift for all costs no bit"


@pytest.mark.parametrize("kind", ["quantized_bits(4,0,alpha='auto')", "ternary(alpha='auto')", "binary(alpha=0.75)"])
def test_other_scales_go_into_the_weights(kind: str) -> None:
    model = make(kernel_quantizer=kind, recurrent_quantizer=kind)
    # Keras rounds its sums: a sum next to a step of an activation may fall on its other side
    for node, layer in zip(nodes_of(check(model, tolerance=0.15)), model.layers[1:], strict=True):
        assert node.typed("weight").width <= 32
        seen = np.asarray(layer.cell.kernel_quantizer_internal(layer.cell.kernel), dtype=np.float64)
        np.testing.assert_allclose(node.constants()["weight"].values, seen, rtol=3e-7)


# ***** files, and what is refused *****


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_gives_the_same_answers(suffix: str, tmp_path: Path) -> None:
    model, path = make(), tmp_path / f"model{suffix}"
    model.save(path)
    x = samples()
    for stored, live in zip(convert(path).predict(x), convert(model).predict(x), strict=True):
        assert np.array_equal(stored, live)


def test_layers_in_a_row_keep_what_is_between_them_exact() -> None:
    import keras

    x = keras.Input((STEPS, FEATURES))
    rest = {key: value for key, value in QUANTIZED.items() if key != "recurrent_activation"}
    y = qkeras.QLSTM(3, return_sequences=True, **QUANTIZED)(x)
    y = qkeras.QGRU(2, return_sequences=True, **QUANTIZED)(y)
    y = qkeras.QSimpleRNN(2, **rest)(y)
    model = keras.Model(x, qkeras.QDense(2, kernel_quantizer=BITS, bias_quantizer=BITS)(y))
    check(randomise(model))


def test_resource_strategy_sums_to_the_same_bits() -> None:
    model = make("gru before")
    settings = {"Strategy": "Resource", "ReuseFactor": 3}
    shared = convert(model, {"LayerName": {model.layers[1].name: settings}})
    x = samples()
    assert np.array_equal(shared.predict(x), convert(model).predict(x))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gru", {"stateful": True}, "stateful=True"),
        ("rnn", {"state_quantizer": "quantized_bits(4,0,alpha='auto')"}, "alpha='auto' scales an activation"),
        ("lstm", {"recurrent_activation": "softmax"}, "recurrent_activation='softmax'"),
    ],
)
def test_options_that_do_not_convert_are_named(name: str, options: dict[str, Any], message: str) -> None:
    model = make(name, batch_size=1, **options)
    with pytest.raises(UnsupportedLayerError, match=message):
        kconvert.convert_from_keras_model(model)


def test_a_qgru_of_keras_2_has_to_quantise_its_recurrent_kernel() -> None:
    """That version multiplies the state by the kernel otherwise."""
    spec = kconvert.read_model(make("gru", recurrent_quantizer=None))
    assert kconvert.convert_from_keras_model(spec)
    layers = tuple(dataclasses.replace(layer, registered_name=None) for layer in spec.layers)
    with pytest.raises(UnsupportedLayerError, match=r"QGRU.*give it a recurrent_quantizer"):
        kconvert.convert_from_keras_model(dataclasses.replace(spec, layers=layers))


def test_types_too_wide_to_be_exact_are_refused() -> None:
    model = make("lstm")
    settings = {"Precision": {"cell": "ap_fixed<64,8>"}, "ReuseFactor": 1}
    free = make("lstm", recurrent_activation="sigmoid")
    wide = {**settings, "table_t": "ap_fixed<64,8>"}
    with pytest.raises(ConfigError, match=r"too wide.*set Precision → accum, state, .*cell"):
        kconvert.convert_from_keras_model(free, {"LayerName": {free.layers[1].name: wide}})
    assert convert(model, {"LayerName": {model.layers[1].name: settings}})
