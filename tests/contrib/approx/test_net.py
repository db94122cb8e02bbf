"""ApproxNet: what it makes of models, its four trainings, its exact answers, and what it says of each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kconvert_contrib import approx
from kconvert_contrib.approx import ApproxError, ApproximateMultiplier, ApproxNet
from kconvert_contrib.approx.stored import bias_type, normalisation_types

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

COARSE = ApproximateMultiplier.from_function("coarse", 0.4, lambda x, y: (x >> 3) * (y >> 2) * 32)
SKEWED = ApproximateMultiplier.from_function("skewed", 0.2, lambda x, y: (x * y | 7) + y // 2)


def digits() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    return (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


def classifier() -> Any:
    keras.utils.set_random_seed(11)
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(8, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(16, activation="relu", name="hidden"),
        layers.Dense(10, name="head"),
    ])  # fmt: skip


def residual() -> Any:
    """A shared layer, a nested model, a depthwise one, a residual, and a Dense subclass that is left alone."""

    class Own(keras.layers.Dense):  # type: ignore[misc]
        pass

    keras.utils.set_random_seed(12)
    layers = keras.layers
    inner_in = keras.Input((6, 6, 4))
    inner = keras.Model(inner_in, layers.DepthwiseConv2D(3, padding="same", name="depth")(inner_in), name="inner")
    x = keras.Input((6, 6, 4))
    shared = layers.Conv2D(4, 1, name="shared", activation="relu")
    y = shared(shared(x))
    y = layers.Add()([inner(y), x])
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, [layers.Dense(3, activation="softmax", name="out")(y), Own(2, name="own")(y)])


@pytest.fixture(scope="module")
def trained() -> tuple[ApproxNet, dict[str, Any]]:
    """A network that went through the four trainings, and their histories."""
    data, net = digits(), ApproxNet(classifier())
    seen = _Epochs()
    histories = {
        "baseline": net.train_baseline(data, epochs=4, test=True, verbose=0, callbacks=seen),
        "quant": net.train_quant(data, test=True, verbose=0),
        "gradient": net.train_gradient(data, lmbd=1.0, initial_noise=0.05, verbose=0, callbacks=[seen]),
    }
    net.assign({"conv": COARSE, "hidden": SKEWED})
    net.mode = "approximate"
    histories["before"] = net.evaluate(data, verbose=0)
    histories["approx"] = net.train_approx(data, epochs=2, test=True, verbose=0, callbacks=[seen])
    histories["epochs"] = seen.count
    return net, histories


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    count = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.count += 1


def test_the_four_trainings_learn(trained: tuple[ApproxNet, dict[str, Any]]):
    net, histories = trained
    assert histories["baseline"].test["accuracy"] > 0.85
    assert histories["quant"].test["accuracy"] > 0.85
    assert histories["approx"].test["accuracy"] > 0.85
    assert histories["approx"].history["loss"][-1] < histories["approx"].history["loss"][0]
    assert histories["before"]["loss"] > histories["approx"].test["loss"]
    assert len(histories["gradient"].history["val_accuracy"]) == 3
    assert histories["epochs"] == 4 + 3 + 2
    assert [layer.mode for layer in net.layers] == ["approximate", "approximate", "quantised"]  # the last has none


def test_noise_grows_where_most_multiplications_are(trained: tuple[ApproxNet, dict[str, Any]]):
    net, histories = trained
    assert net.opcount == {"conv": 36 * 9 * 8, "hidden": 72 * 16, "head": 160}
    assert histories["gradient"].sigma[-1] == net.sigma
    assert max(net.tolerances, key=net.tolerances.__getitem__) == "conv"
    assert net.tolerances["conv"] > 0.08
    assert all(tolerance >= 0 for tolerance in net.tolerances.values())
    assert not any(layer.sigma.trainable for layer in net.layers)


def test_scales_are_powers_of_two(trained: tuple[ApproxNet, dict[str, Any]]):
    for layer in trained[0].layers:
        for scale in (float(layer.input_scale.numpy()), float(layer.weight_scale.numpy())):
            assert np.frexp(scale)[0] == 0.5
            assert scale < 1


def test_predict_is_exact(trained: tuple[ApproxNet, dict[str, Any]]):
    net, _ = trained
    x = digits()[1][0][:50]
    conv, hidden, head = net.layers
    norm = net.model.layers[1]
    fields = np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 3), axis=(1, 2)).reshape(50, 6, 6, 9)
    y = through(conv, fields, COARSE.table)
    gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    offset = beta - mean * factor
    of_factor, of_offset = normalisation_types(factor, offset)  # hardware has as many bits of them
    y = np.maximum(y * of_factor.quantize(factor) + of_offset.quantize(offset), 0)
    y = y.reshape(50, 3, 2, 3, 2, 8).max(axis=(2, 4)).reshape(50, -1)
    y = np.maximum(through(hidden, y, SKEWED.table), 0)
    y = through(head, y, np.multiply.outer(np.arange(-128, 128), np.arange(-128, 128)))
    answer = net.predict(x, batch_size=20)
    assert answer.dtype == np.float64
    np.testing.assert_array_equal(answer, y)
    np.testing.assert_allclose(net.model.predict(x, verbose=0), answer, atol=0.1)


def through(layer: Any, x: np.ndarray, table: np.ndarray) -> np.ndarray:
    s_x, s_w = float(layer.input_scale.numpy()), float(layer.weight_scale.numpy())
    x, w = (np.clip(np.rint(v / s), -127, 127).astype(int) for v, s in ((x, s_x), (layer.kernel.numpy(), s_w)))
    sums = table[x[..., None] + 128, w.reshape(-1, w.shape[-1]) + 128].sum(axis=-2)
    if layer.bias is None:
        return sums * (s_x * s_w)
    bias = layer.bias.numpy()
    return sums * (s_x * s_w) + bias_type(bias, int(np.log2(s_x * s_w))).quantize(bias)


def test_a_saved_network_goes_on(trained: tuple[ApproxNet, dict[str, Any]], tmp_path: Any):
    net, _ = trained
    x = digits()[1][0][:20]
    net.save(tmp_path / "net.keras")
    again = approx.load(tmp_path / "net.keras")
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert again.sigma == net.sigma
    assert again.mode == "approximate"
    assert {name: m.name for name, m in again.multipliers.items()} == {"conv": "coarse", "hidden": "skewed"}
    again.train_approx(digits(), epochs=1, verbose=0)


def test_operands_are_those_of_the_quantised_network(trained: tuple[ApproxNet, dict[str, Any]]):
    net, _ = trained
    modes = [layer.mode for layer in net.layers]
    found = {each.name: each for each in net.layer_operands(digits(), n_batches=2, batch_size=16)}
    assert list(found) == ["conv", "hidden", "head"]
    assert found["conv"].inputs.shape == (32 * 36, 9)
    assert found["hidden"].inputs.shape == (32, 72)
    for each in found.values():
        np.testing.assert_array_equal(each.inputs.astype(int) @ each.weights.astype(int), each.outputs)
        assert each.outputs.std() > 0
    assert [layer.mode for layer in net.layers] == modes


def test_the_users_model_stays_as_it_is():
    model = classifier()
    before = [w.copy() for w in model.get_weights()]
    net = ApproxNet(model)
    x = digits()[0][0][:30]
    np.testing.assert_array_equal(net.model(x), model(x))
    net.train_baseline(digits()[0], epochs=1, verbose=0)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    assert type(model.layers[0]) is keras.layers.Conv2D
    assert not model.compiled


def test_nested_shared_and_residual_models():
    model = residual()
    net = ApproxNet(model)
    x = np.random.default_rng(1).normal(size=(10, 6, 6, 4)).astype(np.float32)
    for mine, theirs in zip(net.model(x), model(x), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert net.opcount == {"shared": 2 * 36 * 16, "depth": 36 * 36, "out": 12}
    assert type(net.model.get_layer("own")).__name__ == "Own"
    net.calibrate((x, np.zeros(10)))
    net.assign(SKEWED)
    net.mode = "approximate"
    exact = net.predict(x)
    for mine, theirs, plain in zip(net.model.predict(x, verbose=0), exact, model(x), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
        assert abs(theirs - np.asarray(plain)).max() > 1e-3
    operands = {each.name: each for each in net.layer_operands((x, np.zeros(10)))}
    assert operands["shared"].inputs.shape == (2 * 10 * 36, 4)  # both uses
    assert operands["depth"].inputs.shape == (10 * 36 * 4, 9)


def tiny() -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="only")])


def batches(count: int) -> Any:
    rng = np.random.default_rng(0)
    for _ in range(count):
        x = rng.normal(size=(8, 4)).astype(np.float32)
        yield x, x[:, :3].argmax(axis=1)


class _Sequence(keras.utils.PyDataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return list(batches(4))[index]


def test_data_of_every_form():
    x, y = (np.concatenate(part) for part in zip(*batches(4), strict=True))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    one_hot = np.eye(3, dtype=np.float32)[y]
    for data in ((x, y), (x, one_hot), (x, y, np.ones(32)), dataset, (dataset, (x, y)), _Sequence(workers=1)):
        net = ApproxNet(tiny())
        tested = isinstance(data, tuple) and len(data) == 2
        history = net.train_quant(data, epochs=1, test=tested, batch_size=8, shuffle=False, verbose=0)
        losses = history.history["loss"]
        assert not tested or set(history.test) >= {"loss", "accuracy"}
        if isinstance(data, tuple) and data[0] is x:
            first = losses
        np.testing.assert_allclose(losses, first, rtol=1e-5)
    for stream in (batches(4), map(tuple, batches(4))):  # no batch is lost to the calibration
        net = ApproxNet(tiny())
        history = net.train_quant(stream, epochs=1, verbose=0)
        np.testing.assert_allclose(history.history["loss"], first, rtol=1e-5)
    (alone,), (labelled,) = net.layer_operands(x, batch_size=8), net.layer_operands((x, y), batch_size=8)
    assert np.array_equal(alone.outputs, labelled.outputs)


def test_a_table_of_noise_is_written_unless_it_is_to_be_quiet(capsys: pytest.CaptureFixture[str]):
    x, y = next(batches(1))
    net = ApproxNet(tiny())
    net.train_gradient((x, y), epochs=1, verbose=0)
    assert "sigma" not in capsys.readouterr().out
    net.train_gradient((x, y), epochs=2, verbose=2)
    assert capsys.readouterr().out.count("sigma") == 2


def test_the_pull_on_noise_is_that_of_the_paper():
    x, y = next(batches(1))
    net = ApproxNet(tiny())
    options = {"optimizer": keras.optimizers.SGD(0.0), "epochs": 1, "verbose": 0}
    for noise, pull in ((-0.2, 0.2), (0.7, 0.5)):  # one layer: its share is 1; 0.7 counts as 0.5
        losses = []
        for lmbd in (0.0, 0.3):
            keras.utils.set_random_seed(1)
            history = net.train_gradient((x, y), lmbd=lmbd, initial_noise=noise, **options)
            losses.append(history.history["loss"][0])
        assert losses[0] - losses[1] == pytest.approx(0.3 * pull, abs=1e-5)
        assert net.tolerances == {"only": pytest.approx(abs(noise))}


def test_default_losses():
    from kconvert_contrib.approx.losses import default_loss

    def ending(units: int, activation: str | None) -> Any:
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation=activation)])

    loss, _ = default_loss(ending(3, None), np.array([0, 2]))
    assert (type(loss).__name__, loss.from_logits) == ("SparseCategoricalCrossentropy", True)
    loss, _ = default_loss(ending(3, "softmax"), np.eye(3)[:2])
    assert (type(loss).__name__, loss.from_logits) == ("CategoricalCrossentropy", False)
    loss, _ = default_loss(ending(1, "sigmoid"), np.array([[0], [1]]))
    assert (type(loss).__name__, loss.from_logits) == ("BinaryCrossentropy", False)
    for units, labels in ((3, np.array([0, 3])), (3, np.array([[0.5, 1.5, 2.0]])), (1, np.array([[0.2]]))):
        with pytest.raises(ApproxError, match="name the loss"):
            default_loss(ending(units, None), labels)


def test_mistakes_are_named():
    x, y = next(batches(1))
    net = ApproxNet(tiny())
    with pytest.raises(ApproxError, match="assign"):
        net.train_approx((x, y))
    with pytest.raises(ApproxError, match=r"no layer 'conv'.*only"):
        net.assign({"conv": COARSE})
    with pytest.raises(ApproxError, match="mode is one of"):
        net.mode = "int8"
    with pytest.raises(ApproxError, match="received list"):
        net.train_quant([x, y])
    with pytest.raises(ApproxError, match="no batch"):
        net.train_quant((x[:0], y[:0]))
    with pytest.raises(ApproxError, match="give it to the optimizer"):
        net.train_quant((x, y), optimizer="adam", learning_rate=0.1)
    with pytest.raises(ApproxError, match="no Dense"):
        ApproxNet(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))
    with pytest.raises(ApproxError, match="not built"):
        ApproxNet(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(ApproxError, match="emulation"):
        ApproxNet(tiny(), emulation="fast")
    with pytest.raises(ApproxError, match="known size"):
        _ = ApproxNet(keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3)])).opcount


def test_a_subclassed_model_is_refused_and_what_stays_exact_is_said(caplog: pytest.LogCaptureFixture):
    class Own(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ApproxError, match="functional"):
        ApproxNet(Own())
    grouped = [keras.Input((8, 4)), keras.layers.Conv1D(2, 3, name="one"), keras.layers.Dense(2)]
    net = ApproxNet(keras.Sequential(grouped))
    assert [type(layer).__name__ for layer in net.layers] == ["ApproxDense"]
    assert "'one' (Conv1D) stays exact" in caplog.text
