"""Whole networks, layer kinds one by one: the kmodel against LiteRT, in bytes, in float, on the CPU alone."""

from __future__ import annotations

import numpy as np
import pytest

from kconvert import kpu
from kconvert.comparison import run_tflite
from kconvert.errors import InputError
from kconvert.kpu import nodes as n
from kconvert.kpu.wire import Memory
from tests.kpu_compiler.networks import NETWORKS, chain, converted, error, images, shape_of, tflite

pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")


@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_are_near_float(name: str) -> None:
    pixels = images(shape_of(name))
    model = kpu.compile(tflite(name), pixels, layout="nhwc", memory=1 << 24)
    mean, largest = error(model, tflite(name), pixels)
    assert mean < 0.006
    assert largest < 0.04


@pytest.mark.parametrize("name", NETWORKS)
def test_float_is_float(name: str) -> None:
    model = kpu.compile(tflite(name), inference_type="float", memory=1 << 24)
    _, largest = error(model, tflite(name), images(shape_of(name), 4))
    assert largest < 2e-5
    assert not any(isinstance(node, n.KpuConv2D | n.Quantize) for node in model.nodes)


@pytest.mark.parametrize("name", ["transposed", "unet", "curves", "dilated", "dense"])
def test_nothing_runs_on_the_kpu_of_a_cpu(name: str) -> None:
    pixels = images(shape_of(name))
    model = kpu.compile(tflite(name), pixels, layout="nhwc", target="cpu")
    assert not any(isinstance(node, n.KpuConv2D | n.KpuUpload) for node in model.nodes)
    assert error(model, tflite(name), pixels)[0] < 0.006


@pytest.mark.parametrize("name", ["unet", "pixels_from_minus_1", "depthwise_stride"])
def test_a_float_input(name: str) -> None:
    pixels = images(shape_of(name))
    model = kpu.compile(tflite(name), pixels / 255.0, layout="nhwc", input_type="float")
    assert error(model, tflite(name), pixels)[0] < 0.006


def operations(name: str) -> list[str]:
    model = kpu.compile(tflite(name), images(shape_of(name), 4), layout="nhwc", memory=1 << 24)
    return [type(node).__name__ for node in model.nodes]


def test_transposed_convolutions_run_on_the_kpu() -> None:
    assert operations("transposed").count("KpuConv2D") == 2
    assert "Conv2DTranspose" not in operations("transposed")
    assert "Conv2DTranspose" in operations("transposed_7_on_the_cpu")


def test_a_transposed_convolution_that_is_the_answer_stays_in_float() -> None:
    from tests.kpu_compiler.networks import _transposed, converted

    source, pixels = converted(_transposed(3, 2, "same", "linear")), images((8, 8, 4))
    model = kpu.compile(source, pixels, layout="nhwc")
    assert [type(node).__name__ for node in model.nodes][-2:] == ["Conv2DTranspose", "Binary"]
    assert error(model, source, pixels)[0] < 0.001


@pytest.mark.parametrize("name", ["transposed", "transposed_valid", "many_weight_loads", "unet"])
def test_a_file_tells_the_shapes_of_its_outputs(name: str) -> None:
    pixels = images(shape_of(name), 4)
    made = kpu.compile(tflite(name), pixels, layout="nhwc", memory=1 << 24)
    (found,) = kpu.KModel.load(made.to_bytes()).infer(pixels, layout="nhwc")
    (wanted,) = run_tflite(tflite(name), [pixels / np.float32(255)])
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 0.006 * np.ptp(wanted)


def test_sequences_have_three_dimensions() -> None:
    from keras import layers as L

    source = converted(chain((24, 3), L.Conv1D(4, 3, activation="relu"), L.Flatten(), L.Dense(3)))
    pixels = images((24, 3), 4)
    made = kpu.compile(source, pixels)
    (wanted,) = run_tflite(source, [pixels / np.float32(255)])
    for layout in ("nchw", "nhwc"):
        (found,) = made.infer(pixels, layout=layout)
        assert np.abs(found - wanted).mean() < 0.006 * np.ptp(wanted)


def test_a_model_for_batches_takes_whole_batches() -> None:
    import keras
    from keras import layers as L

    first = keras.Input((8, 8, 3), batch_size=2)
    source = converted(keras.Model(first, L.Conv2D(4, 3, padding="same")(first)))
    pixels = images((8, 8, 3), 6)
    made = kpu.compile(source, pixels, layout="nhwc")
    pairs = pixels.reshape(3, 2, 8, 8, 3)
    (found,) = made.infer(pairs, layout="nhwc")
    (wanted,) = run_tflite(source, [pairs / np.float32(255)])
    assert np.abs(found.reshape(wanted.shape) - wanted).mean() < 0.006 * np.ptp(wanted)
    with pytest.raises(InputError, match="no whole batches of 2"):
        kpu.compile(source, pixels[:5], layout="nhwc")


def test_a_skip_connection_stays_in_bytes() -> None:
    """No float map in between, and the pooling is the KPU's though the whole map is needed too."""
    found = operations("unet")
    assert found.count("Dequantize") == 1
    assert found[-1] == "Dequantize"
    assert "ReduceWindow2D" not in found


def test_more_than_64_loads_of_weights_are_several_layers() -> None:
    model = kpu.compile(tflite("many_weight_loads"), images((4, 4, 256), 4), layout="nhwc", memory=1 << 24)
    parts = [node for node in model.nodes if isinstance(node, n.KpuConv2D)]
    assert len(parts) == 2
    assert all(p.registers.load_time < 64 for p in parts)
    assert sum(p.registers.o_ch_num + 1 for p in parts) == 1024


def test_one_input_of_two_branches_is_uploaded_once_or_not_at_all() -> None:
    import keras

    from tests.kpu_compiler.networks import _conv, converted

    first = keras.Input((8, 8, 3))
    both = keras.layers.Add()([_conv(8, 1)(first), _conv(8, 3)(first)])
    source = converted(keras.Model(first, both))
    model = kpu.compile(source, images((8, 8, 3)), layout="nhwc", output_quantize_threshold=256)
    assert model.inputs[0].range.memory is Memory.KPU
    assert not any(isinstance(node, n.KpuUpload) for node in model.nodes)
    assert error(model, source, images((8, 8, 3)))[0] < 0.006


def test_the_border_of_a_padding_is_zero_and_not_byte_zero() -> None:
    """With an input from -1 to 1 the byte 0 means -1."""
    pixels = images((16, 16, 3))
    source = tflite("pixels_from_minus_1")
    model = kpu.compile(source, pixels, layout="nhwc")
    (found,) = model.infer(np.moveaxis(pixels, -1, 1))
    _, largest = error(model, source, pixels)
    assert found.shape == (16, 8, 4, 4)
    assert largest < 0.02


def test_mean_and_std_fix_the_range_of_the_input() -> None:
    """Samples that never reach the ends of the range still map 0 to 255 to all of it."""
    source = tflite("unet")
    narrow = images((16, 16, 3)) // 4 + 64
    model = kpu.compile(source, narrow, layout="nhwc", input_mean=0.0, input_std=1.0)
    assert error(model, source, narrow)[0] < 0.02
    measured = kpu.compile(source, narrow, layout="nhwc")
    stretched = np.rint(narrow / narrow.max() * 255).astype(np.uint8)
    assert (
        np.abs(
            np.subtract(*(m.infer(np.moveaxis(p, -1, 1))[0] for m, p in ((model, narrow), (measured, stretched))))
        ).mean()
        < 0.02
    )


@pytest.mark.parametrize("method", ["no_clip", "l2"])
def test_compiling_twice_makes_the_same_bytes(method: str) -> None:
    pixels = images((16, 16, 3), 4)
    made = [kpu.compile(tflite("unet"), pixels, layout="nhwc", calibrate_method=method).to_bytes() for _ in range(2)]
    assert made[0] == made[1]


def kpu_bytes(model: kpu.KModel) -> int:
    ranges = [t.range for node in model.nodes for t in (*node.reads(), *node.writes())]
    return max(r.end for r in [*ranges, model.inputs[0].range] if r.memory is Memory.KPU)


def test_a_smaller_kpu_memory_is_met_by_other_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step down takes less KPU memory, computes the same, and the last one is refused."""
    import keras

    from kconvert.errors import CapacityError
    from tests.kpu_compiler.networks import _conv, converted

    first = keras.Input((32, 32, 3))
    a = _conv(16, activation="relu")(first)
    b = _conv(16, activation="relu")(a)
    c = _conv(16, 1)(_conv(16, activation="relu")(keras.layers.MaxPool2D()(b)))
    up = keras.layers.Concatenate()([keras.layers.UpSampling2D()(c), b])
    source = converted(keras.Model(first, keras.layers.Add()([_conv(16)(up), _conv(16, 1)(a)])))
    pixels = images((32, 32, 3), 4)
    sizes, answers = [1 << 21], []
    while True:
        monkeypatch.setattr("kconvert.kpu.compiler.memory.KPU_RAM", sizes[-1] - 64)
        try:
            model = kpu.compile(source, pixels, layout="nhwc")
        except CapacityError:
            break
        sizes.append(kpu_bytes(model))
        answers.append(model.infer(np.moveaxis(pixels, -1, 1))[0])
    assert len(answers) >= 2
    assert sizes == sorted(sizes, reverse=True)
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])


def test_a_border_outside_the_range_of_the_map_is_kept() -> None:
    """The range of what is padded holds the value that is added."""
    import tensorflow as tf

    def padded(x):
        return tf.pad(
            tf.nn.conv2d(x, np.ones((1, 1, 3, 4), np.float32) * 0.1, 1, "SAME"),
            [[0, 0], [2, 2], [2, 2], [0, 0]],
            constant_values=5.0,
        )

    concrete = tf.function(padded).get_concrete_function(tf.TensorSpec((1, 16, 16, 3), tf.float32))
    source = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    pixels = images((16, 16, 3), 4)
    model = kpu.compile(source, pixels, layout="nhwc")
    (found,) = model.infer(np.moveaxis(pixels, -1, 1))
    assert found[0, 0, 0, 0] == pytest.approx(5.0, abs=0.02)
    assert error(model, source, pixels)[0] < 0.006


@pytest.mark.parametrize("kernel", [None, 1, 5])
def test_a_clamp_that_leaves_out_0_is_kept(kernel: int | None) -> None:
    """Bytes of a range always have 0 inside: a lower bound above it is not that of the range."""
    import tensorflow as tf

    def clamped(x):
        if kernel is None:
            y = x + tf.reduce_max(x, -1, keepdims=True)
        else:
            y = tf.nn.conv2d(x, np.full((kernel, kernel, 3, 4), 0.8 / kernel**2, np.float32), 1, "SAME")
        return tf.clip_by_value(y, 0.6, 1.5)

    concrete = tf.function(clamped).get_concrete_function(tf.TensorSpec((1, 20, 20, 3), tf.float32))
    source = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    pixels = images((20, 20, 3), 4)
    model = kpu.compile(source, pixels, layout="nhwc")
    (found,) = model.infer(np.moveaxis(pixels, -1, 1))
    assert found.min() == pytest.approx(0.6, abs=0.004)
    assert error(model, source, pixels)[0] < 0.01
