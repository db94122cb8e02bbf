"""Quantised activations from the live QKeras layer to the compiled firmware: at every input there is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert import FixedType
from kconvert.errors import GraphError, PrecisionWarning, UnsupportedLayerError
from kconvert.layers import ScaledQuantize, TableActivation, Thresholds
from tests import reference
from tests.layers.common import convert

qkeras: Any = pytest.importorskip("qkeras")
keras: Any = pytest.importorskip("keras")

KIND = "ap_fixed<13,5>"
ALPHAS = [0.5, 2.0, 0.3, 1.0]
# What it becomes, and whether every one of its values is a float32 that QKeras computes without rounding.
ACTIVATIONS: dict[str, tuple[str, bool]] = {
    "quantized_hswish(4,1)": ("Thresholds", True),
    "quantized_hswish(1,0)": ("Thresholds", True),
    "quantized_hswish(8,2)": ("TableActivation", True),
    "quantized_hswish(6,0,1,alpha=0.5)": ("TableActivation", True),
    "quantized_hswish(8,1,relu_shift=2,relu_upper_bound=5)": ("TableActivation", True),
    "quantized_hswish(6,1,alpha=0.3)": ("TableActivation", False),
    "quantized_tanh(4,use_real_tanh=True)": ("Thresholds", True),
    "quantized_tanh(8,symmetric=True,use_real_tanh=True)": ("TableActivation", True),
    "quantized_sigmoid(5,use_real_sigmoid=True)": ("Thresholds", True),
    "quantized_sigmoid(8,1,1)": ("TableActivation", True),
    "quantized_sigmoid(6,1)": ("HardActivation", True),
    "quantized_bits(6,0)": ("Quantize", True),
    "quantized_bits(6,0,alpha=0.5)": ("ScaledQuantize", True),
    "quantized_bits(6,1,1,alpha=4.0)": ("ScaledQuantize", True),
    "quantized_bits(6,2,1,False,alpha=3.0)": ("ScaledQuantize", True),
    "quantized_bits(6,0,alpha=0.3)": ("ScaledQuantize", False),
    "quantized_bits(1,0,alpha=0.3)": ("Thresholds", False),
    "quantized_linear(6,0,alpha=0.5)": ("Quantize", True),
    "quantized_linear(6,1,0,alpha=2.0)": ("Quantize", True),
    "quantized_linear(5,0,alpha=0.3)": ("Thresholds", False),
    "quantized_relu(6,2,use_sigmoid=1)": ("Thresholds", True),
    "quantized_relu(8,2,1,0.5)": ("TableActivation", True),
    "quantized_relu(3,0,0,0.125)": ("Thresholds", True),
    "stochastic_binary(alpha=1)": ("Thresholds", True),
    "stochastic_ternary(alpha=0.5)": ("Thresholds", True),
    "hard_sigmoid": ("HardActivation", True),
    "smooth_sigmoid": ("HardActivation", True),
    "hard_tanh": ("HardActivation", True),
    "smooth_tanh": ("HardActivation", True),
    "binary_sigmoid": ("Thresholds", True),
    "binary_tanh": ("Thresholds", True),
}


def _layers(activations: list[Any], channels: int = 1) -> Any:
    x = keras.Input((channels,), name="x")
    return keras.Model(x, [qkeras.QActivation(a, name=f"act_{i}")(x) for i, a in enumerate(activations)])


def _every_input(kind: str = KIND, channels: int = 1) -> np.ndarray:
    parsed = FixedType.parse(kind)
    values = parsed.from_raw(np.arange(parsed.raw_min, parsed.raw_max + 1))
    return np.repeat(values[:, None], channels, axis=1)


def _settings(kind: str = KIND) -> dict[str, Any]:
    return {"LayerName": {"x": {"Precision": {"result": kind}}}}


def _answers(model: Any, x: np.ndarray) -> list[np.ndarray]:
    found = model(x.astype(np.float32), training=False)
    return [np.asarray(a) for a in (found if isinstance(found, list) else [found])]


def _check(values: np.ndarray, expected: np.ndarray, x: np.ndarray, exact: bool, what: object) -> None:
    """Demand QKeras' values to the bit, or but for the float32 rounding of them and of ``x + (q - x)``."""
    if exact:
        assert np.array_equal(values, expected), what
    else:
        largest = np.maximum(np.abs(x), np.abs(expected)).astype(np.float32)
        assert np.all(np.abs(values - expected) <= 1.01 * np.spacing(largest)), what


def test_every_activation_at_every_input() -> None:
    model = _layers(list(ACTIVATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        hls_model = kconvert.convert_from_keras_model(model, _settings())
    hls_model.compile()
    x = _every_input()
    found = hls_model.predict(x)
    for (text, (kind, exact)), values, expected, i in zip(
        ACTIVATIONS.items(), found, _answers(model, x), range(99), strict=False
    ):
        assert type(hls_model[f"act_{i}"]).__name__ == kind, text
        _check(values, expected, x, exact, text)
    some = x[:: len(x) // 200]
    for values, expected in zip(hls_model.predict(some), reference.run(hls_model, some)[0], strict=True):
        assert np.array_equal(values, expected)


def test_an_alpha_for_each_channel() -> None:
    quantizers = [
        (qkeras.quantized_bits(5, 1, alpha=ALPHAS), False),
        (qkeras.quantized_linear(7, 1, alpha=np.array([0.5, 2.0, 0.25, 1.0])), True),
        (qkeras.quantized_linear(7, 1, alpha=np.array([0.5, 0.5, 0.5, 0.5])), True),
        (qkeras.binary(alpha=np.array(ALPHAS)), False),
        (qkeras.ternary(alpha=np.array(ALPHAS)), False),
    ]
    x = _every_input(channels=4)
    model = _layers([q for q, _ in quantizers], 4)
    hls_model = convert(model, _settings())
    for (quantizer, exact), values, expected in zip(quantizers, hls_model.predict(x), _answers(model, x), strict=True):
        _check(values, expected, x, exact, type(quantizer).__name__)
    some = x[:: len(x) // 50]
    for values, expected in zip(hls_model.predict(some), reference.run(hls_model, some)[0], strict=True):
        assert np.array_equal(values, expected)
    with pytest.raises(GraphError, match="'act_0': 3 scales"):
        kconvert.convert_from_keras_model(_with_alphas_for(4, [1.0, 2.0, 3.0]))


def _with_alphas_for(channels: int, alphas: list[float]) -> kconvert.converters.spec.ModelSpec:
    """A model that Keras itself would not build."""
    import dataclasses

    spec = kconvert.read_model(_layers(["quantized_bits(5,1)"], channels))
    config = {**spec["act_0"].config, "activation": f"quantized_bits(5,1,alpha={alphas})"}
    layers = tuple(dataclasses.replace(one, config=config) if one.name == "act_0" else one for one in spec.layers)
    return dataclasses.replace(spec, layers=layers)


def test_a_quotient_of_quantized_linear_differs_only_where_float32_makes_a_tie_of_it() -> None:
    model = _layers(["quantized_linear(8,0,alpha=0.3)"])
    with pytest.warns(PrecisionWarning, match="'act_0'.*divides by its alpha"):
        hls_model = kconvert.convert_from_keras_model(model, _settings())
    hls_model.compile()
    assert isinstance(hls_model["act_0"], ScaledQuantize)
    x = _every_input()
    (expected,) = _answers(model, x)
    values = hls_model.predict(x)
    code = x / np.float32(0.3) * 2**7
    tie = np.abs(code - np.floor(code) - 0.5) < 1e-4
    _check(values[~tie], expected[~tie], x[~tie], False, "away from ties")
    assert np.abs(values - expected).max() < 0.3 * 2**-7 * 1.01
    assert tie.sum() < len(x) // 100


# ***** tables *****


def test_a_table_that_cannot_hold_every_input_says_so_and_what_to_do() -> None:
    model = _layers(["quantized_tanh(8,use_real_tanh=True)"])
    wide = "ap_fixed<26,8>"
    with pytest.warns(PrecisionWarning, match=r"'act_0'.*ap_fixed<26,8>.*13 fraction bits.*LayerName → x → ") as found:
        hls_model = kconvert.convert_from_keras_model(model, _settings(wide))
    (warning,) = [w for w in found if issubclass(w.category, PrecisionWarning)]
    assert str(warning.message).endswith("Precision → result to ap_fixed<21,8,AP_RND,AP_SAT>"), (
        "2**21 entries: too many"
    )
    hls_model.compile()
    x = np.linspace(-4, 4, 20001)[:, None]
    (expected,) = _answers(model, FixedType.parse(wide).quantize(x))
    off = np.abs(hls_model.predict(x) - expected)
    assert 0 < off.max() <= 2.0**-7
    assert np.mean(off > 0) < 0.02

    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        advised = kconvert.convert_from_keras_model(model, _settings("ap_fixed<21,8,AP_RND,AP_SAT>"))
    advised.compile()
    assert np.array_equal(advised.predict(x), _answers(model, FixedType.parse("ap_fixed<21,8,AP_RND>").quantize(x))[0])


def test_a_table_has_no_more_entries_than_it_needs() -> None:
    model = _layers(["quantized_tanh(8,use_real_tanh=True)", "quantized_hswish(8,2)"])
    for kind, tanh, hswish in (
        ("ap_fixed<9,5>", 2**7, 2**8),  # [-4, 4) and [-8, 8) in steps of 1/16
        ("ap_ufixed<9,5>", 2**6, 2**7),
        ("ap_fixed<10,1>", 2**10, 2**10),
    ):
        hls_model = kconvert.convert_from_keras_model(model, _settings(kind))
        sizes = [hls_model[name].constants()["table"].values.size for name in ("act_0", "act_1")]
        assert sizes == [tanh, hswish]
        hls_model.compile()
        x = _every_input(kind)
        for values, expected in zip(hls_model.predict(x), _answers(model, x), strict=True):
            assert np.array_equal(values, expected)


def test_a_smaller_table_is_the_users_choice() -> None:
    config = {"LayerName": {"x": {"Precision": {"result": KIND}}, "act_0": {"table_size": 64}}}
    with pytest.warns(PrecisionWarning, match=r"table of 64 entries.*, or LayerName → act_0 → table_size to 2048$"):
        hls_model = kconvert.convert_from_keras_model(_layers(["quantized_tanh(8,use_real_tanh=True)"]), config)
    node = hls_model["act_0"]
    assert isinstance(node, TableActivation)
    assert node.constants()["table"].values.size == 64


# ***** inside of layers, and what a config does not say *****

BITS = "quantized_bits(5,1,alpha=1)"


@pytest.mark.parametrize(
    "activation",
    ["quantized_hswish(5,2)", "quantized_bits(6,0,alpha=0.5)", "quantized_linear(6,1,alpha=2.0)", "smooth_sigmoid"],
)
def test_inside_of_a_layer(activation: str) -> None:
    x = keras.Input((6,), name="x")
    dense = qkeras.QDense(5, activation=activation, kernel_quantizer=BITS, bias_quantizer=BITS, name="fc")
    model = keras.Model(x, dense(x))
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    config = kconvert.config_from_keras_model(model, granularity="name")
    config["LayerName"]["x"]["Precision"]["result"] = "ap_fixed<9,4>"
    hls_model = kconvert.convert_from_keras_model(model, config)
    hls_model.compile()
    data = np.round(random.normal(size=(300, 6)) * 32) / 32
    assert np.array_equal(hls_model.predict(data), _answers(model, data)[0])


def test_a_live_layer_says_what_its_config_leaves_out() -> None:
    """QKeras' own configs of these say nothing of is_quantized_clip and scale_axis."""
    limited = qkeras.quantized_relu(6, 2, relu_upper_bound=1.3, is_quantized_clip=False)
    by_rows = qkeras.quantized_bits(4, 0, alpha="auto_po2", min_po2_exponent=-1, max_po2_exponent=-1)
    x = keras.Input((3,), name="x")
    dense = qkeras.QDense(3, activation=limited, kernel_quantizer=by_rows, use_bias=False, name="fc")
    model = keras.Model(x, qkeras.QActivation(limited, name="act")(dense(x)))
    model.set_weights([np.random.default_rng(1).normal(size=(3, 3))])
    spec = kconvert.read_model(model)
    assert spec["act"].config["activation"]["config"]["is_quantized_clip"] is False
    assert spec["fc"].config["activation"]["config"]["is_quantized_clip"] is False
    assert spec["fc"].config["kernel_quantizer"]["config"]["max_po2_exponent"] == -1
    hls_model = convert(model, _settings("ap_fixed<9,4>"))
    data = np.round(np.random.default_rng(2).normal(size=(200, 3)) * 32) / 32
    answers = hls_model.predict(data)
    assert np.array_equal(answers, _answers(model, data)[0])
    assert answers.max() == np.float32(1.3)


class Halved(qkeras.quantized_relu):  # type: ignore[misc]
    def __call__(self, x: Any) -> Any:
        return super().__call__(x) / 2


@pytest.mark.parametrize("where", ["activation", "kernel", "layer"])
def test_a_subclass_of_a_known_quantizer_is_refused_by_its_name(where: str) -> None:
    x = keras.Input((3,), name="x")
    if where == "layer":
        model = keras.Model(x, qkeras.QActivation(Halved(4), name="theirs")(x))
    else:
        option = {"activation": Halved(4)} if where == "activation" else {"kernel_quantizer": Halved(4)}
        model = keras.Model(x, qkeras.QDense(2, name="theirs", **option)(x))
    with pytest.raises(UnsupportedLayerError, match=r"layer 'theirs'.*'Halved'"):
        kconvert.convert_from_keras_model(model)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("bernoulli(alpha=1)", "layer 'act_0'.*bernoulli.*random numbers at inference"),
        (qkeras.quantized_bits(4, 0, alpha="auto"), "layer 'act_0'.*alpha='auto' scales an activation by what is in"),
        (qkeras.quantized_hswish(8, 1, alpha=[1.0, 2.0]), "layer 'act_0'.*a table cannot have one alpha for each"),
    ],
)
def test_refused(activation: Any, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=message):
        kconvert.convert_from_keras_model(_layers([activation], 2))


def test_functions_of_qkeras_are_its_own_in_its_layers_only() -> None:
    x = keras.Input((2,), name="x")
    model = keras.Model(x, keras.layers.Activation(qkeras.quantizers.smooth_tanh, name="theirs")(x))
    with pytest.raises(UnsupportedLayerError, match="layer 'theirs': activation 'smooth_tanh' is not supported"):
        kconvert.convert_from_keras_model(model)


def test_steps_stay_few() -> None:
    node = kconvert.convert_from_keras_model(_layers(["quantized_hswish(5,0)"]), _settings())["act_0"]
    assert isinstance(node, Thresholds)
    assert len(node.thresholds) <= 32
    assert np.any(np.diff(node.levels) < 0), "it dips before it rises"
    assert np.any(np.diff(node.levels) > 0)
