"""Networks trained on real images that scikit-learn brings along: the kmodel is as good as the float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kconvert import kpu
from kconvert.kpu import KModel
from tests.kpu_compiler.networks import converted

pytest.importorskip("tensorflow")
pytest.importorskip("sklearn")

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Array, Array, Array]:
    """A small CNN, training images, test images (pixels [n, 16, 16, 1]) and test labels."""
    import keras
    from keras import layers as L
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images.repeat(2, 1).repeat(2, 2) / 16 * 255).astype(np.uint8)[..., None]
    keras.utils.set_random_seed(0)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], data.target[order]
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            L.Conv2D(8, 3, padding="same", activation="relu"),
            L.MaxPool2D(),
            L.Conv2D(16, 3, padding="same"),
            L.BatchNormalization(),
            L.LeakyReLU(0.1),
            L.MaxPool2D(),
            L.Conv2D(16, 1, activation="relu"),
            L.Flatten(),
            L.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images[:1200] / 255.0, labels[:1200], epochs=6, batch_size=64, verbose=0)
    return model, images[:1200], images[1200:], labels[1200:]


@pytest.mark.parametrize("method", ["no_clip", "l2"])
def test_digits_are_told_as_well_as_in_float(digits: tuple[Any, Array, Array, Array], method: str) -> None:
    model, train, test, labels = digits
    made = kpu.compile(model, train[:200], layout="nhwc", calibrate_method=method)
    found = made.infer(test, layout="nhwc")[0].reshape(len(test), 10)
    wanted = model.predict(test / 255.0, verbose=0)
    kmodel, floats = (float((o.argmax(1) == labels).mean()) for o in (found, wanted))
    assert floats > 0.93
    assert kmodel >= floats - 0.01
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.98
    assert sum(type(node).__name__ == "KpuConv2D" for node in made.nodes) == 4


@pytest.fixture(scope="module")
def patches() -> Array:
    """Pieces of two photographs, pixels [n, 32, 32, 3]."""
    from sklearn.datasets import load_sample_images

    found = []
    for photo in load_sample_images().images:
        h, w = (s // 32 * 32 for s in photo.shape[:2])
        found.append(photo[:h, :w].reshape(h // 32, 32, w // 32, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3))
    return np.random.default_rng(0).permutation(np.concatenate(found))


def autoencoder() -> Any:
    """All convolutions, a skip connection, a concatenation, nearest upsampling, as M5StickV projects have it."""
    import keras
    from keras import layers as L

    def conv(filters: int, activation: str = "relu") -> Any:
        return L.Conv2D(filters, 3, padding="same", activation=activation)

    first = keras.Input((32, 32, 3))
    a = conv(8)(first)
    b = conv(16)(L.MaxPool2D()(a))
    c = conv(8)(L.MaxPool2D()(b))
    d = conv(16)(L.UpSampling2D()(c))
    d = L.Add()([d, b])
    e = L.Concatenate()([L.UpSampling2D()(d), a])
    return keras.Model(first, conv(3, "sigmoid")(conv(8)(e)))


@pytest.fixture(scope="module")
def trained(patches: Array) -> tuple[Any, bytes]:
    import keras

    keras.utils.set_random_seed(0)
    model = autoencoder()
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    reals = patches[:320] / 255.0
    model.fit(reals, reals, epochs=4, batch_size=32, verbose=0)
    return model, converted(model)


@pytest.mark.parametrize("method", ["no_clip", "l2"])
def test_an_autoencoder_paints_as_well_as_in_float(trained: tuple[Any, bytes], patches: Array, method: str) -> None:
    model, source = trained
    made = kpu.compile(source, patches[:64], layout="nhwc", calibrate_method=method)
    test = patches[400:440]
    (found,) = made.infer(test, layout="nhwc")
    wanted = model.predict(test / 255.0, verbose=0)
    difference = np.abs(found - wanted)
    assert difference.mean() < 0.01
    floats, kmodel = (float(((o - test / 255.0) ** 2).mean()) for o in (wanted, found))
    assert kmodel < floats * 1.05 + 1e-4
    assert isinstance(made, KModel)
    assert made.main_memory < 64 * 1024
