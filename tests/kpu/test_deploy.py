"""The script for the board, run with stand-ins for the board's modules."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kconvert.errors import InputError, KModelError
from kconvert.kpu import Input, KModel, deploy_script, to_nchw, to_nhwc
from kconvert.kpu import nodes as n
from kconvert.kpu.wire import DataType, Memory, MemoryRange, QuantParam


def camera_model(height: int = 32, width: int = 48, main_memory: int = 0) -> KModel:
    """Copies an image, and has a vector beside it."""
    size = 3 * height * width
    image = MemoryRange(Memory.MAIN, DataType.UINT8, 0, size)
    maps = MemoryRange(Memory.MAIN, DataType.FLOAT32, size, 4 * size)
    mean = MemoryRange(Memory.MAIN, DataType.FLOAT32, 5 * size, 12)
    shape = (1, 3, height, width)
    nodes = (
        n.Dequantize(image, maps, QuantParam(0, 255.0)),
        n.Reduce(maps, mean, n.ReduceOp.MEAN, shape, (1, 3, 1, 1), 0.0),
    )
    return KModel((Input(image, shape),), (maps, mean), nodes, main_memory=main_memory or 5 * size + 16)


class Board:
    """The modules that the script imports; writes down what it does."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def modules(self) -> dict[str, types.ModuleType]:
        kpu, sensor = types.ModuleType("KPU"), types.ModuleType("sensor")
        for name in ("set_outputs", "memtest", "deinit", "fmap_free"):
            setattr(kpu, name, self.noted(name))
        kpu.load = self.noted("load", "task")  # type: ignore[attr-defined]
        kpu.forward = self.noted("forward", [0.25, 0.5])  # type: ignore[attr-defined]
        for name in ("reset", "set_pixformat", "set_framesize", "run"):
            setattr(sensor, name, self.noted(name))
        for name in ("RGB565", "GRAYSCALE", "QVGA", "QQVGA"):
            setattr(sensor, name, name)
        image = types.SimpleNamespace(pix_to_ai=self.noted("pix_to_ai"))
        image.resize = self.noted("resize", image)
        shots = iter([image])

        def snapshot() -> Any:
            try:
                return next(shots)
            except StopIteration:
                raise KeyboardInterrupt from None

        sensor.snapshot = snapshot  # type: ignore[attr-defined]
        return {"KPU": kpu, "sensor": sensor}

    def noted(self, name: str, answer: Any = None) -> Any:
        def call(*arguments: Any) -> Any:
            self.log.append((name, *arguments))
            return answer

        return call


def run(script: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    board = Board()
    for name, module in board.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(KeyboardInterrupt):
        exec(compile(script, "main.py", "exec"), {})
    return board.log


def test_the_script_does_what_the_board_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    log = run(deploy_script(camera_model(), address=0x400000), monkeypatch)
    assert ("load", 0x400000) in log
    assert ("set_outputs", "task", 0, 48, 32, 3) in log
    assert ("set_outputs", "task", 1, 1, 1, 3) in log
    assert ("set_framesize", "QQVGA") in log
    names = [entry[0] for entry in log]
    order = ["load", "set_outputs", "memtest", "resize", "pix_to_ai", "forward", "fmap_free", "deinit"]
    assert [names.index(name) for name in order] == sorted(names.index(name) for name in order)


@pytest.mark.parametrize("path", ["/sd/model.kmodel", '/sd/it\'s "ö\\n".kmodel', "/sd/';import os;'", "{size}"])
def test_paths_stay_strings(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = deploy_script(camera_model(), path=path)
    assert script.isascii()
    assert ("load", path) in run(script, monkeypatch)


def test_from_a_file(tmp_path: Path) -> None:
    model = camera_model()
    model.save(tmp_path / "m.kmodel")
    assert deploy_script(tmp_path / "m.kmodel") == deploy_script(model) == deploy_script(model.to_bytes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": 0x300100}, "not a multiple of 4096"),
        ({"address": 0x1000}, "inside the firmware"),
        ({"address": 0xFFF000, "flash_size": 0xFFF000}, "bytes behind the flash"),
        ({"address": True}, "not a multiple"),
        ({"path": "/sd/a\nb"}, "not a path"),
        ({"path": ""}, "not a path"),
    ],
)
def test_places_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(KModelError, match=message):
        deploy_script(camera_model(), **options)


def test_models_that_are_refused() -> None:
    model = camera_model()
    floats = dataclasses.replace(model.inputs[0], range=model.nodes[0].writes()[0].range)
    with pytest.raises(KModelError, match=r"model has float32 \(1, 3, 32, 48\)"):
        deploy_script(dataclasses.replace(model, inputs=(floats,)))
    with pytest.raises(KModelError, match="more than the 6291456 bytes of the chip"):
        deploy_script(camera_model(main_memory=6 * 1024 * 1024))


def test_layout_helpers() -> None:
    maps = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert to_nhwc(maps).shape == (2, 4, 5, 3)
    assert to_nhwc(maps[0])[1, 2, 0] == maps[0, 0, 1, 2]
    np.testing.assert_array_equal(to_nchw(to_nhwc(maps)), maps)
    with pytest.raises(InputError, match="no height, width and channels"):
        to_nhwc(maps[0, 0])
