"""Importing what is only needed for some of what kconvert does."""

from __future__ import annotations

import importlib
from typing import Any

from kconvert.errors import MissingPackageError


def import_package(module: str, purpose: str, package: str = "") -> Any:
    """Import a module that may be missing.

    Args:
        module: Its dotted name.
        purpose: What needs it, as the start of a sentence: ``"reading a precision"``.
        package: What to install, where that is not called like the module.

    Raises:
        MissingPackageError: It, or a package that it needs itself, is not installed; the message has the install line.
    """
    package = package or module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        if missing == module.partition(".")[0]:
            reason, install = f"{package}, which is not installed", package
        else:
            reason, install = f"{package}, and {package} needs {missing}, which is not installed", missing
        raise MissingPackageError(f"{purpose} needs {reason}: pip install {install}") from error
