"""Every exception a user of kconvert can meet.

All of them derive from :class:`KConvertError`, so one ``except`` catches whatever kconvert refuses. A message
names what is wrong, where it is, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KConvertError(Exception):
    """Base of all errors raised by kconvert."""


class PrecisionError(KConvertError, ValueError):
    """A precision string, or the type it describes, is not valid."""


class ConfigError(KConvertError, ValueError):
    """The conversion settings hold an unknown key or a value that is not allowed."""


class ModelError(KConvertError):
    """A model, or the file it is stored in, cannot be read."""


class UnsupportedLayerError(ModelError):
    """The model holds a layer, activation or layer option that kconvert cannot convert."""


class TFLiteError(ModelError):
    """A tflite file is damaged, or holds what the KPU compiler cannot express."""


class KModelError(ModelError):
    """A kmodel is damaged, holds what the format or the chip does not have, or cannot be run within the bounds."""


class CapacityError(ModelError):
    """A compiled model needs more memory than the chip has."""


class MissingPackageError(KConvertError, ImportError):
    """An optional Python package is needed for what was asked and is not installed."""


class GraphError(KConvertError):
    """The graph of a model breaks a rule that its stage of the pipeline has to keep."""


class InputError(KConvertError, ValueError):
    """Data given to ``predict``, ``trace`` or a profiling function does not fit the model."""


class WriteError(KConvertError, OSError):
    """A project folder or file cannot be written; what was on disk before is unchanged."""


class CompileError(KConvertError):
    """The C++ compiler is missing or rejected the generated source."""


class StreamError(KConvertError):
    """A stream of the firmware is read while it is empty, is not read to its end, or holds too few words."""


class ToolError(KConvertError):
    """A vendor tool is missing or failed."""


class ConfigWarning(UserWarning):
    """A setting of another tool has no counterpart here and is left out."""


class PrecisionWarning(UserWarning):
    """Values do not fit the type they are given, so that the hardware will not see them as they are."""


class HardwareWarning(UserWarning):
    """A size is known to be too large for the vendor tool; the simulation does not mind."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the spelling in `known` closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if not close:
        by_fold = {k.casefold(): k for k in known}
        close = [by_fold[word.casefold()]] if word.casefold() in by_fold else []
    return f"; did you mean {close[0]!r}?" if close else ""
