"""Runs these tests only where they were asked for: they download a wheel and compile for minutes.

``pytest tests/vendor_headers`` asks for them, and so does KCONVERT_VENDOR_HEADERS=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def _asked_for(config: pytest.Config) -> bool:
    named = [config.invocation_params.dir / str(arg).partition("::")[0] for arg in config.args]
    return os.environ.get("KCONVERT_VENDOR_HEADERS") == "1" or any(
        path.resolve().is_relative_to(HERE) for path in named
    )


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if _asked_for(config) else True
