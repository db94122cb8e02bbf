"""The project folder: what is in it, that it is exact, and that a failure leaves the old one as it was."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import kconvert
from kconvert import HLSModel, project
from kconvert.csim.compiler import find_compiler, include_folder
from kconvert.errors import ConfigError, InputError, WriteError
from kconvert.firmware import Firmware
from tests.layers.common import as_list
from tests.models import MODELS, conv2d_net, mlp, randomise

SOME = ["mlp_batchnorm", "conv2d_net", "depthwise_net", "multi_output", "residual_two_inputs", "shared_tensor_net"]


@pytest.fixture(scope="module")
def model() -> Any:
    return conv2d_net()


def converted(model: Any, folder: Path, **options: Any) -> HLSModel:
    config = kconvert.config_from_keras_model(model, granularity="name")
    return kconvert.convert_from_keras_model(model, config, output_dir=folder, project_name="myproject", **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_files(model: Any, tmp_path: Path) -> None:
    folder = converted(model, tmp_path / "prj").write()
    assert folder == tmp_path / "prj"
    files = set(contents(folder))
    kernels = {p.name for p in (Path(project.__file__).parent / "templates" / "kernels").iterdir()}
    assert files == {
        "build_prj.tcl",
        "vivado_synth.tcl",
        "kconvert_config.yml",
        "kconvert_model.h5",
        "firmware/myproject.cpp",
        "firmware/myproject.h",
        "firmware/defines.h",
        "firmware/parameters.h",
        *(f"firmware/nnet_utils/{name}" for name in kernels),
        *(f"firmware/weights/{name}.h" for name in ("conv1_weight", "conv1_bias", "conv2_weight", "conv2_bias")),
        *(f"firmware/weights/{name}.h" for name in ("output_weight", "output_bias", "average_reciprocal")),
        *(f"firmware/weights/output_softmax_{name}.h" for name in ("exp_table", "inv_table")),
        "tb/myproject_test.cpp",
        "tb/tb_data/tb_input_features.dat",
        "tb/tb_data/tb_output_predictions.dat",
    }


def test_nothing_is_written_before_write(model: Any, tmp_path: Path) -> None:
    hls_model = converted(model, tmp_path / "prj")
    hls_model.compile()
    hls_model.predict(np.zeros((1, 10, 10, 1)))
    assert not (tmp_path / "prj").exists()


@pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")
@pytest.mark.parametrize("precision", ["ap_fixed<16,6>", "ap_fixed<40,3>", "ap_ufixed<9,-2>", "ap_fixed<6,9>"])
def test_weights_are_exact_to_the_bit(precision: str, tmp_path: Path) -> None:
    model = mlp()
    model.layers[0].set_weights([w * 1e-3 if i else w * np.pi for i, w in enumerate(model.layers[0].get_weights())])
    config = kconvert.config_from_keras_model(model, granularity="name")
    config["LayerName"]["fc1"]["Precision"].update(weight=precision, bias=precision, accum="ap_fixed<60,30>")
    hls_model = kconvert.convert_from_keras_model(model, config, output_dir=tmp_path)
    hls_model.write()
    for named in Firmware(hls_model).constants:
        text = (tmp_path / "firmware" / "weights" / f"{named.variable}.h").read_text()
        size, values = re.search(r"\w+\[(\d+)\] = \{(.*)\};", text, re.DOTALL).groups()  # type: ignore[union-attr]
        numbers = [float(v) for v in values.split(",")]
        assert int(size) == len(numbers)
        assert numbers == named.constant.type.from_raw(named.constant.raw).tolist()


def test_test_bench_data_are_the_samples_and_keras_answers(model: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 10, 10, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for given in (x, str(tmp_path / "x.npy")):
        folder = converted(model, tmp_path / "prj", input_data_tb=given).write()
        data = folder / "tb" / "tb_data"
        assert np.array_equal(np.loadtxt(data / "tb_input_features.dat").reshape(x.shape), x)
        answers = np.loadtxt(data / "tb_output_predictions.dat")
        assert np.abs(answers - model.predict(x, verbose=0)).max() < 1e-6


def test_data_that_do_not_fit_are_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="input_data_tb: expected 100 numbers a sample"):
        converted(model, tmp_path, input_data_tb=np.zeros((5, 7)))
    with pytest.raises(InputError, match=r"output_data_tb has 4 samples, input_data_tb 5"):
        converted(model, tmp_path, input_data_tb=np.zeros((5, 10, 10, 1)), output_data_tb=np.zeros((4, 3)))
    with pytest.raises(InputError, match=r"input_data_tb: cannot read .*missing\.npy"):
        converted(model, tmp_path, input_data_tb=tmp_path / "missing.npy")


# ---- the configuration file ----


@pytest.mark.parametrize("name", SOME)
def test_the_configuration_file_converts_to_the_same_project(name: str, tmp_path: Path) -> None:
    first = converted(MODELS[name](), tmp_path / "prj", part="xc7z020clg400-1", clock_period=10, backend="Vivado")
    folder = first.write()
    before = contents(folder)
    again = kconvert.convert_from_config(folder / "kconvert_config.yml")
    assert again.settings.part == "xc7z020clg400-1"
    assert Path(again.settings.output_dir).resolve() == folder.resolve()
    again.write()
    after = contents(folder)
    model_files = {"kconvert_model.h5"}  # HDF5 keeps times and padding; what counts is what is read from it
    assert {k: v for k, v in after.items() if k not in model_files} == {
        k: v for k, v in before.items() if k not in model_files
    }


def test_a_moved_project_converts_where_it_is_now(model: Any, tmp_path: Path) -> None:
    converted(model, tmp_path / "prj").write()
    (tmp_path / "prj").rename(tmp_path / "moved")
    folder = kconvert.convert_from_config(tmp_path / "moved" / "kconvert_config.yml").write()
    assert folder.resolve() == (tmp_path / "moved").resolve()
    assert not (tmp_path / "prj").exists()


def test_types_and_numpy_numbers_in_the_settings_are_written_as_text(tmp_path: Path) -> None:
    config = {
        "Model": {"ReuseFactor": 2},
        "LayerName": {"fc1": {"Precision": {"weight": kconvert.FixedType(9, 3)}, "ReuseFactor": 4}},
    }
    hls_model = kconvert.convert_from_keras_model(mlp(), config, output_dir=tmp_path)
    content = yaml.safe_load((hls_model.write() / "kconvert_config.yml").read_text())
    assert content["HLSConfig"]["LayerName"]["fc1"]["Precision"]["weight"] == "ap_fixed<9,3>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("KerasModel: [", "is not valid YAML"),
        ("- 1", "expected a mapping at the top, got list"),
        ("OutputDir: .", "the key KerasModel is missing"),
        ("KerasModel: m.h5\nClockPeriode: 5", "unknown key 'ClockPeriode'"),
        ("KerasModel: m.h5\nOutputDir: .\n1: 2", "unknown key"),
    ],
)
def test_a_bad_configuration_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        kconvert.convert_from_config(tmp_path / "config.yml")


def test_a_missing_configuration_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.yml"):
        kconvert.convert_from_config(tmp_path / "nothing.yml")


# ---- what was there before ----


def test_writing_again_replaces_its_files_and_keeps_foreign_ones(model: Any, tmp_path: Path) -> None:
    hls_model = converted(model, tmp_path / "prj")
    folder = hls_model.write()
    (folder / "notes.txt").write_text("mine")
    (folder / "myproject_prj").mkdir()
    (folder / "myproject_prj" / "report.rpt").write_text("of the tool")
    (folder / "firmware" / "myproject.cpp").write_text("edited")
    before = contents(folder)
    hls_model.write()
    after = contents(folder)
    assert after["notes.txt"] == b"mine"
    assert after["myproject_prj/report.rpt"] == b"of the tool"
    assert after["firmware/myproject.cpp"] != b"edited"
    assert set(before) == set(after)


def test_a_project_of_another_model_leaves_no_stale_weights(tmp_path: Path) -> None:
    converted(conv2d_net(), tmp_path / "prj").write()
    folder = converted(mlp(), tmp_path / "prj").write()
    names = {p.name for p in (folder / "firmware" / "weights").iterdir()}
    assert "conv1_weight.h" not in names
    assert "fc1_weight.h" in names


def _fail_on(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, error: BaseException) -> None:
    """Let call number `at` of a function raise `error`."""
    original, calls = getattr(owner, name), 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return original(*args, **options)

    monkeypatch.setattr(owner, name, failing)


FAILURES: dict[str, tuple[Any, str, int, OSError]] = {
    "disk full at the third file": (Path, "write_text", 3, OSError(errno.ENOSPC, "No space left on device")),
    "disk full at the twentieth": (Path, "write_text", 20, OSError(errno.ENOSPC, "No space left on device")),
    "disk full at the model": (project, "save_spec", 1, OSError(errno.ENOSPC, "No space left on device")),
    **{f"move {n} fails": (os, "replace", n, OSError(errno.EACCES, "Permission denied")) for n in (1, 2, 3, 4, 7, 12)},
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_the_old_project_as_it_was(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = converted(mlp(), tmp_path / "prj").write()
    before = contents(folder)
    other = converted(randomise(mlp(), seed=2), tmp_path / "prj")
    with monkeypatch.context() as patch:
        _fail_on(patch, *FAILURES[failure])
        with pytest.raises(WriteError, match=r"cannot write the project into .*prj.*(No space left|Permission denied)"):
            other.write()
    assert contents(folder) == before
    assert not [p for p in folder.iterdir() if p.name.startswith(".")], "no working folder is left"
    other.write()
    assert contents(folder) != before


@pytest.mark.parametrize("at", [1, 4, 9])
def test_ctrl_c_leaves_the_old_project_as_it_was(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = converted(mlp(), tmp_path / "prj").write()
    before = contents(folder)
    other = converted(randomise(mlp(), seed=2), tmp_path / "prj")
    with monkeypatch.context() as patch:
        _fail_on(patch, os, "replace", at, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            other.write()
    assert contents(folder) == before
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("failure", ["disk full at the third file", "move 4 fails"])
def test_a_failure_in_a_new_folder_leaves_no_half_project(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hls_model = converted(mlp(), tmp_path / "prj")
    _fail_on(monkeypatch, *FAILURES[failure])
    with pytest.raises(WriteError):
        hls_model.write()
    assert not (tmp_path / "prj").exists() or contents(tmp_path / "prj") == {}


def test_an_output_folder_that_is_a_file_is_refused(model: Any, tmp_path: Path) -> None:
    (tmp_path / "prj").write_text("precious")
    with pytest.raises(WriteError, match=r"output_dir '.*prj' is a file, not a folder"):
        converted(model, tmp_path / "prj").write()
    assert (tmp_path / "prj").read_text() == "precious"
    with pytest.raises(WriteError, match="cannot write the project into"):
        converted(model, tmp_path / "prj" / "below").write()


# ---- the same source through a plain C++ compiler ----


def run_test_bench(folder: Path, count: int) -> np.ndarray:
    """Compile the test bench with scalar number types, as a vendor tool would, and return what it computes."""
    program = folder / "bench"
    command = [*find_compiler(), "-std=c++20", "-O1", "-I", str(include_folder()), "-Wno-unknown-pragmas"]
    sources = [folder / "tb" / "myproject_test.cpp", folder / "firmware" / "myproject.cpp"]
    done = subprocess.run(
        [*command, *map(str, sources), "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]
    done = subprocess.run([str(program)], cwd=folder / "tb", capture_output=True, text=True, check=True)
    assert f"{count} samples" in done.stdout
    return np.loadtxt(folder / "tb" / "tb_data" / "csim_results.log", ndmin=2)


@pytest.mark.parametrize(
    ("name", "io_type"),
    [*((name, "io_parallel") for name in SOME), ("conv2d_net", "io_stream"), ("residual_two_inputs", "io_stream")],
)
def test_the_test_bench_computes_what_predict_does(name: str, io_type: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    shapes = [v.shape for v in kconvert.convert_from_keras_model(model).inputs]
    x = [np.random.default_rng(i).normal(size=(9, *shape)).astype(np.float32) for i, shape in enumerate(shapes)]
    hls_model = converted(model, tmp_path / "prj", input_data_tb=x, io_type=io_type)
    found = run_test_bench(hls_model.write(), len(x[0]))
    hls_model.compile()
    answers = as_list(hls_model.predict(x if len(x) > 1 else x[0]))
    assert np.array_equal(found, np.concatenate([a.reshape(len(a), -1) for a in answers], axis=1))
