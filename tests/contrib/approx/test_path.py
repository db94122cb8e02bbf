"""The whole path on small digits: float, 8 bits, noise, multipliers, firmware."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import kconvert
from kconvert_contrib import approx
from kconvert_contrib.approx.nodes import Approximate, struct_of
from kconvert_contrib.approx.selection import Selection, error_deviation
from tests.contrib.approx.specs import MASKED, ODD

LARGEST = "conv2"


def network() -> keras.Model:
    """6,912 of its 11,136 multiplications are in `LARGEST`."""

    def normalised(layer: Any) -> list[Any]:
        return [layer, keras.layers.BatchNormalization(), keras.layers.ReLU()]

    return keras.Sequential([
        keras.Input((8, 8, 1)),
        *normalised(keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")),
        keras.layers.MaxPooling2D(2),
        *normalised(keras.layers.Conv2D(12, 3, padding="same", use_bias=False, name=LARGEST)),
        keras.layers.Flatten(),
        keras.layers.Dense(10, name="dense"),
    ])  # fmt: skip


@dataclass
class Story:
    """What happened on the way."""

    net: approx.ApproxNet
    data: Any
    accuracy: dict[str, float]
    sigma: dict[str, float]
    selection: Selection
    noisy_file: Path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Story:
    digits = load_digits()
    x, y = (digits.images[..., None] / 8 - 1).astype(np.float32), digits.target
    data = ((x[:1400], y[:1400]), (x[1400:], y[1400:]))
    keras.utils.set_random_seed(3)
    net, quiet = approx.ApproxNet(network()), {"verbose": 0, "batch_size": 64, "test": True}
    accuracy = {"float": net.train_baseline(data, 8, learning_rate=0.05, **quiet).test["accuracy"]}
    accuracy["quantised"] = net.train_quant(data, 1, **quiet).test["accuracy"]
    net.train_gradient(data, 4, lmbd=0.3, learning_rate=0.005, **quiet)
    sigma, file = net.sigma, tmp_path_factory.mktemp("approx") / "noisy.keras"
    net.save(file)
    selection = approx.select_multipliers(net, data, approx.library())
    approx.deploy_multipliers(net, selection)
    accuracy["approximate"] = net.train_approx(data, 2, learning_rate=0.002, **quiet).test["accuracy"]
    return Story(net, data, accuracy, sigma, selection, file)


def test_accuracy_stays(path: Story) -> None:
    assert path.accuracy["float"] > 0.88
    assert path.accuracy["quantised"] > path.accuracy["float"] - 0.03
    assert path.accuracy["approximate"] > path.accuracy["float"] - 0.04


def test_the_layer_of_most_multiplications_bears_most(path: Story) -> None:
    assert max(path.sigma, key=lambda name: abs(path.sigma[name])) == LARGEST
    assert path.selection[LARGEST].relative_opcount == pytest.approx(6912 / 11136)


def test_energy_is_saved_within_what_layers_bear(path: Story) -> None:
    assert path.selection.relative_energy_consumption < 0.6
    for layer in path.selection.layers:
        assert layer.predicted <= layer.tolerated
        assert path.net.multipliers[layer.name].name == layer.multiplier


def test_errors_of_the_layers_of_a_network(path: Story) -> None:
    """What a selection predicts from one batch, against the errors of the sums of all training data."""
    noisy, exact = approx.load(path.noisy_file), approx.exact_multiplier()
    strong = [member for member in approx.library() if 300 < member.statistics.std < 3000][::10]
    everything = {each.name: each for each in noisy.layer_operands(path.data[0], 11)}
    for layer in noisy.layers:
        layer.sigma.assign(10.0)  # bears them all
    for member in strong:
        product = approx.TableProduct(member.table)
        for found in approx.select_multipliers(noisy, path.data[0], [exact, member]).layers:
            rows, weights = everything[found.name].inputs, everything[found.name].weights
            measured = float(np.std(everything[found.name].outputs - product.matrix(rows, weights)))
            assert found.multiplier == member.name
            assert found.predicted == pytest.approx(measured, rel=0.1)
            assert error_deviation(member.error_map, rows, weights) == pytest.approx(measured, rel=0.6)


def test_the_firmware_answers_as_the_emulation(path: Story, tmp_path: Path) -> None:
    x = path.data[1][0]
    hls_model = path.net.convert(output_dir=str(tmp_path / "project"))
    hls_model.compile()
    expected = path.net.predict(x)
    assert np.array_equal(hls_model.predict(x), expected)
    assert np.mean(expected.argmax(-1) == path.data[1][1]) == pytest.approx(path.accuracy["approximate"], abs=0.01)
    nodes = [node for node in hls_model.nodes if isinstance(node, Approximate)]
    assert {node.name: node.multiplier.name for node in nodes} == {n: m.name for n, m in path.net.multipliers.items()}
    for node in nodes:
        header = hls_model.write() / "firmware" / "multipliers" / f"{struct_of(node.multiplier)}.h"
        assert node.multiplier.cpp is not None
        assert node.multiplier.cpp.strip().splitlines()[-1] in header.read_text(encoding="utf-8")


WITHOUT_KERAS = """
import sys
sys.modules["keras"] = sys.modules["tensorflow"] = None
import numpy as np
import kconvert
import kconvert_contrib.approx.conversion
folder = sys.argv[1]
hls_model = kconvert.convert_from_keras_model(folder + "/net.keras", output_dir=folder + "/project")
hls_model.compile()
np.save(folder + "/answers.npy", hls_model.predict(np.load(folder + "/x.npy")))
"""


def test_one_multiplier_for_all_layers_and_a_file_converts_without_keras(path: Story, tmp_path: Path) -> None:
    other, x = approx.load(path.noisy_file), path.data[1][0][:64]
    assert approx.uniform(other, "drum_4").name == "drum_4"
    other.mode = "approximate"
    other.save(tmp_path / "net.keras")
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", WITHOUT_KERAS, str(tmp_path)], check=True, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "answers.npy"), other.predict(x))


def test_multipliers_of_the_user(path: Story) -> None:
    """With C++ of their own; a table alone; and, in a file, by their table only."""
    other, x = approx.load(path.noisy_file), path.data[1][0][:64]
    other.assign({"conv1": MASKED, LARGEST: ODD})
    other.mode = "approximate"
    ours, theirs = other.convert(), kconvert.convert_from_keras_model(other.model)
    for hls_model, with_source in ((ours, True), (theirs, False)):
        nodes = {node.name: node for node in hls_model.nodes if isinstance(node, Approximate)}
        assert set(nodes) == {"conv1", LARGEST}
        assert (nodes["conv1"].multiplier.cpp is not None) is with_source
    ours.compile()
    assert np.array_equal(ours.predict(x), other.predict(x))
    wrong = approx.ApproximateMultiplier(MASKED.name, 1.0, MASKED.error_map, "    return 0;\n")
    other.assign({"conv1": wrong})
    with pytest.raises(approx.ApproxError, match="makes other products than its table"):
        other.convert()
