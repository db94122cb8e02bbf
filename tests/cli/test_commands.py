"""Every command, run as a program in an empty folder."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

import kconvert
from kconvert.cli import COMMANDS, builtin
from kconvert.cli.console import Command
from tests.cli.programs import Kconvert
from tests.light.handmade import write_h5
from tests.light.test_light import EXPECTED, images
from tests.test_vendor import VITIS_CSYNTH

TOOL = """#!/bin/sh
echo "synthesis of $*"
mkdir -p net_prj/solution1/syn/report
cp "$REPORT" net_prj/solution1/syn/report/net_csynth.rpt
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its settings and samples."""
    folder = tmp_path_factory.mktemp("files")
    write_h5(folder / "model.h5")
    np.save(folder / "X.npy", images())
    Kconvert(folder)("config", "-m", "model.h5", "-p", "net", "-d", "prj", "-ba", "vivado", "-o", "config.yml")
    return folder


@pytest.fixture
def program(tmp_path: Path, files: Path) -> Kconvert:
    for name in ("model.h5", "config.yml", "X.npy"):
        os.link(files / name, tmp_path / name)
    return Kconvert(tmp_path)


def single(command: click.Command, path: str) -> Iterator[tuple[str, Command]]:
    """Yield a command, or those of a group, with what to type."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from single(inner, f"{path} {name}")
    else:
        assert isinstance(command, Command)
        yield path, command


def test_every_command_explains_itself_with_an_example(program: Kconvert) -> None:
    text = program("--help")
    for name in COMMANDS:
        assert f"\n  {name} " in text
        for path, command in single(builtin(name), f"kconvert {name}"):
            assert f"{path} " in command.example
    text = program("config", "--help")
    assert "Example:\n  kconvert config -m model.h5" in text
    assert program("--version").strip().endswith(kconvert.__version__)


# ***** from a model to a project *****


def test_config_writes_what_its_options_say(program: Kconvert) -> None:
    options = "-m model.h5 -p jets -d out -f xc7z020clg400-1 -ba Vitis -c 4.5 -g name -x ap_fixed<12,4> -r 2 -o c.yml"
    program("config", *options.split())
    content = yaml.safe_load((program.folder / "c.yml").read_text())
    assert content.pop("HLSConfig")["LayerName"]["output"]["ReuseFactor"] == 2
    assert content == {
        "KerasH5": "model.h5",
        "OutputDir": "out",
        "ProjectName": "jets",
        "Backend": "Vitis",
        "Part": "xc7z020clg400-1",
        "ClockPeriod": 4.5,
        "IOType": "io_parallel",
    }
    hls_model = kconvert.convert_from_config(program.folder / "c.yml")
    assert str(hls_model["output"].typed("weight")) == "ap_fixed<12,4,AP_RND,AP_SAT>"


def test_config_prints_what_is_not_to_be_written(program: Kconvert) -> None:
    before = sorted(os.listdir(program.folder))
    assert yaml.safe_load(program("config", "-m", "model.h5"))["KerasH5"] == "model.h5"
    assert sorted(os.listdir(program.folder)) == before


def test_paths_in_the_settings_are_relative_to_them(program: Kconvert) -> None:
    (program.folder / "deep").mkdir()
    program("config", "-m", "model.h5", "-d", "prj", "-o", "deep/c.yml")
    program("convert", "-c", "deep/c.yml")
    assert yaml.safe_load((program.folder / "deep" / "c.yml").read_text())["KerasH5"] == "../model.h5"
    assert (program.folder / "deep" / "prj" / "build_prj.tcl").is_file()


def test_convert_writes_the_project(program: Kconvert) -> None:
    text = program("convert", "-c", "config.yml")
    assert "conv_relu" in text
    assert text.endswith("wrote the project net into prj\n")
    assert {"build_prj.tcl", "firmware", "tb", "kconvert_config.yml"} <= set(os.listdir(program.folder / "prj"))
    data = program.json("convert", "-c", "prj")
    assert [data["project_name"], data["backend"], data["warnings"]] == ["net", "Vivado", []]
    assert data["layers"][1] == {
        "layer": "conv",
        "operation": "Conv",
        "shape": [4, 4, 3],
        "result": data["layers"][1]["result"],
        "parameters": 30,
    }


def test_streams_are_as_deep_as_measured(program: Kconvert) -> None:
    program("config", "-m", "model.h5", "-d", "streams", "--io-type", "io_stream", "-o", "streams.yml")
    data = program.json("convert", "-c", "streams.yml", "--fifo-depths")
    text = (program.folder / "streams" / "firmware" / "myproject.cpp").read_text()
    assert data["fifo_depths"]
    for name, depth in data["fifo_depths"].items():
        assert f"STREAM variable={name} depth={depth}\n" in text
    assert "has no streams to measure" in program.fails("convert", "-c", "config.yml", "--fifo-depths")


def test_test_bench_data_land_in_the_project(program: Kconvert) -> None:
    np.savetxt(program.folder / "in.dat", images().reshape(20, -1))
    np.save(program.folder / "out.npy", np.arange(80.0).reshape(20, 4))
    with (program.folder / "more.yml").open("w") as file:
        file.write((program.folder / "config.yml").read_text() + "InputData: in.dat\nOutputPredictions: out.npy\n")
    program("convert", "-c", "more.yml")
    data = program.folder / "prj" / "tb" / "tb_data"
    assert np.array_equal(np.loadtxt(data / "tb_input_features.dat"), images().reshape(20, -1))
    assert np.array_equal(np.loadtxt(data / "tb_output_predictions.dat").ravel(), np.arange(80.0))


def test_compile(program: Kconvert) -> None:
    assert program("compile", "-c", "config.yml").startswith("compiled 7 layers in ")
    assert not (program.folder / "prj").exists()


# ***** samples *****


@pytest.mark.parametrize(("given", "wanted"), [("npy", "npy"), ("npz", "csv"), ("csv", "npz"), ("txt", "dat")])
def test_predict_reads_and_writes_all_formats(program: Kconvert, given: str, wanted: str) -> None:
    flat = images().reshape(20, -1)
    save = {
        "npy": lambda path: np.save(path, images()),
        "npz": lambda path: np.savez_compressed(path, image=images()),
        "csv": lambda path: np.savetxt(path, flat, delimiter=",", header="pixels", comments=""),
        "txt": lambda path: np.savetxt(path, flat),
    }
    save[given](program.folder / f"in.{given}")
    data = program.json("predict", "-c", "config.yml", "-i", f"in.{given}", "-o", f"y.{wanted}")
    assert (data["samples"], data["outputs"]) == (20, {"output_softmax": [4]})
    path = program.folder / f"y.{wanted}"
    load = {
        "npy": np.load,
        "npz": lambda p: np.load(p)["output_softmax"],
        "csv": lambda p: np.loadtxt(p, delimiter=","),
        "dat": np.loadtxt,
    }
    answers = load[wanted](path)
    assert (answers[:6] * 1024).tolist() == EXPECTED
    hls_model = kconvert.convert_from_keras_model(program.folder / "model.h5")
    hls_model.compile()
    assert np.array_equal(answers, hls_model.predict(images()))


def test_trace_writes_an_array_for_every_layer(program: Kconvert) -> None:
    text = program("trace", "-c", "config.yml", "-i", "X.npy", "-o", "layers.npz")
    assert "conv_relu" in text
    hls_model = kconvert.convert_from_keras_model(program.folder / "model.h5")
    hls_model.compile()
    expected = hls_model.trace(images())
    with np.load(program.folder / "layers.npz") as arrays:
        assert list(arrays) == list(expected)
        assert all(np.array_equal(arrays[name], expected[name]) for name in expected)


def test_profile_and_compare_print_tables_and_save_figures(program: Kconvert) -> None:
    data = program.json("profile", "-c", "config.yml", "-i", "X.npy")
    assert {row["role"] for row in data["ranges"]} == {"weight", "bias", "result"}
    data = program.json("compare", "-c", "config.yml", "-i", "X.npy", "--against", "precise", "-o", "c.png")
    assert [row["layer"] for row in data["layers"]][:2] == ["conv", "conv_relu"]
    assert 0 < data["layers"][-1]["max_abs_diff"] < 0.01
    for name in ("profile.png", "c.png"):
        assert (program.folder / name).read_bytes().startswith(b"\x89PNG")


def test_compare_with_keras_itself(program: Kconvert) -> None:
    pytest.importorskip("keras", minversion="3")
    done = program.run("compare", "-c", "config.yml", "-i", "X.npy", "--no-plot", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert data["reference"] == "Keras"
    assert 0 < data["layers"][-1]["max_abs_diff"] < 0.01


def test_tune_writes_settings_that_hold_what_it_says(program: Kconvert) -> None:
    data = program.json(
        *("tune", "-c", "config.yml", "-i", "X.npy", "--metric", "mae", "--tolerance", "0.02"),
        *("--budget", "6", "-o", "tuned.yml"),
    )
    assert data["score"] <= 0.02
    assert data["bits_after"] < data["bits_before"] / 1.5
    assert data["compiles"] <= 6
    hls_model = kconvert.convert_from_config(program.folder / "tuned.yml")
    for row in data["types"]:
        node = next(n for n in hls_model if n.layer == row["layer"] and row["role"] in n.roles)
        assert str(node.typed(row["role"])) == row["after"]


# ***** the vendor's tool *****


def with_tool(folder: Path) -> str:
    """Make a vivado_hls that leaves a report; returns the PATH with it."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "vivado_hls").write_text(TOOL)
    (tools / "vivado_hls").chmod(stat.S_IRWXU)
    (tools / "report.rpt").write_text(VITIS_CSYNTH)
    return f"{tools}{os.pathsep}{os.environ['PATH']}"


def test_build_and_report(program: Kconvert) -> None:
    program("convert", "-c", "config.yml")
    message = program.fails("report", "-p", "prj")
    assert "prj holds no reports (synthesis, co-simulation, logic synthesis are all missing)" in message
    tool = {"PATH": with_tool(program.folder), "REPORT": str(program.folder / "tools" / "report.rpt")}
    log = program("build", "-p", "prj", "-c", "-s", "-r", "-v", "-e", "--reset", **tool)
    assert "reset=1 csim=1 synth=1 cosim=1 validation=1 export=1 vsynth=0" in log
    data = program.json("build", "-p", "prj", **tool)
    assert data["reports"]["CSynthesisReport"]["BestLatency"] == 12
    text = program("report", "-p", "prj")
    assert "co-simulation: no report" in text
    assert any(line.split() == ["LUT", "4600", "1728000", "0.3"] for line in text.splitlines())
    assert "|Available        |" in program("report", "-p", "prj", "-f")
    path = program.folder / "prj" / "net_prj" / "solution1" / "syn" / "report" / "net_csynth.rpt"
    path.write_text(VITIS_CSYNTH[:700])
    assert "net_csynth.rpt: it holds no" in program.fails("report", "-p", "prj")


def test_build_without_the_tool_says_what_it_would_have_run(program: Kconvert) -> None:
    program("convert", "-c", "config.yml")
    message = program.fails("build", "-p", "prj", "-a", PATH="/usr/bin:/bin")
    assert message.startswith("vivado_hls is not on PATH")
    assert "would have run, for csim, synth, cosim, validation, export, vsynth, in prj: vivado_hls -f" in message
    assert "no project of kconvert: it does not exist" in program.fails("build", "-p", "elsewhere")


def test_completion(program: Kconvert) -> None:
    assert "_KCONVERT_COMPLETE=bash_complete" in program("completion", "bash")
    assert "complete" in program("completion", "fish")
    found = program(_KCONVERT_COMPLETE="bash_complete", COMP_WORDS="kconvert pre", COMP_CWORD="1")
    assert found.split() == ["plain,predict"]
