"""Shared fixtures: golden data, one compiled-object cache for the whole run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def golden(name: str) -> Path:
    """Return a file or folder of the golden data, or skip the test where the data are not there."""
    base = Path(os.environ.get("KCONVERT_TEST_DATA", ROOT.parent / "shared" / "data"))
    path = base / name
    if not path.exists():
        pytest.skip(f"golden data {name!r} not found below {base} (set KCONVERT_TEST_DATA)")
    return path
