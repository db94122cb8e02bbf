"""What a multiplier is, and those of our own against definitions written a second time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kconvert_contrib import approx
from kconvert_contrib.approx import costs
from kconvert_contrib.approx.families import DESIGNS, member
from kconvert_contrib.approx.families import costs as stored_costs
from kconvert_contrib.approx.multipliers import CODES, compiled_tables
from kconvert_contrib.approx.plots import pareto_front, plot_library
from tests.conftest import ROOT, golden

X, Y = np.meshgrid(CODES, CODES, indexing="ij")

# Mean error, MAE, MSE, WCE of the library's documentation and of its tables, and whether x and y may be swapped.
EVOAPPROX = {
    "1KV8": (0, 0, 0, 0, True),
    "1KVA": (-1.25, 1.25, 3.75, 5, True),
    "1KVB": (-4.25, 4.25, 34.25, 17, True),
    "1KX2": (-12.25, 12.25, 248.25, 49, True),
    "1KR8": (0.25, 32, 2730.75, 128, False),
    "1KR6": (-2.25, 33.28, 2746.25, 137, False),
    "1KRC": (-8.25, 36.54, 2872.25, 161, False),
    "1L2H": (0.75, 53.33, 5461.75, 255, True),
    "1KVL": (-16.25, 101.28, 19690.25, 449, False),
    "1KTY": (1.75, 224, 95576.25, 896, False),
    "1L2D": (3.75, 149.78, 38236.25, 759, True),
    "1L1G": (15.75, 339.94, 191238.25, 1743, True),
    "1KR3": (15.75, 2016, 7282910.25, 8064, False),
}

# Members of our own with the same products; broken arrays with the operands swapped.
SAME_PRODUCTS = {
    "1KV8": "exact",
    "1KVA": "truncated_columns_2",
    "1KVB": "truncated_columns_3",
    "1KX2": "truncated_columns_4",
    "1KR8": "truncated_operands_1_0",
    "1KR6": "broken_array_1_3",
    "1KRC": "broken_array_1_4",
    "1L2H": "truncated_operands_1_1",
    "1KVL": "broken_array_2_5",
    "1KTY": "truncated_operands_3_0",
    "1L2D": "truncated_operands_2_2",
    "1L1G": "truncated_operands_3_3",
    "1KR3": "truncated_operands_6_0",
}


@pytest.fixture(scope="module")
def library() -> dict[str, approx.ApproximateMultiplier]:
    return {one.name: one for one in approx.library()}


# ***** the class *****


def test_error_map_and_table() -> None:
    errors = np.zeros((256, 256), np.int16)
    errors[128 - 3, 128 + 5] = 2  # -3 · 5 = -15 becomes -17
    multiplier = approx.ApproximateMultiplier("a", 0.5, errors)
    assert multiplier.table[125, 133] == -17
    assert multiplier.table.dtype == multiplier.error_map.dtype == np.int32
    assert (multiplier.table == X * Y).sum() == 65535
    assert not multiplier.exact
    found = multiplier.statistics
    assert (found.wce, found.mae, found.mean, found.mse) == (2, 2 / 65536, -2 / 65536, 4 / 65536)
    assert found.std == pytest.approx(np.sqrt(4 / 65536 - (2 / 65536) ** 2))
    assert (found.error_rate, found.zero_safe) == (1 / 65536, True)
    errors[0, 0] = 9  # the multiplier keeps its own
    assert multiplier.table[0, 0] == 16384
    with pytest.raises(ValueError, match="read-only"):
        multiplier.error_map[0, 0] = 1


def test_made_of_a_table_or_a_function() -> None:
    halves = approx.ApproximateMultiplier.from_function("halves", 1, lambda x, y: (x >> 1) * y * 2)
    assert halves.table[128 + 3, 128 + 7] == 14
    again = approx.ApproximateMultiplier.from_table("again", 1, halves.table.astype(np.int16))
    assert np.array_equal(again.error_map, halves.error_map)
    assert again.error_map[128 + 3, 128 + 7] == 7
    assert again.with_metric(0.25).performance_metric == 0.25
    one = approx.ApproximateMultiplier.from_function("one", 1, lambda x, y: x * y + (x == 0))
    assert not one.statistics.zero_safe
    exact = approx.exact_multiplier()
    assert exact.exact
    assert exact.statistics.std == 0


@pytest.mark.parametrize(
    ("name", "metric", "errors", "message"),
    [
        ("", 1, np.zeros((256, 256), int), "name is a text that is not empty; received ''"),
        (None, 1, np.zeros((256, 256), int), "received None"),
        ("a", np.nan, np.zeros((256, 256), int), "'a': performance_metric is a finite number .*received nan"),
        ("a", "cheap", np.zeros((256, 256), int), "received 'cheap'"),
        ("a", 1, np.zeros((255, 256), int), r"error_map: expected whole numbers .*int64 \[255, 256\]"),
        ("a", 1, np.full((256, 256), 0.5), "received float64"),
        ("a", 1, np.full((256, 256), 40000), "fit in 16 bits; it spans -56256 to -23616"),
    ],
)
def test_what_is_no_multiplier(name: Any, metric: Any, errors: Any, message: str) -> None:
    with pytest.raises(approx.ApproxError, match=message):
        approx.ApproximateMultiplier(name, metric, errors)


def test_whole_numbers_may_be_floats() -> None:
    errors = np.full((256, 256), 3)
    assert np.array_equal(approx.ApproximateMultiplier("a", 1, errors.astype(np.float32)).error_map, errors)


def test_source_needs_an_identifier() -> None:
    with pytest.raises(approx.ApproxError, match="is no C\\+\\+ identifier"):
        approx.exact_multiplier().cpp_function("f(int); int g")
    plain = approx.ApproximateMultiplier("a", 1, np.zeros((256, 256), int))
    with pytest.raises(approx.ApproxError, match="'a' has no behavioural C\\+\\+ source"):
        plain.cpp_function("f")


def test_statistics_of_published_multipliers() -> None:
    folder = golden("evoapprox")
    for name, (mean, mae, mse, wce, symmetric) in EVOAPPROX.items():
        table = np.load(folder / f"mul8s_{name}.npy")
        found = approx.ApproximateMultiplier.from_table(name, 1, table).statistics
        assert (found.mean, round(found.mae, 2), found.mse, found.wce) == (mean, mae, mse, wce), name
        assert found.std == pytest.approx(np.sqrt(mse - mean**2))
        assert found.zero_safe
        assert (table == table.T).all() == symmetric


def test_published_multipliers_are_members_of_our_families(library: dict[str, Any]) -> None:
    folder = golden("evoapprox")
    for name, (*_, symmetric) in EVOAPPROX.items():
        table, ours = np.load(folder / f"mul8s_{name}.npy"), library[SAME_PRODUCTS[name]].table
        swapped = SAME_PRODUCTS[name].startswith("broken_array")
        assert np.array_equal(ours.T if swapped else ours, table), name
        assert symmetric or not np.array_equal(ours, ours.T)


# ***** the families, defined by loops over single products *****


def bits(value: int) -> list[int]:
    return [(value >> i) & 1 for i in range(8)]


def broken(x: int, y: int, rows: int, columns: int) -> int:
    weight = [1, 2, 4, 8, 16, 32, 64, -128]
    pairs = [(i, j) for i in range(8) for j in range(rows, 8) if i + j >= columns]
    return sum(weight[i] * weight[j] * bits(x)[i] * bits(y)[j] for i, j in pairs)


def signed(function: Any) -> Any:
    return lambda x, y, *options: int(np.sign(x * y)) * function(abs(x), abs(y), *options)


def mitchell(a: int, b: int, fraction: int) -> int:
    def logarithm(value: int) -> int:  # in units of 2^-fraction, rounded down
        whole = value.bit_length() - 1
        return whole * 2**fraction + (value - 2**whole) * 2**fraction // 2**whole

    if a * b == 0:
        return 0
    whole, part = divmod(logarithm(a) + logarithm(b), 2**fraction)
    return (2**fraction + part) * 2**whole // 2**fraction


def segment(a: int, length: int, unbiased: bool) -> int:
    cut = max(a.bit_length() - length, 0)
    return ((a >> cut) | (unbiased and cut > 0)) << cut


def static(a: int, length: int) -> int:
    return a if a < 2**length else a >> (8 - length) << (8 - length)


def blocks(a: int, b: int, columns: int) -> int:
    total = 0
    for i in range(4):
        for j in range(4):
            one, other = (a >> 2 * i) & 3, (b >> 2 * j) & 3
            total += (7 if one == other == 3 and i + j < columns else one * other) << 2 * (i + j)
    return total


REFERENCE = {
    "exact": lambda x, y: x * y,
    "truncated operands": lambda x, y, k, m: x // 2**k * 2**k * (y // 2**m * 2**m),
    "truncated columns": lambda x, y, k, compensated=False: broken(x, y, 0, k) + (MEANS[k] if compensated else 0),
    "broken array": broken,
    "mitchell": signed(mitchell),
    "drum": signed(lambda a, b, k: segment(a, k, True) * segment(b, k, True)),
    "leading one": signed(lambda a, b, k: segment(a, k, False) * segment(b, k, False)),
    "static segment": signed(lambda a, b, k: static(a, k) * static(b, k)),
    "blocks 2x2": signed(blocks),
}
# of the columns left out: (1 + 2·2 + 3·4 + ...) / 4; those from column 7 on have two negative bits each
MEANS = {3: 4, 4: 12, 5: 32, 6: 80, 7: 192, 8: 320, 9: 512}
CORNERS = (-128, -127, -126, -96, -65, -64, -63, -3, -2, -1, 0, 1, 2, 3, 7, 15, 16, 31, 63, 64, 85, 100, 127)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_members_follow_their_definition(design: Any) -> None:
    rng = np.random.default_rng(1)
    table = design.table()
    pairs = [(x, y) for x in CORNERS for y in CORNERS] + rng.integers(-128, 128, (500, 2)).tolist()
    expected = [REFERENCE[design.family](x, y, *design.options) for x, y in pairs]
    got = [int(table[x + 128, y + 128]) for x, y in pairs]
    assert got == expected


def test_library(library: dict[str, Any]) -> None:
    assert [one.name for one in library.values() if one.exact] == ["exact"]
    assert library["exact"].performance_metric == 1
    assert len(library) == len(DESIGNS) >= 50
    assert {design.family for design in DESIGNS} == set(REFERENCE)
    for one in library.values():
        # a constant that stands for the columns left out is also added to 0·y
        assert one.statistics.zero_safe != one.name.startswith("compensated"), one.name
        assert 0 < one.performance_metric <= 1
    assert member("drum_4") is library["drum_4"]
    with pytest.raises(approx.ApproxError, match="no multiplier 'drum_9'; it has exact, truncated"):
        member("drum_9")


def test_better_members_of_a_family_cost_more(library: dict[str, Any]) -> None:
    for family in ("truncated_columns", "drum", "leading_one", "static_segment"):
        members = sorted((m for n, m in library.items() if n.startswith(family)), key=lambda m: m.statistics.std)
        metrics = [m.performance_metric for m in members]
        assert metrics == sorted(metrics, reverse=True), family
    for k in range(3, 10):
        plain, compensated = library[f"truncated_columns_{k}"], library[f"compensated_columns_{k}"]
        assert abs(compensated.statistics.mean) <= 0.5 < abs(plain.statistics.mean)
        assert compensated.statistics.std == pytest.approx(plain.statistics.std)


# ***** C++ and Verilog *****


def test_cpp_of_all_members(library: dict[str, Any]) -> None:
    for multiplier, table in zip(library.values(), compiled_tables(library.values()), strict=True):
        assert np.array_equal(table, multiplier.table), multiplier.name


def test_cpp_is_plain_cpp14_without_undefined_behaviour(library: dict[str, Any], tmp_path: Path) -> None:
    """No loops, tables, branches or standard library, and no left shift of what may be negative."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed (Debian, Ubuntu: apt-get install g++)")
    text = "".join(one.cpp_function(name) for name, one in library.items())
    assert not re.search(r"\b(for|while|if|goto|static const)\b|\[", text)
    calls = "".join(f"sum += {name}(x, y);" for name in library)
    loop = f"for (int x = -128; x < 128; x += 3) for (int y = -128; y < 128; y++) {{ {calls} }}"
    (tmp_path / "all.cpp").write_text(f"{text}int main() {{ long sum = 0; {loop} return sum == 1; }}\n")
    flags = ["-std=c++14", "-O0", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    built = subprocess.run([compiler, *flags, "all.cpp"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if "cannot find -lubsan" in built.stderr or "libclang_rt.ubsan" in built.stderr:
        pytest.skip("the compiler's undefined behaviour sanitizer is not installed")
    assert built.returncode == 0, built.stderr[:2000]
    done = subprocess.run(["./a.out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]


BENCH = """module bench;
    integer i, j;
    reg signed [7:0] x, y;
%s
    initial begin
        for (i = -128; i < 128; i = i + 1)
            for (j = -128; j < 128; j = j + 1) begin
                x = i[7:0];
                y = j[7:0];
                #1;
%s
            end
        $finish;
    end
endmodule
"""


def test_verilog_of_all_members(library: dict[str, Any], tmp_path: Path) -> None:
    verilator = shutil.which("verilator")
    if verilator is None:
        pytest.skip("verilator is not installed (Debian, Ubuntu: apt-get install verilator)")
    names = list(library)
    uses = [f"    wire signed [15:0] p_{n};\n    {n} u_{n} (.x(x), .y(y), .p(p_{n}));" for n in names]
    writes = [f'                $write("%0d ", p_{n});' for n in names]
    bench = BENCH % ("\n".join(uses), "\n".join(writes))
    (tmp_path / "bench.v").write_text("".join(one.verilog for one in library.values()) + bench)
    flags = ["--binary", "--timing", "-Wno-WIDTH", "-Wno-DECLFILENAME", "-CFLAGS", "-O0", "--top-module", "bench"]
    command = [verilator, *flags, "bench.v"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[:2000]
    out = subprocess.run(["obj_dir/Vbench"], cwd=tmp_path, capture_output=True, check=True).stdout
    products = np.fromstring(out.partition(b"- bench")[0].decode(), dtype=int, sep=" ").reshape(256, 256, len(names))
    for number, name in enumerate(names):
        assert np.array_equal(products[:, :, number], library[name].table), name


# ***** costs *****


def test_stored_costs_are_those_of_the_present_sources(library: dict[str, Any]) -> None:
    stored = stored_costs()
    assert list(stored) == [design.name for design in DESIGNS]
    for name, cost in stored.items():
        assert cost["verilog"] == costs.fingerprint(library[name].verilog), f"{name}: run make approx-costs"
        assert library[name].performance_metric == cost["area"] / stored["exact"]["area"]


def test_synthesis_repeats_a_stored_cost(library: dict[str, Any]) -> None:
    if shutil.which("yosys") is None:
        pytest.skip("yosys is not installed (Debian, Ubuntu: apt-get install yosys)")
    cost = costs.synthesise(library["broken_array_4_10"].verilog, "broken_array_4_10")
    stored = stored_costs()["broken_array_4_10"]
    # other releases of Yosys find other circuits
    assert cost["area"] == pytest.approx(stored["area"], rel=0.1)
    assert cost["luts"] == pytest.approx(stored["luts"], rel=0.2)


# ***** figures, documentation, imports *****


def test_pareto_front_and_plot(library: dict[str, Any], tmp_path: Path) -> None:
    front = pareto_front(library.values())
    assert front[-1].exact
    for one in library.values():
        beats = [
            f
            for f in front
            if f.performance_metric <= one.performance_metric and f.statistics.std <= one.statistics.std
        ]
        assert beats
    (axes,) = plot_library([*library.values(), library["exact"].with_metric(2)], tmp_path / "library.png").axes
    assert (tmp_path / "library.png").read_bytes().startswith(b"\x89PNG")
    assert {text.get_text() for text in axes.texts} == {one.name for one in front}
    assert len(axes.collections[0].get_offsets()) == len(library) + 1
    with pytest.raises(approx.ApproxError, match="no multipliers to draw"):
        plot_library([])


def test_documentation_lists_the_library(library: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "approx_multipliers.md").read_text(encoding="utf-8")
    assert costs.markdown_table() in text, "run make approx-costs"


def test_multipliers_need_no_keras() -> None:
    script = "import sys, kconvert_contrib.approx as a; a.library(); sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
