"""From a model file to predictions without TensorFlow: nothing here may import it, and it need not be installed.

These run in an environment of their own (``make test-light``) and, as all others, in the full one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kconvert
from kconvert.converters.readers.neutral import save_spec
from kconvert.errors import PrecisionWarning
from tests import reference
from tests.cli.programs import Kconvert, environment, without_keras
from tests.conftest import ROOT
from tests.light.handmade import write_h5

HEAVY = ("tensorflow", "keras", "tf_keras", "qkeras", "sklearn", "matplotlib", "pandas")

# What the hardware answers for the first samples of `images()`, in units of 2**-10.
EXPECTED = [
    [954, 2, 2, 66],
    [969, 2, 0, 53],
    [112, 51, 0, 861],
    [794, 54, 7, 169],
    [444, 8, 0, 571],
    [826, 136, 10, 52],
]


def images() -> np.ndarray:
    return np.random.default_rng(7).integers(-32, 32, (20, 6, 6, 1)) / 16


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "handmade.h5"
    write_h5(file)
    return file


def imported_by(statements: str) -> set[str]:
    """Return the heavy modules that a fresh interpreter has loaded after running `statements`."""
    program = f"import sys\n{statements}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_kconvert_imports_nothing_heavy() -> None:
    assert imported_by("import kconvert; from kconvert import *") <= {"matplotlib"}
    assert imported_by("import kconvert, kconvert.csim, kconvert.project, kconvert.vendor") == set()


def test_converting_compiling_and_predicting_imports_nothing_heavy(path: Path, tmp_path: Path) -> None:
    statements = f"""
import numpy as np, kconvert
config = kconvert.config_from_keras_model({str(path)!r}, granularity="name")
hls_model = kconvert.convert_from_keras_model({str(path)!r}, config, output_dir={str(tmp_path / "prj")!r})
hls_model.compile()
hls_model.predict(np.zeros((3, 6, 6, 1)))
hls_model.trace(np.zeros((3, 6, 6, 1)))
hls_model.write()
kconvert.convert_from_config({str(tmp_path / "prj" / "kconvert_config.yml")!r})
"""
    assert imported_by(statements) == set()


def test_the_answers_are_the_expected_ones(path: Path) -> None:
    hls_model = kconvert.convert_from_keras_model(path)
    hls_model.compile()
    answers = hls_model.predict(images())
    assert (answers[:6] * 1024).tolist() == EXPECTED
    assert np.array_equal(answers, reference.run(hls_model, images())[0][0])
    assert list(hls_model.trace(images())) == ["conv", "conv_relu", "pool", "flatten", "output", "output_softmax"]


def test_a_configuration_by_name_reaches_the_layers(path: Path) -> None:
    config = kconvert.config_from_keras_model(path, granularity="name")
    config["LayerName"]["conv"]["Precision"].update(weight="ap_fixed<4,1>", accum="ap_fixed<9,5>")
    hls_model = kconvert.convert_from_keras_model(path, config)
    hls_model.compile()
    assert np.array_equal(hls_model.predict(images()), reference.run(hls_model, images())[0][0])
    assert str(hls_model["conv"].accum_type) == "ap_fixed<9,5>"


def test_the_neutral_copy_of_a_model_is_the_model(path: Path, tmp_path: Path) -> None:
    save_spec(kconvert.read_model(path), tmp_path / "copy.h5")
    copy, original = (kconvert.convert_from_keras_model(p) for p in (tmp_path / "copy.h5", path))
    assert str(copy) == str(original)
    copy.compile()
    original.compile()
    assert np.array_equal(copy.predict(images()), original.predict(images()))


def test_a_project_is_written_and_converts_again(path: Path, tmp_path: Path) -> None:
    folder = kconvert.convert_from_keras_model(path, output_dir=tmp_path / "prj", input_data_tb=images()).write()
    data = np.loadtxt(folder / "tb" / "tb_data" / "tb_input_features.dat")
    assert np.array_equal(data.reshape(images().shape), images())
    assert (folder / "tb" / "tb_data" / "tb_output_predictions.dat").read_text() == "", "no Keras to ask"
    again = kconvert.convert_from_config(folder / "kconvert_config.yml")
    assert [n.name for n in again.nodes] == [
        "image",
        "conv",
        "conv_relu",
        "pool",
        "flatten",
        "output",
        "output_softmax",
    ]


def test_values_outside_the_range_warn(path: Path) -> None:
    hls_model = kconvert.convert_from_keras_model(path)
    hls_model.compile()
    with pytest.warns(PrecisionWarning, match="input 'image'"):
        hls_model.predict(images() * 100)


def test_the_command_line_needs_no_tensorflow(path: Path, tmp_path: Path) -> None:
    program = Kconvert(tmp_path, (without_keras(tmp_path / "hidden"),))
    np.save(tmp_path / "X.npy", images())
    hidden = subprocess.run(
        [sys.executable, "-c", "import keras"], env=environment(*program.paths), capture_output=True, check=False
    )
    assert hidden.returncode, "the test is meant to run without Keras"
    program("config", "-m", path, "-g", "name", "-o", "config.yml")
    start = time.monotonic()
    program("convert", "-c", "config.yml")
    assert time.monotonic() - start < 10, "far more than the second it takes on an idle machine"
    program("compile", "-c", "config.yml")
    program("predict", "-c", "config.yml", "-i", "X.npy", "-o", "y.npy")
    assert (np.load(tmp_path / "y.npy")[:6] * 1024).tolist() == EXPECTED
    program("trace", "-c", "config.yml", "-i", "X.npy", "-o", "layers.npz")
    program("profile", "-c", "config.yml", "-i", "X.npy")
    assert "in wide types" in program("compare", "-c", "config.yml", "-i", "X.npy")
    message = program.fails("compare", "-c", "config.yml", "-i", "X.npy", "--against", "keras")
    assert message == "loading a model by Keras needs keras, which is not installed: pip install keras"


def test_a_file_converts_in_less_than_a_second(path: Path) -> None:
    kconvert.convert_from_keras_model(path)
    start = time.process_time()
    kconvert.convert_from_keras_model(path)
    assert time.process_time() - start < 1
