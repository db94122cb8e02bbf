"""The example, from images to hardware, on the small digits of scikit-learn."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "lutnet_mnist.py"


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("lutnet_mnist", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # where its dataclass looks for itself
        patch.setattr(sys, "path", list(sys.path))
        spec.loader.exec_module(module)
        yield module


def test_it_trains_plots_converts_compares_and_counts(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "OUTPUT", tmp_path)
    example.main(["--quick", "--epochs", "8", "--units", "60,40"])
    printed = capsys.readouterr().out
    accuracy = re.search(r"accuracy of the C\+\+ on 397 images: (0\.\d+)", printed)
    assert float(accuracy[1]) > 0.6
    assert f"test {accuracy[1]}" in printed.partition("\nepoch   8")[2].partition("\n")[0]
    assert "predict True, bit-sliced True" in printed
    assert "look-up tables: 60 + 40 = 100," in printed
    assert (tmp_path / "lutnet_mnist.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "lutnet_mnist.keras").exists()
    assert (tmp_path / "lutnet_mnist" / "firmware").is_dir()


def test_images_are_moved_by_a_pixel_and_whole(example):
    images = np.zeros((200, 5, 5), np.uint8)
    images[:, 2, 2] = np.arange(1, 201)
    batches = example.Moved(images, np.arange(1, 201), example.Recipe(batch=50, shift=1))
    assert len(batches) == 4
    x, y = (np.concatenate(parts) for parts in zip(*(batches[k] for k in range(4)), strict=True))
    assert sorted(y) == list(range(1, 201))
    assert (x.max(axis=1) == y).all()
    assert ((x > 0).sum(axis=1) == 1).all()
    assert set(x.argmax(axis=1)) == {6, 7, 8, 11, 12, 13, 16, 17, 18}


@pytest.mark.parametrize("units", ["60,45", "60,forty", "0,40", ""])
def test_sizes_that_cannot_be_are_refused(example, units, capsys):
    with pytest.raises(SystemExit):
        example.main(["--quick", "--units", units])
    assert "10 divides the last" in capsys.readouterr().err


def test_without_mnist_it_says_what_to_do(example, tmp_path, monkeypatch):
    monkeypatch.setenv("KCONVERT_MNIST", str(tmp_path))
    with pytest.raises(SystemExit, match=r"(?s)train-images-idx3-ubyte.*--quick needs no MNIST"):
        example.main([])
