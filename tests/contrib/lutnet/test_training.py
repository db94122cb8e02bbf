"""Training: it learns, learns wiring too, and a batch of any size is one of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kconvert.errors import InputError
from kconvert_contrib import lutnet
from kconvert_contrib.datasets import Digits, load_mnist
from kconvert_contrib.lutnet import LayerError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")


def digits() -> tuple[Any, Any]:
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels


def classifier(bits: int = 2, units: int = 120) -> Any:
    model = keras.Sequential([
        keras.Input((64,)),
        lutnet.Thermometer(bits),
        lutnet.DifferentiableLut(units, name="first"),
        lutnet.DifferentiableLut(80, seed=2),
        lutnet.GroupSum(10, tau=2.0),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


def test_digits_are_learned_and_tables_stay_within_bounds():
    keras.utils.set_random_seed(3)
    x, y = digits()
    model = classifier(units=240)
    model.fit(x[:1280], y[:1280], batch_size=64, epochs=15, verbose=0)
    assert model.evaluate(x[1280:], y[1280:], verbose=0)[1] > 0.75
    table = model.get_layer("first").table.numpy()
    assert 0 <= table.min() < 0.45
    assert 0.55 < table.max() <= 1


def test_wiring_is_judged_by_covariance_and_slope():
    from kconvert_contrib.lutnet.training import judge_wiring

    rng = np.random.default_rng(4)
    x = (rng.random((40, 9)) > 0.5).astype(np.float32)
    dy = rng.normal(size=(40, 3)).astype(np.float32)
    table, wiring = rng.random((3, 8)).astype(np.float32), np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]], np.int32)
    missed, matters = judge_wiring(x, dy, tf.constant(table), tf.constant(wiring))
    np.testing.assert_allclose(missed, abs(dy.T @ (x - x.mean(axis=0))), atol=1e-4)
    u, expected = 0.25 + 0.5 * x, np.zeros((3, 3))
    for pin in range(3):
        for unit in range(3):
            low, high = u[:, wiring[unit]].copy(), u[:, wiring[unit]].copy()
            low[:, pin], high[:, pin] = 0.0, 1.0
            expected[unit, pin] = abs(_read(high, table[unit]) - _read(low, table[unit])).mean()
    np.testing.assert_allclose(matters, expected, atol=1e-5)


def _read(pins: Any, table: Any) -> Any:
    """The multilinear read of one table at pins [frames, 3]."""
    weights = [np.prod([pins[:, i] if j >> i & 1 else 1 - pins[:, i] for i in range(3)], axis=0) for j in range(8)]
    return np.array(weights).T @ table


def test_pins_leave_inputs_that_say_nothing():
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    x = (rng.random((2000, 64)) > 0.5).astype(np.float32)
    y = (x[:, :3].sum(axis=1) > 1).astype(int)  # 61 inputs say nothing
    model = classifier(bits=1, units=40)
    first = model.get_layer("first")
    before = np.isin(first.connections(), [0, 1, 2]).sum()
    rewire = lutnet.Rewire(x, y, every=4, share=0.3, frames=250)  # as many as in a batch: compiled once
    model.fit(x, y, batch_size=250, epochs=12, verbose=0, callbacks=[rewire])
    after = np.isin(first.connections(), [0, 1, 2]).sum()
    assert after > 2 * before
    assert all(len(set(pins)) == 6 for pins in first.connections().tolist())
    assert model.evaluate(x, y, verbose=0)[1] > 0.95


def test_rewiring_wants_a_layer_it_knows():
    x, y = digits()
    with pytest.raises(LayerError, match="binary DifferentiableLut"):
        classifier().fit(x, y, verbose=0, callbacks=[lutnet.Rewire(x, y, ["nothing"])])


def test_idx_files_and_npz_are_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    made = Digits(*(rng.integers(0, 256, (n, *s), dtype=np.uint8) for n in (5, 3) for s in ((28, 28), ())))
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, array in zip(names, made, strict=True):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (tmp_path / f"{name}-ubyte").write_bytes(head + array.tobytes())
    monkeypatch.setenv("KCONVERT_MNIST", str(tmp_path))
    assert all((a == b).all() for a, b in zip(load_mnist(), made, strict=True))
    np.savez(tmp_path / "mnist.npz", **made._asdict())
    assert all((a == b).all() for a, b in zip(load_mnist(tmp_path / "mnist.npz"), made, strict=True))
    (tmp_path / f"{names[0]}-ubyte").write_bytes(head + b"short")
    with pytest.raises(InputError, match="values are not"):
        load_mnist(tmp_path)
