"""Files of samples, a part at a time."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kconvert.errors import InputError, WriteError
from kconvert.samples import member_names, open_samples, open_sink, read_array, replacing
from tests.cli.programs import environment

A = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
B = np.arange(7.0)[:, None]
SHAPES = {"a": (2, 3), "b": (1,)}


def both(folder: Path, kind: str) -> list[Path]:
    """Write A and B in a way; returns the files."""
    flat = np.concatenate([A.reshape(7, -1), B], axis=1)
    if kind == "two":
        np.save(folder / "a.npy", A)
        np.savetxt(folder / "b.txt", B)
        return [folder / "a.npy", folder / "b.txt"]
    path = folder / kind
    if kind == "flat.npy":
        np.save(path, flat)
    elif kind == "named.npz":
        np.savez(path, b=B, a=A)
    elif kind == "ordered.npz":
        np.savez_compressed(path, A, np.asfortranarray(B))
    elif kind == "fortran.npz":
        np.savez(path, a=np.asfortranarray(A), b=B)
    elif kind == "rows.csv":
        np.savetxt(path, flat, delimiter=",", header=",".join("abcdefg"), comments="")
    else:
        path.write_text("# a comment\n\n" + "".join(" ".join(map(repr, row)) + "\n" for row in flat.tolist()))
    return [path]


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
@pytest.mark.parametrize(
    "kind", ["two", "flat.npy", "named.npz", "ordered.npz", "fortran.npz", "rows.csv", "rows.txt", "rows.dat"]
)
def test_all_ways_to_give_samples(kind: str, rows: int, tmp_path: Path) -> None:
    samples = open_samples(both(tmp_path, kind), SHAPES)
    assert len(samples) == 7
    parts = list(samples.parts(rows))
    assert [len(a) for a, _ in parts] == [min(rows, 7 - i) for i in range(0, 7, rows)]
    np.testing.assert_allclose(np.concatenate([a for a, _ in parts]), A, rtol=1e-7)
    assert np.array_equal(np.concatenate([b for _, b in parts]), B)
    assert [array.shape for array in samples.all()] == [(7, 2, 3), (7, 1)]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".txt", ".dat"])
def test_what_is_written_is_read_again(suffix: str, tmp_path: Path) -> None:
    shapes = {"a": (2, 3)} if suffix == ".npy" else SHAPES
    path = tmp_path / f"y{suffix}"
    with open_sink(path, shapes, 7) as sink:
        for start in (0, 4):
            sink.write([A.astype(float)[start : start + 4], B[start : start + 4]][: len(shapes)])
        assert not path.exists(), "it is not complete"
    found = open_samples([path], shapes).all()
    assert np.array_equal(found[0], A)
    assert len(found) == 1 or np.array_equal(found[1], B)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_no_samples(suffix: str, tmp_path: Path) -> None:
    with open_sink(tmp_path / f"y{suffix}", {"a": (2, 3)}, 0) as sink:
        assert sink is not None
    samples = open_samples([tmp_path / f"y{suffix}"], {"a": (2, 3)})
    assert len(samples) == 0
    assert samples.all()[0].shape == (0, 2, 3)


def test_names_that_would_lead_out_of_an_archive() -> None:
    names = ["fc", "block/fc", "../up", "/root", "c:/x", "a\\b", "", "a//b", "new\nline"]
    assert member_names(names) == ["fc.npy", "block/fc.npy", *(f"array_{i}.npy" for i in range(2, 9))]


@pytest.mark.parametrize("titles", ["", "a,b\n"])
def test_a_byte_order_mark_is_no_title(titles: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"\ufeff{titles}1,2\n3,4\n", encoding="utf-8")
    assert read_array(tmp_path / "x.csv").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_file_takes_no_room_before_it_is_written(suffix: str, tmp_path: Path) -> None:
    # a hole in a file that the disk has no room to fill would end the process
    with open_sink(tmp_path / f"y.{suffix}", {"a": (4,)}, 100_000) as sink:
        for _ in range(10):
            sink.write([np.ones((10_000, 4))])
            (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
            assert file.stat().st_size <= file.stat().st_blocks * 512
    assert np.array_equal(read_array(tmp_path / f"y.{suffix}"), np.ones((100_000, 4)))


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="it is a folder"), replacing(tmp_path):
        pytest.fail("known before anything is computed")


def test_a_failure_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "y.npy"
    path.write_text("older")
    with pytest.raises(KeyboardInterrupt), open_sink(path, {"a": (2, 3)}, 7):
        raise KeyboardInterrupt
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["y.npy"]
    with pytest.raises(WriteError, match=r"cannot write .*missing"), replacing(tmp_path / "missing" / "y"):
        pytest.fail("there is no such folder")
    with pytest.raises(WriteError, match="it is a folder"), replacing(tmp_path) as new:
        new.write_text("")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.doc", b"", r"samples are read from \.npy"),
        ("none.npy", None, "cannot read .*none.npy: No such file"),
        ("x.npy", b"no array", r"cannot read .*x\.npy"),
        ("x.npz", b"no archive", r"cannot read .*x\.npz: File is not a zip file"),
        ("x.csv", b"1,2,3,4,5,6\n4,5\n", r"x\.csv, line 2: expected 6 numbers, got 2"),
        ("x.txt", b"1 2 3 4 5 6\n\n4 x 6 7 8 9\n", r"x\.txt, line 3: 'x' is no number"),
        ("x.txt", b"\xff\xfe", r"cannot read .*x\.txt"),
        ("x.txt", b"1 2 3\n", r"expected samples of shape \(2, 3\), got \(3,\)"),
    ],
)
def test_bad_files(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_samples([path], {"a": (2, 3)}).all()


def test_bad_arrays(tmp_path: Path) -> None:
    cases = {
        "objects.npy": (np.array([{}], dtype=object), r"cannot read .*objects\.npy: .*Python objects"),
        "texts.npy": (np.array(["a"]), "is not real numbers"),
        "complex.npy": (np.zeros((3, 2, 3), complex), "complex128 is not real numbers"),
        "number.npy": (np.array(3.0), "a single number is no samples"),
        "shape.npy": (np.zeros((3, 2, 4)), r"expected samples of shape \(2, 3\), got \(2, 4\)"),
    }
    for name, (array, message) in cases.items():
        np.save(tmp_path / name, array, allow_pickle=True)
        with pytest.raises(InputError, match=message):
            open_samples([tmp_path / name], {"a": (2, 3)})
    np.savez(tmp_path / "few.npz", a=A, b=B[:5])
    with pytest.raises(InputError, match=r"different numbers of samples \(7, 5\)"):
        open_samples([tmp_path / "few.npz"], SHAPES)
    np.savez(tmp_path / "many.npz", A, A, A)
    with pytest.raises(InputError, match="3 arrays for the 2 inputs a, b"):
        open_samples([tmp_path / "many.npz"], SHAPES)
    with pytest.raises(InputError, match="holds 3 arrays instead of one"):
        read_array(tmp_path / "many.npz")
    with pytest.raises(InputError, match=r"a \.npy holds one array"), open_sink(tmp_path / "y.npy", SHAPES, 7):
        pytest.fail("there are two")


LARGE = """
import numpy as np, sys
from pathlib import Path
from kconvert.samples import open_samples, open_sink
samples = open_samples([Path(sys.argv[1])], {"x": (1 << 16,)})
with open_sink(Path(sys.argv[2]), {"y": (1,)}, len(samples)) as sink:
    for (x,) in samples.parts(16):
        sink.write([x.sum(axis=1, keepdims=True).astype(float)])
"""


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_file_larger_than_memory(suffix: str, tmp_path: Path) -> None:
    path, rows = tmp_path / f"large.{suffix}", 1200  # 600 MB of zeros, as a file with a hole
    array = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.float64, (rows, 1 << 16))
    array[::400, 0] = 1
    array.flush()
    del array
    if suffix == "npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(tmp_path / "large.npy", "x.npy")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (3 << 27, 3 << 27))

    command = [sys.executable, "-c", LARGE, str(path), str(tmp_path / "y.npy")]
    subprocess.run(command, env=environment(OPENBLAS_NUM_THREADS="1"), check=True, preexec_fn=limit)
    assert np.flatnonzero(np.load(tmp_path / "y.npy")).tolist() == list(range(0, rows, 400))
