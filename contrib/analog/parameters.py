"""The numbers of the chip, and the two of its mock; needs no Keras.

The chip is BrainScaleS-2: a synapse holds 6 bits, and two rows of synapses make one signed input, so that the 256 rows
take 128 inputs. An event is 5 bits long, and an answer is read by an 8-bit converter.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import numbers
import warnings
from collections.abc import Mapping
from typing import Any

from .errors import check

INPUT_RANGE = (0, 31)
WEIGHT_RANGE = (-63, 63)
OUTPUT_RANGE = (-128, 127)
ROWS = 128  # inputs of one multiplication
COLUMNS = 256  # its outputs
WAIT_BETWEEN_EVENTS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class MockParameter:
    """What the mock knows of a chip.

    Attributes:
        noise_std: Standard deviation of the noise on an output, in steps of the converter.
        gain: Output for an input of 1 and a weight of 1, sent once; in (0, 1].
    """

    noise_std: float = 2.0
    gain: float = 0.002

    def __post_init__(self) -> None:
        for name in ("noise_std", "gain"):
            value = getattr(self, name)
            check(isinstance(value, numbers.Real), f"{name} has to be a number, received {value!r}")
            object.__setattr__(self, name, float(value))  # numpy's, too, are saved as numbers of Python
        check(0 < self.gain <= 1, f"gain has to be in (0, 1], received {self.gain}")
        check(0 <= self.noise_std < float("inf"), f"noise_std has to be 0 or more, received {self.noise_std}")

    def get_config(self) -> dict[str, float]:
        """Return the two numbers under their names, as Keras saves the arguments of a call."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, float]) -> MockParameter:
        """Return what had this configuration."""
        return cls(**config)


_DEFAULT = MockParameter()
_current: contextvars.ContextVar[MockParameter] = contextvars.ContextVar("mock_parameter", default=_DEFAULT)


def mock_parameter() -> MockParameter:
    """Return what `mock=True` means here."""
    return _current.get()


def set_mock_parameter(parameter: MockParameter) -> contextlib.AbstractContextManager[MockParameter]:
    """Return a context manager: within its block, `mock=True` means a mock with `parameter`.

    A layer takes the parameter of the place where it is made and keeps it; so nothing that is set for one model reaches
    another, nor another thread or task. Without a block nothing is set, of which a RuntimeWarning tells.
    """
    check(isinstance(parameter, MockParameter), f"expected a MockParameter, received {parameter!r}")
    return _Block(parameter)


class _Block(contextlib.AbstractContextManager[MockParameter]):
    def __init__(self, parameter: MockParameter) -> None:
        self._parameter = parameter
        self._tokens: list[contextvars.Token[MockParameter]] = []
        self._entered = False

    def __enter__(self) -> MockParameter:
        self._entered = True
        self._tokens.append(_current.set(self._parameter))
        return self._parameter

    def __exit__(self, *error: object) -> None:
        _current.reset(self._tokens.pop())

    def __del__(self) -> None:
        if not self._entered:
            words = "set_mock_parameter() alone sets nothing: write `with set_mock_parameter(...):`"
            warnings.warn(words, RuntimeWarning, stacklevel=2)


def parse_mock(mock: Any, where: str) -> tuple[bool, MockParameter]:
    """Return whether `mock` asks for the mock, and its parameter.

    A mapping is what the configuration of a layer holds: gain and noise_std, and `active`, False where the layer was on
    a device when it was saved.
    """
    if isinstance(mock, MockParameter):
        return True, mock
    if isinstance(mock, Mapping):
        unknown = set(mock) - {"gain", "noise_std", "active"}
        check(not unknown, f"{where}: mock has gain, noise_std and active; received {sorted(map(str, unknown))}")
        numbers = {key: float(value) for key, value in mock.items() if key != "active"}
        return bool(mock.get("active", True)), MockParameter(**numbers)
    check(isinstance(mock, bool), f"{where}: mock is True, False or a MockParameter, received {mock!r}")
    return mock, mock_parameter()
