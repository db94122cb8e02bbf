"""The operations in plain numpy, loop by loop, as the chip's documentation states them."""

from __future__ import annotations

import numpy as np


def saturated(v):
    return np.clip(np.floor(v), -128, 127)


def matmul(x, w, num_sends=1, gain=0.002):
    """x [B, K], w [K, N]: chunks of 128 inputs, each floored and saturated, and their sum once more."""
    x, w = np.round(x).astype(np.int64), np.round(w).astype(np.int64)
    total = np.zeros((x.shape[0], w.shape[1]), np.int64)
    for at in range(0, x.shape[1], 128):
        product = (x[:, at : at + 128] @ w[at : at + 128]).astype(np.float32) * np.float32(num_sends * gain)
        total += saturated(product).astype(np.int64)
    return np.clip(total, -128, 127).astype(np.float32)


def conv2d(x, kernel, stride, num_sends=1, gain=0.002):
    """x [B, H, W, C], kernel [h, w, C, F]: one product a window, its inputs in the order of channels, rows, columns."""
    h, w, _, filters = kernel.shape
    rows, columns = (x.shape[1] - h) // stride + 1, (x.shape[2] - w) // stride + 1
    y = np.empty((x.shape[0], rows, columns, filters), np.float32)
    flat = np.moveaxis(kernel, 2, 0).reshape(-1, filters)
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + h, j * stride : j * stride + w]
            y[:, i, j] = matmul(np.moveaxis(window, 3, 1).reshape(x.shape[0], -1), flat, num_sends, gain)
    return y


def conv1d(x, kernel, stride, num_sends=1, gain=0.002):
    """x [B, L, C], kernel [l, C, F]."""
    return (
        conv2d(x[:, :, None], kernel[:, None], stride, num_sends, gain)[:, :, 0]
        if stride == 1
        else np.stack(
            [
                matmul(
                    np.moveaxis(x[:, at : at + len(kernel)], 2, 1).reshape(len(x), -1),
                    np.moveaxis(kernel, 1, 0).reshape(-1, kernel.shape[-1]),
                    num_sends,
                    gain,
                )
                for at in range(0, x.shape[1] - len(kernel) + 1, stride)
            ],
            axis=1,
        )
    )


def relu(x):
    return np.clip(np.floor(x), 0, 127)


def converting_relu(x, shift):
    return np.clip(np.floor(relu(x) / 2**shift), 0, 31)


def add(a, b):
    return np.clip(saturated(a) + saturated(b), -128, 127)


def argmax(x, axis):
    return np.argmax(saturated(x), axis)


def yin_yang(size, seed):
    """Features and classes of the published data set, point by point."""
    rng = np.random.RandomState(seed)
    samples, classes = [], []
    while len(samples) < size:
        goal, found = rng.randint(3), None
        while found != goal:
            x, y = rng.rand(2)
            right, left = np.sqrt((x - 0.75) ** 2 + (y - 0.5) ** 2), np.sqrt((x - 0.25) ** 2 + (y - 0.5) ** 2)
            if np.sqrt((x - 0.5) ** 2 + (y - 0.5) ** 2) > 0.5:
                continue
            yin = right <= 0.1 or 0.1 < left <= 0.25 or (y > 0.5 and right > 0.25)
            found = 2 if min(right, left) < 0.1 else int(yin)
        samples.append((x, y, 1 - x, 1 - y))
        classes.append(goal)
    return np.array(samples), np.array(classes)
