"""Registers the layers with Keras, so that it finds them in a saved model: now if it is there, else once it comes."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register(modules: Sequence[str], backend: str | None = None) -> None:
    """Import modules that define Keras layers when Keras is imported; nothing here imports it.

    Args:
        modules: Their full names.
        backend: The only backend of Keras they run on, None for any.
    """
    if "keras" in sys.modules:
        _import(sys.modules["keras"], modules, backend)
    else:
        sys.meta_path.insert(0, _Waiting(modules, backend))


def _import(keras: ModuleType, modules: Sequence[str], backend: str | None) -> None:
    """Import them unless they are what imports Keras, and so register themselves, or this is no Keras for them."""
    if not hasattr(keras, "ops") or backend not in (None, keras.backend.backend()):
        return
    if not any(name in sys.modules for name in modules):
        for name in modules:
            importlib.import_module(name)


class _Waiting(importlib.abc.MetaPathFinder):
    """Is asked where Keras is as soon as that is imported; leaves that to others, and adds a last step."""

    def __init__(self, modules: Sequence[str], backend: str | None) -> None:
        self.modules, self.backend = modules, backend

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _import(module, self.modules, self.backend)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
