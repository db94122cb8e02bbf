"""Shared fixtures: golden data, one compiled-object cache for the whole run and the next one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _compiled_objects() -> Path:
    """Make the cache of compiled objects inside the project, where git does not see it."""
    folder = ROOT / ".cache" / "kconvert-tests"
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / ".cache" / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


os.environ.setdefault("KCONVERT_CACHE", str(_compiled_objects()))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow


def golden(name: str) -> Path:
    """Return a file or folder of the golden data, or skip the test where the data are not there."""
    base = Path(os.environ.get("KCONVERT_TEST_DATA", ROOT.parent / "shared" / "data"))
    path = base / name
    if not path.exists():
        pytest.skip(f"golden data {name!r} not found below {base} (set KCONVERT_TEST_DATA)")
    return path


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many random networks were compared with Keras itself, bit for bit, and with what the others."""
    reports = [r for r in terminalreporter.getreports("passed") if getattr(r, "when", "") == "call"]
    totals: dict[str, int] = {}
    for report in reports:
        for name, value in report.user_properties:
            totals[name] = totals.get(name, 0) + value
    if "networks" in totals:
        count, equal, rounded = (totals[k] for k in ("networks", "equal to Keras", "with rounded scales"))
        compiled = f", from {totals['compiled objects']} compiled objects" if "compiled objects" in totals else ""
        terminalreporter.write_line(
            f"{count} random quantised networks{compiled}: {equal} equal to Keras bit for bit, and so to an integer "
            f"evaluation of the quantised model; {count - equal} (where Keras itself rounds in float32) equal to that "
            f"evaluation, {rounded} of them with a scale or bias of more than 32 bits, rounded to its type"
        )
