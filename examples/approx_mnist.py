"""Approximate multipliers for LeNet-5 on MNIST: the published path, from a float network to one that saves energy.

The network is trained in float, then with 8 bits, then with noise that every layer learns to bear. Each layer gets the
cheapest multiplier whose error is within what it bears, and the weights get used to those. One multiplier for all
layers is trained beside it. At the end the network becomes firmware, whose answers are compared.

Multipliers are our own, with the cell area of a synthesis as cost; or, with --tables, the 13 signed ones of
EvoApproxLib with their power: .npy tables of products, or the library's C sources. MNIST comes from Keras, or from the
folder or file that KCONVERT_MNIST names. (Method and settings: Trommer, Waschneck, Kumar, ICCAD 2022.)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow: errors only
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))  # the package beside this folder, installed or not

import keras
import numpy as np

from kconvert_contrib import approx
from kconvert_contrib.datasets import load_mnist

OUTPUT = Path(__file__).resolve().parent.parent / "demo"
POWER = {
    **{"mul8s_1KV8": 0.425, "mul8s_1KVA": 0.422, "mul8s_1KVB": 0.410, "mul8s_1KX2": 0.391, "mul8s_1KR8": 0.369},
    **{"mul8s_1KR6": 0.363, "mul8s_1KRC": 0.351, "mul8s_1L2H": 0.301, "mul8s_1KVL": 0.289, "mul8s_1KTY": 0.237},
    **{"mul8s_1L2D": 0.200, "mul8s_1L1G": 0.126, "mul8s_1KR3": 0.052},
}
"""Power in mW of the signed 8-bit multipliers of EvoApproxLib 1.0, of its own synthesis in 45 nm."""


def lenet() -> keras.Model:
    """Return LeNet-5 with normalisations: 61,900 parameters, 416,520 multiplications."""

    def normalised(layer: Any) -> list[Any]:
        return [layer, keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5), keras.layers.ReLU()]

    conv, dense, pool = keras.layers.Conv2D, keras.layers.Dense, keras.layers.MaxPooling2D
    layers = [
        keras.Input((28, 28, 1), name="image"),
        *normalised(conv(6, 5, padding="same", use_bias=False, name="conv1")),
        pool(2),
        *normalised(conv(16, 5, use_bias=False, name="conv2")),
        pool(2),
        keras.layers.Flatten(),
        *normalised(dense(120, use_bias=False, name="linear1")),
        *normalised(dense(84, use_bias=False, name="linear2")),
        dense(10, name="linear3"),
    ]
    return keras.Sequential(layers, name="lenet5")


def data() -> tuple[Any, Any, Any]:
    """Return images and labels to train with (55,000), to validate (5,000) and to test (10,000)."""
    digits = load_mnist()
    x, x_test = (((a / 255 - 0.1307) / 0.3081).astype(np.float32)[..., None] for a in (digits.x_train, digits.x_test))
    order = np.random.default_rng(0).permutation(len(x))
    train, validation = order[:55_000], order[55_000:]
    return (x[train], digits.y_train[train]), (x[validation], digits.y_train[validation]), (x_test, digits.y_test)


def multipliers(tables: str | None) -> Sequence[Any]:
    """Return those of a folder, or our own."""
    if tables is None:
        return approx.library()
    if any(Path(tables).glob("*.npy")):
        return approx.load_tables(tables, POWER)
    return approx.load_evoapprox(tables)


def show(text: str, start: float) -> None:
    """Print a line of the story."""
    print(f"{time.perf_counter() - start:6.0f} s  {text}", flush=True)


def plot(history: list[dict[str, float]], results: dict[str, tuple[float, float]], file: Path) -> None:
    """Draw what the layers learned to bear, and accuracy over energy."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for layer in history[0]:
        left.plot(range(1, len(history) + 1), [abs(epoch[layer]) for epoch in history], marker=".", label=layer)
    left.set(xlabel="epoch", ylabel="|sigma|", title="noise that a layer bears")
    left.set_xticks(range(1, len(history) + 1))
    left.legend()
    for name, (energy, accuracy) in results.items():
        right.scatter(100 * energy, 100 * accuracy, label=name)
    right.set(xlabel="energy of multiplications [%]", ylabel="test accuracy [%]", title="after retraining")
    right.set_xlim(0, 105)
    accuracies = [100 * accuracy for _, accuracy in results.values()]
    right.set_ylim(min(accuracies) - 0.5, max(accuracies) + 0.5)  # one image in 10,000 is no difference to be seen
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train, choose, train again, convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", help="folder with EvoApproxLib's multipliers, as .npy tables or C sources")
    parser.add_argument("--uniform", help="multiplier for all layers to compare with (mul8s_1L2D, or our drum_4)")
    parser.add_argument("--epochs", default="10,1,3,5", help="of the four trainings (%(default)s)")
    parser.add_argument("--lmbd", type=float, default=0.2, help="pull towards more noise (%(default)s)")
    parser.add_argument(
        "--check", type=int, default=200, metavar="N", help="test images for the firmware (%(default)s)"
    )
    options = parser.parse_args()
    library = multipliers(options.tables)
    uniform = options.uniform or ("mul8s_1L2D" if options.tables else "drum_4")
    float_epochs, quant_epochs, noise_epochs, approx_epochs = (int(n) for n in options.epochs.split(","))
    parts, start = data(), time.perf_counter()
    test = parts[2]
    bars = {"verbose": 1 if sys.stdout.isatty() else 2}
    OUTPUT.mkdir(exist_ok=True)

    keras.utils.set_random_seed(1)
    net = approx.ApproxNet(lenet())
    show("training in float", start)
    baseline = net.train_baseline(parts, float_epochs, test=True, **bars).test["accuracy"]
    show(f"float: {baseline:.4f}; training with 8 bits", start)
    quantised = net.train_quant(parts, quant_epochs, test=True, **bars).test["accuracy"]
    show(f"8 bits: {quantised:.4f}; learning noise", start)
    history = net.train_gradient(parts, noise_epochs, lmbd=options.lmbd, **bars).sigma
    show("sigma: " + ", ".join(f"{name} {sigma:.3f}" for name, sigma in net.sigma.items()), start)
    net.save(OUTPUT / "approx_mnist_noise.keras")
    selection = approx.select_multipliers(net, parts, library)
    show(f"energy {selection.relative_energy_consumption:.4f}, {options.tables or 'our own multipliers'}:", start)
    print(f"\n{selection}\n")
    selection.plot(OUTPUT / "approx_mnist_energy.png")

    energy = selection.relative_energy_consumption
    approx.deploy_multipliers(net, selection)
    show(f"before it gets used to them: {net.evaluate(test, **bars)['accuracy']:.4f}", start)
    retrained = net.train_approx(parts, approx_epochs, test=True, **bars).test["accuracy"]
    show(f"one for each layer: {retrained:.4f} at energy {energy:.4f}", start)
    net.save(OUTPUT / "approx_mnist.keras")

    other = approx.load(OUTPUT / "approx_mnist_noise.keras")
    member = approx.uniform(other, uniform, library)
    alike = other.train_approx(parts, approx_epochs, test=True, **bars).test["accuracy"]
    share = member.performance_metric / selection.metric_max
    show(f"{member.name} for all layers: {alike:.4f} at energy {share:.4f}", start)
    results = {
        "exact, 8 bits": (1.0, quantised),
        "one for each layer": (energy, retrained),
        f"{member.name} for all": (share, alike),
    }
    plot(history, results, OUTPUT / "approx_mnist.png")

    hls_model = net.convert(output_dir=str(OUTPUT / "approx_mnist_project"))
    hls_model.write()
    hls_model.compile()
    images = test[0][: options.check]
    same = np.array_equal(hls_model.predict(images), net.predict(images))
    show(f"firmware: {'the same' if same else 'OTHER'} answers as the network for {len(images)} images", start)
    figures = {
        "baseline": baseline, "quantised": quantised, "sigma": net.sigma, "selection": selection.to_dict(),
        "accuracy": retrained, "uniform": {"name": member.name, "energy": share, "accuracy": alike},
    }  # fmt: skip
    (OUTPUT / "approx_mnist.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"models, project, figures and plots are in {OUTPUT}")


if __name__ == "__main__":
    main()
