"""LUT networks in every style for synthesis, compiled with the reference headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kconvert_contrib.lutnet.nodes import STYLES
from tests.contrib.lutnet import nets
from tests.vendor_headers.test_vendor_headers import check, headers

__all__ = ["headers"]  # a fixture

# samples leave the range of their type on purpose
pytestmark = pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")


@pytest.mark.parametrize("style", STYLES)
def test_styles(style: str, headers: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    tail = (
        nets.layer("GroupSum", "sum", "lut2", {"units": 4, "tau": 1.5}),
        nets.layer("Dense", "dense", "sum", {"units": 2, "activation": "linear"}, random.random((4, 2)), np.ones(2)),
    )
    answers = check(nets.stack(*tail), {"Model": {"LutStyle": style}}, headers, tmp_path)
    assert len(np.unique(answers)) > 5


def test_wires(headers: Path, tmp_path: Path) -> None:
    windows = nets.layer("Patches", "windows", "bits", {"kernel_size": [3, 2], "strides": [2, 1], "padding": "same"})
    sums = nets.layer("Reduce", "mean", "lut", {"units": 2})
    spec = nets.model(nets.BITS, windows, nets.luts("lut", "windows", 12, 6), sums, shape=(5, 6, 2))
    assert len(np.unique(check(spec, {}, headers, tmp_path))) > 2
