"""A MicroPython script that runs a kmodel on a board with MaixPy.

Written from MaixPy's documentation; no board was at hand to try it on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kconvert.errors import KModelError
from kconvert.kpu.k210 import FLASH, GENERAL_RAM, TABLE_ALIGNMENT
from kconvert.kpu.kmodel import KModel
from kconvert.kpu.layout import output_shapes
from kconvert.kpu.wire import DataType

if TYPE_CHECKING:
    from kconvert.kpu.kmodel import Input

MODEL_ADDRESS = 0x300000  # where guides put models; the firmware is in front of it
SECTOR = 4096  # bytes that the flash erases at once

SCRIPT = """\
# Runs a kmodel of {size} bytes on a K210 board with MaixPy (a firmware that knows kmodel v4).
# Made by kconvert; no board was at hand when this was written, so check it on yours.
import gc

import KPU as kpu
import sensor

{place}WIDTH, HEIGHT = {width}, {height}
OUTPUTS = {outputs}  # width, height, channels


def setup():
    sensor.reset()
    sensor.set_pixformat(sensor.{pixels})
    sensor.set_framesize(sensor.{frame})
    sensor.run(1)


def load():
    task = kpu.load(MODEL)
    for index, (width, height, channels) in enumerate(OUTPUTS):
        kpu.set_outputs(task, index, width, height, channels)
    return task


def infer(task):
    # One flat tuple: output by output, each channel by channel (NCHW).
    # Element (channel, y, x) of an output is at ((channel * height) + y) * width + x.
    image = sensor.snapshot().resize(WIDTH, HEIGHT)
    image.pix_to_ai()
    features = kpu.forward(task, image)
    values = tuple(features[:])
    kpu.fmap_free(features)
    return values


setup()
task = load()
kpu.memtest()  # prints what is left of the memory
try:
    while True:
        print(infer(task))
        gc.collect()
finally:
    kpu.deinit(task)
"""


def deploy_script(
    model: KModel | str | os.PathLike[str] | bytes,
    *,
    address: int = MODEL_ADDRESS,
    path: str | None = None,
    flash_size: int = FLASH,
    firmware_end: int = MODEL_ADDRESS,
) -> str:
    """Return a MaixPy script that loads `model`, feeds it camera images and prints its outputs.

    Args:
        model: a kmodel, its file or its bytes.
        address: where in flash the model is written, a multiple of 4096.
        path: the file on the board instead, as ``/sd/model.kmodel``.
        flash_size: bytes of the board's flash.
        firmware_end: the first byte behind the firmware.

    Raises:
        KModelError: the model has no image as its input, does not fit, or the address is not a possible one.
    """
    found = model if isinstance(model, KModel) else KModel.load(model)
    found.check()
    size = len(found.to_bytes())
    channels, height, width = _image(found.inputs)
    if size + found.main_memory > GENERAL_RAM:
        raise KModelError(
            f"the model's {size} bytes and its {found.main_memory} of working memory are "
            f"{size + found.main_memory - GENERAL_RAM} more than the {GENERAL_RAM} bytes of the chip"
        )
    if path is None:
        _check_address(address, size, firmware_end, flash_size)
        place = f"MODEL = {address:#x}  # up to {address + size - 1:#x}\n"
    else:
        place = f"MODEL = {_literal(path)}\n"
    return SCRIPT.format(
        size=size,
        place=place,
        width=width,
        height=height,
        outputs=[_output(shape) for shape in output_shapes(found)],
        pixels="RGB565" if channels == 3 else "GRAYSCALE",
        frame="QVGA" if width > 160 or height > 120 else "QQVGA",
    )


def _image(inputs: tuple[Input, ...]) -> tuple[int, int, int]:
    if len(inputs) == 1 and inputs[0].range.datatype is DataType.UINT8:
        batch, channels, height, width = inputs[0].shape
        if batch == 1 and channels in (1, 3):
            return channels, height, width
    shown = ", ".join(f"{p.range.datatype.name.lower()} {p.shape}" for p in inputs) or "none"
    raise KModelError(f"the script feeds camera images, one uint8 input of 1 or 3 channels; the model has {shown}")


def _check_address(address: int, size: int, firmware_end: int, flash_size: int) -> None:
    if isinstance(address, bool) or not isinstance(address, int) or address % SECTOR:
        raise KModelError(
            f"address {address!r} is not a multiple of {SECTOR}, which the flash erases at once and which keeps the "
            f"layers' tables at multiples of {TABLE_ALIGNMENT}"
        )
    if address < firmware_end:
        raise KModelError(f"address {address:#x} is inside the firmware, which ends at {firmware_end:#x}")
    if address + size > flash_size:
        raise KModelError(
            f"{size} bytes from {address:#x} on end {address + size - flash_size} bytes behind the flash, which has "
            f"{flash_size}"
        )


def _literal(path: str) -> str:
    """Return the path as a literal of MicroPython."""
    if not path or any(ord(c) < 32 for c in path):
        raise KModelError(f"{path!r} is not a path on the board")
    return ascii(path)


def _output(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Width, height and channels, as set_outputs wants them; a vector is made of channels."""
    if len(shape) == 4 and shape[0] == 1 and sum(s > 1 for s in shape) > 1:
        return shape[3], shape[2], shape[1]
    count = 1
    for extent in shape:
        count *= extent
    return 1, 1, count
