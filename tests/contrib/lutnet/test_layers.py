"""The Keras layers: what they answer and learn, and that a saved one is the same."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from kconvert_contrib import lutnet, registration
from kconvert_contrib.lutnet import LayerError
from kconvert_contrib.lutnet.wiring import deal, wire
from tests.conftest import golden
from tests.contrib.lutnet.reference import multilinear, train_step

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
RNG = np.random.default_rng(7)

CASES = {
    "normalised": {},
    "plain": {"batch_norm": False},
    "real": {"binary": False},
    "shifted": {"gamma": 0.4, "beta": 0.4},
    "four inputs": {"n_inputs": 4},
}


def step(layer: Any, x: Any, dy: Any) -> tuple[Any, Any, Any]:
    """What a layer answers in training, and the gradients of its input and table."""
    source = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(source)
        y = layer(source, training=True)
        total = tf.reduce_sum(y * dy)
    dx, d_table = tape.gradient(total, [source, layer.table.value])
    return y.numpy(), dx.numpy(), d_table.numpy()


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_training_agrees_with_the_sums(options, slow, monkeypatch):
    layer = lutnet.DifferentiableLut(7, momentum=0.0, **options)
    x = RNG.random((24, 10)).astype(np.float32)
    x = x if options.get("binary") is False else np.round(x)
    dy = RNG.normal(size=(24, 7)).astype(np.float32)
    layer.build(x.shape)
    layer.table.assign(RNG.random(layer.table.shape))
    if slow:
        monkeypatch.setattr(layer, "_read_fast", lambda frames: layer._read_slowly(frames, True))
    norm = layer.batch_norm
    y, dx, d_table, mean, variance = train_step(
        x, dy, layer.table.numpy(), layer.connections(),
        binary=layer.binary, gamma=layer.gamma, beta=layer.beta, norm=norm,
    )  # fmt: skip
    found = step(layer, x, dy)
    close(found[0], y)
    close(found[1], dx)
    close(found[2], d_table)
    if norm:
        close(layer.moving_mean.numpy(), mean)
        close(layer.moving_variance.numpy(), variance)


@pytest.mark.parametrize("case", ["binary_bn", "binary_nobn", "real_bn", "serial"])
def test_training_agrees_with_the_original(case):
    data = np.load(golden("lutnet") / f"dlut_{case}.npz")
    norm = bool(data["batch_norm"])
    layer = lutnet.DifferentiableLut(len(data["W"]), batch_norm=norm, binary=bool(data["binary"]), momentum=0.0)
    layer.build(data["x"].shape)
    layer.set_connections(data["connection"])
    layer.table.assign(data["W"])
    y, dx, d_table = step(layer, data["x"], data["dy"])
    close(y, data["y"])
    close(dx, data["dx"])
    close(d_table, data["dW"])
    if norm:
        close(layer.moving_mean.numpy(), data["running_mean"])
        layer.moving_mean.assign(data["running_mean"])
        layer.moving_variance.assign(data["running_var"])
    close(layer(data["x"]).numpy(), data["y_infer"])
    assert (layer.lut_array().tables == data["table"]).all()


@pytest.mark.parametrize("make", [
    lambda: lutnet.DifferentiableLut(40, momentum=0.0, gamma=0.35, beta=0.45),
    lambda: lutnet.DifferentiableLut(40, n_inputs=4, momentum=0.0, lut_binarize=True),
    lambda: lutnet.StochasticLut(40),
    lambda: lutnet.StochasticLut(40, binary=True),
    lambda: lutnet.AverageLut(40),
    lambda: lutnet.MaxLut(40, n_inputs=3),
])  # fmt: skip
def test_inference_is_the_exported_table_bit_for_bit(make):
    layer = make()
    x = (RNG.random((500, 30)) > 0.5).astype(np.float32)
    for _ in range(3):
        layer(x[:100], training=True)
    if hasattr(layer, "table"):
        layer.table.assign(RNG.random(layer.table.shape))
    array = layer.lut_array()
    assert (layer(x).numpy() == np.where(array(x), array.high, array.low)).all()
    assert 0 < array.tables.mean() < 1
    assert layer.lut_tables().dtype == np.uint64
    assert layer.connections().shape == (40, layer.n_inputs)


def test_average_and_reduce_and_binarize_of_the_original():
    data = np.load(golden("lutnet") / "other_layers.npz")
    average = lutnet.AverageLut(10)
    x = tf.constant(data["avg_x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = average(x, training=True)
    assert (average.connections() == data["avg_connection"]).all()
    assert (y.numpy() == data["avg_y"]).all()
    close(tape.gradient(y, x, data["avg_dy"]).numpy(), data["avg_dx"])
    close(lutnet.Reduce(5)(data["reduce_x"]).numpy(), data["reduce_y"])
    x = tf.constant(data["bin_x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = lutnet.Binarize(0.5, 0.0, 1.0)(x)
    assert (y.numpy() == data["bin_y"]).all()
    assert (tape.gradient(y, x, data["bin_dy"]).numpy() == data["bin_dx"]).all()


def test_the_gradient_of_binarize_has_a_window():
    x = tf.constant([-2.0, -0.9, 0.2, 0.9, 1.1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = lutnet.Binarize(0.5)(x)
    assert y.numpy().tolist() == [-1, -1, -1, 1, 1]
    assert tape.gradient(y, x).numpy().tolist() == [0, 1, 1, 1, 0]


def test_majority_takes_a_tie_for_0_and_shares_the_gradient():
    x = tf.constant([[1.0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    layer = lutnet.AverageLut(1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    assert y.numpy().tolist() == [[-1], [1]]
    close(tape.gradient(y, x).numpy(), np.full((2, 6), 1 / 6))


def test_sums_and_means():
    x = np.arange(12, dtype=np.float32)[None]
    assert lutnet.GroupSum(3, tau=2)(x).numpy().tolist() == [[3, 11, 19]]
    assert lutnet.Reduce(3)(x).numpy().tolist() == [[4.5, 5.5, 6.5]]
    with pytest.raises(LayerError, match="12 inputs do not make 5 equal groups"):
        lutnet.GroupSum(5)(x)


def test_thermometers():
    x = np.array([[0.1, 0.6], [0.3, 0.9]], np.float32)
    assert lutnet.Thermometer(3)(x).numpy().tolist() == [[0, 0, 0, 1, 1, 0], [1, 0, 0, 1, 1, 1]]
    spread = lutnet.Thermometer(3, "gaussian", 0, 1)
    spread(x)
    assert spread.thresholds.numpy()[0, 1] == 0.5
    assert 0.25 < spread.thresholds.numpy()[0, 0] < 0.5  # closer than even ones
    data = RNG.exponential(size=(4000, 2)) * [1, 10]
    fitted = lutnet.Thermometer(4, "distributive")
    fitted.adapt(data)
    close(fitted(data.astype(np.float32)).numpy().mean(axis=0), np.tile([0.8, 0.6, 0.4, 0.2], 2))


def test_frames_and_depth_of_numbers():
    x = np.array([[0.0, 0.3, 1.0]], np.float32)
    frames = lutnet.RealToBinary(frames=4)(x).numpy()
    assert frames.shape == (1, 4, 3)
    assert frames.mean(axis=1).tolist() == [[0, 0.25, 1]]  # above 0.125, not above 0.375
    deep = lutnet.RealToBinary(frames=2, depth=2)(x).numpy()
    assert deep[0, :, 2:4].tolist() == [[1, 0], [0, 0]]  # 0.3 is above 0.125, not above 0.375, 0.625, 0.875
    assert lutnet.BinaryToReal(3)(frames).numpy().tolist() == [[0, 0.25, 1]]
    noisy = lutnet.RealToBinary(frames=2000, noise="element")(x).numpy().mean(axis=1)
    np.testing.assert_allclose(noisy, x, atol=0.05)
    by_frame = lutnet.RealToBinary(frames=50, noise="frame")(np.full((1, 8), 0.5, np.float32)).numpy()
    assert (by_frame == by_frame[:, :, :1]).all()
    assert 0 < by_frame.mean() < 1


@pytest.mark.parametrize("kind", ["random", "serial", "pointwise", "depthwise", "gauss"])
def test_wiring(kind):
    image, units = (6, 6, 8), (6, 6, 8)
    wiring = wire(kind, image, units, 6, seed=3)
    assert wiring.shape == (6 * 6 * 8, 6)
    assert (wiring == wire(kind, image, units, 6, seed=3)).all()
    assert all(len(set(pins)) == 6 for pins in wiring.tolist())
    y, x, c = np.unravel_index(wiring, image)
    own_y, own_x, own_c = (a[:, None] for a in np.unravel_index(np.arange(len(wiring)), units))
    if kind == "pointwise":
        assert ((y == own_y) & (x == own_x)).all()
    elif kind == "depthwise":
        assert (c == own_c).all()
    elif kind == "gauss":
        far = np.minimum(abs(y - own_y), 6 - abs(y - own_y))
        assert (
            far.mean() < 1.2 < np.minimum(abs(RNG.permutation(y) - own_y), 6 - abs(RNG.permutation(y) - own_y)).mean()
        )
    elif kind == "random":
        assert set(np.bincount(wiring.ravel()).tolist()) == {6}
        assert (wiring != wire(kind, image, units, 6, seed=4)).any()
    else:
        assert wiring[49].tolist() == [6, 7, 8, 9, 10, 11]  # modulo 288


def test_cards_are_dealt_equally_often():
    hands = deal(100, 70, 6, np.random.default_rng(0))
    assert set(np.bincount(hands.ravel(), minlength=100).tolist()) == {4, 5}
    assert all(len(set(hand)) == 6 for hand in hands.tolist())
    assert deal(3, 2, 6, np.random.default_rng(0)).max() == 2  # fewer cards than a hand takes


def network() -> Any:
    return keras.Sequential([
        keras.Input((8, 8, 2)),
        lutnet.Thermometer(2),
        lutnet.DifferentiableLut((8, 8, 4), connection="gauss", momentum=0.0),
        keras.layers.MaxPooling2D(2),
        lutnet.Patches(2),
        lutnet.DifferentiableLut(24, connection="serial", seed=2, momentum=0.0),
        keras.layers.Flatten(),
        lutnet.MaxLut(120, n_inputs=2),
        lutnet.StochasticLut(60, binary=True),
        lutnet.AverageLut(20),
        lutnet.Reduce(10),
        lutnet.GroupSum(5, tau=0.5),
        lutnet.BinaryModulation([lutnet.DifferentiableLut(12, momentum=0.0)], 4, 2, 3, depth=2),
    ])  # fmt: skip


def test_importing_the_package_before_keras_is_enough_to_load_a_model(tmp_path):
    layers = [lutnet.Binarize(), lutnet.MaxLut(2), lutnet.Reduce(1)]
    keras.Sequential([keras.Input((12,)), *layers]).save(tmp_path / "m.keras")
    program = "import sys, kconvert_contrib.lutnet, keras; print(len(keras.models.load_model(sys.argv[1]).layers))"
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m.keras")], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "3", run.stderr


def test_where_keras_is_loaded_layers_are_registered_at_once(tmp_path, monkeypatch):
    (tmp_path / "layers_of_a_test.py").write_text("import keras\n")
    monkeypatch.syspath_prepend(tmp_path)
    registration.register(["layers_of_a_test"])
    assert sys.modules.pop("layers_of_a_test").keras is keras


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float64])
def test_inputs_of_any_number_type(dtype):
    x = (RNG.random((9, 12)) > 0.5).astype(dtype)
    layers = [
        lutnet.Binarize(0.5), lutnet.Thermometer(2), lutnet.Reduce(3), lutnet.GroupSum(3, tau=2.0),
        lutnet.RealToBinary(2), lutnet.BinaryToReal(3), lutnet.DifferentiableLut(4), lutnet.AverageLut(2),
    ]  # fmt: skip
    for layer in layers:
        y = layer(x)
        assert y.dtype == "float32"
        assert (y.numpy() == layer(x.astype(np.float32)).numpy()).all()


def test_a_frozen_layer_answers_as_in_inference_and_hands_the_gradient_on():
    layer = lutnet.DifferentiableLut(5)
    x, dy = np.round(RNG.random((40, 10))).astype(np.float32), RNG.normal(size=(40, 5)).astype(np.float32)
    layer.build(x.shape)
    layer.table.assign(RNG.random(layer.table.shape))
    layer.moving_mean.assign(np.full(5, 0.5))
    layer.moving_variance.assign(np.full(5, 0.01))
    layer.trainable = False
    expected, before = layer(x).numpy(), layer.moving_mean.numpy()
    y, dx, _ = step(layer, x, dy)
    assert not layer.trainable_variables
    assert (y == expected).all()
    assert (layer.moving_mean.numpy() == before).all()
    slopes = np.zeros_like(x)
    for k, wires in enumerate(layer.connections()):
        z = np.array([multilinear(layer.table[k].numpy(), 0.25 + 0.5 * row[wires]) for row in x])
        passes = abs(0.3 * (z - 0.5) / 0.1) < 0.5
        for pin, i in enumerate(wires):
            ends = [np.where(np.arange(6) == pin, end, 0.25 + 0.5 * x[:, wires]) for end in (1, 0)]
            rise = [[multilinear(layer.table[k].numpy(), u) for u in end] for end in ends]
            slopes[:, i] += dy[:, k] * passes * 3 * (np.array(rise[0]) - np.array(rise[1]))
    np.testing.assert_allclose(dx, slopes, rtol=1e-4, atol=1e-4)


def test_a_saved_network_is_the_same(tmp_path):
    model = network()
    model.compile("adam", "mse")
    x = RNG.random((64, 8, 8, 2)).astype(np.float32)
    model.fit(x, RNG.random((64, 4)), verbose=0)
    model.save(tmp_path / "m.keras")
    expected = model.predict(x, verbose=0)
    np.savez(tmp_path / "data.npz", x=x, expected=expected)
    assert (keras.models.load_model(tmp_path / "m.keras").predict(x, verbose=0) == expected).all()
    assert len(np.unique(expected)) > 2
    assert all(spec["registered_name"].startswith("kconvert_contrib>") for spec in [
        keras.saving.serialize_keras_object(layer) for layer in model.layers
        if type(layer).__module__.startswith("kconvert_contrib")
    ])  # fmt: skip


def test_inference_on_jax_or_torch_is_the_same(tmp_path):
    backend = next((b for b in ("jax", "torch") if importlib.util.find_spec(b)), None)
    if backend is None:
        pytest.skip("neither jax nor torch is installed")
    model = keras.Sequential([keras.Input((20,)), lutnet.DifferentiableLut(12, momentum=0.0), lutnet.AverageLut(2)])
    x = (RNG.random((50, 20)) > 0.5).astype(np.float32)
    model(x, training=True)
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "data.npz", x=x, expected=model.predict(x, verbose=0))
    program = (
        "import os, sys; os.environ['KERAS_BACKEND'] = sys.argv[1]\n"
        "import numpy, keras, kconvert_contrib.lutnet as lutnet; lutnet.DifferentiableLut\n"
        "data = numpy.load(sys.argv[2] + '/data.npz'); model = keras.models.load_model(sys.argv[2] + '/m.keras')\n"
        "found = keras.ops.convert_to_numpy(model(data['x'])); print((found == data['expected']).all())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, backend, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "True", run.stderr


@pytest.mark.parametrize(("make", "message"), [
    (lambda: lutnet.DifferentiableLut(4, n_inputs=7), "n_inputs is 2 to 6, received 7"),
    (lambda: lutnet.DifferentiableLut(0), "units has to be positive"),
    (lambda: lutnet.DifferentiableLut(2.5), "a number or several; received 2.5"),
    (lambda: lutnet.DifferentiableLut("45"), "a number or several; received '45'"),
    (lambda: lutnet.DifferentiableLut(4, n_inputs="6"), "n_inputs is 2 to 6, received '6'"),
    (lambda: lutnet.DifferentiableLut(4, connection=None), "connection None is unknown"),
    (lambda: lutnet.Patches(0), "have to be positive"),
    (lambda: lutnet.Patches(5)(np.zeros((1, 3, 9, 2))), r"a window \(5, 5\) does not fit into \(3, 9\)"),
    (lambda: lutnet.Patches(2)(np.zeros((1, 3, 9))), "expected images"),
    (lambda: lutnet.DifferentiableLut(4, connection="serail")(np.zeros((1, 9))), "did you mean 'serial'"),
    (lambda: lutnet.DifferentiableLut(4, connection="gauss")(np.zeros((1, 9))), "gauss wiring is for images"),
    (lambda: lutnet.DifferentiableLut(4, momentum=1.0), "momentum is in"),
    (lambda: lutnet.DifferentiableLut(4).lut_tables(), "not built yet"),
    (lambda: lutnet.Thermometer(2, "linear"), "kind is one of uniform, gaussian, distributive"),
])  # fmt: skip
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(LayerError, match=message):
        make()
