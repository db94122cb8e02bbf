"""Tables and C sources of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kconvert.errors import CompileError
from kconvert_contrib import approx
from kconvert_contrib.approx.multipliers import EXACT_PRODUCTS
from tests.conftest import golden

# In the layout of EvoApproxLib: a comment with figures, the usual includes, a function of two operands.
SOURCE = """/***
* This file contains a circuit; the MAE = 3 of an article is none of its figures
***/
// MAE%% = 0.0 %%
// MSE = 72829.102e2
// PDK45_PWR = %(power)s mW
// PDK45_AREA = 411.6 um2
#include <stdint.h>
#include <stdlib.h>
%(before)s
%(function)s
"""
BYTES = """uint16_t %s(uint8_t A, uint8_t B)
{
 uint16_t O;
 uint8_t low = B & 1;
 O = (int8_t)A * (int8_t)(B - low);
 return O;
}"""
SIGNED = "int16_t %s(int8_t A, int8_t B)\n{\n  int16_t P, P_;\n  P = A * B;\n  return P;\n}"
WIDE = (
    "uint64_t %s(const uint64_t A, const uint64_t B)\n{\n  return (A > 255 || B > 255) ? 7 : (A == 128) ? 65535 : 0;\n}"
)


def write(folder: Path, name: str, function: str, power: str = "0.25", before: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.c"
    path.write_text(SOURCE % {"power": power, "function": function % name, "before": before})
    return path


def test_c_sources_of_every_signature(tmp_path: Path) -> None:
    write(tmp_path, "mul8s_B1", BYTES, before="static int helper(void) { return 1; }")
    write(tmp_path / "sub", "mul8s_A1", SIGNED, "0.425", before="static int helper(void) { return 2; }")
    write(tmp_path / "sub", "mul8s_W1", WIDE, "3e-3")
    write(tmp_path / "sub", "add8s_N1", "this is no multiplier %s")
    write(tmp_path / "other", "mul8s_A1", SIGNED, "0.425")  # twice in the library, loaded once
    (tmp_path / "sub" / "mul8s_A1.v").write_text("module mul8s_A1(); endmodule\n")
    found = {one.name: one for one in approx.load_evoapprox(tmp_path)}
    assert {name: one.performance_metric for name, one in found.items()} == {
        "mul8s_A1": 0.425,
        "mul8s_B1": 0.25,
        "mul8s_W1": 0.003,
    }
    codes = np.arange(-128, 128)
    assert found["mul8s_A1"].exact
    assert np.array_equal(found["mul8s_B1"].table, np.multiply.outer(codes, codes - (codes & 1)))
    assert np.array_equal(found["mul8s_W1"].table, np.where(codes == -128, -1, 0)[:, None] + np.zeros((256, 256), int))
    assert found["mul8s_B1"].verilog is None
    swapped = approx.load_evoapprox(tmp_path, "PDK45_AREA", weights_first=True)
    assert [one.performance_metric for one in swapped] == [411.6] * 3
    assert np.array_equal({one.name: one for one in swapped}["mul8s_B1"].table, found["mul8s_B1"].table.T)


def test_verilog_beside_a_source(tmp_path: Path) -> None:
    write(tmp_path, "mul8s_A1", SIGNED)
    (tmp_path / "mul8s_A1.v").write_text("module mul8s_A1(); endmodule\n")
    assert approx.load_evoapprox(tmp_path)[0].verilog == "module mul8s_A1(); endmodule\n"


def test_what_is_no_evoapprox_library(tmp_path: Path) -> None:
    with pytest.raises(approx.ApproxError, match="nowhere: no such folder"):
        approx.load_evoapprox(tmp_path / "nowhere")
    with pytest.raises(approx.ApproxError, match=r"no file mul8s_\*\.c"):
        approx.load_evoapprox(tmp_path)
    write(tmp_path, "mul8u_U1", SIGNED)
    with pytest.raises(approx.ApproxError, match=r"mul8u_U1\.c multiplies unsigned operands"):
        approx.load_evoapprox(tmp_path)
    path = write(tmp_path, "mul8s_F1", SIGNED.replace("%s", "%.0smul8s_G1"))
    with pytest.raises(approx.ApproxError, match=r"expected one function 'mul8s_F1'.*'uint16_t mul8s_F1\(uint8_t A"):
        approx.load_evoapprox(tmp_path)
    path.write_text("// PDK45_AREA = 1.0 um2\n" + SIGNED % "mul8s_F1")
    with pytest.raises(approx.ApproxError, match=r"no line such as '// PDK45_PWR = 0\.425'; they state PDK45_AREA"):
        approx.load_evoapprox(tmp_path)
    path.write_text("// PDK45_PWR = 1.2.3 mW\n" + SIGNED % "mul8s_F1")
    with pytest.raises(approx.ApproxError, match="no line such as"):
        approx.load_evoapprox(tmp_path)
    write(tmp_path, "mul8s_F1", SIGNED.replace("A * B", "A * C"))
    with pytest.raises(CompileError, match=r"(?s)source_0\.c:14.*\bC\b.*source_0\.c is .*mul8s_F1\.c"):
        approx.load_evoapprox(tmp_path)


def test_one_name_for_two_multipliers(tmp_path: Path) -> None:
    write(tmp_path / "a", "mul8s_A1", SIGNED)
    write(tmp_path / "b", "mul8s_A1", BYTES)
    with pytest.raises(approx.ApproxError, match="define different multipliers 'mul8s_A1'"):
        approx.load_evoapprox(tmp_path)


def test_names_of_files_reach_no_compiler(tmp_path: Path) -> None:
    path = write(tmp_path, "mul8s_A1", SIGNED)
    path.rename(tmp_path / 'mul8s_A1";touch x;".c')
    with pytest.raises(approx.ApproxError, match="expected one function"):
        approx.load_evoapprox(tmp_path)
    folder = tmp_path / "$(touch x) \"'"
    write(folder, "mul8s_A1", SIGNED)
    assert approx.load_evoapprox(folder)[0].exact
    assert not (tmp_path / "x").exists()


# ***** tables *****


def test_tables_of_a_folder_of_files_and_of_arrays(tmp_path: Path) -> None:
    low = EXACT_PRODUCTS - (np.arange(256) % 2)[:, None]
    np.save(tmp_path / "low.npy", low.astype(np.int16))
    np.save(tmp_path / "exact.npy", EXACT_PRODUCTS)
    metrics = {"low": 0.5, "exact": 1, "unused": 3}
    found = approx.load_tables(tmp_path, metrics)
    assert [(one.name, one.performance_metric, one.exact) for one in found] == [("exact", 1, True), ("low", 0.5, False)]
    assert np.array_equal(found[1].table, low)
    for source in (tmp_path / "low.npy", [str(tmp_path / "low.npy")], {"low": tmp_path / "low.npy"}, {"low": low}):
        (one,) = approx.load_tables(source, metrics)
        assert np.array_equal(one.table, low)
    (one,) = approx.load_tables({"low": low}, metrics, weights_first=True)
    assert np.array_equal(one.table, low.T)


def test_published_tables() -> None:
    folder = golden("evoapprox")
    found = approx.load_tables(folder, {path.stem: 1.0 for path in folder.glob("*.npy")})
    assert len(found) == 13
    assert [one.name for one in found if one.exact] == ["mul8s_1KV8"]
    by_name = {one.name: one for one in found}
    assert by_name["mul8s_1KR8"].table[128 + 1, 128 - 128] == np.load(folder / "mul8s_1KR8.npy")[129, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", np.full((256, 256), 0.5), r"'a': table of products: expected whole .*received float64 \[256, 256\]"),
        ("a", np.zeros((128, 128), int), r"received int64 \[128, 128\]"),
        ("a", b"no table", r"a\.npy: cannot be read as a \.npy file"),
        ("a", b"", r"a\.npy: cannot be read as a \.npy file"),
        ("b", EXACT_PRODUCTS, "no performance metric of 'b'"),
    ],
)
def test_what_is_no_table(name: str, content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(approx.ApproxError, match=message):
        approx.load_tables(tmp_path, {"a": 1})


def test_no_tables(tmp_path: Path) -> None:
    with pytest.raises(approx.ApproxError, match=r"has no \.npy file"):
        approx.load_tables(tmp_path, {})
    with pytest.raises(approx.ApproxError, match="no such file or folder"):
        approx.load_tables(tmp_path / "nowhere", {})
    with pytest.raises(approx.ApproxError, match="empty list"):
        approx.load_tables([], {})
    with pytest.raises(approx.ApproxError, match="empty mapping"):
        approx.load_tables({}, {})
    (tmp_path / "b").mkdir()
    with pytest.raises(approx.ApproxError, match="has the same name"):
        approx.load_tables([tmp_path / "a.npy", tmp_path / "b" / "a.npy"], {"a": 1})
    np.savez(tmp_path / "c.npz", EXACT_PRODUCTS)
    (tmp_path / "c.npz").rename(tmp_path / "c.npy")
    with pytest.raises(approx.ApproxError, match="holds several arrays"):
        approx.load_tables(tmp_path / "c.npy", {"c": 1})
