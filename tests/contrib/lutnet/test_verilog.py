"""The Verilog of LUT layers, simulated by Verilator and synthesised by Yosys, against predict."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kconvert
from kconvert.errors import ConfigError, GraphError, ToolError, WriteError
from kconvert_contrib.lutnet.bitsliced import BitSliced, pack, unpack
from kconvert_contrib.lutnet.synthesis import look_up_tables, synthesise
from kconvert_contrib.lutnet.verilog import design, export_verilog, vectors
from tests.contrib.lutnet import nets

WIRES = np.array([[0, 1], [2, 3]])
SUM = nets.layer("GroupSum", "sum", "lut2", {"units": 4, "tau": 2.5})


@pytest.fixture(scope="module")
def summed() -> kconvert.HLSModel:
    """Three LUT layers and counters."""
    model = kconvert.convert_from_keras_model(nets.stack(SUM))
    model.compile()
    return model


def needs(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed (Debian, Ubuntu: apt-get install {tool})")
    return path


def simulate(folder: Path, *models: str) -> str:
    """Build the test bench with Verilator, run it, and return what it says."""
    sources = ["myproject_tb.v", "myproject_stream.v", "myproject.v", *models]
    flags = ["--binary", "--timing", "-Wall", "-Wno-BLKSEQ", "-Wno-DECLFILENAME", "-Wno-UNUSEDSIGNAL", "-CFLAGS", "-O0"]
    command = [needs("verilator"), *flags, "--top-module", "myproject_tb", *sources]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[:4000]
    return subprocess.run(["obj_dir/Vmyproject_tb"], cwd=folder, capture_output=True, text=True, check=False).stdout


def read_vectors(path: Path) -> np.ndarray:
    return np.array([[int(c) for c in reversed(line)] for line in path.read_text().split()])


def test_vectors_are_what_predict_answers(summed: kconvert.HLSModel) -> None:
    x = nets.samples(200)
    part = design(summed)
    given, made = vectors(summed, part, x)
    bits = np.array([[int(c) for c in reversed(line)] for line in given])
    assert np.array_equal(bits, x > 0.5)
    counts = np.array([[int(line[-2 * g - 2 : len(line) - 2 * g], 2) for g in range(4)] for line in made])
    assert np.array_equal(part.values(counts), summed.predict(x))
    assert len(np.unique(counts)) == 4


@pytest.mark.parametrize(("primitives", "registers"), [("LUT6", [True, False, True]), ("RTL", False)])
def test_a_thousand_answers_in_simulation(
    summed: kconvert.HLSModel, primitives: str, registers: Any, tmp_path: Path
) -> None:
    needs("verilator")
    export_verilog(summed, tmp_path, nets.samples(1000), primitives=primitives, registers=registers)
    models = ["lut_models.v"] if primitives == "LUT6" else []
    assert "PASSED: 1000 answers" in simulate(tmp_path, *models)
    if primitives == "RTL":  # the test bench notices a wrong answer
        answers = (tmp_path / "myproject_y.mem").read_text().splitlines()
        answers[700] = answers[700].translate(str.maketrans("01", "10"))
        (tmp_path / "myproject_y.mem").write_text("".join(f"{line}\n" for line in answers))
        again = subprocess.run(["obj_dir/Vmyproject_tb"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert again.returncode != 0
        assert "FAILED: 1 of 1000" in again.stdout


def test_synthesis_needs_no_more_tables_than_there_are(summed: kconvert.HLSModel, tmp_path: Path) -> None:
    yosys = needs("yosys")
    alone = synthesise(summed, sums=False)
    assert 0 < look_up_tables(alone) <= sum(nets.SIZES)
    assert 0 < alone["FDRE"] <= sum(nets.SIZES)
    export_verilog(summed, tmp_path, primitives="RTL", sums=False)
    command = [yosys, "-q", "-l", "log", "myproject_synth.ys"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = re.findall(r"^ +LUT\d +(\d+)$", (tmp_path / "log").read_text(), re.MULTILINE)
    assert sum(map(int, counts)) == look_up_tables(alone)


REGISTER = """
module FDRE #(parameter INIT = 0) (input C, input CE, input D, input R, output reg Q);
    always @(posedge C) if (R) Q <= 0; else if (CE) Q <= D;
endmodule
"""


def test_what_synthesis_leaves_answers_alike(summed: kconvert.HLSModel, tmp_path: Path) -> None:
    """The tables and counters that Yosys makes, in the test bench of the network."""
    yosys, x = needs("yosys"), nets.samples(300)
    needs("verilator")
    export_verilog(summed, tmp_path, x)
    with (tmp_path / "myproject_synth.ys").open("a") as script:
        script.write("write_verilog -noattr mapped.v\n")
    subprocess.run([yosys, "-q", "myproject_synth.ys"], cwd=tmp_path, capture_output=True, check=True)
    (tmp_path / "myproject.v").write_text((tmp_path / "mapped.v").read_text() + REGISTER)
    assert "PASSED: 300 answers" in simulate(tmp_path, "lut_models.v", "-Wno-fatal")


def test_synthesis_that_takes_too_long(summed: kconvert.HLSModel) -> None:
    needs("yosys")
    with pytest.raises(ToolError, match=r"yosys took more than 0\.01 seconds"):
        synthesise(summed, timeout=0.01)


def test_pipeline_of_layers(tmp_path: Path) -> None:
    model = kconvert.convert_from_keras_model(nets.stack())
    files = {path.name: path.read_text() for path in export_verilog(model, tmp_path, registers=[True, False, True])}
    network = files["myproject.v"]
    assert network.count("always @(posedge clk)") == 2
    assert len(re.findall(r"LUT6 #\(\.INIT\(64'h[0-9a-f]{16}\)\)", network)) == sum(nets.SIZES)
    assert "reg [1:0] valid;" in files["myproject_stream.v"]
    assert "myproject_tb.v" not in files


def test_wires_between_layers_are_followed() -> None:
    config = {"kernel_size": [2, 2], "strides": [2, 2], "padding": "valid"}
    windows = nets.layer("Patches", "windows", "bits", config)
    spec = nets.model(nets.BITS, windows, nets.luts("lut", "windows", 4, 3), shape=(4, 4, 1))
    model = kconvert.convert_from_keras_model(spec)
    model.compile()
    part = design(model)
    assert part.source.producer.name == "bits"
    assert set(part.stages[0].wires[-3:].flat) <= {10, 11, 14, 15}  # the last window
    x = nets.samples(600, 4, 4, 1)
    assert np.array_equal(BitSliced(model).predict(x > 0.5), model.predict(x))


def test_what_is_no_verilog(tmp_path: Path) -> None:
    plain = kconvert.convert_from_keras_model(nets.model(nets.BITS))
    with pytest.raises(GraphError, match="the model has no LUT layer"):
        export_verilog(plain, tmp_path)
    branches = nets.model(nets.BITS, nets.luts("a", "bits", nets.INPUTS, 6), nets.luts("b", "bits", nets.INPUTS, 6))
    model = kconvert.convert_from_keras_model(branches)
    with pytest.raises(GraphError, match="LUT layer 'b' reads 'bits' and not 'a'"):
        export_verilog(model, tmp_path)
    model = kconvert.convert_from_keras_model(nets.stack())
    with pytest.raises(ConfigError, match="primitives 'lut6': choose from LUT6, RTL"):
        export_verilog(model, tmp_path, primitives="lut6")
    with pytest.raises(ConfigError, match="2 values of registers for 3 LUT layers"):
        export_verilog(model, tmp_path, registers=[True, False])
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write Verilog into"):
        export_verilog(model, tmp_path / "file")


# ***** the fast simulation *****


@pytest.mark.parametrize("count", [1, 63, 512, 1100])
def test_bit_sliced_answers_are_those_of_predict(summed: kconvert.HLSModel, count: int) -> None:
    x = nets.samples(count, seed=count)
    fast = BitSliced(summed)
    assert np.array_equal(fast.predict(x > 0.5), summed.predict(x))
    assert np.array_equal(fast.counts(pack(x > 0.5), threads=2), fast.counts(x > 0.5, threads=1))


def test_bit_sliced_tables_of_every_size_and_wide_answers() -> None:
    layers = [nets.BITS, nets.luts("a", "bits", nets.INPUTS, 150, pins=4), nets.luts("b", "a", 150, 70, pins=2)]
    model = kconvert.convert_from_keras_model(nets.model(*layers))
    model.compile()
    x = nets.samples(700)
    assert np.array_equal(BitSliced(model).predict(x > 0.5), model.predict(x))


def test_means_of_majorities_bit_sliced() -> None:
    config = {"units": 4, "n_inputs": 3, "low": -1.0, "high": 1.0}
    majority = nets.layer("AverageLut", "average", "lut2", config, np.arange(12).reshape(4, 3))
    model = kconvert.convert_from_keras_model(
        nets.stack(majority, nets.layer("Reduce", "out", "average", {"units": 2}))
    )
    model.compile()
    x = nets.samples(300)
    assert len(np.unique(model.predict(x))) == 3
    assert np.array_equal(BitSliced(model).predict(x > 0.5), model.predict(x))


def test_levels_that_become_bits_again_are_wires(tmp_path: Path) -> None:
    config = {"units": 4, "n_inputs": 3, "low": -1.0, "high": 1.0}
    majority = nets.layer("AverageLut", "average", "lut2", config, np.arange(12).reshape(4, 3))
    largest = nets.layer("MaxLut", "max", "average", {**config, "units": 2, "n_inputs": 2, "low": 0.0}, WIRES)
    model = kconvert.convert_from_keras_model(nets.stack(majority, largest))
    model.compile()
    x = nets.samples(300)
    signs = model.trace(x)["average"]
    assert set(np.unique(signs)) == {-1, 1}
    assert [stage.node.units for stage in design(model).stages] == [*nets.SIZES, 4, 2]
    assert np.array_equal(BitSliced(model).predict(x > 0.5), (signs[:, WIRES] > 0).any(axis=2))
    assert "layer4" in export_verilog(model, tmp_path)[0].read_text()
    other = nets.layer("Binarize", "turned", "average", {"threshold": 0.0, "low": 1.0, "high": 0.0})
    bits = nets.layer("MaxLut", "max", "turned", {**config, "units": 2, "n_inputs": 2, "low": 0.0}, WIRES)
    model = kconvert.convert_from_keras_model(nets.stack(majority, other, bits))
    with pytest.raises(GraphError, match="LUT layer 'max' reads 'turned' and not 'average_tables'"):
        design(model)


def test_names_stay_out_of_the_verilog(tmp_path: Path) -> None:
    first = nets.luts('a b"; $finish', "bits", nets.INPUTS, 8)
    second = nets.luts("*/ endmodule `include\n", first.name, 8, 6)
    model = kconvert.convert_from_keras_model(nets.model(nets.BITS, first, second))
    text = "".join(path.read_text() for path in export_verilog(model, tmp_path))
    assert "$finish" not in text
    assert "`include" not in text
    assert "a b" not in text


def test_bits_packed_and_back() -> None:
    bits = np.random.default_rng(1).random((5, 130)) < 0.5
    words = pack(bits)
    assert words.shape == (5, 3)
    assert int(words[3, 1]) == sum(int(b) << i for i, b in enumerate(bits[3, 64:128]))
    assert np.array_equal(unpack(words, 130), bits)


def test_bits_of_the_wrong_shape(summed: kconvert.HLSModel) -> None:
    with pytest.raises(ValueError, match=r"expected bool \[n, 20\] or uint64 \[n, 1\].*received float32 \[70, 20\]"):
        BitSliced(summed).predict(nets.samples())
    with pytest.raises(ValueError, match=r"received bool \[3, 21\]"):
        BitSliced(summed).predict(np.zeros((3, 21), bool))
