"""What goes wrong: one line, an exit code, and nothing half written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from kconvert import cli
from kconvert.cli.console import Command, Result
from kconvert.errors import InputError
from tests.cli.programs import Kconvert, environment
from tests.light.handmade import write_h5
from tests.light.test_light import images


@pytest.fixture
def program(tmp_path: Path) -> Kconvert:
    write_h5(tmp_path / "model.h5")
    (tmp_path / "config.yml").write_text("KerasH5: model.h5\nOutputDir: prj\n")
    np.save(tmp_path / "X.npy", images())
    return Kconvert(tmp_path)


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command in this process."""
    code = cli.run([str(a) for a in arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predct"], 2, "no command 'predct'; did you mean 'predict'? (see kconvert --help)"),
        (["convert"], 2, "Missing option '-c' / '--config'. (see kconvert convert --help)"),
        (["convert", "-c", "nothing.yml"], 1, "cannot read nothing.yml: No such file or directory"),
        (["config", "-m", "nothing.h5"], 1, "model file nothing.h5 does not exist"),
        (["config", "-m", "model.h5", "-x", "ap_fixed<16"], 1, "invalid precision: expected ',': ap_fixed<16"),
        (["config", "-m", "model.h5", "-p", "9x"], 1, "project_name '9x' cannot name a C++ function"),
        (["config", "-m", "model.h5", "-o", "no/c.yml"], 1, "cannot write no/c.yml: No such file or directory"),
        (["predict", "-c", "config.yml", "-i", "X.npy", "-o", "y.doc"], 1, "y.doc: results are written to .npy"),
        (["predict", "-c", "config.yml", "-i", "no.npy", "-o", "y.npy"], 1, "cannot read no.npy"),
        (["trace", "-c", "config.yml", "-i", "X.npy", "-o", "y.npy"], 1, "are written to an .npz file"),
        (["compare", "-c", "config.yml", "-i", "X.npy", "-o", "c.txt"], 1, "figures are written to .png"),
        (["tune", "-c", "config.yml", "-i", "X.npy", "-o", "t.yml", "--metric", "auc"], 1, "needs the truth"),
        (["tune", "-c", "config.yml", "-i", "X.npy", "-o", "no/t.yml"], 1, "cannot write no/t.yml: No such file"),
    ],
)
def test_an_error_is_one_line(
    program: Kconvert,
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(program.folder)
    before = sorted(os.listdir())
    found, out, err = run(*arguments, capsys=capsys)
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    assert message in err
    found, out, err = run(*arguments, "--json", capsys=capsys)
    assert found == code
    assert message in cli.one_line(json.loads(out)["error"])
    assert json.loads(out)["exit_code"] == code
    assert sorted(os.listdir()) == before


def test_a_traceback_only_with_debug(program: Kconvert) -> None:
    assert "Traceback" not in program.fails("convert", "-c", "nothing.yml")
    done = program.run("convert", "-c", "nothing.yml", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "kconvert: cannot read nothing.yml: No such file or directory"


def test_a_failed_command_leaves_an_older_result(program: Kconvert) -> None:
    (program.folder / "y.npy").write_text("older")
    np.save(program.folder / "bad.npy", np.full((3, 6, 6, 1), np.nan))
    assert "NaN or infinite" in program.fails("predict", "-c", "config.yml", "-i", "bad.npy", "-o", "y.npy")
    assert (program.folder / "y.npy").read_text() == "older"
    assert not list(program.folder.glob(".kconvert-*"))


def test_standard_output_that_takes_nothing(program: Kconvert) -> None:
    call = [sys.executable, "-m", "kconvert", "config", "-m", "model.h5", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            call, cwd=program.folder, env=environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"kconvert: reading or writing: No space left on device\n")


def test_a_config_that_keras_never_wrote(program: Kconvert) -> None:
    relu = {"name": "act", "max_value": "six", "batch_input_shape": [None, 3]}
    model = {"class_name": "Sequential", "config": {"layers": [{"class_name": "ReLU", "config": relu}]}}
    (program.folder / "m.json").write_text(json.dumps(model))
    message = program.fails("config", "-m", "m.json")
    assert message.startswith("layer 'act' (ReLU): its config does not make sense: ")


def test_a_rejected_compiler_and_names_that_steer_the_terminal(program: Kconvert) -> None:
    assert "CXX='nowhere' is not on PATH" in program.fails("compile", "-c", "config.yml", CXX="nowhere")
    write_h5(program.folder / "model.h5", first="a\x1b[31mb\nc")
    assert "\x1b" not in program("convert", "-c", "config.yml")


def test_warnings_come_after_the_result(program: Kconvert) -> None:
    np.save(program.folder / "big.npy", images() * 1000)
    arguments = ("predict", "-c", "config.yml", "-i", "big.npy", "-o", "y.npy")
    done = program.run(*arguments)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: input 'image': ")
    assert "scale them" in program.json(*arguments)["warnings"][0]


# ***** interruptions *****

SLOW = """
import sys, time
import kconvert.{module} as module
original = module.{function}
def slow(*arguments, **options):
    result = original(*arguments, **options)
    print("now", flush=True)
    time.sleep(60)
    return result
module.{function} = slow
from kconvert.cli import main
main()
"""


def interrupted(folder: Path, module: str, function: str, *arguments: str, number: int) -> tuple[int, str]:
    """Send a signal to a command after it has called a function of kconvert; returns exit code and errors."""
    program = [sys.executable, "-c", SLOW.format(module=module, function=function), *arguments]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(program, cwd=folder, env=environment(), **streams) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_ctrl_c_while_a_project_is_written(program: Kconvert) -> None:
    found = interrupted(program.folder, "project", "save_spec", "convert", "-c", "config.yml", number=signal.SIGINT)
    assert found == (130, "kconvert: interrupted\n")
    assert not (program.folder / "prj").exists()


def test_ctrl_c_leaves_the_project_that_was_there(program: Kconvert) -> None:
    program("convert", "-c", "config.yml")
    before = {p: p.read_bytes() for p in (program.folder / "prj").rglob("*") if p.is_file()}
    (program.folder / "config.yml").write_text("KerasH5: model.h5\nOutputDir: prj\nProjectName: other\n")
    for function in ("save_spec", "_swap"):  # before and after the new files are moved in
        found = interrupted(program.folder, "project", function, "convert", "-c", "config.yml", number=signal.SIGINT)
        assert found[0] == 130
        now = {p: p.read_bytes() for p in (program.folder / "prj").rglob("*") if p.is_file()}
        assert (now == before) is (function == "save_spec")
        assert not any(".kconvert-" in str(p) for p in now)
    assert (program.folder / "prj" / "firmware" / "other.cpp").is_file()


def test_being_ended_while_predictions_are_written(program: Kconvert) -> None:
    (program.folder / "y.npy").write_text("older")
    arguments = ("predict", "-c", "config.yml", "-i", "X.npy", "-o", "y.npy")
    found = interrupted(program.folder, "samples", "chunk_rows", *arguments, number=signal.SIGTERM)
    assert found == (143, "kconvert: terminated\n")
    assert (program.folder / "y.npy").read_text() == "older"
    assert not list(program.folder.glob(".kconvert-*"))


# ***** commands of others *****


@click.command(cls=Command, example="kconvert hello world")
@click.argument("name")
def hello(name: str) -> Result:
    """Greet."""
    if name == "nobody":
        raise InputError("nobody to greet")
    return Result({"name": name}, [f"hello {name}"])


def test_commands_of_other_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    points = [
        metadata.EntryPoint("hello", f"{__name__}:hello", cli.ENTRY_POINTS),
        metadata.EntryPoint("broken", "no_such_module:command", cli.ENTRY_POINTS),
    ]
    monkeypatch.setattr(cli.metadata, "entry_points", lambda group: points if group == cli.ENTRY_POINTS else [])
    assert run("hello", "world", capsys=capsys) == (0, "hello world\n", "")
    assert run("hello", "nobody", capsys=capsys) == (1, "", "kconvert: nobody to greet\n")
    assert json.loads(run("hello", "world", "--json", capsys=capsys)[1]) == {"name": "world", "warnings": []}
    code, _, err = run("broken", capsys=capsys)
    assert code == 1
    assert "the command 'broken' of no_such_module:command cannot be loaded" in err
