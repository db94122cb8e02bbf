"""Measures torch-approx's table products; approx.py runs it with the Python of an environment that has torch-approx.

Arguments: .npz with the table and the codes of every layer, .npz to write the sums to, JSON file to write, rounds,
seconds of a round.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _measure import rate

# Importing torch-approx compiles its kernel, with the ninja of this environment.
os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
from torchapprox.operators.backend import approx


def product(x: torch.Tensor, w: torch.Tensor, table: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return what computes a layer's sums as torch-approx's layers do, with its operands arranged beforehand.

    Dense: x [images, inputs], w [inputs, outputs]. Convolution without padding: x [images, height, width, channels],
    w [kernel height, kernel width, channels, outputs], sums [images, outputs, positions].
    """
    if x.ndim == 2:
        rows = x[:, None, :].contiguous()
        return lambda: approx(rows, w, table)
    # Its convolutions put the weights first, in the product and so in the table.
    windows = torch.nn.functional.unfold(x.permute(0, 3, 1, 2).float(), w.shape[:2]).char()
    kernels, swapped = w.permute(3, 2, 0, 1).reshape(w.shape[3], -1), table.T.contiguous()
    return lambda: approx(kernels, windows, swapped)


def images_first(sums: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> np.ndarray:
    """Return the sums with the outputs as last axis, in the shape that kconvert gives them."""
    if x.ndim == 2:
        return sums[:, 0].numpy()
    height, width = (x.shape[axis] - w.shape[axis - 1] + 1 for axis in (1, 2))
    return sums.transpose(1, 2).reshape(len(x), height, width, -1).numpy()


def main(data_file: str, sums_file: str, result_file: str, rounds: str, seconds: str) -> None:
    """Measure every layer."""
    torch.set_num_threads(1)
    data = np.load(data_file)
    # Its rows and columns are in the order of unsigned bytes: 0 to 127, then -128 to -1.
    table = torch.from_numpy(np.roll(data["table"], 128, (0, 1)).astype(np.int32))
    rates, sums = {}, {}
    for layer in data["layers"]:
        x, w = (torch.from_numpy(data[f"{layer}.{name}"]) for name in "xw")
        work = product(x, w, table)
        sums[str(layer)] = images_first(work(), x, w)
        rates[str(layer)] = rate(work, len(x), int(rounds), float(seconds))
    np.savez(sums_file, **sums)
    Path(result_file).write_text(json.dumps({"torch": torch.__version__, "rates": rates}))


if __name__ == "__main__":
    main(*sys.argv[1:])
