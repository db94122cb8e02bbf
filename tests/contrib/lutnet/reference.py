"""LUT layers as slow, obvious sums: what the fast ones are compared with."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np


def multilinear(table: Any, u: Any) -> float:
    """The sum over all entries, each with the product of how much every input is at its bit."""
    n = len(u)
    total = 0.0
    for bits in product((0, 1), repeat=n):
        weight = np.prod([u[i] if bits[i] else 1 - u[i] for i in range(n)])
        total += float(table[sum(b << i for i, b in enumerate(bits))]) * weight
    return total


def train_step(x: Any, dy: Any, table: Any, wiring: Any, *, binary: bool, gamma: float, beta: float, norm: bool) -> Any:
    """Forward and backward of a layer in float64: y, dx, dtable, mean, variance."""
    x, dy, table = (np.asarray(a, np.float64) for a in (x, dy, table))
    u = np.where(x > 0.5, 0.75, 0.25) if binary else np.clip(x, 0, 1)
    frames, units = dy.shape
    n = wiring.shape[1]
    y, dx, d_table = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(table)
    means, variances = np.zeros(units), np.zeros(units)
    for k in range(units):
        z = np.array([multilinear(table[k], u[f, wiring[k]]) for f in range(frames)])
        mean, variance = z.mean(), max(1e-5, z.var())
        means[k], variances[k] = mean, variance
        root = np.sqrt(variance)
        t = gamma * (z - mean) / root + beta if norm else z
        y[:, k] = t > 0.5 if binary else np.clip(t, 0, 1)
        dz = dy[:, k].copy()
        if norm:
            d = gamma * dz * ((t > 0) & (t < 1))
            normal = (z - mean) / root
            dz = (d - d.mean() - normal * (d * normal).mean()) / root
        for f in range(frames):
            pins = u[f, wiring[k]]
            for j in range(2**n):
                share = [pins[i] if j >> i & 1 else 1 - pins[i] for i in range(n)]
                d_table[k, j] += dz[f] * np.prod(share)
                for i in range(n):
                    sign = 1 if j >> i & 1 else -1
                    dx[f, wiring[k, i]] += dz[f] * table[k, j] * sign * np.prod(share[:i] + share[i + 1 :])
    return y, dx, d_table, means, variances
