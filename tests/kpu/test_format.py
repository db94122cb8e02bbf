"""Reading and writing: every record, the layout of the file, the registers, saving."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kconvert
from kconvert.errors import KModelError, ModelError, WriteError
from kconvert.kpu import Input, KModel, nnil
from kconvert.kpu import nodes as n
from kconvert.kpu.k210 import Activation, BatchNorm, Pool, Registers
from kconvert.kpu.wire import NO_RANGE, DataType, FloatRange, Memory, MemoryRange, QuantParam
from tests.kpu import handmade
from tests.kpu.handmade import MAKERS, model_of

SEEDS = st.integers(0, 2**32 - 1)
F, B = DataType.FLOAT32, DataType.UINT8


def two_inputs() -> KModel:
    """A model with more than one of everything."""
    random = np.random.default_rng(3)
    nodes = tuple(make(random) for make in MAKERS.values())
    ranges = MemoryRange(Memory.MAIN, F, 0, 16), MemoryRange(Memory.KPU, B, 64, 128)
    ports = Input(ranges[0], (1, 1, 2, 2)), Input(ranges[1], (1, 2, 1, 3))
    return KModel(ports, ranges, nodes, bytes(range(24)), main_memory=1 << 20, reserved=0xCCCCCCCC)


@pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: kind.__name__)
def test_every_record_comes_back(kind: type[n.Node]) -> None:
    @settings(max_examples=20, deadline=None)
    @given(SEEDS)
    def run(seed: int) -> None:
        model = model_of(MAKERS[kind](np.random.default_rng(seed)))
        data = model.to_bytes()
        back = KModel.load(data)
        assert back == model
        assert back.nodes == model.nodes
        assert type(back.nodes[0]) is kind
        assert back.to_bytes() == data

    run()


def test_a_model_of_all_records_comes_back() -> None:
    model = two_inputs()
    data = model.to_bytes()
    assert KModel.load(data) == model
    assert KModel.load(memoryview(data)).to_bytes() == data
    assert hash(KModel.load(data)) == hash(model)
    assert dataclasses.replace(model, reserved=1) != model


def test_the_file_byte_by_byte() -> None:
    """Written out by hand from the specification."""
    source, out = MemoryRange(Memory.MAIN, B, 8, 3), MemoryRange(Memory.MAIN, F, 16, 12)
    model = KModel(
        (Input(source, (1, 1, 1, 3)),),
        (out,),
        (n.Dequantize(source, out, QuantParam(7, 0.5)), n.Unary(out, out, n.UnaryOp.NEG)),
        constants=b"constant",
        main_memory=32,
    )
    expected = b"LDMK" + struct.pack("<9I", 4, 0, 1, 8, 32, 2, 1, 1, 0)
    expected += struct.pack("<4I", 1, 1, 8, 3) + struct.pack("<4i", 1, 1, 1, 3) + struct.pack("<4I", 1, 0, 16, 12)
    expected += b"constant"
    expected += struct.pack("<4I", 0x03, 40, 0x0E, 40)
    expected += struct.pack("<8I", 1, 1, 8, 3, 1, 0, 16, 12) + struct.pack("<if", 7, 0.5)
    expected += struct.pack("<9I", 1, 0, 16, 12, 1, 0, 16, 12, 6)  # and no padding behind the last body
    assert model.to_bytes() == expected
    assert KModel.load(expected) == model
    padded = KModel.load(expected + bytes(4))  # another writer may pad it
    assert padded.tail == 4
    assert padded.to_bytes() == expected + bytes(4)
    assert padded.nodes == model.nodes


def test_the_tables_of_a_layer_are_aligned_in_the_file() -> None:
    random = np.random.default_rng(0)
    first, layer = handmade.quantize(random), handmade.kpu_conv2d(random)
    model = dataclasses.replace(model_of(layer), nodes=(first, layer))
    data = model.to_bytes()
    body = 40 + 48 + 16 + 40  # header, one input, one output, headers of two nodes and the first body
    words = np.frombuffer(data, "<u8", 12, body + 16 + 8 + 16 - 16)
    registers = Registers.unpack(words)
    norm = body + 24 + 96 + registers.bwsx_base_addr
    channels = len(layer.norm.mul)
    lines = norm + 8 * channels + registers.active_addr
    weights = lines + 144 + registers.para_start_addr
    assert [at % 256 for at in (norm, lines, weights)] == [0, 0, 0]
    np.testing.assert_array_equal(np.frombuffer(data, "<u8", channels, norm), layer.norm.pack())
    np.testing.assert_array_equal(np.frombuffer(data, "<u8", 16, lines), layer.activation.pack())
    assert data[weights : weights + layer.weights.size] == layer.weights.tobytes()


# ***** registers and tables *****


def test_register_bits() -> None:
    """Some fields at the places that the specification gives."""
    registers = Registers.for_layer(
        in_shape=(3, 240, 320),
        out_channels=24,
        kernel=3,
        pool=Pool.MAX_2X2,
        source=0,
        target=64 * 300,
        to_main=True,
        pad_value=17,
        arg_x=-5,
        arg_w=-17,
        arg_add=-(1 << 39),
    )
    words = [int(w) for w in registers.pack()]
    assert words[0] == 0
    assert words[1] == 300 << 32
    assert words[2] == 2 | 23 << 32 | 23 << 48
    assert words[3] == 319 | 239 << 10 | 159 << 32 | 119 << 42
    assert words[4] == 1 | 1 << 4 | 1 << 10 | 15 << 16 | 17 << 24
    assert words[5] == 1 | 0 << 1 | 27 * 24 << 15
    assert words[7] == 5 * 240 | 5 << 16 | 1 << 28 | 1 << 31
    assert words[8] == 3 * 120 | 3 << 16 | 1 << 20
    assert words[9] == (-17 & 0xFFFFFF) << 8 | (-5 & 0xFFFFFF) << 32
    assert words[10] == 1 << 39
    assert words[11] == 1 | (160 * 120 - 1) << 16 | (160 * 120 * 24 - 1) << 32
    assert Registers.unpack(registers.pack()) == registers


@given(st.lists(st.integers(0, 2**64 - 1), min_size=12, max_size=12))
def test_any_words_are_registers(numbers: list[int]) -> None:
    """Fields do not overlap, and bits without a name are kept."""
    words = np.array(numbers, np.uint64)
    np.testing.assert_array_equal(Registers.unpack(words).pack(), words)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=16, max_size=16))
def test_any_words_are_tables(numbers: list[int]) -> None:
    words, bias = np.array(numbers, np.uint64), np.arange(16, dtype=np.uint8)
    np.testing.assert_array_equal(BatchNorm.unpack(words).pack(), words)
    np.testing.assert_array_equal(Activation.unpack(words, bias).pack(), words)


def test_table_bits() -> None:
    norm = BatchNorm(np.array([-3]), np.array([-7]), np.array([11]))
    assert int(norm.pack()[0]) == (-3 & 0xFFFFFF) | (-7 & 0xFFFFFFFF) << 24 | 11 << 56
    rest = np.zeros(15, np.int64)
    lines = Activation(
        np.array([-(1 << 35), *rest]), np.array([-2, *rest]), np.array([200, *rest]), rest[:1].repeat(16)
    )
    assert int(lines.pack()[0]) == 200 | (-2 & 0xFFFF) << 8 | 1 << 59


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": 5}, "1x1 and 3x3 filters, not 5x5"),
        ({"in_shape": (1025, 8, 8)}, "1025 to 8 channels"),
        ({"in_shape": (8, 3, 8)}, "3x8 pixels"),
        ({"in_shape": (8, 8, 513)}, "8x513 pixels"),
        ({"depthwise": True, "out_channels": 9}, "as many channels out as in"),
        ({"source": 65}, "multiples of 64"),
        ({"in_shape": (1024, 8, 8), "out_channels": 1024}, "342 weight loads"),
        ({"arg_x": 1 << 23}, "arg_x = 8388608 does not fit its 24 bits"),
        ({"pad_value": -1}, "pad_value = -1 does not fit its 8 bits"),
    ],
)
def test_layers_that_the_chip_does_not_have(change: dict[str, object], message: str) -> None:
    options = {"in_shape": (8, 8, 8), "out_channels": 8, "kernel": 3, **change}
    with pytest.raises(KModelError, match=message):
        Registers.for_layer(**options).pack()  # type: ignore[arg-type]


def test_tables_that_do_not_fit() -> None:
    one = np.array([1])
    with pytest.raises(KModelError, match="norm_shift = 16 does not fit its 4 bits"):
        BatchNorm(one, one, one * 16).pack()
    with pytest.raises(KModelError, match="16 segments"):
        Activation(one, one, one, one).pack()


# ***** what is refused *****


def test_errors_are_the_family_of_the_readers() -> None:
    assert issubclass(KModelError, ModelError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "identification takes 16 bytes"),
        (b"TFL3" + bytes(100), "not a kmodel: it starts with b'TFL3'"),
        (b"LDMK" + struct.pack("<9I", 3, *[0] * 8), "kmodel version 3: only version 4"),
        (b"LDMK" + struct.pack("<9I", 4, 0, 2, *[0] * 6), "target 2"),
        (b"LDMK" + struct.pack("<9I", 4, 0, 1, 0, 0, 1 << 31, 0, 0, 0), "2147483648 nodes are more than"),
        (b"LDMK" + struct.pack("<9I", 4, 0, 1, 1 << 31, 0, 0, 0, 0, 0), "constant pool takes 2147483648 bytes"),
        (b"LDMK" + struct.pack("<9I", 4, 0, 1, 0, 0, 1, 0, 0, 0) + struct.pack("<2I", 0x77, 0), "no operation of code"),
        (b"LDMK" + struct.pack("<9I", 4, 0, 1, 0, 0, 0, 0, 0, 0) + b"more", "byte 40 is 0x6d"),
    ],
)
def test_files_that_are_no_kmodel(data: bytes, message: str) -> None:
    with pytest.raises(KModelError, match=message):
        KModel.load(data)


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(KModelError, match=r"cannot read .*absent"):
        KModel.load(tmp_path / "absent.kmodel")
    with pytest.raises(KModelError, match="cannot read"):
        KModel.load(tmp_path)
    with pytest.raises(KModelError, match="cannot read"):
        KModel.load("\0")


def test_a_gap_that_is_not_empty() -> None:
    data = bytearray(model_of(handmade.kpu_conv2d(np.random.default_rng(0))).to_bytes())
    at = 40 + 48 + 8 + 24 + 96 + 1
    assert data[at] == 0
    data[at] = 3
    with pytest.raises(KModelError, match=f"byte {at} is 0x03"):
        KModel.load(bytes(data))


@pytest.mark.parametrize(
    "change",
    [
        {"bias": np.zeros(3, np.float32)},
        {"kernel_h": 1 << 40},
        {"act": FloatRange(-1e300, 1e300)},
    ],
)
def test_records_that_cannot_be_written(change: dict[str, object]) -> None:
    random = np.random.default_rng(1)
    node = dataclasses.replace(handmade.conv2d(random), **change)
    with pytest.raises(KModelError, match="node 0: Conv2D"):
        KModel((), (), (node,)).to_bytes()


def conv(**change: object) -> n.Node:
    """A convolution of 2x4x4 that can be run, changed."""
    base = n.Conv2D(
        *(MemoryRange(Memory.MAIN, F, 0, 128), MemoryRange(Memory.MAIN, F, 128, 128), (1, 2, 4, 4), 1, 2),
        *(handmade.Padding(0, 0), handmade.Padding(0, 0), 1, 1, 1, 1, 1, 1, FloatRange()),
        weights=np.ones(4, np.float32),
        bias=np.zeros(2, np.float32),
    )
    return dataclasses.replace(base, **change)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (conv(source=MemoryRange(Memory.MAIN, F, 0, 64)), r"source of shape \(1, 2, 4, 4\) does not fit the 64 bytes"),
        (conv(out=MemoryRange(Memory.MAIN, F, 1 << 20, 128)), "out ends at byte 1048704 of main memory, which has 512"),
        (conv(out=MemoryRange(Memory.MAIN, F, 2, 128)), "not a multiple of 4"),
        (conv(out=MemoryRange(Memory.CONST, F, 0, 128)), "lies in the constant pool"),
        (conv(out=MemoryRange(Memory.KPU, F, 0, 128)), "in KPU memory, where it cannot be"),
        (conv(out=MemoryRange(Memory.MAIN, B, 0, 128)), "of uint8, float32 is needed"),
        (conv(stride_w=0), "stride_w 0 is not positive"),
        (conv(dilation_h=-1), "dilation_h -1 is not positive"),
        (conv(pad_h=handmade.Padding(-5, 0)), "the filter does not fit"),
        (conv(pad_h=handmade.Padding(1 << 30, 1 << 30)), "does not fit the 128 bytes"),
        (conv(groups=2, weights=np.ones(2, np.float32), out_channels=2, in_shape=(1, 3, 4, 4)), "into 2 groups"),
        (n.NNILUnary(*[MemoryRange(Memory.MAIN, F, 0, 8)] * 2, b"\x40\xa0"), "add at byte 0 of its code finds 0"),
        (n.NNILUnary(*[MemoryRange(Memory.MAIN, F, 0, 8)] * 2, b"\x03" * 80), "more than 64 numbers"),
        (n.NNILUnary(*[MemoryRange(Memory.MAIN, F, 0, 8)] * 2, b"\x03" * 7), "without a return"),
        (n.NNILUnary(*[MemoryRange(Memory.MAIN, F, 0, 8)] * 2, b"\xff\xa0"), "is no instruction"),
    ],
)
def test_models_that_cannot_be_run(node: n.Node, message: str) -> None:
    model = KModel((), (), (node,), main_memory=512)
    with pytest.raises(KModelError, match=f"node 0 .*{message}"):
        model.check()
    with pytest.raises(KModelError, match=message):
        model.infer([])


def test_bounds_of_memory_and_work() -> None:
    with pytest.raises(KModelError, match="4294967295 bytes of working memory are more than"):
        KModel((), (), (), main_memory=(1 << 32) - 1).check()
    size = 1 << 27
    ranges = MemoryRange(Memory.MAIN, F, 0, size), MemoryRange(Memory.MAIN, F, size, size)
    copy = n.MemoryCopy(*ranges)
    with pytest.raises(KModelError, match="up to node 1024 a sample takes"):
        KModel((), (), (copy,) * 1025, main_memory=2 * size).check()


# ***** saving *****


def test_save_and_load(tmp_path: Path) -> None:
    model, path = two_inputs(), tmp_path / "model.kmodel"
    model.save(path)
    assert path.read_bytes() == model.to_bytes()
    assert KModel.load(str(path)) == model
    assert path.stat().st_mode & 0o444
    model.save(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["model.kmodel"]


def test_a_failed_save_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.kmodel"
    path.write_bytes(b"old")
    node = dataclasses.replace(handmade.quantize(np.random.default_rng(0)), param=QuantParam(1 << 40, 1.0))
    with pytest.raises(KModelError, match="Quantize"):
        KModel((), (), (node,)).save(path)
    assert path.read_bytes() == b"old"
    with pytest.raises(WriteError, match="cannot write"):
        two_inputs().save(tmp_path / "absent" / "model.kmodel")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="cannot write"):
        two_inputs().save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "model.kmodel"]


# ***** the rest *****


def test_summary() -> None:
    text = two_inputs().summary()
    assert "input 1: 1x2x1x3 uint8 in kpu 64-191" in text
    assert "23 nodes" not in text
    assert f"1 of {len(MAKERS)} operations" in text
    for kind in MAKERS:
        assert kind.__name__ in text


def test_code_comes_back() -> None:
    code = [nnil.Instruction(nnil.Op.X), nnil.Instruction(nnil.Op.CONSTANT, 0.5), nnil.Instruction(nnil.Op.ADD)]
    assert nnil.encode(code) == b"\x03\x06\x00\x00\x00\x3f\x40\xa0"
    assert nnil.decode(nnil.encode(code) + b"\x00\xff") == code


def test_kpu_is_a_public_name() -> None:
    assert kconvert.kpu.KModel is KModel
    assert NO_RANGE.size == 0
