"""The command line, samples in files, the lint and its table in the manual."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kconvert import kpu
from kconvert.cli import run
from kconvert.errors import ConfigError, InputError, ModelError, WriteError
from kconvert.kpu import KModel
from kconvert.kpu.compiler.dataset import read_bytes, read_dataset, read_floats
from kconvert.kpu.compiler.lint import RULES, markdown
from tests.conftest import ROOT
from tests.kpu_compiler.networks import images, tflite

pytest.importorskip("tensorflow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and four images of other sizes than its input."""
    pil = pytest.importorskip("PIL.Image")
    (tmp_path / "net.tflite").write_bytes(tflite("unet"))
    pictures = tmp_path / "images" / "more"
    pictures.mkdir(parents=True)
    for i, (name, size) in enumerate((("a.png", (16, 16, 3)), ("b.jpg", (40, 30, 3)), ("c.bmp", (8, 8, 3)))):
        pil.fromarray(images(size, 3)[i]).save(pictures / name)
    pil.fromarray(images((16, 16, 1), 1)[0, ..., 0]).save(tmp_path / "images" / "grey.png")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(["kpu", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_compile_infer_and_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = folder / "net.tflite", folder / "net.kmodel"
    options = "-i tflite -o kmodel -t k210 --dataset-format image --inference-type uint8 --input-mean 0 --input-std 1"
    more = "--input-type default --max-allocator-solve-secs 0 --calibrate-method l2 --weights-quantize-threshold 32"
    last = "--output-quantize-threshold 1024 --no-quantized-binary --dump-ir --dump-weights-range -v"
    every = [*options.split(), *more.split(), *last.split()]
    code, out, err = call(capsys, "compile", source, target, "--dataset", folder / "images", *every)
    assert (code, err) == (0, "")
    assert "4. Calibrate with 4 samples..." in out
    assert "weights of " in out
    assert "Working memory usage: " in out
    assert {p.stem for p in folder.glob("*.dot")} >= {"ir_import", "before_quant", "after_quant", "lowered"}
    assert (folder / "lowered.dot").read_text().startswith("digraph kmodel {")
    code, out, err = call(capsys, "infer", target, folder / "answers", "--dataset", folder / "images")
    assert (code, err) == (0, "")
    assert {p.name for p in (folder / "answers").iterdir()} == {"a.bin", "b.bin", "c.bin", "grey.bin"}
    pixels = read_bytes(folder / "images" / "more" / "a.png", "image", (3, 16, 16))
    np.testing.assert_array_equal(pixels, np.moveaxis(images((16, 16, 3), 3)[0], -1, 0))
    wanted = KModel.load(target).infer(pixels[None])[0].ravel()
    np.testing.assert_array_equal(np.fromfile(folder / "answers" / "a.bin", "<f4"), wanted)
    code, out, _ = call(capsys, "check", source)
    assert code == 0
    assert "Concat" in out
    assert "merge" in out


def test_results_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder / "f.kmodel"
    code, out, _ = call(capsys, "compile", folder / "net.tflite", target, "--inference-type", "float", "--json")
    assert code == 0
    data = json.loads(out)
    assert data["bytes"] == target.stat().st_size
    assert data["working_memory"] == KModel.load(target).main_memory
    code, out, _ = call(capsys, "check", folder / "net.tflite", "--json")
    assert {row["runs on"] for row in json.loads(out)["layers"]} == {"KPU", "CPU"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nowhere"], "should contain one .* file at least"),
        ([], "needs a dataset"),
        (["--dataset", "images", "--dataset-format", "raw"], "bytes; a sample of shape"),
        (["--dataset", "images", "--input-std", "0"], "input_std=0.0: a finite number is needed, above 0"),
        (["--dataset", "images", "--input-mean", "nan"], "input_mean=nan"),
        (["--inference-type", "float", "--input-type", "uint8"], "input_type='uint8' needs"),
        (["--inference-type", "int8"], "Invalid value for '--inference-type'"),
        (["-i", "onnx"], "Invalid value for '-i'"),
        (["--calibrate-method", "kld"], "Invalid value for '--calibrate-method'"),
    ],
)
def test_errors_are_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    import re

    monkeypatch.chdir(folder)
    code, _, err = call(capsys, "compile", "net.tflite", "net.kmodel", *arguments)
    assert code in (1, 2)
    assert re.search(message, err)
    assert len(err.strip().splitlines()) == 1
    assert not (folder / "net.kmodel").exists()


def test_what_cannot_be_written_or_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "net.tflite"
    assert call(capsys, "compile", source, folder / "no" / "x.kmodel", "--inference-type", "float")[0] == 1
    assert "is a folder" in call(capsys, "compile", source, folder, "--inference-type", "float")[2]
    assert "not a tflite file" in call(capsys, "compile", folder / "images" / "notes.txt", folder / "x.kmodel")[2]
    assert "not a kmodel" in call(capsys, "infer", source, folder / "out", "--dataset", folder / "images")[2]


def test_the_model_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "net.tflite"
    code, _, err = call(capsys, "compile", source, folder / "images" / ".." / "net.tflite", "--inference-type", "float")
    assert code == 1
    assert "is the model itself" in err
    assert source.read_bytes() == tflite("unet")


def test_a_failed_compilation_leaves_the_old_file(folder: Path) -> None:
    target = folder / "net.kmodel"
    target.write_bytes(b"old")
    with pytest.raises(InputError):
        kpu.compile(folder / "net.tflite", np.zeros((1, 3, 8, 8)), target)
    assert target.read_bytes() == b"old"
    with pytest.raises(WriteError):
        kpu.compile(folder / "net.tflite", None, folder / "images", inference_type="float")


def test_two_samples_of_one_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kpu.compile(folder / "net.tflite", folder / "images", folder / "net.kmodel")
    shutil.copy(folder / "images" / "more" / "a.png", folder / "images" / "a.png")
    code, _, err = call(capsys, "infer", folder / "net.kmodel", folder / "out", "--dataset", folder / "images")
    assert code == 1
    assert "two samples are called 'a'" in err


# ***** samples *****


def test_images_and_raw_files_are_the_same_samples(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    pixels = images((6, 5, 3), 1)[0]
    pil.fromarray(pixels).save(tmp_path / "a.png")
    reals = np.moveaxis(pixels, -1, 0).astype(np.float32) / np.float32(255)
    reals.tofile(tmp_path / "a.bin")
    np.moveaxis(pixels, -1, 0).tofile(tmp_path / "b.bin")
    shape = (3, 6, 5)
    expected = (reals - np.float32(0.5)) / np.float32(0.25)
    for name, form in (("a.png", "image"), ("a.bin", "raw")):
        np.testing.assert_array_equal(read_floats(tmp_path / name, form, shape, 0.5, 0.25), expected)
    for name, form in (("a.png", "image"), ("b.bin", "raw")):
        np.testing.assert_array_equal(read_bytes(tmp_path / name, form, shape), np.moveaxis(pixels, -1, 0))
    for given in (pixels[None], pixels[None] / np.float32(255)):
        (found,) = read_dataset(given, [(1, *shape)], "image", ["nhwc"], 0.5, 0.25)
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-6)


def test_images_of_16_bits_lose_their_lower_half(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    levels = np.arange(20, dtype=np.uint16).reshape(4, 5)
    pil.fromarray(levels * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_bytes(tmp_path / "a.png", "image", (1, 4, 5))[0], levels)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (np.zeros((2, 6, 5, 3)), r"samples of shape \(6, 5, 3\) do not fit the input \(3, 6, 5\) as nchw"),
        (np.zeros((2, 3, 7, 5)), "do not fit the input"),
        (np.zeros((0, 3, 6, 5)), "no samples"),
        (np.full((1, 3, 6, 5), np.nan), "not finite"),
        ([np.zeros((1, 3, 6, 5))] * 2, "1 inputs, and 2 arrays"),
        (np.array(["a"]), "not of real numbers"),
    ],
)
def test_samples_that_do_not_fit(dataset: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_dataset(dataset, [(1, 3, 6, 5)], "image", ["nchw"], 0.0, 1.0)


def test_broken_images_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    with pytest.raises(InputError, match="no image that can be read"):
        read_bytes(tmp_path / "a.png", "image", (3, 4, 4))
    with pytest.raises(InputError, match="takes no images"):
        read_bytes(tmp_path / "a.png", "image", (10,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "k230"}, "choose from k210, cpu"),
        ({"methods": "l2"}, "unknown option 'methods'"),
        ({"memory": -1}, "cannot be negative"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kpu.compile(b"", **options)


def test_what_is_no_model() -> None:
    with pytest.raises(ModelError, match="a int is no Keras model"):
        kpu.compile(3)


# ***** the lint *****


def test_lint_says_what_the_compiler_does() -> None:
    """Convolutions that the lint gives to the KPU are there in the kmodel, and no others."""
    from tests.kpu_compiler.networks import NETWORKS, shape_of

    for name in sorted(
        NETWORKS.keys() - {"many_weight_loads", "transposed_valid", "transposed_4", "curves", "bilinear", "prelu"}
    ):
        report = kpu.check(tflite(name))
        claimed = [f for f in report if f.operation in ("Conv2D", "ConvTranspose2D", "MatMul") and f.where != "CPU"]
        model = kpu.compile(tflite(name), images(shape_of(name), 2), layout="nhwc", memory=1 << 24)
        layers = {node.registers.image_src_addr for node in model.nodes if type(node).__name__ == "KpuConv2D"}
        assert bool(layers) == bool(claimed)
        convs = sum(type(n).__name__ in ("Conv2D", "QuantizedConv2D", "Conv2DTranspose") for n in model.nodes)
        on_cpu = sum(f.operation in ("Conv2D", "ConvTranspose2D") and f.where == "CPU" for f in report)
        assert convs == on_cpu, name
        assert all(f.rule in RULES for f in report if f.rule)
        assert str(report).splitlines()[0].startswith("layer")


def test_lint_names_the_rules_that_are_broken() -> None:
    found = {(f.operation, f.where, f.rule) for f in kpu.check(tflite("other_strides"))}
    assert ("Conv2D", "partly", "stride") in found
    assert ("Conv2D", "CPU", "kernel") in found
    assert ("Conv2D", "partly", "padding") in {
        (f.operation, f.where, f.rule) for f in kpu.check(tflite("pixels_from_minus_1"))
    }
    assert kpu.check(tflite("groups")).accelerated


def test_the_manual_has_the_table_of_the_rules() -> None:
    manual = (ROOT / "docs" / "kpu.md").read_text(encoding="utf-8")
    assert markdown() in manual


def test_the_package_is_light() -> None:
    heavy = "('tensorflow', 'tflite', 'PIL', 'keras')"
    code = f"import sys; from kconvert.kpu import *; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_imports_neither_simulator_nor_compiler() -> None:
    code = (
        "import sys; from kconvert.cli import run; run(['--help']); run(['kpu', 'compile', '--help']); "
        "sys.exit(any(m in sys.modules for m in ('kconvert.kpu.compiler', 'kconvert.kpu.kmodel')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0


def test_the_package_has_its_names() -> None:
    code = "import kconvert; kconvert.kpu.nodes.Pad, kconvert.kpu.k210.Pool, kconvert.kpu.wire.Memory"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert set(kpu.__all__) <= set(dir(kpu))
    assert all(getattr(kpu, name) is not None for name in kpu.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kpu.nothing


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in ("check", "compile", "infer"))


def test_a_keras_file_is_a_model_too(tmp_path: Path) -> None:
    from tests.kpu_compiler.networks import NETWORKS

    model = NETWORKS["groups"]()
    model.save(tmp_path / "net.keras")
    pixels = images((16, 16, 4), 4)
    made = kpu.compile(tmp_path / "net.keras", pixels, layout="nhwc")
    assert made.to_bytes() == kpu.compile(model, pixels, layout="nhwc").to_bytes()
    (tmp_path / "broken.keras").write_bytes(b"no archive")
    with pytest.raises(ModelError, match="Keras cannot load"):
        kpu.check(tmp_path / "broken.keras")


def test_arrays_are_taken_in_the_layout_that_fits() -> None:
    from tests.kpu_compiler.networks import NETWORKS

    model = NETWORKS["groups"]()
    pixels = images((16, 16, 4), 4)
    wanted = kpu.compile(model, pixels, layout="nhwc").to_bytes()
    assert kpu.compile(model, pixels).to_bytes() == wanted
    assert kpu.compile(model, np.moveaxis(pixels, -1, 1)).to_bytes() == wanted
    cubes = np.random.default_rng(0).random((4, 3, 3, 3))
    for layouts, wanted_order in ((["nhwc", "nchw"], (0, 3, 1, 2)), (["nchw", "nhwc"], (0, 1, 2, 3))):
        (found,) = read_dataset(cubes, [(1, 3, 3, 3)], "image", layouts, 0.0, 1.0)
        assert np.array_equal(found[:, 0], cubes.transpose(wanted_order).astype(np.float32))
