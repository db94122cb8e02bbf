"""Firmware of analog layers, compiled with the reference headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.contrib.analog import test_conversion as nets
from tests.vendor_headers.test_vendor_headers import check, headers

__all__ = ["headers"]  # a fixture

# samples leave the range of their type on purpose
pytestmark = pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")


def test_chunks(headers: Path, tmp_path: Path) -> None:
    spec = nets.model(
        (200,),
        nets.dense("fc", "x", nets.weights(200, 6), nets.weights(6, seed=1)),
        nets.converting("relu", "fc", 1),
        nets.dense("out", "relu", nets.weights(6, 4), num_sends=5),
    )
    config = {"LayerName": {"fc": {"Strategy": "Resource", "ReuseFactor": 16}}}
    assert len(np.unique(check(spec, config, headers, tmp_path))) > 20


def test_windows_and_tables(headers: Path, tmp_path: Path) -> None:
    spec = nets.model(
        (5, 4, 30),
        nets.conv("first", "x", nets.weights(2, 3, 30, 4), nets.weights(4, seed=1), padding="same", strides=[2, 1]),
        nets.converting("relu", "first", 2),
        nets.conv("last", "relu", nets.weights(2, 2, 4, 3), nets.weights(3, seed=2) / 7, num_sends=3),
    )
    assert len(np.unique(check(spec, {}, headers, tmp_path))) > 10
