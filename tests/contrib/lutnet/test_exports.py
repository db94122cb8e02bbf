"""Integer tables of a dense layer, and test vectors as text."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from kconvert.csim.compiler import find_compiler, include_folder
from kconvert.errors import ConfigError, InputError, WriteError
from kconvert_contrib import lutnet
from kconvert_contrib.lutnet.exports import export_hls_header, export_vectors, quantize

MAIN = """
#include <cstdio>
#include "ap_int.h"
#include "tables.h"
int main() {
    for (int k = 0; k < 2; k++) {
        for (int j = 0; j < WLEN; j++) std::printf("%d ", W_tbl[k][j].to_int());
        std::printf("%d %d %d\\n", b_tbl[k].to_int(), WBITS, BBITS);
    }
}
"""


def test_rounding_and_bounds() -> None:
    x = np.array([-100, -1.5, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.5, 100])
    assert quantize(x, 4, 0.5).tolist() == [-8, -3, -1, -1, 0, 1, 1, 2, 3, 7]
    assert quantize([0.5, 1.5, -0.5], 8, 1.0).tolist() == [1, 2, 0]  # ties go up, not to even


def test_a_compiler_reads_the_tables(tmp_path: Path) -> None:
    kernel = np.array([[0.5, -1.0], [1 / 512, -1 / 512], [1000.0, -1000.0]])
    export_hls_header((kernel, np.array([-0.25, 3.0])), tmp_path / "tables.h", bits=12, bias_bits=16)
    (tmp_path / "main.cpp").write_text(MAIN)
    command = [*find_compiler(), "-std=c++20", "-w", "-I", str(include_folder()), "main.cpp", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    printed = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == ["128 1 2047 -64 12 16", "-256 0 -2048 768 12 16"]


def test_a_layer_without_bias_and_what_does_not_fit(tmp_path: Path) -> None:
    class Layer:
        def get_weights(self) -> list[np.ndarray]:
            return [np.ones((3, 2))]

    text = export_hls_header(Layer(), tmp_path / "1-tables.h", scale=0.5).read_text()
    assert "#define WLEN 3\n" in text
    assert "b_tbl[2] = {0, 0};" in text
    assert "#ifndef TABLES_1_TABLES_H_" in text
    with pytest.raises(ConfigError, match=r"expected a dense layer.*received \[\(3, 2\), \(3,\)\]"):
        export_hls_header((np.ones((3, 2)), np.ones(3)), tmp_path / "no.h")
    with pytest.raises(ConfigError, match="bits=40"):
        export_hls_header((np.ones((3, 2)), np.ones(2)), tmp_path / "no.h", bits=40)
    with pytest.raises(InputError, match="1 of 6 values are NaN"):
        export_hls_header((np.array([[1, 2], [3, np.nan], [5, 6]]), np.ones(2)), tmp_path / "no.h")
    assert not (tmp_path / "no.h").exists()


def test_the_dense_layer_of_a_model(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((3,)), lutnet.Binarize(), lutnet.DifferentiableLut(4), dense])
    text = export_hls_header(dense, tmp_path / "tables.h").read_text()
    assert export_hls_header(model, tmp_path / "tables.h").read_text() == text
    model.add(keras.layers.Dense(1))
    with pytest.raises(ConfigError, match="the model has 2 Dense layers"):
        export_hls_header(model, tmp_path / "tables.h")


def test_lines_of_bits(tmp_path: Path) -> None:
    x = np.array([[[0.0, 0.6], [0.5, 1.0]], [[1.0, 0.0], [0.51, 0.49]]])
    path = export_vectors(x, [7, 0], tmp_path / "vectors.txt")
    assert path.read_text() == "7 0 1 0 1\n0 1 0 1 0\n"
    with pytest.raises(InputError, match="labels have to be whole"):
        export_vectors(x, [0.5, 1], path)
    with pytest.raises(InputError, match="n labels"):
        export_vectors(x, [1, 2, 3], path)
    with pytest.raises(WriteError, match="cannot write"):
        export_vectors(x, [1, 2], tmp_path / "none" / "vectors.txt")
    assert path.read_text().startswith("7 ")
