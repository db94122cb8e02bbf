"""Reading tflite: what the original gets wrong, what is refused and how, damaged files."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from kconvert import kpu
from kconvert.errors import CapacityError, KConvertError, TFLiteError
from kconvert.kpu.compiler import read_tflite
from kconvert.kpu.compiler.execute import run
from kconvert.kpu.compiler.operators.resize import resize_matrix
from tests.conftest import golden
from tests.kpu_compiler.networks import chain, converted, error, images, tflite

tf = pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")

# What the original refuses or crashes on, and we compile.
NOW_RIGHT = ("depthmul2", "dynbatch", "elu", "f16", "hswish", "int8_model", "prelu", "sharedout", "tanh")


def answers(path: str, x: np.ndarray) -> list[np.ndarray]:
    """Return what LiteRT answers to one sample; quantised models get and give real numbers."""
    from kconvert.comparison import run_tflite

    return run_tflite(path, [x])


@pytest.mark.parametrize("name", NOW_RIGHT)
def test_what_the_original_refused_is_compiled(name: str) -> None:
    path = golden("kmodel_errors") / name / "model.tflite"
    shape = read_tflite(path).inputs[0].shape
    pixels = np.random.default_rng(0).integers(0, 256, (8, *shape[1:]), np.uint8)
    model = kpu.compile(path, pixels)
    found = model.infer(pixels)
    wanted = answers(str(path), np.moveaxis(pixels / np.float32(255), 1, -1).astype(np.float32))
    for y in wanted:
        y = np.moveaxis(y, -1, 1) if y.ndim == 4 else y
        best = min(np.abs(f.reshape(y.shape) - y).mean() / np.ptp(y) for f in found if f.size == y.size)
        assert best < 0.01


def test_what_does_not_fit_is_refused_with_advice() -> None:
    path = golden("kmodel_errors") / "toobig" / "model.tflite"
    with pytest.raises(CapacityError, match=r"KPU memory: 4,128,768 bytes.* an input of 71% of the height"):
        kpu.compile(path, np.zeros((1, 3, 224, 224), np.uint8))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: tf.cumsum(x, 1), "CUMSUM"),
        (tf.nn.selu, "nearest supported form: MAXIMUM and MINIMUM; for the activation SELU its neighbour ELU"),
        (lambda x: tf.argmax(x, -1), "ARG_MAX that makes .*; nearest supported form: end the model before it"),
        (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), "MIRROR_PAD.*nearest supported form: pad"),
        (lambda x: tf.reshape(x, (1, 4, 4, 4, 4, 3)), "6 dimensions; the kmodel format has 4"),
        (lambda x: x[:, ::-1], "REVERSE_V2|STRIDED_SLICE"),
    ],
)
def test_what_cannot_be_expressed_is_named(function, message: str) -> None:
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((1, 16, 16, 3), tf.float32))
    source = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    with pytest.raises(TFLiteError, match=message):
        read_tflite(source)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.split(x, 3, -1)[1] + tf.reduce_max(x, 1, keepdims=True)[..., :1],
        lambda x: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2), 4) if x.shape[-1] == 4 else x * 2,
        lambda x: tf.concat([x, tf.nn.l2_normalize(x, -1), tf.sqrt(tf.abs(x))], 2),
        lambda x: tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (1, 48, 16)),
        lambda x: tf.nn.log_softmax(tf.math.squared_difference(x, 0.5)),
        lambda x: tf.stack([x[0, :, :, 0], x[0, :, :, 2]], 0),
        lambda x: tf.tile(x[:, 1:9:2, ::3], (1, 2, 1, 3)),
        lambda x: tf.compat.v1.image.resize_bilinear(x, (31, 31), align_corners=True),
        lambda x: tf.compat.v1.image.resize_bilinear(x, (24, 40), half_pixel_centers=True),
        lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (24, 7), half_pixel_centers=True),
        lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (31, 31), align_corners=True),
        lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME") - tf.nn.max_pool2d(x, 3, 2, "SAME"),
        lambda x: tf.einsum("bhwc,cd->bhwd", x, tf.constant(np.eye(3, 5, dtype=np.float32) + 0.1)),
        lambda x: tf.reduce_mean(x, (1, 2)) / tf.reduce_sum(x, (1, 2)),
        lambda x: tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]),
    ],
)
def test_operations_compute_what_litert_computes(function) -> None:
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((1, 16, 16, 3), tf.float32))
    source = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    graph = read_tflite(source)
    x = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    found = run(graph, [np.moveaxis(x, -1, 1)])
    for sample in range(2):
        for y, wanted in zip(found, answers(source, x[sample : sample + 1]), strict=True):
            got = y[sample]
            got = np.moveaxis(got, 1, -1) if got.ndim == 4 else got
            np.testing.assert_allclose(got, wanted.reshape(got.shape), atol=2e-5, rtol=1e-5)


def test_scales_of_each_channel_are_used() -> None:
    """Weights of 8 bits with a scale for each channel; the original took the first scale for all."""
    import keras
    from keras import layers as L

    keras.utils.set_random_seed(0)
    model = chain((16, 16, 8), L.Conv2D(16, 3, padding="same"))
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([kernel * np.geomspace(0.01, 10, 16), bias])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        source = converter.convert()
    graph = read_tflite(source)
    weights = graph.outputs[0].producer.weights  # type: ignore[union-attr]
    np.testing.assert_allclose(
        weights, model.layers[1].get_weights()[0].transpose(3, 2, 0, 1), rtol=0, atol=np.abs(kernel).max() * 10 / 100
    )
    spread = np.abs(weights).max(axis=(1, 2, 3))
    assert spread[-1] / spread[0] > 500
    import tflite as schema

    part = schema.Model.GetRootAs(source, 0).Subgraphs(0)
    quants = [part.Tensors(i).Quantization() for i in range(part.TensorsLength())]
    stored = next(q.ScaleAsNumpy().tobytes() for q in quants if q is not None and q.ScaleLength() == 16)
    assert source.count(stored) == 1
    with pytest.raises(TFLiteError, match="holds numbers that are not finite"):
        read_tflite(source.replace(stored, np.full(16, 3e38, "<f4").tobytes()))


def test_a_repeated_map_is_one_resize() -> None:
    """Keras 3 writes an UpSampling2D as ten operations on five dimensions."""
    from kconvert.kpu.compiler.graph import rewrite
    from kconvert.kpu.compiler.rewrites import SIMPLIFY

    graph = read_tflite(tflite("unet"))
    rewrite(graph, SIMPLIFY)
    kinds = [type(op).__name__ for op in graph.order()]
    assert kinds.count("Resize") == 1
    assert not {"Reshape", "Transpose"} & set(kinds)


def test_matrices_of_a_resize_keep_a_constant() -> None:
    for want in (1, 3, 7, 16, 40):
        for kind in ((False, False, True), (False, True, False), (True, False, True), (True, True, False)):
            np.testing.assert_allclose(resize_matrix(8, want, *kind).sum(0), 1, atol=1e-6)


# ***** damaged files *****


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 100, b"\x1c\0\0\0TFL3" + b"\xff" * 100])
def test_what_is_no_tflite(data: bytes) -> None:
    with pytest.raises(TFLiteError):
        read_tflite(data)


def test_open_sizes_are_refused_and_an_open_batch_is_not() -> None:
    import keras

    assert len(kpu.check(chain((8, 8, 3), keras.layers.Conv2D(4, 3)))) == 1
    with pytest.raises(TFLiteError, match="a kmodel has fixed sizes"):
        kpu.check(chain((None, None, 3), keras.layers.Conv2D(4, 3)))


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(TFLiteError, match="cannot read"):
        read_tflite(tmp_path / "none.tflite")


WORDS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\0\0\1\0")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy: cut off, bits turned, words that are extreme."""
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    found = bytearray(data)
    if kind == 1:
        return bytes(found[:8]) + rng.randbytes(rng.randrange(500))
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(8, len(found) - 4)
        if kind == 2:
            found[place] ^= 1 << rng.randrange(8)
        else:
            found[place : place + 4] = rng.choice(WORDS)
    return bytes(found)


@pytest.mark.parametrize("name", ["dense", "unet", "transposed", "prelu", "bilinear"])
def test_damaged_files_are_refused_or_compiled(name: str) -> None:
    """2,000 mutations of each of five models: a KConvertError or a kmodel, soon, and nothing else."""
    rng = random.Random(name)
    data = tflite(name)
    compiled = refused = 0
    for _ in range(2000):
        start = time.monotonic()
        broken = mutated(data, rng)
        try:
            graph = read_tflite(broken)
            if rng.random() < 0.1:
                samples = [np.zeros((1, *t.shape[1:]), np.float32) for t in graph.inputs]
                kpu.compile(broken, samples, max_allocator_solve_secs=0)
                compiled += 1
        except KConvertError:
            refused += 1
        assert time.monotonic() - start < 10
    assert refused > 1000
    assert compiled > 0


def test_an_input_of_half_precision_weights_has_their_error_only() -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = chain((8, 8, 3), keras.layers.Conv2D(32, 3, padding="same"), keras.layers.Conv2D(16, 3, padding="same"))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        source = converter.convert()
    made = kpu.compile(source, inference_type="float")
    assert error(made, converted(model), images((8, 8, 3), 2))[1] < 2e-3


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.compat.v1.image.resize_bilinear(x, (1, 400_000), half_pixel_centers=True),
        lambda x: tf.nn.conv2d(x, np.ones((3, 3, 3, 1), np.float32), 1, "SAME", dilations=[1, 40_000, 40_000, 1]),
        lambda x: tf.tile(x, (1, 300, 300, 1)),
        lambda x: tf.pad(x, [[0, 0], [1 << 20, 1 << 20], [8, 8], [0, 0]]),
    ],
)
def test_what_would_take_all_memory_is_refused(function) -> None:
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((1, 16, 400, 3), tf.float32))
    source = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    start = time.monotonic()
    with pytest.raises(TFLiteError):
        read_tflite(source)
    assert time.monotonic() - start < 2
