"""A package that is missing is named, with the line that installs it; what does not need it works without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from kconvert.errors import MissingPackageError
from kconvert.packages import import_package

LAYERS = [
    {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3], "dtype": "float32"}},
    {
        "class_name": "QDense",
        "config": {
            "name": "fc",
            "units": 2,
            "activation": "quantized_relu(6,0)",
            "use_bias": True,
            "kernel_quantizer": {"class_name": "quantized_bits", "config": {"bits": 4, "integer": 0, "alpha": 1.0}},
            "bias_quantizer": "quantized_bits(4,0,alpha=1)",
        },
    },
]


@pytest.fixture
def qkeras_files(tmp_path: Path) -> Path:
    """Write a QKeras model as architecture and weights, and return the folder."""
    (tmp_path / "model.json").write_text(
        json.dumps({"class_name": "Sequential", "config": {"name": "net", "layers": LAYERS}, "keras_version": "2.13.1"})
    )
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"fc"])
        group = file.create_group("fc")
        group.attrs["weight_names"] = np.array([b"fc/kernel:0", b"fc/bias:0"])
        group["fc/kernel:0"], group["fc/bias:0"] = np.full((3, 2), 0.5, np.float32), np.zeros(2, np.float32)
    return tmp_path


def run_without(*packages: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code where these packages cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=folder, capture_output=True, text=True, check=False
    )


CONVERT = """
import kconvert
try:
    model = kconvert.convert_from_keras_model(kconvert.read_model("model.json", "weights.h5"))
    print(model["fc"].typed("weight"))
except kconvert.KConvertError as error:
    print(type(error).__name__, error)
"""


def test_a_qkeras_file_converts_without_qkeras(qkeras_files: Path) -> None:
    done = run_without("qkeras", "keras", "tensorflow", "tf_keras", code=CONVERT, folder=qkeras_files)
    assert done.stdout.startswith("ap_fixed<4,1,"), done.stderr


@pytest.mark.parametrize("package", ["pyparsing", "h5py"])
def test_what_a_conversion_needs_is_named(package: str, qkeras_files: Path) -> None:
    done = run_without(package, code=CONVERT, folder=qkeras_files)
    assert done.stdout.startswith("MissingPackageError "), done.stdout + done.stderr
    assert f"pip install {package}" in done.stdout
    assert "not supported" not in done.stdout


def test_the_package_that_a_package_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy.py").write_text("import not_there.deeper\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError) as caught:
        import_package("needy", "counting")
    assert str(caught.value) == (
        "counting needs needy, and needy needs not_there, which is not installed: pip install not_there"
    )


def test_the_name_to_install_may_be_another() -> None:
    with pytest.raises(MissingPackageError, match=r"^a curve needs other-name, .*: pip install other-name$"):
        import_package("nowhere_to_be_found.inside", "a curve", "other-name")
