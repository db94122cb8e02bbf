"""LUT layers become bits of hardware: predict, trace, and every style of the C++ for synthesis."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert.csim.compiler import find_compiler, include_folder
from kconvert.errors import ConfigError, PrecisionWarning, UnsupportedLayerError
from kconvert.layers import Thresholds
from kconvert_contrib.lutnet import bitsliced
from kconvert_contrib.lutnet.bitsliced import BitSliced
from kconvert_contrib.lutnet.nodes import STYLES, Luts, only_bits
from tests.contrib.lutnet import nets

SUM = nets.layer("GroupSum", "sum", "lut2", {"units": 4, "tau": 2.5})


def converted(
    spec: ModelSpec, config: dict[str, Any] | None = None, folder: Path | str = "unused"
) -> kconvert.HLSModel:
    hls_model = kconvert.convert_from_keras_model(spec, config, output_dir=folder)
    hls_model.compile()
    return hls_model


def test_bits_stay_bits_and_trace_has_every_layer() -> None:
    hls_model = converted(nets.stack())
    assert [type(n).__name__ for n in hls_model.nodes] == ["Input", "Thresholds", "Luts", "Luts", "Luts"]
    x = nets.samples(1000)
    trace = hls_model.trace(x)
    for name, expected in zip(("bits", "lut0", "lut1", "lut2"), nets.stack_answers(x), strict=True):
        assert np.array_equal(trace[name], expected)
        assert 0.2 < trace[name].mean() < 0.8
    assert np.array_equal(hls_model.predict(x), trace["lut2"])


def test_tables_of_every_size() -> None:
    layers = [nets.luts(f"lut{pins}", "bits", nets.INPUTS, 9, pins=pins, seed=pins) for pins in range(2, 7)]
    spec = nets.model(nets.BITS, *layers)
    outputs = tuple(TensorRef(known.name) for known in layers)
    x = nets.samples(400)
    answers = converted(ModelSpec("net", spec.layers, spec.inputs, outputs)).predict(x)
    for pins, found in zip(range(2, 7), answers, strict=True):
        assert np.array_equal(found, nets.answer(x > 0.5, 9, pins=pins, seed=pins))


def test_a_number_of_units_acts_at_every_position_and_a_shape_on_the_whole_sample() -> None:
    x = nets.samples(40, 3, 2, 5)
    bits = x > 0.5
    every = converted(nets.model(nets.BITS, nets.luts("lut", "bits", 5, 4), shape=(3, 2, 5))).predict(x)
    assert np.array_equal(every, nets.answer(bits.reshape(-1, 5), 4).reshape(40, 3, 2, 4))
    whole = converted(nets.model(nets.BITS, nets.luts("lut", "bits", 30, (2, 2, 3)), shape=(3, 2, 5))).predict(x)
    assert np.array_equal(whole, nets.answer(bits.reshape(40, -1), (2, 2, 3)).reshape(40, 2, 2, 3))


def test_sums_over_groups() -> None:
    x = nets.samples(300)
    ones = nets.stack_answers(x)[-1].reshape(-1, 4, 3).sum(axis=2)
    hls_model = converted(nets.stack(SUM))
    scaled = hls_model.predict(x)
    assert len(np.unique(ones)) == 4
    assert np.abs(scaled - ones / 2.5).max() < 2**-24
    kind = kconvert.FixedType.parse("ap_fixed<8,4,AP_RND,AP_SAT>")
    narrow = converted(nets.stack(SUM), {"LayerName": {"sum": {"Precision": {"result": str(kind)}}}})
    assert np.array_equal(narrow.predict(x), kind.quantize(ones / 2.5))


def test_the_tail_of_majorities_and_means() -> None:
    config = {"units": 4, "n_inputs": 3, "low": -1.0, "high": 1.0}
    majority = nets.layer("AverageLut", "average", "lut2", config, np.arange(12).reshape(4, 3))
    hls_model = converted(nets.stack(majority, nets.layer("Reduce", "out", "average", {"units": 2})))
    x = nets.samples(500)
    signs = np.where(nets.stack_answers(x)[-1].reshape(-1, 4, 3).sum(axis=2) > 1, 1.0, -1.0)
    trace = hls_model.trace(x)
    assert np.array_equal(trace["average"], signs)
    assert np.array_equal(trace["out"], (signs[:, :2] + signs[:, 2:]) / 2)


def test_inputs_that_are_no_bits_are_compared_once() -> None:
    wires = np.arange(18).reshape(6, 3)
    config = {"units": 6, "n_inputs": 3, "low": 0.0, "high": 1.0}
    largest = nets.layer("MaxLut", "max", "x", config, wires)
    hls_model = converted(nets.model(largest, nets.luts("lut", "max", 6, 5)))
    assert [type(n).__name__ for n in hls_model.nodes] == ["Input", "Thresholds", "Luts", "Luts"]
    x = nets.samples(200)
    assert np.array_equal(hls_model.predict(x), nets.answer((x > 0.5)[:, wires].any(axis=2), 5))
    signs = nets.layer("Binarize", "signs", "x", {"threshold": 0.25, "low": -1.0, "high": 1.0})
    hls_model = converted(nets.model(signs, nets.layer("MaxLut", "max", "signs", config, wires)))
    assert [n.name for n in hls_model.nodes if isinstance(n, Thresholds)] == ["signs", "max_bits"]
    assert np.array_equal(hls_model.predict(x), (x > 0.25)[:, wires].any(axis=2))


def test_a_dense_layer_behind_tables() -> None:
    random = np.random.default_rng(3)
    kernel, bias = random.integers(-8, 9, (12, 5)) / 8, random.integers(-8, 9, 5) / 8
    dense = nets.layer("Dense", "dense", "lut2", {"units": 5, "activation": "linear"}, kernel, bias)
    x = nets.samples(200)
    answers = converted(nets.stack(dense)).predict(x)
    assert np.array_equal(answers, nets.stack_answers(x)[-1] @ kernel + bias)


def test_a_thermometer() -> None:
    levels = np.sort(np.random.default_rng(4).integers(0, 8, (nets.INPUTS, 3)) / 8, axis=1)
    x = nets.samples(100)
    for thresholds in (levels, levels[:1]):
        encoder = nets.layer("Thermometer", "code", "x", {"bits": 3}, thresholds.astype(np.float32))
        code = (x[:, :, np.newaxis] > thresholds).reshape(100, -1)
        answers = converted(nets.model(encoder, nets.luts("lut", "code", 60, 7))).trace(x)
        assert np.array_equal(answers["code"], code)
        assert np.array_equal(answers["lut"], nets.answer(code, 7))


MODULATION = {"frames": 4, "depth": 2, "low": 0.0, "high": 1.0, "noise": None}


def test_modulation_over_frames() -> None:
    spec = nets.model(
        nets.layer("RealToBinary", "bits", "x", MODULATION),
        nets.luts("lut", "bits", 2 * nets.INPUTS, 6),
        nets.layer("BinaryToReal", "mean", "lut", {"units": 3}),
    )
    x = nets.samples(100)
    thresholds = (np.arange(2) + (np.arange(4).reshape(4, 1, 1) + 0.5) / 4) / 2
    bits = (x[:, np.newaxis, :, np.newaxis] > thresholds).reshape(100, 4, -1)
    answers = nets.answer(bits.reshape(400, -1), 6).reshape(100, 8, 3)
    trace = converted(spec).trace(x)
    assert np.array_equal(trace["bits"], bits)
    assert np.array_equal(trace["mean"], answers.mean(axis=1))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_windows_of_an_image(padding: str) -> None:
    x = nets.samples(30, 5, 6, 2)
    config = {"kernel_size": [3, 2], "strides": [2, 1], "padding": padding}
    windows = nets.layer("Patches", "windows", "bits", config)
    sums = nets.layer("GroupSum", "sum", "lut", {"units": 2, "tau": 1.0})
    spec = nets.model(nets.BITS, windows, nets.luts("lut", "windows", 12, 4), sums, shape=(5, 6, 2))
    bits = x > 0.5
    if padding == "same":
        bits = np.pad(bits, [(0, 0), (1, 1), (0, 1), (0, 0)])
    rows, columns = range(0, bits.shape[1] - 2, 2), range(bits.shape[2] - 1)
    seen = np.array([[bits[:, r : r + 3, c : c + 2].reshape(30, -1) for c in columns] for r in rows])
    expected = nets.answer(seen.reshape(-1, 12), 4).reshape(*seen.shape[:3], 2, 2).sum(axis=-1)
    assert np.array_equal(converted(spec).predict(x), expected.transpose(2, 0, 1, 3))


def test_only_bits_are_taken_for_bits() -> None:
    hls_model = converted(nets.stack(SUM))
    assert [only_bits(node.output) for node in hls_model.nodes] == [False, True, True, True, True, False]


def test_what_is_refused() -> None:
    real = nets.luts("lut", "x", nets.INPUTS, 4)
    real = nets.layer("DifferentiableLut", "lut", "x", {**real.config, "batch_norm": False}, *real.weights)
    with pytest.raises(UnsupportedLayerError, match=r"layer 'lut' \(DifferentiableLut\).*it answers in bits where"):
        converted(nets.model(real))
    real = nets.layer("StochasticLut", "lut", "x", {**real.config, "lut_binarize": False}, *real.weights)
    with pytest.raises(UnsupportedLayerError, match=r"layer 'lut' \(StochasticLut\).*numbers and not bits"):
        converted(nets.model(nets.BITS, real))
    with pytest.raises(UnsupportedLayerError, match=r"layer 'm' \(RealToBinary\): noise='frame' is not supported"):
        converted(nets.model(nets.layer("RealToBinary", "m", "x", {**MODULATION, "noise": "frame"})))
    with pytest.raises(ConfigError, match=r"LayerName → lut0 → LutStyle: 'rom' is not allowed; give shift, lutram"):
        converted(nets.stack(), {"LayerName": {"lut0": {"LutStyle": "rom"}}})
    with pytest.raises(ConfigError, match=r"layer 'lut0' makes bits: its result is ap_uint<1>"):
        converted(nets.stack(), {"LayerName": {"lut0": {"Precision": {"result": "ap_fixed<4,2>"}}}})


def dense(name: str, source: str, inputs: int, units: int, seed: int) -> tuple[Any, np.ndarray]:
    kernel = np.random.default_rng(seed).integers(-8, 9, (inputs, units)) / 8
    config = {"units": units, "activation": "linear", "use_bias": False}
    return nets.layer("Dense", name, source, config, kernel), kernel


def mixed() -> tuple[ModelSpec, Callable[[np.ndarray], dict[str, np.ndarray]]]:
    """Numbers and bits by turns: a tensor of either kind is read at once, later, and from outside."""
    first, a = dense("first", "lut", 24, 10, 1)
    last, b = dense("last", "again", 24, 3, 2)
    late, c = dense("late", "bits", nets.INPUTS, 2, 3)
    join = LayerSpec("Concatenate", "join", {"axis": -1}, ((TensorRef("signs"), TensorRef("lut")),))
    add = LayerSpec("Add", "add", {}, ((TensorRef("last"), TensorRef("tail")),))
    layers = (
        *(nets.BITS, nets.luts("lut", "bits", nets.INPUTS, 24), first, late),
        nets.layer("Binarize", "signs", "first", {"threshold": 0.0, "low": 0.0, "high": 1.0}),
        *(join, nets.luts("again", "join", 34, 24, seed=1), last),
        *(nets.layer("Dense", "tail", "first", {"units": 3, "use_bias": False}, np.ones((10, 3)) / 4), add),
    )
    outputs = tuple(TensorRef(name) for name in ("add", "lut", "late", "bits"))

    def answers(x: np.ndarray) -> dict[str, np.ndarray]:
        bits = x > 0.5
        lut = nets.answer(bits, 24)
        numbers = lut @ a
        again = nets.answer(np.concatenate([numbers > 0, lut], axis=1), 24, seed=1)
        return {"add": again @ b + numbers @ np.ones((10, 3)) / 4, "lut": lut, "late": bits @ c, "bits": bits}

    return ModelSpec("net", (nets.input_layer(nets.INPUTS), *layers), (TensorRef("x"),), outputs), answers


@pytest.mark.parametrize("count", [1, 512, 530])
def test_numbers_and_bits_by_turns(count: int) -> None:
    spec, answers = mixed()
    hls_model = converted(spec)
    x = nets.samples(count, seed=count)
    expected, trace = answers(x), hls_model.trace(x)
    for found, name in zip(hls_model.predict(x, threads=2), expected, strict=True):
        assert np.array_equal(found, expected[name])
        assert np.array_equal(trace[name], found)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_streams_answer_alike(padding: str) -> None:
    config = {"kernel_size": [2, 2], "strides": [1, 2], "padding": padding}
    windows = nets.layer("Patches", "windows", "first", config)
    sums = nets.layer("GroupSum", "sum", "second", {"units": 2, "tau": 1.0})
    layers = (nets.BITS, nets.luts("first", "bits", 2, 3, pins=4), windows, nets.luts("second", "windows", 12, 6), sums)
    spec, x = nets.model(*layers, shape=(5, 4, 2)), nets.samples(530, 5, 4, 2)
    streams = kconvert.convert_from_keras_model(spec, io_type="io_stream")
    streams.compile()
    trace, expected = streams.trace(x), converted(spec).trace(x)
    for name in ("bits", "first", "windows", "second", "sum"):
        assert np.array_equal(trace[name], expected[name])
    assert len(np.unique(trace["sum"])) == 4


def test_bytes_are_taken_as_they_are() -> None:
    hls_model = converted(nets.stack(SUM))
    bits = nets.samples(600) > 0.5
    expected = hls_model.predict(bits.astype(np.float32))
    assert np.array_equal(hls_model.predict(bits), expected)
    assert np.array_equal(hls_model.predict(bits.astype(np.uint8)), expected)
    assert len(np.unique(expected)) == 4
    numbers = np.repeat(np.uint8([1, 32, 33]), 17 * nets.INPUTS).reshape(-1, nets.INPUTS)
    for x in (numbers, numbers.astype(np.float32)):  # packs that are full, and the last, which is not
        with pytest.warns(PrecisionWarning, match="input 'x': 340 of 1020 values are outside"):
            found = hls_model.predict(x)
        assert np.array_equal(found, hls_model.predict(np.ones_like(x)))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
def test_a_processor_without_wide_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """There tables stay data, and bits are moved by arithmetic."""
    x = nets.samples(530)
    expected = converted(nets.stack(SUM)).predict(x)
    monkeypatch.setenv("CXX", " ".join([*find_compiler(), "-mno-avx512f", "-mno-avx2"]))
    plain = converted(nets.stack(SUM))
    assert np.array_equal(plain.predict(x), expected)
    bitsliced._native.cache_clear()
    try:
        assert np.array_equal(BitSliced(plain).predict(x > 0.5), expected)
    finally:
        bitsliced._native.cache_clear()


@pytest.mark.parametrize("style", STYLES)
def test_styles_for_synthesis_answer_alike(style: str, tmp_path: Path) -> None:
    """The written project, compiled as plain C++14 without lanes: each sample on its own, tables in the source."""
    x = nets.samples(50)
    hls_model = kconvert.convert_from_keras_model(
        nets.stack(SUM), {"Model": {"LutStyle": style}}, tmp_path / "prj", input_data_tb=x, output_data_tb=[]
    )
    hls_model.compile()
    written = hls_model.write() / "firmware/weights/lut0_table.h"
    marks = {"shift": ">> index", "lutram": "impl=LUTRAM", "index": "[index", "class": "class", "macro": "#define"}
    assert marks[style] in written.read_text()
    log = run_test_bench(tmp_path / "prj", include_folder(), "-std=c++20", "-DKCONVERT_SCALAR")
    assert np.array_equal(log, hls_model.predict(x))


def run_test_bench(project: Path, headers: Path, *flags: str) -> np.ndarray:
    sources = ["firmware/myproject.cpp", "tb/myproject_test.cpp"]
    command = [*find_compiler(), *flags, "-O0", "-w", "-isystem", str(headers), *sources, "-o", "tb/test_bench"]
    built = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[:6000]
    subprocess.run(["./test_bench"], cwd=project / "tb", capture_output=True, text=True, check=True)
    return np.loadtxt(project / "tb/tb_data/csim_results.log", ndmin=2)


def test_a_line_a_node_and_the_types_are_bits(tmp_path: Path) -> None:
    hls_model = kconvert.convert_from_keras_model(nets.stack(), {"Model": {"LutStyle": "macro"}}, tmp_path / "prj")
    firmware = hls_model.write() / "firmware"
    words = re.findall(
        r"^lut0_table_LUT\(lut0_table_\d+, 0x([0-9a-f]{16})ULL\)$",
        (firmware / "weights/lut0_table.h").read_text(),
        re.M,
    )
    (node,) = (n for n in hls_model.nodes if n.name == "lut0")
    assert isinstance(node, Luts)
    assert [int(w, 16) for w in words] == node.tables.tolist()
    other = kconvert.convert_from_keras_model(nets.stack(), {"Model": {"lut_style": "macro"}})
    assert {n.lut_style for n in other.nodes if isinstance(n, Luts)} == {"macro"}
    assert re.search(r"typedef ap_uint<1> lut0_result_t;", (firmware / "defines.h").read_text())


def test_other_tables_of_the_same_shape_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    converted(nets.stack())
    monkeypatch.setattr("kconvert.csim.compiler._run", lambda command: pytest.fail("compiled again"))
    spec = nets.stack()
    other = nets.luts("lut0", "bits", nets.INPUTS, nets.SIZES[0], seed=77)
    layers = tuple(other if known.name == "lut0" else known for known in spec.layers)
    hls_model = converted(ModelSpec("net", layers, spec.inputs, spec.outputs))
    x = nets.samples(100)
    assert np.array_equal(hls_model.trace(x)["lut0"], nets.answer(x > 0.5, nets.SIZES[0], seed=77))
