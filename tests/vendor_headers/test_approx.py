"""Firmware of approximate layers, compiled with the reference headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kconvert_contrib.approx.conversion import trusting
from tests.contrib.approx import test_conversion as nets
from tests.vendor_headers.test_vendor_headers import check, headers

__all__ = ["headers"]  # a fixture

# samples leave the range of their type on purpose
pytestmark = pytest.mark.filterwarnings("ignore::kconvert.errors.PrecisionWarning")


@pytest.mark.parametrize("io_type", ["io_parallel", "io_stream"])
def test_tables_and_arithmetic(headers: Path, tmp_path: Path, io_type: str) -> None:
    with trusting([nets.MASKED]):
        found = check(nets.image_network(), {"Model": {}}, headers, tmp_path, io_type=io_type)
    assert len(np.unique(found)) > 20


def test_a_normalisation_and_a_mean_of_many_bits(headers: Path, tmp_path: Path) -> None:
    assert len(np.unique(check(nets.pooled_network(), {"Model": {}}, headers, tmp_path))) > 20
