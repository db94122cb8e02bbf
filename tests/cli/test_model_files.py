"""Model files of every age, from the file to a written project."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kconvert import cli
from tests.cli.programs import Kconvert
from tests.conftest import golden

EXAMPLES = [
    *("KERAS_3layer", "KERAS_3layer_batch_norm", "KERAS_3layer_binary_smaller", "KERAS_3layer_ternary_small"),
    *("KERAS_conv1d_small", "KERAS_conv2d_model", "jetTagger_Conv2D_Small", "qkeras_3layer"),
]


def converts(*options: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Write settings for a model file and convert it, in the current folder."""
    for arguments in (["config", *options, "-o", "config.yml"], ["convert", "-c", "config.yml"]):
        assert cli.run(arguments) == 0
        assert capsys.readouterr().err == ""
    assert Path("my-hls-project/firmware/myproject.cpp").is_file()


@pytest.mark.parametrize("granularity", ["model", "name"])
@pytest.mark.parametrize("stem", EXAMPLES)
def test_architectures_and_weights_of_real_users(
    stem: str, granularity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    models = golden("example-models") / "keras"
    files = ("-m", str(models / f"{stem}.json"), "-w", str(models / f"{stem}_weights.h5"))
    converts(*files, "-g", granularity, capsys=capsys)


def test_an_archive_of_a_real_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    converts("-m", str(golden("example-models") / "keras" / "qkeras-v3_3layer.keras"), "-g", "name", capsys=capsys)


@pytest.mark.parametrize("name", ["keras-config.yml", "config-files/qkeras_3layer_config.yml"])
def test_settings_of_real_users(name: str, tmp_path: Path) -> None:
    shutil.copytree(golden("example-models"), tmp_path, dirs_exist_ok=True)
    shutil.copyfile(golden("example-models") / name, tmp_path / "config.yml")  # its paths start here
    program = Kconvert(tmp_path)
    folder = yaml.safe_load((tmp_path / name).read_text())["OutputDir"]
    done = program.run("convert", "-c", "config.yml")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / folder / "build_prj.tcl").is_file()
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(10, 16)))
    program("predict", "-c", "config.yml", "-i", "X.npy", "-o", "y.npy")
    assert np.load(tmp_path / "y.npy").shape == (10, 5)


@pytest.fixture(scope="module")
def keras2_model() -> Any:
    layers = pytest.importorskip("tf_keras").layers
    return pytest.importorskip("tf_keras").Sequential(
        [
            layers.Conv2D(2, 3, activation="relu", input_shape=(6, 6, 1), name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="fc"),
            layers.Softmax(name="softmax"),
        ]
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["h5", "keras", "json", "weights"])
def test_files_of_keras_2(
    keras2_model: Any,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if form in ("h5", "keras"):
        keras2_model.save(f"m.{form}")
        options = ["-m", f"m.{form}"]
    else:
        Path("m.json").write_text(keras2_model.to_json())
        name = "w.h5" if form == "json" else "m.weights.h5"
        keras2_model.save_weights(name)
        options = ["-m", "m.json", "-w", name]
    capsys.readouterr()
    converts(*options, capsys=capsys)
    assert cli.run(["compile", "-c", "config.yml"]) == 0
