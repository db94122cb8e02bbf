"""The Yin-Yang points are the published ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kconvert_contrib import analog

from . import reference

YinYang = analog.datasets.YinYang


@pytest.mark.parametrize("seed", [40, 42])
def test_points_are_those_of_the_published_procedure(seed):
    samples, classes = reference.yin_yang(300, seed)
    data = YinYang(300, seed)
    np.testing.assert_array_equal(data.x, samples)
    np.testing.assert_array_equal(data.y, classes)
    redrawn = YinYang(300, seed, fixed=False)
    np.testing.assert_array_equal([redrawn[0][0] for _ in range(100)], samples[:100])
    np.testing.assert_array_equal(redrawn.draw(200)[1], classes[100:])


def test_first_points_of_seed_42():
    expected = [[0.68030754, 0.45049925], [0.09767211, 0.68423303], [0.75536141, 0.42515587]]
    np.testing.assert_allclose(YinYang(3, 42).x[:, :2], expected, atol=1e-8)
    np.testing.assert_array_equal(YinYang(10, 42).y, [2, 1, 2, 1, 1, 1, 0, 2, 2, 0])


def test_figure():
    points = {
        (0.75, 0.5): 2,
        (0.25, 0.5): 2,
        (0.25, 0.65): 1,
        (0.75, 0.35): 0,
        (0.5, 0.9): 1,
        (0.5, 0.1): 0,
        (0.75, 0.65): 0,
    }
    assert {point: analog.datasets.classify(*point) for point in points} == points


def test_batches():
    fixed = YinYang(10, 1)
    sizes = [len(y) for _, y in itertools.islice(fixed.batches(4), 6)]
    assert sizes == [4, 4, 2, 4, 4, 2]
    seen = np.concatenate([x for x, _ in itertools.islice(fixed.batches(4), 3)])
    np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(fixed.x, axis=0))
    (first, _), (second, _) = itertools.islice(YinYang(10, 1, fixed=False).batches(4), 2)
    assert not np.any(first == second)
    assert len(fixed) == len(list(fixed)) == 10
    with pytest.raises(analog.AnalogError, match="size"):
        YinYang(0)
