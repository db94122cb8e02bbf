"""Analog layers in the neutral form become integer firmware: against a plain restatement of the multiplier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.csim.compiler import find_compiler, include_folder
from kconvert.errors import ConfigError, GraphError, ModelError, PrecisionWarning, UnsupportedLayerError
from kconvert_contrib.analog import conversion, nodes
from tests.conftest import golden

MOCK = {"gain": 0.002, "noise_std": 2.0, "active": True}
KERNEL = {"mock": MOCK, "num_sends": 1, "input_transform": None, "weight_transform": "clamp_weight", "use_bias": True}


def layer(class_name: str, name: str, source: str, config: dict[str, Any], *weights: np.ndarray) -> LayerSpec:
    return LayerSpec(class_name, name, config, ((TensorRef(source),),), weights)


def dense(name: str, source: str, kernel: np.ndarray, bias: np.ndarray | None = None, **options: Any) -> LayerSpec:
    config = {**KERNEL, "units": kernel.shape[1], "avg": 1, "use_bias": bias is not None, **options}
    return layer("AnalogDense", name, source, config, kernel, *([] if bias is None else [bias]))


def conv(name: str, source: str, kernel: np.ndarray, bias: np.ndarray | None = None, **options: Any) -> LayerSpec:
    axes = kernel.ndim - 2
    config = {**KERNEL, "kernel_size": list(kernel.shape[:axes]), "strides": [1] * axes, "padding": "valid"}
    config |= {"filters": kernel.shape[-1], "use_bias": bias is not None, **options}
    return layer(f"AnalogConv{axes}D", name, source, config, kernel, *([] if bias is None else [bias]))


def converting(name: str, source: str, shift: int) -> LayerSpec:
    return layer("AnalogConvertingReLU", name, source, {"mock": MOCK, "shift": shift})


def model(shape: tuple[int, ...], *layers: LayerSpec, outputs: tuple[str, ...] = ()) -> ModelSpec:
    given = LayerSpec("InputLayer", "x", {"batch_shape": (None, *shape)}, ((),))
    returned = tuple(TensorRef(name) for name in outputs or (layers[-1].name,))
    return ModelSpec("net", (given, *layers), (TensorRef("x"),), returned)


def converted(spec: ModelSpec, config: dict[str, Any] | None = None, folder: Any = "unused") -> kconvert.HLSModel:
    hls_model = kconvert.convert_from_keras_model(spec, config, output_dir=folder)
    hls_model.compile()
    return hls_model


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Some of them out of range, and half-way between whole numbers."""
    drawn = np.random.default_rng(seed).normal(0, 30, shape)
    return (np.round(drawn * 2) / 2).astype(np.float32)


def samples(*shape: int, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).uniform(0, 31, shape).astype(np.float32)
    drawn[::3] = np.round(drawn[::3] * 2) / 2
    return drawn


def multiplied(x: np.ndarray, kernel: np.ndarray, gain: float) -> np.ndarray:
    """x [n, inputs] times kernel [inputs, outputs] by the facts of the mock, one number at a time in float32."""
    whole_x, whole_w = np.rint(x).astype(int), np.rint(np.clip(kernel, -63, 63)).astype(int)
    answer = np.zeros((len(x), kernel.shape[1]), int)
    for first in range(0, len(kernel), 128):
        sums = whole_x[:, first : first + 128] @ whole_w[first : first + 128]
        levels = np.floor(sums.astype(np.float32) * np.float32(gain))
        answer += np.clip(levels, -128, 127).astype(int)
    return np.clip(answer, -128, 127)


def added(levels: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.clip(levels + np.clip(np.floor(bias), -128, 127), -128, 127)


# ***** the level of a sum *****


@pytest.mark.parametrize(
    "gain", [0.002, 34 * 0.002, 20 * 0.00345, 0.00354, 1 / 3, 1.0, 500.0, 1e-7, 2.0**-9, 2.0**-9 - 2**-33]
)
def test_first_sums_say_every_level(gain: float) -> None:
    largest = 128 * 31 * 63
    sums = np.arange(-largest, largest + 1)
    expected = np.clip(np.floor(sums.astype(np.float32) * np.float32(gain)), -128, 127)
    first = nodes.first_sums(gain, largest)
    found = np.searchsorted(np.roll(first, 128)[1:], sums, side="right") - 128
    assert np.array_equal(found, expected)
    assert np.array_equal(nodes.level(gain, sums), expected)


def test_no_line_goes_through_all_levels_of_the_default_gain() -> None:
    """Why there is a table: rounding to float32 lifts -500 and -2500 to a whole level, and -1500 not."""
    assert nodes.level(0.002, [-500, -1500, -2500]).tolist() == [-1, -4, -5]


def test_a_table_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "FACTOR_BITS", 3)
    with pytest.raises(GraphError, match=r"for a gain of 0\.0021, is not the one nearest"):
        nodes.first_sums(0.0021, 128 * 31 * 63)


def test_levels_of_the_reference() -> None:
    data = np.load(golden("analog/ops.npz"))
    for case in range(4):
        x, kernel, y, sends, gain = (data[f"{key}{case}"] for key in ("x", "w", "y", "num_sends", "gain"))
        assert np.array_equal(multiplied(x, kernel, int(sends) * float(gain)), y)
        if len(kernel) > 128:
            options = {"num_sends": int(sends), "mock": {**MOCK, "gain": float(gain)}}
            hls_model = converted(model(kernel.shape[:1], dense("fc", "x", kernel, **options)))
            assert np.array_equal(hls_model.predict(x), y)


# ***** layers *****


def test_chunks_bias_and_copies() -> None:
    kernel, bias = weights(300, 12), weights(12, seed=2) * 3 + np.float32(0.25)
    spec = model((300,), dense("fc", "x", kernel, bias, num_sends=2, avg=5), dense("bare", "x", kernel, num_sends=3))
    spec = ModelSpec("net", spec.layers, spec.inputs, (TensorRef("fc"), TensorRef("bare")))
    x = samples(200, 300)
    biased, bare = converted(spec).predict(x)
    assert np.array_equal(biased, added(multiplied(x, kernel, 2 * 0.002), bias))
    assert np.array_equal(bare, multiplied(x, kernel, 3 * 0.002))
    assert {-128, 127} <= set(np.unique(biased))
    assert len(np.unique(bare)) > 100


def test_types_are_those_of_the_chip() -> None:
    spec = model(
        (6,),
        dense("fc", "x", weights(6, 4), weights(4)),
        converting("relu", "fc", 1),
        dense("out", "relu", weights(4, 3)),
    )
    hls_model = kconvert.convert_from_keras_model(spec)
    kinds = {node.name: node.result_type for node in hls_model.nodes}
    assert {str(kinds[n]) for n in ("x", "fc_inputs", "relu", "out_inputs")} == {"ap_ufixed<5,5,AP_RND_CONV,AP_SAT>"}
    assert {str(kinds[n]) for n in ("fc", "out")} == {"ap_fixed<8,8,AP_TRN,AP_SAT>"}
    assert str(hls_model["fc"].typed("weight")) == "ap_fixed<7,7>"
    config = kconvert.config_from_keras_model(spec, granularity="name")
    assert config["LayerName"]["x"]["Precision"] == {"result": "ap_ufixed<5,5,AP_RND_CONV,AP_SAT>"}
    assert str(kconvert.convert_from_keras_model(spec, config)) == str(hls_model)


def test_inputs_round_once_half_to_even_and_saturate() -> None:
    x = np.array([[-40.0], [-0.5], [0.5], [1.5], [2.5], [2.5 - 2**-20], [2.5 + 2**-20], [30.9], [31.4], [50.0]])
    hls_model = converted(model((1,), dense("fc", "x", np.ones((1, 1), np.float32), mock={**MOCK, "gain": 1.0})))
    with pytest.warns(PrecisionWarning, match=r"'x': 2 of 10 values are outside \[0, 31\]"):
        found = hls_model.predict(x)
    assert found.ravel().tolist() == [0, 0, 0, 2, 2, 2, 3, 31, 31, 31]


def test_an_input_that_others_read_too_keeps_its_type() -> None:
    kernel = np.eye(3, dtype=np.float32)
    plain = layer("Dense", "plain", "x", {"units": 3, "activation": "linear", "use_bias": False}, kernel)
    spec = model((3,), dense("fc", "x", 63 * kernel, mock={**MOCK, "gain": 1 / 63}), plain, outputs=("fc", "plain"))
    x = np.array([[0.25, 7.5, 20.75]])
    levels, same = converted(spec).predict(x)
    assert np.array_equal(same, x)
    assert np.array_equal(levels, [[0, 8, 21]])


@pytest.mark.filterwarnings("ignore:input 'x'.*outside:kconvert.errors.PrecisionWarning")
def test_activations() -> None:
    x = np.concatenate([np.linspace(-40, 300, 1361), [1 - 2**-20, 2 - 2**-20]]).reshape(-1, 1)
    layers = [converting(f"shift{k}", "x", k) for k in range(conversion.MOST_SHIFT + 1)]
    spec = model((1,), *layers, layer("AnalogReLU", "relu", "x", {"mock": MOCK}))
    outputs = tuple(TensorRef(known.name) for known in spec.layers[1:])
    *shifted, positive = converted(ModelSpec("net", spec.layers, spec.inputs, outputs)).predict(x)
    relu = np.clip(np.floor(x), 0, 127)
    assert np.array_equal(positive, relu)
    for k, found in enumerate(shifted):
        assert np.array_equal(found, np.clip(np.floor(relu / 2**k), 0, 31))


def test_every_position_of_a_sequence() -> None:
    kernel, bias = weights(5, 7), weights(7, seed=3)
    x = samples(60, 4, 5)
    answers = converted(model((4, 5), dense("fc", "x", kernel, bias, num_sends=9))).predict(x)
    assert np.array_equal(answers, added(multiplied(x.reshape(-1, 5), kernel, 9 * 0.002), bias).reshape(60, 4, 7))


def windows(x: np.ndarray, size: tuple[int, int], strides: tuple[int, int]) -> np.ndarray:
    """[n, rows, columns, channels * height * width] of images [n, height, width, channels]."""
    views = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))[:, :: strides[0], :: strides[1]]
    return views.reshape(*views.shape[:3], -1)


def convolved(x: np.ndarray, kernel: np.ndarray, strides: tuple[int, int], gain: float) -> np.ndarray:
    seen = windows(x, kernel.shape[:2], strides)
    matrix = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
    return multiplied(seen.reshape(-1, seen.shape[-1]), matrix, gain).reshape(*seen.shape[:3], -1)


def test_a_convolution_goes_channel_by_channel_and_adds_its_bias_in_float32() -> None:
    kernel, bias = weights(3, 4, 20, 6), np.random.default_rng(4).normal(0, 9, 6).astype(np.float32)
    bias[:2] = -1e-9, 1e-6
    x = samples(20, 8, 9, 20)
    same = np.pad(x, [(0, 0), (0, 1), (1, 2), (0, 0)])
    levels = convolved(same, kernel, (2, 1), 2 * 0.002)
    sums = levels.astype(np.float32) + bias
    spec = model(
        (8, 9, 20),
        conv("conv", "x", kernel, bias, strides=[2, 1], padding="same", num_sends=2),
        conv("bare", "x", kernel, None, strides=[2, 1], padding="same", num_sends=2),
        outputs=("conv", "bare"),
    )
    found, bare = converted(spec).predict(x)
    assert np.array_equal(bare, levels)
    assert np.array_equal(found, sums)
    exact = levels.astype(np.float64) + bias
    assert (sums != exact).any()
    assert (np.floor(sums) != np.floor(exact)).any()  # a bias just below 0 is lost, unless the level is 0


def test_a_bias_and_what_rounds_it_are_one_small_table() -> None:
    kernel, bias = weights(5, 30, 4), np.array([-1e-30, 0.5, -7.25, 3.999], np.float32)
    x = samples(50, 12, 30)
    spec = model((12, 30), conv("conv", "x", kernel, bias, strides=[3]), converting("relu", "conv", 1))
    hls_model = converted(spec)
    assert [type(n).__name__ for n in hls_model.nodes] == ["Input", "AnalogInput", "AnalogConv", "LevelTable"]
    assert str(hls_model.nodes[-1].result_type) == "ap_ufixed<5,5,AP_RND_CONV,AP_SAT>"
    sums = convolved(x[:, np.newaxis], kernel[np.newaxis], (1, 3), 0.002)[:, 0].astype(np.float32) + bias
    expected = np.clip(np.floor(np.clip(np.floor(sums), 0, 127) / 2), 0, 31)
    trace = hls_model.trace(x)
    assert np.array_equal(trace["relu"], expected)
    assert "conv" not in trace
    assert len(np.unique(expected)) > 5
    kept = converted(spec, {"LayerName": {"conv": {"Precision": {"result": "ap_fixed<40,9>"}}}}).trace(x)
    assert np.array_equal(kept["conv"], np.floor(sums * 2.0**31) / 2**31)


def test_ordinary_layers_around_analog_ones() -> None:
    random = np.random.default_rng(5)
    before = random.integers(-8, 9, (5, 40)) / 8
    after = random.integers(-8, 9, (12, 3)) / 8
    kernel, bias = weights(20, 6), weights(6, seed=6)
    plain = {"activation": "linear", "use_bias": False}
    spec = model(
        (5,),
        layer("Dense", "before", "x", {**plain, "units": 40}, before),
        layer("ReLU", "positive", "before", {"max_value": 31.0, "negative_slope": 0.0, "threshold": 0.0}),
        layer("Reshape", "frames", "positive", {"target_shape": [2, 20]}),
        dense("fc", "frames", kernel, bias, num_sends=4),
        layer("Flatten", "flat", "fc", {}),
        layer("Dense", "after", "flat", {**plain, "units": 3}, after),
    )
    x = np.round(samples(100, 5) * 8) / 8
    positive = np.clip(x @ before, 0, 31).reshape(-1, 20)
    levels = added(multiplied(positive, kernel, 4 * 0.002), bias).reshape(100, 12)
    trace = converted(spec).trace(x)
    assert np.array_equal(trace["fc"].reshape(100, 12), levels)
    assert np.array_equal(trace["after"], levels @ after)


def test_scaled_weights() -> None:
    kernel = weights(9, 4) / 100
    scaled = kernel * (np.float32(63) / np.abs(kernel).max())
    x = samples(80, 9)
    found = converted(model((9,), dense("fc", "x", kernel, weight_transform="scale_weight", num_sends=8))).predict(x)
    assert np.array_equal(found, multiplied(x, scaled, 8 * 0.002))
    zero = kconvert.convert_from_keras_model(model((9,), dense("fc", "x", 0 * kernel, weight_transform="scale_weight")))
    assert not zero["fc"].constants()["weight"].raw.any()


# ***** settings and refusals *****


def test_weights_and_gains_are_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same shape, and with gains of the same power of two, nothing is compiled again."""
    converted(model((9,), dense("fc", "x", weights(9, 4))))
    monkeypatch.setattr("kconvert.csim.compiler._run", lambda command: pytest.fail("compiled again"))
    kernel, x = weights(9, 4, seed=8), samples(40, 9)
    hls_model = converted(model((9,), dense("fc", "x", kernel, mock={**MOCK, "gain": 0.0031})))
    assert np.array_equal(hls_model.predict(x), multiplied(x, kernel, 0.0031))


def test_a_written_project_shares_multipliers(tmp_path: Path) -> None:
    """Compiled as plain C++ without lanes, with the weights in block memory."""
    kernel, bias, x = weights(200, 4), weights(4, seed=3), samples(30, 200)
    spec = model(
        (200,), dense("fc", "x", kernel, bias), converting("relu", "fc", 2), dense("out", "relu", weights(4, 2))
    )
    shared = {"LayerName": {"fc": {"Strategy": "Resource", "ReuseFactor": 32}}}
    hls_model = kconvert.convert_from_keras_model(spec, shared, tmp_path / "prj", input_data_tb=x, output_data_tb=[])
    hls_model.compile()
    levels = added(multiplied(x, kernel, 0.002), bias)
    assert np.array_equal(hls_model.trace(x)["fc"], levels)
    hls_model.write()
    command = [*find_compiler(), "-std=c++20", "-DKCONVERT_SCALAR", "-O0", "-w", "-isystem", str(include_folder())]
    sources = ["firmware/myproject.cpp", "tb/myproject_test.cpp", "-o", "tb/test_bench"]
    built = subprocess.run([*command, *sources], cwd=tmp_path / "prj", capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[:6000]
    subprocess.run(["./test_bench"], cwd=tmp_path / "prj/tb", capture_output=True, check=True)
    log = np.loadtxt(tmp_path / "prj/tb/tb_data/csim_results.log", ndmin=2)
    assert np.array_equal(log, hls_model.predict(x))
    shared["LayerName"]["fc"]["ReuseFactor"] = 5
    with pytest.raises(ConfigError, match=r"'fc': ReuseFactor 5 .* chunks of 72 and 128 inputs; divisors of 32 do"):
        kconvert.convert_from_keras_model(spec, shared)


def test_streams_answer_alike() -> None:
    spec = model(
        (5, 6, 30),
        conv("first", "x", weights(3, 2, 30, 4), weights(4), padding="same", strides=[2, 1]),
        converting("relu", "first", 1),
        dense("fc", "relu", weights(4, 5), weights(5), num_sends=8),
    )
    x = samples(40, 5, 6, 30)
    parallel = converted(spec).predict(x)
    hls_model = kconvert.convert_from_keras_model(spec, io_type="io_stream")
    hls_model.compile()
    assert np.array_equal(hls_model.predict(x), parallel)
    assert len(np.unique(parallel)) > 20


def test_costs_are_counted() -> None:
    from kconvert.profiling.costs import estimate

    (fc,) = (c for c in estimate(converted(model((9,), dense("fc", "x", weights(9, 4))))) if c.layer == "fc")
    assert fc.multiplications <= 36
    assert fc.table_bits > 256 * 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_transform": "scale_input"}, r"layer 'fc' \(AnalogDense\): input_transform='scale_input'.*one sample"),
        ({"weight_transform": "mine"}, r"layer 'fc' \(AnalogDense\): weight_transform='mine' is not known here"),
        ({"weight_transform": None}, r"layer 'fc': \d+ weights, -?\d+ the first, are outside of -63\.\.63; set weight"),
        ({"num_sends": None}, r"layer 'fc' \(AnalogDense\): its config does not make sense"),
        ({"num_sends": 0}, r"layer 'fc': num_sends=0 has to be positive"),
    ],
)
def test_layers_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        kconvert.convert_from_keras_model(model((40,), dense("fc", "x", weights(40, 9), **options)))


def test_other_refusals() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"layer 'r' \(AnalogConvertingReLU\): shift=7 is not supported"):
        kconvert.convert_from_keras_model(model((4,), converting("r", "x", 7)))
    half = conv("conv", "x", weights(2, 3, 4), weights(4), dtype={"config": {"name": "mixed_float16"}})
    with pytest.raises(UnsupportedLayerError, match=r"layer 'conv' .*: a bias added in mixed_float16 is not supported"):
        kconvert.convert_from_keras_model(model((5, 3), half))
    with pytest.raises(ModelError, match=r"layer 'conv': a window of \(1, 9\) does not fit"):
        kconvert.convert_from_keras_model(model((5, 3), conv("conv", "x", weights(9, 3, 4))))
    spec = model((4,), dense("fc", "x", weights(4, 2)))
    wide = {"LayerName": {"fc": {"Precision": {"weight": "ap_fixed<16,8>"}}}}
    with pytest.raises(ConfigError, match=r"'fc': its weight is ap_fixed<16,8>.*LayerName → fc → Precision → weight"):
        kconvert.convert_from_keras_model(spec, wide)
    wide = {"LayerName": {"fc_inputs": {"Precision": {"result": "ap_fixed<16,8>"}}}}
    with pytest.raises(ConfigError, match=r"'fc_inputs': its result is ap_fixed<16,8>.*→ result to ap_ufixed<5,5"):
        kconvert.convert_from_keras_model(spec, wide)


def test_conversion_needs_no_keras() -> None:
    program = "import sys, kconvert_contrib.analog.conversion; print({'keras', 'tensorflow'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
