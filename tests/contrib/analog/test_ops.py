"""Every operation against plain numpy and the original's answers; gradients, ranges, shapes, noise."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kconvert_contrib import analog
from tests.conftest import golden

from . import reference

QUIET = analog.MockParameter(noise_std=0.0)
quickly = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)


def data(seed, inputs_shape, weights_shape, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.5, 31.49, inputs_shape).astype(np.float32)
    return x, (scale * rng.uniform(-63.49, 63.49, weights_shape)).astype(np.float32)


@pytest.mark.parametrize("case", range(4))
def test_matmul_is_the_originals(case):
    with np.load(golden("analog/ops.npz")) as known:
        x, w, y = (known[f"{key}{case}"] for key in "xwy")
        mock = analog.MockParameter(0.0, float(known[f"gain{case}"]))
        np.testing.assert_array_equal(analog.matmul(x, w, int(known[f"num_sends{case}"]), mock=mock), y)


def test_the_rest_is_the_originals():
    with np.load(golden("analog/ops.npz")) as known:
        np.testing.assert_array_equal(analog.relu(known["v"], mock=True), known["relu"])
        np.testing.assert_array_equal(analog.add(known["add_a"], known["add_b"], mock=True), known["add"])
        for shift in range(4):
            answer = analog.converting_relu(known["v"], shift, mock=True)
            np.testing.assert_array_equal(answer, known[f"converting_relu_shift{shift}"])


@quickly
@given(seeds, st.integers(0, 5), st.integers(1, 400), st.integers(1, 300), st.integers(1, 40), st.floats(1e-4, 1.0))
def test_matmul(seed, batch, inputs, outputs, num_sends, gain):
    x, w = data(seed, (batch, inputs), (inputs, outputs), scale=0.2)
    y = analog.matmul(x, w, num_sends, mock=analog.MockParameter(0.0, gain))
    np.testing.assert_array_equal(y, reference.matmul(x, w, num_sends, gain))


@settings(quickly, max_examples=12)
@given(seeds, st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_convolutions(seed, batch, channels, size, filters, stride):
    x, kernel = data(seed, (batch, 9, 9, channels), (size, size, channels, filters))
    y = analog.conv2d(x, kernel, stride=stride, num_sends=2, mock=QUIET)
    np.testing.assert_array_equal(y, reference.conv2d(x, kernel, stride, 2))
    rows, line = x[:, 0], kernel[0]
    expected = reference.conv1d(rows, line, stride, 2)
    np.testing.assert_array_equal(analog.conv1d(rows, line, stride=stride, num_sends=2, mock=QUIET), expected)
    for copies in (None, 1, 3):
        if channels * (size + stride * 100) > 128 and copies is None:
            continue  # more than one chunk, which splits differently
        y = analog.expanded_conv1d(rows, line, stride=stride, num_expansions=copies, num_sends=2, mock=QUIET)
        np.testing.assert_array_equal(y, expected)


def test_long_windows_are_split_by_channel():
    x, kernel = data(1, (2, 12, 20), (9, 20, 3))
    np.testing.assert_array_equal(analog.conv1d(x, kernel, mock=QUIET), reference.conv1d(x, kernel, 1))
    assert np.any(analog.conv1d(x, kernel, mock=QUIET) != analog.conv1d(x[..., ::-1], kernel[:, ::-1], mock=QUIET))


def test_expansion_fills_the_array():
    x, kernel = data(2, (3, 50, 1), (7, 1, 6))
    y = analog.expanded_conv1d(x, kernel, stride=2, bias=np.arange(6) / 4, mock=QUIET)
    np.testing.assert_array_equal(y, reference.conv1d(x, kernel, 2) + np.arange(6) / 4)


numbers = st.lists(st.floats(-300, 300, width=32, allow_subnormal=False), min_size=1, max_size=20)


@quickly
@given(numbers, st.integers(0, 5))
def test_elementwise(values, shift):
    x = np.array(values, np.float32)
    np.testing.assert_array_equal(analog.relu(x, mock=True), reference.relu(x))
    np.testing.assert_array_equal(analog.converting_relu(x, shift, mock=True), reference.converting_relu(x, shift))
    np.testing.assert_array_equal(analog.add(x[:, None], x, mock=True), reference.add(x[:, None], x))
    np.testing.assert_array_equal(analog.argmax(x, mock=True), reference.argmax(x, -1))


def test_argmax_is_the_first_of_what_the_converter_tells_apart():
    x = np.array([[1.2, 3.1, 3.9], [200.0, 127.0, 300.0]])
    np.testing.assert_array_equal(analog.argmax(x, mock=True), [1, 0])
    np.testing.assert_array_equal(analog.argmax(x, axis=0, mock=True), [1, 1, 1])


def test_halves_go_to_even_numbers():
    x, w = np.array([[0.5, 1.5, 2.5]]), np.array([[2.5], [-0.5], [1.5]])
    mock = analog.MockParameter(0.0, 1.0)
    np.testing.assert_array_equal(analog.matmul(x, w, mock=mock), [[2 * 2]])


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (0, 5)])
def test_shapes(shape):
    x, w = data(3, shape, (5, 7))
    expected = reference.matmul(x.reshape(-1, 5), w).reshape(*shape[:-1], 7)
    np.testing.assert_array_equal(analog.matmul(x, w, mock=QUIET), expected)
    np.testing.assert_array_equal(analog.matmul(x, w[:, 0], mock=QUIET), expected[..., 0])
    assert analog.matmul(x, w, mock=True).shape == expected.shape


@pytest.mark.parametrize(
    ("x", "w", "words"), [(31.6, 1, "input .* 32"), (-0.6, 1, "input .* -1"), (1, 63.7, "weight .* 64")]
)
def test_out_of_range(x, w, words):
    with pytest.raises(analog.RangeError, match=f"here: an? {words}"):
        analog.matmul([[1.0, x]], [[1.0], [w]], mock=True, name="here")
    with pytest.raises(tf.errors.InvalidArgumentError, match="here: an? " + words.split(" .*")[0]):
        tf.function(lambda: analog.matmul([[1.0, x]], [[1.0], [w]], mock=True, name="here"))()


def test_nan_is_out_of_range():
    with pytest.raises(analog.RangeError, match="nan"):
        analog.matmul([[np.nan]], [[1.0]], mock=True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: analog.matmul(np.ones((2, 3)), np.ones((4, 1)), mock=True), "shapes"),
        (lambda: analog.matmul(np.ones((2, 3)), np.ones((3, 1)), 0, mock=True), "num_sends"),
        (lambda: analog.matmul(np.ones((2, 3)), np.ones((3, 1)), mock="yes"), "mock is True"),
        (lambda: analog.conv1d(np.ones((2, 3, 1)), np.ones((4, 1, 1)), mock=True), "larger"),
        (lambda: analog.conv2d(np.ones((2, 3, 1)), np.ones((4, 1, 1)), mock=True), "expected"),
        (lambda: analog.expanded_conv1d(np.ones((2, 3, 1)), np.ones((4, 1, 1)), mock=True), "larger"),
        (lambda: analog.conv2d(np.ones((2, 3, 3, 1)), np.ones((2, 2, 1, 1)), stride=(1, 2, 1), mock=True), "2 strides"),
        (lambda: analog.conv1d(np.ones((2, 3, 1)), np.ones((2, 1, 4)), np.ones(3), mock=True), "bias"),
        (lambda: analog.matmul(np.ones((2, 0)), np.ones((0, 3)), mock=True), "K from 1"),
        (lambda: analog.matmul(np.ones((2, 3)), np.ones((3, 1)), 1, -1, mock=True), "wait_between_events"),
        (lambda: analog.converting_relu([1.0], -1, mock=True), "shift"),
        (lambda: analog.converting_relu([1.0], 1.5, mock=True), "shift"),
        (lambda: analog.add(np.ones((2, 3)), np.ones(4), mock=True), "do not fit"),
        (lambda: analog.argmax(np.ones((2, 3)), 2, mock=True), "axis 2"),
        (lambda: analog.relu([1.0], device="chip"), "'chip' is not a device"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(analog.AnalogError, match=words):
        call()


def test_numbers_of_any_kind():
    x, w = np.array([[1, 30], [5, 6]]), np.array([[63], [-20]])
    expected = reference.matmul(x, w, 3)
    for kind in (x, x.astype(np.float64), x.tolist(), tf.constant(x), tf.constant(x, tf.float16)):
        y = analog.matmul(kind, w.tolist(), np.int64(3), mock=QUIET)
        np.testing.assert_array_equal(y, expected)
        assert y.dtype == tf.float32
    y = analog.conv1d(x[..., None], w[:, None], stride=np.int64(1), mock=QUIET)
    np.testing.assert_array_equal(y, reference.conv1d(x[..., None], w[:, None], 1))
    assert analog.argmax(x, axis=None, mock=True) == 1


def test_a_repeated_call_is_one_traced_function_and_answers_alike():
    x, w = (tf.constant(v) for v in data(9, (7, 200), (200, 3)))
    calls = [lambda: analog.matmul(x, w, mock=QUIET) for _ in range(3)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, w])
        answers = [call() for call in calls]
    for y in answers:
        np.testing.assert_array_equal(y, answers[0])
        for ours, first in zip(tape.gradient(y, [x, w]), tape.gradient(answers[0], [x, w]), strict=True):
            np.testing.assert_allclose(ours, first, rtol=1e-5, atol=1e-4)
    with pytest.raises(analog.RangeError, match=r"input .* 131"):
        analog.matmul(x * 0 + 131, w, mock=QUIET)
    other = analog.matmul(x[:4], w, mock=QUIET)  # another batch is no other function
    np.testing.assert_array_equal(other, answers[0][:4])


def test_gradient_of_a_product_is_that_of_the_linear_model():
    x, w = (tf.Variable(v) for v in data(4, (6, 200), (200, 9)))
    dy = np.random.default_rng(5).normal(size=(6, 9)).astype(np.float32)
    with tf.GradientTape() as tape:
        y = analog.matmul(x, w, 20, mock=analog.MockParameter(1.0, 0.003))
    assert np.mean(np.abs(y) > 126) > 0.3  # saturated, which the gradient does not see
    dx, dw = tape.gradient(y, [x, w], dy)
    np.testing.assert_allclose(dx, 0.06 * dy @ w.numpy().T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dw, x.numpy().T @ (0.06 * dy), rtol=1e-4, atol=1e-4)


def test_gradients_elementwise():
    x = tf.Variable([-3.0, 0.0, 0.5, 30.0, 90.0, 500.0])
    with tf.GradientTape(persistent=True) as tape:
        rectified, converted = analog.relu(x, mock=True), analog.converting_relu(x, 2, mock=True)
        total = analog.add(x[:, None], tf.reshape(x, (1, -1)), mock=True)
    np.testing.assert_array_equal(tape.gradient(rectified, x), [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(tape.gradient(converted, x), [0, 0, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_array_equal(tape.gradient(total, x), [12.0] * 6)


def test_gradient_of_a_convolution():
    x, kernel = (tf.Variable(v) for v in data(6, (2, 8, 3), (4, 3, 5)))
    with tf.GradientTape(persistent=True) as tape:
        y = analog.conv1d(x, kernel, stride=2, num_sends=3, mock=True)
        linear = 0.006 * tf.nn.conv1d(x, kernel, 2, "VALID")
    for ours, theirs in zip(tape.gradient(y, [x, kernel]), tape.gradient(linear, [x, kernel]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("inputs", "chunks"), [(100, 1), (300, 3)])
def test_noise_of_each_chunk(inputs, chunks):
    x, w = np.full((500, inputs), 10.0), np.full((inputs, 256), 1.0)
    device = analog.MockDevice(noise_std=3.0, seed=1)
    y = analog.matmul(x, w, device=device).numpy().astype(np.float64)
    assert y.std() == pytest.approx((chunks * (9 + 1 / 12)) ** 0.5, rel=0.01)
    assert y.mean() == pytest.approx(0.002 * 10 * inputs - chunks / 2, abs=0.05)
    normal = (y - y.mean()) / y.std()
    assert np.mean(normal**3) == pytest.approx(0.0, abs=0.03)
    assert np.mean(normal**4) == pytest.approx(3.0, abs=0.06)
    flat = normal.reshape(-1)
    for apart in (1, 2, 128, 256, 257):  # neighbours in a row, in a column, of halves
        assert np.mean(flat[apart:] * flat[:-apart]) == pytest.approx(0.0, abs=0.012)
    again = analog.matmul(x, w, device=device).numpy()
    assert np.mean(normal * (again - again.mean())) / again.std() == pytest.approx(0.0, abs=0.012)
    same = analog.matmul(x, w, device=analog.MockDevice(noise_std=3.0, seed=1)).numpy()
    np.testing.assert_array_equal(same, y)
