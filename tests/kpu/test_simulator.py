"""The simulator's kernels against the slow reference, one random layer at a time; batches, threads, layouts."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kconvert.errors import InputError, KModelError
from kconvert.kpu import Input, KModel, nnil, to_nchw, to_nhwc
from kconvert.kpu import nodes as n
from kconvert.kpu.k210 import Pool, Registers, from_kpu_layout, map_bytes, to_kpu_layout
from kconvert.kpu.simulator import KERNELS
from kconvert.kpu.wire import NO_RANGE, DataType, Memory, MemoryRange
from tests.kpu import handmade, reference
from tests.kpu.handmade import MAKERS, Places, inputs_for, model_of

pytestmark = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
SEEDS = st.integers(0, 2**32 - 1)
RANDOM_LAYERS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
# What comes from the C library; everything else is equal bit for bit.
TRANSCENDENTAL = (n.Unary, n.Softmax)


def check(node: n.Node, seed: int) -> None:
    """Run a model of one node on two samples, and the reference on each."""
    model = model_of(node)
    inputs = inputs_for(model, np.random.default_rng(seed), 2)
    (found, *_) = model.infer(inputs)
    for i in range(2):
        shapes = [t.shape for t in node.reads()]
        with np.errstate(all="ignore"):
            expected = reference.compute(node, *(x[i].reshape(s) for x, s in zip(inputs, shapes, strict=True)))
        got = found[i].ravel()
        assert got.dtype == expected.dtype
        if isinstance(node, TRANSCENDENTAL):
            np.testing.assert_allclose(got, expected.ravel(), rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(got, expected.ravel())


def test_every_record_has_a_kernel_a_reference_and_a_maker() -> None:
    assert set(KERNELS) == set(MAKERS) == set(reference.REFERENCES) == set(n.NODES.values())


@pytest.mark.parametrize("kind", sorted(set(MAKERS) - {n.KpuUpload}, key=lambda k: k.__name__))
def test_random_layers(kind: type[n.Node]) -> None:
    @RANDOM_LAYERS
    @given(SEEDS)
    def run(seed: int) -> None:
        check(MAKERS[kind](np.random.default_rng(seed)), seed)

    run()


@pytest.mark.parametrize("op", list(n.UnaryOp))
def test_byte_code_has_the_same_functions(op: n.UnaryOp) -> None:
    at = Places()
    unary = n.Unary(at(DataType.FLOAT32, 100), at(DataType.FLOAT32, 100), op)
    code = nnil.encode([nnil.Instruction(nnil.Op.X), nnil.Instruction(nnil.Op(op + nnil.Op.ABS))])
    x = np.abs(inputs_for(model_of(unary), np.random.default_rng(0), 3)[0])
    (found,) = model_of(n.NNILUnary(unary.source, unary.out, code)).infer(x)
    np.testing.assert_array_equal(found, model_of(unary).infer(x)[0])


@RANDOM_LAYERS
@given(SEEDS)
def test_upload_and_two_layers_in_kpu_memory(seed: int) -> None:
    """What one layer leaves in KPU memory is what the next one reads."""
    random = np.random.default_rng(seed)
    first = handmade.kpu_conv2d(random)
    batches, channels, height, width = first.in_shape
    second_size = first.registers.out_shape
    if min(second_size[1:]) < 4:
        return
    source = Places()(DataType.UINT8, *first.in_shape)
    into_kpu = MemoryRange(Memory.KPU, DataType.UINT8, 0, batches * map_bytes(channels, height, width))
    upload = n.KpuUpload(source, into_kpu, first.in_shape)
    registers = Registers.for_layer(
        in_shape=second_size, out_channels=3, kernel=1, source=1 << 20, target=0, arg_x=-9, arg_w=-3, arg_add=27
    )
    weights = random.integers(0, 256, registers.weight_count).astype(np.uint8)
    place = MemoryRange(
        Memory.MAIN, DataType.UINT8, -(-source.size // 8) * 8, batches * 3 * int(np.prod(second_size[1:]))
    )
    tables = handmade.batch_norm(random, 3), handmade.activation(random)
    second = n.KpuConv2D(place, batches, 0, registers, *tables, weights)
    nodes = (upload, dataclasses.replace(first, main_output=NO_RANGE), second)
    model = KModel((Input(source, first.in_shape),), (place,), nodes, main_memory=place.end)
    (x,) = inputs_for(model, random, 1)
    expected = reference.compute(second, reference.compute(first, x.reshape(first.in_shape)))
    np.testing.assert_array_equal(model.infer(x)[0].ravel(), expected.ravel())


@pytest.mark.parametrize("pool", list(Pool))
def test_a_wide_layer_of_many_channels(pool: Pool) -> None:
    """More taps than one exact float sum takes, and maps of more than one tile."""
    random = np.random.default_rng(pool)
    layer = handmade.kpu_conv2d(random)
    registers = Registers.for_layer(
        in_shape=(60, 7, 21), out_channels=5, kernel=3, pool=pool, target=1 << 20, pad_value=200, arg_x=-255, arg_w=-200
    )
    main = Places()(DataType.UINT8, *registers.out_shape)
    weights = random.choice(np.array([0, 255], np.uint8), registers.weight_count)
    norm = handmade.batch_norm(random, 5)
    check(dataclasses.replace(layer, main_output=main, batches=1, registers=registers, norm=norm, weights=weights), 1)


def some_model(random: np.random.Generator) -> KModel:
    """A layer of the KPU, then float32, with maps as its result."""
    layer = handmade.kpu_conv2d(random)
    where = layer.main_output
    out = MemoryRange(Memory.MAIN, DataType.FLOAT32, -(-where.end // 8) * 8, 4 * where.size)
    dequantize = n.Dequantize(where, out, handmade.QuantParam(3, 0.5))
    model = model_of(layer)
    return dataclasses.replace(model, nodes=(layer, dequantize), outputs=(out,), main_memory=out.end)


def test_batches_and_threads_change_nothing() -> None:
    random = np.random.default_rng(5)
    model = some_model(random)
    (x,) = inputs_for(model, random, 23)
    (whole,) = model.infer(x, threads=1)
    for threads in (2, 3, 64):
        np.testing.assert_array_equal(model.infer(x, threads=threads)[0], whole)
    one_by_one = [model.infer(x[i : i + 1])[0] for i in range(len(x))]
    np.testing.assert_array_equal(np.concatenate(one_by_one), whole)
    assert model.infer(x[:0])[0].shape == (0, *whole.shape[1:])


def test_layouts() -> None:
    random = np.random.default_rng(11)
    layer = handmade.kpu_conv2d(random)
    while layer.batches != 1 or min(layer.out_shape[1:]) < 2:
        layer = handmade.kpu_conv2d(random)
    model = model_of(layer)
    (x,) = inputs_for(model, random, 3)
    (nchw,) = model.infer(x)
    (nhwc,) = model.infer(to_nhwc(x), layout="nhwc")
    assert nchw.shape == (3, *layer.out_shape[1:])
    np.testing.assert_array_equal(to_nhwc(nchw), nhwc)
    np.testing.assert_array_equal(to_nchw(nhwc), nchw)
    with pytest.raises(InputError, match=r"expected shape \(n, "):
        model.infer(x[..., None])
    with pytest.raises(InputError, match="neither 'nchw' nor 'nhwc'"):
        model.infer(x, layout="chwn")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x.astype(np.float32), "takes uint8, pixels from 0 to 255"),
        (lambda x: x.astype(int) - 300, "takes uint8, pixels from 0 to 255"),
        (lambda x: [x, x], r"expected shape \(n, "),
        (lambda x: "photo.jpg", "not real numbers"),
        (lambda x: x.astype(complex), "not real numbers"),
    ],
)
def test_inputs_that_do_not_fit(wrong: object, message: str) -> None:
    model = some_model(np.random.default_rng(5))
    (x,) = inputs_for(model, np.random.default_rng(0), 2)
    with pytest.raises(InputError, match=message):
        model.infer(wrong(x))  # type: ignore[operator]


@pytest.mark.parametrize("threads", [0, -1, 2.5, True])
def test_threads_have_to_be_a_number(threads: object) -> None:
    model = some_model(np.random.default_rng(5))
    (x,) = inputs_for(model, np.random.default_rng(0), 2)
    with pytest.raises(InputError, match="not a positive integer"):
        model.infer(x, threads=threads)  # type: ignore[arg-type]


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 140))
@settings(deadline=None, max_examples=50)
def test_the_layout_of_kpu_memory(batch: int, channels: int, height: int, width: int) -> None:
    """Byte by byte as the specification has it, and back."""
    random = np.random.default_rng(width)
    maps = random.integers(1, 256, (batch, channels, height, width)).astype(np.uint8)
    stored = to_kpu_layout(maps)
    groups, row_len, pitch = (4, 1, 16) if width <= 16 else (2, 1, 32) if width <= 32 else (1, -(-width // 64), 64)
    assert stored.shape == (batch, row_len * height * -(-channels // min(channels, groups)) * 64)
    for b, c, y, x in reference.places(maps.shape):
        at = (c // groups) * row_len * height * 64 + (c % groups) * pitch + y * row_len * 64 + x
        assert stored[b, at] == maps[b, c, y, x]
    np.testing.assert_array_equal(from_kpu_layout(stored, channels, height, width), maps)


def test_an_operation_without_a_known_body_is_refused() -> None:
    node = n.ChannelLast(n.ChannelLastOp.CPU_CONV2D, bytes(16))
    model = KModel((), (), (node,), main_memory=0)
    with pytest.raises(KModelError, match=r"node 0 .*cpu_conv2d"):
        model.infer([])


def test_a_table_in_the_constant_pool() -> None:
    table = bytes(reversed(range(256)))
    at = Places()
    where = MemoryRange(Memory.CONST, DataType.UINT8, 8, 256)
    node = n.TableLookup1D(at(DataType.UINT8, 5), where, at(DataType.UINT8, 5))
    model = model_of(node, constants=bytes(8) + table)
    assert model.infer(np.arange(5)[None])[0].tolist() == [[255, 254, 253, 252, 251]]
