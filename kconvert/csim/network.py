"""How deep streams have to be: the firmware's own functions, run side by side, each word as it comes."""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kconvert.csim.compiler import compile_object
from kconvert.csim.library import load_copy
from kconvert.errors import CompileError, StreamError
from kconvert.streams import SHALLOW, StreamFirmware

if TYPE_CHECKING:
    from kconvert.model import HLSModel


class Network:
    """The functions and streams of a firmware, compiled to run side by side; its weights do not matter."""

    def __init__(self, model: HLSModel) -> None:
        """Compile the network of `model`, or find it in the cache."""
        self._firmware = StreamFirmware(model)
        sources = {**self._firmware.sources(with_weights=False), "network.cpp": self._firmware.network()}
        self._path = compile_object(sources, "network.cpp")

    def measure(self) -> dict[str, int]:
        """Return the most words that each stream between functions holds, where none of them ever waits for room."""
        most = self._run({})
        return {s.variable: max(n, SHALLOW) for s, n in zip(self._firmware.streams, most, strict=True) if not s.port}

    def check(self, depths: Mapping[str, int] | None = None) -> None:
        """Run with streams of the given depths, or of those the firmware has, at even and at uneven speeds.

        Raises:
            StreamError: functions wait for each other; the message says which, and for what.
        """
        own = {s.variable: s.depth for s in self._firmware.streams if not s.port}
        for uneven in range(3):
            self._run({**own, **(depths or {})}, uneven)

    def _run(self, room: Mapping[str, int], uneven: int = 0) -> list[int]:
        firmware = self._firmware
        limits = np.array([room.get(s.variable, 0) for s in firmware.streams], dtype=np.int_)
        most, waits = np.zeros_like(limits), np.zeros(len(firmware.processes), dtype=np.int_)
        loaded = load_copy(self._path)
        try:
            run = loaded.kconvert_network
            run.restype = ctypes.c_int
            run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_uint]
            status = run(limits.ctypes.data, most.ctypes.data, waits.ctypes.data, uneven)
        finally:
            _ctypes.dlclose(loaded._handle)
        if status == 2:
            raise CompileError("there is no memory for the stacks of all functions of this model")
        if status:
            raise StreamError(f"functions wait for each other for ever: {self._waiting(waits.tolist(), room)}")
        return [int(n) for n in most]

    def _waiting(self, waits: list[int], room: Mapping[str, int]) -> str:
        streams, found = self._firmware.streams, []
        for process, number in zip(self._firmware.processes, waits, strict=True):
            if number < 0:
                name = streams[-1 - number].variable
                found.append(f"{process.name} for room in {name} (depth {room[name]})")
            elif number < len(streams):
                found.append(f"{process.name} for a word of {streams[number].variable}")
        return ", ".join(found)
