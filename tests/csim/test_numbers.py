"""The C++ number headers against the numpy types, the golden data, and their own specification."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import kconvert
from kconvert.types import FixedType, Overflow, Rounding
from tests.conftest import golden

HERE = Path(__file__).resolve().parent
INCLUDE = Path(kconvert.__file__).resolve().parent / "csim" / "include"
SEED = int(os.environ.get("KCONVERT_TEST_SEED", "20240611"))
CXX = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
FLAGS = ["-std=c++20", "-O1", "-march=native", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", f"-I{HERE}"]
LANES = 16
N_CASES = 120  # random triples of types
N_VALUES = 512  # values of each

pytestmark = pytest.mark.skipif(CXX is None, reason="no C++ compiler (g++, clang++ or $CXX)")

# The order of the enums in the headers, which is also that of the golden data.
ROUNDINGS = [Rounding[m] for m in ("RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO")]
OVERFLOWS = [Overflow[m] for m in ("SAT", "SAT_ZERO", "SAT_SYM", "WRAP", "WRAP_SM")]


# ---- compiling -----------------------------------------------------------------------------------


def spell(t: FixedType) -> str:
    q, o = ROUNDINGS.index(t.rounding), OVERFLOWS.index(t.overflow)
    name = "ap_fixed" if t.signed else "ap_ufixed"
    return f"{name}<{t.width}, {t.integer}, ap_q_mode({q}), ap_o_mode({o}), {t.saturation_bits}>"


class Source:
    """C++ source in the making. Types get short names: the commas of a type would end a macro's argument."""

    def __init__(self) -> None:
        self.names: dict[FixedType, str] = {}
        self.cases: list[str] = []

    def type(self, t: FixedType) -> str:
        return self.names.setdefault(t, f"t{len(self.names)}")

    def case(self, kind: str, *arguments: object) -> None:
        shown = (self.type(a) if isinstance(a, FixedType) else str(a) for a in arguments)
        self.cases.append(f"CASE_{kind}({', '.join(shown)})")

    def text(self) -> str:
        types = [f"using {name} = {spell(t)};" for t, name in self.names.items()]
        return "\n".join(['#include "numbers_driver.h"', *types, *self.cases, ""])


def compile_all(sources: dict[str, Source], folder: Path) -> dict[str, ctypes.CDLL]:
    """Compile each source to a shared object of its own, all at the same time."""
    running = {}
    for name, source in sources.items():
        cpp = folder / f"{name}.cpp"
        cpp.write_text(source.text())
        command = [str(CXX), *FLAGS, "-shared", "-fPIC", str(cpp), "-o", str(folder / f"{name}.so")]
        running[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for name, process in running.items():
        _, message = process.communicate()
        assert process.returncode == 0, f"{name}.cpp:\n{message[:4000]}"
    return {name: ctypes.CDLL(str(folder / f"{name}.so")) for name in sources}


def compiler_message(code: str, tmp_path: Path) -> str | None:
    """What the compiler has against `code`, or None when it compiles."""
    cpp = tmp_path / "snippet.cpp"
    cpp.write_text(code)
    run = subprocess.run([str(CXX), *FLAGS, "-fsyntax-only", str(cpp)], capture_output=True, text=True, check=False)
    return run.stderr if run.returncode else None


# ---- arrays of raw values ------------------------------------------------------------------------


def storage_bits(width: int) -> int:
    return next(bits for bits in (8, 16, 32, 64, 128) if width <= bits)


def to_storage(raw: np.ndarray, t: FixedType) -> np.ndarray:
    """Raw values as the integers the headers store: (n,), or (n, 2) words of 64 bits for the widest types."""
    bits = storage_bits(t.width)
    if bits < 128:
        return raw.astype(f"{'i' if t.signed else 'u'}{bits // 8}")
    words = [(int(r) & (2**64 - 1), int(r) >> 64 & (2**64 - 1)) for r in raw]
    return np.array(words, dtype=np.uint64)


def from_storage(stored: np.ndarray, t: FixedType) -> np.ndarray:
    if stored.ndim == 1:
        return stored.astype(t.raw_dtype)
    whole = [int(low) | int(high) << 64 for low, high in stored]
    return np.array([w - 2**128 if t.signed and w >> 127 else w for w in whole], dtype=object)


def empty_storage(n: int, t: FixedType) -> np.ndarray:
    return np.zeros_like(to_storage(np.zeros(n, dtype=object), t))


def pointer(a: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


def pad(a: np.ndarray) -> np.ndarray:
    """Repeat the last element up to whole packs."""
    return np.concatenate([a, np.repeat(a[-1:], -len(a) % LANES, axis=0)])


class Checked:
    """Compares arrays and counts what was compared."""

    def __init__(self) -> None:
        self.cases = 0

    def equal(self, found: np.ndarray, expected: np.ndarray, what: str, *inputs: np.ndarray) -> None:
        wrong = np.flatnonzero(np.asarray(found != expected, dtype=bool))
        if wrong.size:
            at = wrong[0]
            values = ", ".join(str(v[at]) for v in inputs)
            pytest.fail(
                f"{what}: {wrong.size} of {len(found)} differ, first for {values}: "
                f"C++ {found[at]}, expected {expected[at]} (seed {SEED})"
            )
        self.cases += len(found)


def call(function: Callable[..., None], inputs: Iterable[np.ndarray], result: FixedType, n: int) -> list[np.ndarray]:
    """Run a C++ function; return what the scalars and what the packs gave, as raw values of type `result`."""
    outputs = [empty_storage(n, result) for _ in range(2)]
    arguments = [pointer(a) for a in (*inputs, *outputs)]
    function(*arguments, ctypes.c_long(len(next(iter(inputs)))))
    return [from_storage(o, result) for o in outputs]


# ---- random types and values ---------------------------------------------------------------------


def random_type(rng: np.random.Generator) -> FixedType:
    width = int(
        rng.choice(
            [rng.integers(1, 9), rng.integers(1, 18), rng.integers(17, 34), rng.integers(33, 65)],
            p=[0.3, 0.4, 0.2, 0.1],
        )
    )
    signed = bool(rng.random() < 0.6)
    overflow = OVERFLOWS[rng.integers(5 if signed else 4)]
    saturation_bits = 0
    if overflow in (Overflow.WRAP, Overflow.WRAP_SM) and rng.random() < 0.4:
        saturation_bits = int(rng.integers(1, width + 1))
    return FixedType(
        width, int(rng.integers(-4, width + 5)), signed, ROUNDINGS[rng.integers(7)], overflow, saturation_bits
    )


def random_raw(t: FixedType, n: int, rng: np.random.Generator) -> np.ndarray:
    """Raw values of a type: all of them if they are few, else its corners and random ones of every size."""
    span = 2**t.width
    if span <= n:
        bits = [int(b) for b in rng.permutation(span)] * (n // span) + [int(b) for b in rng.integers(0, span, n % span)]
    else:
        bits = [0, 1, 2, 3, span - 1, span - 2, span // 2 - 1, span // 2, span // 2 + 1]
        while len(bits) < n:
            value = int.from_bytes(rng.bytes(16), "little") >> int(rng.integers(128 - t.width, 128))
            if rng.random() < 0.3:  # a few ones at the top: ties and exact multiples
                value = (value & -(1 << int(rng.integers(t.width)))) + int(rng.integers(-1, 2))
            bits.append((value if rng.random() < 0.5 else -value) % span)
    raw = [b - span if t.signed and b >= span // 2 else b for b in bits[:n]]
    return np.array(raw, dtype=t.raw_dtype)


def random_doubles(t: FixedType, n: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers on and beside the steps and ties of a type, in and out of range; wild ones in the last quarter."""
    whole = random_raw(t, n, rng).astype(np.float64)
    beside = rng.choice([0, 0.25, 0.5, -0.5, 0.75, 1e-9, 0.5 + 1e-9, 0.5 - 1e-9], n)
    x = (whole * rng.choice([1, 1, 1, 2, 7], n) + beside) * t.step
    wild = [
        np.inf,
        -np.inf,
        np.nan,
        0.0,
        -0.0,
        5e-324,
        -5e-324,
        1e-30,
        -1e-30,
        1.7e308,
        -1.7e308,
        2.0**62,
        -(2.0**63),
    ]
    quarter = n // 4
    x[-quarter:] = rng.choice(wild, quarter)
    x[-quarter::3] = (rng.random(len(x[-quarter::3])) - 0.5) * 2.0 ** rng.integers(-80, 140, len(x[-quarter::3]))
    return x


@dataclass(frozen=True)
class Triple:
    """The types of one random case: operands a and b, and the target of assignments."""

    a: FixedType
    b: FixedType
    target: FixedType

    def widths_fit(self) -> bool:
        """Whether the headers can hold every exact result (128 bits)."""
        try:
            _ = self.a + self.b, self.a - self.b, self.target + self.a * self.b
        except ValueError:
            return False
        return True


def random_triples(rng: np.random.Generator) -> list[Triple]:
    triples: list[Triple] = []
    while len(triples) < N_CASES:
        triple = Triple(random_type(rng), random_type(rng), random_type(rng))
        if triple.widths_fit():
            triples.append(triple)
    return triples


TRIPLES = random_triples(np.random.default_rng(SEED))


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """The compiled random cases: half of them in each of two libraries, to use two cores."""
    sources = {"random0": Source(), "random1": Source()}
    for k, t in enumerate(TRIPLES):
        source = sources[f"random{k % 2}"]
        source.case("ASSIGN", k, t.target, t.a)
        source.case("REAL", k, t.target)
        source.case("TO_REAL", k, t.a)
        for operation in ("addition", "subtraction", "product"):
            source.case("BINARY", k, operation, t.a, t.b)
        source.case("COMPARE", k, t.a, t.b)
        source.case("SUMS", k, t.target, t.a, t.b)
        source.case("ACCUMULATE", k, t.target, t.a, t.b)
    return compile_all(sources, tmp_path_factory.mktemp("numbers"))


def test_random_types_agree_with_numpy(drivers: dict[str, ctypes.CDLL]) -> None:
    checked = Checked()
    rng = np.random.default_rng(SEED + 1)
    for k, triple in enumerate(TRIPLES):
        library = drivers[f"random{k % 2}"]
        check_assignment(library, k, triple, rng, checked)
        check_reals(library, k, triple, rng, checked)
        check_operators(library, k, triple, rng, checked)
        check_sums(library, k, triple, rng, checked)
    assert checked.cases >= 1_000_000


def check_assignment(library: ctypes.CDLL, k: int, t: Triple, rng: np.random.Generator, checked: Checked) -> None:
    raw = random_raw(t.a, 2 * N_VALUES, rng)
    expected = t.target.requantize(raw, t.a)
    for found in call(library[f"assign_{k}"], [to_storage(raw, t.a)], t.target, len(raw)):
        checked.equal(found, expected, f"{t.target} = {t.a}", raw)


def check_reals(library: ctypes.CDLL, k: int, t: Triple, rng: np.random.Generator, checked: Checked) -> None:
    x = random_doubles(t.target, 2 * N_VALUES, rng)
    with np.errstate(over="ignore"):
        floats = x.astype(np.float32)
    for name, values in ("double", x), ("float", floats):
        finite = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
        expected = t.target.to_raw(finite)
        for found in call(library[f"from_{name}_{k}"], [values], t.target, len(values)):
            checked.equal(found, expected, f"{t.target} from {name}", values)
    raw = random_raw(t.a, N_VALUES, rng)
    stored = to_storage(raw, t.a)
    for name, dtype in ("double", np.float64), ("float", np.float32):
        expected = raw.astype(dtype) * dtype(t.a.step)  # the integer is rounded once, the scaling is exact
        outputs = [np.zeros(N_VALUES, dtype) for _ in range(2)]
        library[f"to_{name}_{k}"](*map(pointer, (stored, *outputs)), ctypes.c_long(N_VALUES))
        for found in outputs:
            checked.equal(found, expected, f"{t.a} to {name}", raw)


def check_operators(library: ctypes.CDLL, k: int, t: Triple, rng: np.random.Generator, checked: Checked) -> None:
    a, b = random_raw(t.a, N_VALUES, rng), random_raw(t.b, N_VALUES, rng)
    stored = [to_storage(a, t.a), to_storage(b, t.b)]
    exact_a, exact_b = a.astype(object), b.astype(object)
    fraction = max(t.a.fraction, t.b.fraction)
    aligned_a, aligned_b = exact_a << (fraction - t.a.fraction), exact_b << (fraction - t.b.fraction)
    for name, result, expected in (
        ("addition", t.a + t.b, aligned_a + aligned_b),
        ("subtraction", t.a - t.b, aligned_a - aligned_b),
        ("product", t.a * t.b, exact_a * exact_b),
    ):
        check_exact(library[f"{name}_{k}"], (t.a, t.b, result), (a, b), expected, checked)
    expected = comparison_bits(aligned_a, aligned_b)
    for found in compare(library[f"compare_{k}"], *stored):
        checked.equal(found, expected, f"{t.a} compared with {t.b}", a, b)


def comparison_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rules = (a < b, a == b, a <= b, a > b, a != b, a >= b)
    return sum((np.asarray(rule, dtype=bool).astype(np.uint8) << i) for i, rule in enumerate(rules))


def check_sums(library: ctypes.CDLL, k: int, t: Triple, rng: np.random.Generator, checked: Checked) -> None:
    a, b, c = (random_raw(x, N_VALUES, rng) for x in (t.a, t.b, t.target))
    stored = [to_storage(a, t.a), to_storage(b, t.b)]
    fraction = max(t.a.fraction, t.b.fraction)
    aligned_a = a.astype(object) << (fraction - t.a.fraction)
    aligned_b = b.astype(object) << (fraction - t.b.fraction)
    expected = np.concatenate(
        [
            t.target.requantize(aligned_a + aligned_b, t.a + t.b),
            t.target.requantize(aligned_a - aligned_b, t.a - t.b),
        ]
    )
    for found in call(library[f"sums_{k}"], stored, t.target, 2 * N_VALUES):
        checked.equal(found, expected, f"{t.target} = {t.a} +- {t.b}", np.tile(a, 2), np.tile(b, 2))

    weight = np.repeat(b[::LANES], LANES)
    product, total = t.a * t.b, t.target + t.a * t.b
    exact = (c.astype(object) << (total.fraction - t.target.fraction)) + (
        a.astype(object) * weight.astype(object) << (total.fraction - product.fraction)
    )
    expected = t.target.requantize(exact, total)
    for found in call(library[f"accumulate_{k}"], [to_storage(c, t.target), *stored], t.target, N_VALUES):
        checked.equal(found, expected, f"{t.target} += {t.a} * {t.b}", c, a, weight)


# ---- golden data: what the vendor's reference headers answer -------------------------------------


def golden_type(width: int, integer: int, signed: int, q: int = 5, o: int = 3, n: int = 0) -> FixedType:
    return FixedType(int(width), int(integer), bool(signed), ROUNDINGS[q], OVERFLOWS[o], int(n))


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(golden("ap_fixed") / f"{name}.npz") as data:
        return {key: data[key] for key in data.files}


def golden_pairs() -> list[tuple[FixedType, FixedType]]:
    return [(golden_type(*row[:3]), golden_type(*row[3:])) for row in load("operators")["pairs"]]


OPERATIONS = {
    "addition": "add", "subtraction": "sub", "product": "mul", "quotient": "div",
    "conjunction": "and", "disjunction": "or", "exclusive": "xor",
}  # fmt: skip


@pytest.fixture(scope="session")
def golden_drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    sources = {"assign": Source(), "operators": Source()}
    for k, row in enumerate(load("assign")["types"]):
        sources["assign"].case("ASSIGN", k, golden_type(*row[3:]), golden_type(*row[:3]))
    for k, row in enumerate(load("from_double")["types"]):
        sources["assign"].case("REAL", k, golden_type(*row))
    for p, (a, b) in enumerate(golden_pairs()):
        sources["operators"].case("COMPARE", p, a, b)
        for operation in OPERATIONS:
            sources["operators"].case("BINARY", p, operation, a, b)
    return compile_all(sources, tmp_path_factory.mktemp("golden"))


def test_golden_assignments(golden_drivers: dict[str, ctypes.CDLL]) -> None:
    data, checked, carries = load("assign"), Checked(), 0
    for k, row in enumerate(data["types"]):
        source, target = golden_type(*row[:3]), golden_type(*row[3:])
        of_type = data["type_index"] == k
        raw, expected = data["source"][of_type].astype(np.int64), data["result"][of_type].astype(np.int64)
        quirk = np.zeros(len(raw), dtype=bool)
        if target.overflow is Overflow.WRAP_SM and target.saturation_bits == 0:
            # The reference looks at a bit of the value before it is rounded. Ours follows the rule.
            ours = target.requantize(raw, source)
            quirk = (ours != expected) & (
                rounded(raw, source, target) != rounded(raw, source, target.with_(rounding=Rounding.TRN))
            )
            carries += quirk.sum()
        for found in call(
            golden_drivers["assign"][f"assign_{k}"], [to_storage(pad(raw), source)], target, len(pad(raw))
        ):
            checked.equal(found[: len(raw)][~quirk], expected[~quirk], f"{target} = {source}", raw[~quirk])
    assert checked.cases == 2 * (len(data["source"]) - carries)
    assert carries < 100


def rounded(raw: np.ndarray, source: FixedType, target: FixedType) -> np.ndarray:
    """The value on the steps of `target`, before any overflow."""
    roomy = FixedType(64, 64 - target.fraction, True, target.rounding)
    return roomy.requantize(raw, source)


def test_golden_doubles(golden_drivers: dict[str, ctypes.CDLL]) -> None:
    data, checked = load("from_double"), Checked()
    values = pad(data["values"])
    for k, row in enumerate(data["types"]):
        target = golden_type(*row)
        for found in call(golden_drivers["assign"][f"from_double_{k}"], [values], target, len(values)):
            n = len(data["values"])
            checked.equal(found[:n], data["result"][k].astype(target.raw_dtype), f"{target} from double", values)
    assert checked.cases == 2 * data["result"].size


def quotient_type(a: FixedType, b: FixedType) -> FixedType:
    width = a.width + max(b.fraction, 0) + b.signed
    return FixedType(width, a.integer + b.fraction + b.signed, a.signed or b.signed)


def test_golden_operators(golden_drivers: dict[str, ctypes.CDLL]) -> None:
    data, checked, wrong_signs = load("operators"), Checked(), 0
    library = golden_drivers["operators"]
    start = 0
    for p, (a, b) in enumerate(golden_pairs()):
        raw_a, raw_b = np.repeat(all_raw(a), 2**b.width), np.tile(all_raw(b), 2**a.width)
        part = slice(start, start + len(raw_a))
        start = part.stop
        for operation, short in OPERATIONS.items():
            if operation != "quotient":
                row = data[f"{'and' if short in ('or', 'xor') else short}_type"][p]
                function = library[f"{operation}_{p}"]
                check_exact(function, (a, b, golden_type(*row)), (raw_a, raw_b), data[short][part], checked)
        # The reference gives a wrong sign to the largest quotient, lowest / -1. Ours follows the rule.
        expected = data["div"][part].astype(np.int64)
        largest = a.signed & b.signed & (raw_a == a.raw_min) & (raw_b == -1)
        right = -a.raw_min << max(b.fraction, 0)
        wrong_signs += int((expected[largest] != right).sum())
        expected[largest] = right
        used = raw_b != 0
        types = (a, b, quotient_type(a, b))
        check_exact(library[f"quotient_{p}"], types, (raw_a[used], raw_b[used]), expected[used], checked)
        for found in compare(library[f"compare_{p}"], to_storage(pad(raw_a), a), to_storage(pad(raw_b), b)):
            checked.equal(found[: len(raw_a)] & 7, data["compare"][part], f"{a} ? {b}", raw_a, raw_b)
    assert start == len(data["add"])
    assert wrong_signs == 35
    assert checked.cases > 14 * start


def check_exact(
    function: Callable[..., None],
    types: tuple[FixedType, FixedType, FixedType],
    operands: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    checked: Checked,
) -> None:
    """Compare the result of an operator, its type, and the packs' results, with what is expected."""
    result = types[2]
    type_found = np.zeros(3, np.int32)
    inputs = [to_storage(pad(raw), t) for raw, t in zip(operands, types, strict=False)]
    outputs = [empty_storage(len(inputs[0]), result) for _ in range(2)]
    function(*map(pointer, (*inputs, *outputs, type_found)), ctypes.c_long(len(inputs[0])))
    assert list(type_found) == [result.width, result.integer, result.signed], f"result of {types}"
    for output in outputs:
        found = from_storage(output, result)[: len(expected)]
        checked.equal(found, expected.astype(result.raw_dtype), f"{types}", *operands)


def compare(function: Callable[..., None], a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    outputs = [np.zeros(len(a), np.uint8) for _ in range(2)]
    function(*map(pointer, (a, b, *outputs)), ctypes.c_long(len(a)))
    return outputs


def all_raw(t: FixedType) -> np.ndarray:
    """Every raw value of a type, in the order of its bits."""
    bits = np.arange(2**t.width)
    return np.where(t.signed & (bits >= 2 ** (t.width - 1)), bits - 2**t.width, bits)


# ---- the rest of the specification, in C++ -------------------------------------------------------


def test_semantics_hold_at_compile_time(tmp_path: Path) -> None:
    assert compiler_message((HERE / "semantics.cpp").read_text(), tmp_path) is None


def run_program(name: str, tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    program = tmp_path / name
    subprocess.run([str(CXX), *FLAGS, *flags, str(HERE / f"{name}.cpp"), "-o", str(program)], check=True)
    return subprocess.run([str(program)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("lanes", [16, 32])
def test_packs(tmp_path: Path, lanes: int) -> None:
    run = run_program("packs", tmp_path, f"-DKCONVERT_LANES={lanes}")
    assert run.returncode == 0, run.stdout


def test_packs_without_wide_vectors(tmp_path: Path) -> None:
    run = run_program("packs", tmp_path, "-march=x86-64" if os.uname().machine == "x86_64" else "-O2")
    assert run.returncode == 0, run.stdout


def test_streams_and_text(tmp_path: Path) -> None:
    assert run_program("streams", tmp_path).stdout.splitlines() == [
        "1.5 -2 1 0 2",
        "0 1 1 1 2",
        "stream 'between' is read while it is empty",
        "1 19 20",
        "-1.6875 0b1110.0101 0b000101 -5 170141183460469231731687303715884105728 48 0.015625",
        "2.5 -3 18446744073709551615 3",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "auto y = x * 2.5;",
        "auto y = 2.5 * x;",
        "auto y = x + 0.5f;",
        "auto y = x - 1.0;",
        "auto y = x / 2.0;",
        "x += 0.5;",
        "x *= 2.5;",
        "x -= 0.5f;",
        "x /= 2.0;",
    ],
)
def test_arithmetic_with_floats_does_not_compile(statement: str, tmp_path: Path) -> None:
    frame = '#include "ap_fixed.h"\nvoid f(ap_fixed<8, 4> x) {{ {} (void)x; }}\n'
    assert compiler_message(frame.format("x += ap_fixed<8, 4>(0.5);"), tmp_path) is None
    message = compiler_message(frame.format(statement), tmp_path)
    assert message is not None
    assert "error" in message


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("ap_ufixed<8, 4, AP_TRN, AP_WRAP_SM> x = 1.5;", "AP_WRAP_SM needs a signed type"),
        ("ap_fixed<129, 4> x;", "wider than 128 bits are not supported"),
        ("auto x = ap_fixed<65, 4>(1) * ap_fixed<64, 4>(1);", "wider than 128 bits are not supported"),
        ("ap_fixed<0, 4> x;", "needs at least one bit"),
    ],
)
def test_impossible_types_say_why(statement: str, sentence: str, tmp_path: Path) -> None:
    code = f'#include "ap_fixed.h"\nvoid f() {{ {statement} (void)x; }}\n'
    message = compiler_message(code, tmp_path)
    assert message is not None
    assert sentence in message
