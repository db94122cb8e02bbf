"""Damaged files: a KModelError or an answer, within the stated bounds; never a crash."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from kconvert.errors import KModelError
from kconvert.kpu import KModel
from tests.kpu.handmade import MAKERS, inputs_for, model_of
from tests.kpu.test_format import two_inputs

MUTATIONS = int(os.environ.get("KCONVERT_MUTATIONS", "10000"))
SEED = int(os.environ.get("KCONVERT_TEST_SEED", "20240611"))
RUN = bool(shutil.which("g++") or shutil.which("clang++"))
SMALL = 200_000  # steps of a model that is run
LIMITS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Change bytes, numbers or the length."""
    found = bytearray(data)
    kind = random.integers(4)
    if kind == 0:
        return bytes(found[: random.integers(len(found) + 1)])
    if kind == 1:
        at = int(random.integers(len(found) + 1))
        return bytes(found[:at] + random.bytes(int(random.integers(1, 20))) + found[at:])
    for _ in range(int(random.integers(1, 4))):
        if kind == 2:
            found[random.integers(len(found))] = random.integers(256)
        else:  # a number at its limits, where numbers are
            at = 4 * int(random.integers(len(found) // 4))
            value = int(random.choice(LIMITS)) if random.random() < 0.5 else int(random.integers(1 << 12))
            found[at : at + 4] = value.to_bytes(4, "little")
    return bytes(found)


def attempt(data: bytes, random: np.random.Generator) -> str:
    """Load, check and, if it is small, run; return how far it came."""
    try:
        model = KModel.load(data)
    except KModelError:
        return "refused"
    assert model.to_bytes() == data
    try:
        model.check()
        model.summary()
    except KModelError:
        return "loaded"
    if sum(node.work for node in model.nodes) > SMALL or model.main_memory > 1 << 20:
        return "large"
    if RUN:
        model.infer(inputs_for(model, random, 1), threads=1)
    return "ran"


def test_mutations() -> None:
    random = np.random.default_rng(SEED)
    sources = [model_of(make(random)).to_bytes() for make in MAKERS.values() for _ in range(3)]
    sources += [two_inputs().to_bytes()]
    found = Counter(attempt(mutated(sources[i % len(sources)], random), random) for i in range(MUTATIONS))
    if MUTATIONS >= 1000:  # the mutations reach all the code
        assert min(found[how] for how in ("refused", "loaded", "ran")) > MUTATIONS // 50, found


def test_random_bytes() -> None:
    random = np.random.default_rng(SEED)
    head = model_of(MAKERS[next(iter(MAKERS))](random)).to_bytes()[:8]
    for _ in range(1000):
        attempt(head + random.bytes(int(random.integers(200))), random)


def test_a_small_file_makes_no_large_allocation() -> None:
    """The largest counts everywhere."""
    data = two_inputs().to_bytes()
    tracemalloc.start()
    try:
        for at in range(0, len(data) - 4, 4):
            if at < 1000 or at % 64 == 0:
                try:
                    KModel.load(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
                except KModelError:
                    continue
        assert tracemalloc.get_traced_memory()[1] < 100 * len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not RUN, reason="no C++ compiler")
def test_the_samples_of_a_batch_do_not_see_each_other() -> None:
    """A model may read what nothing has written: it finds zeros."""
    random = np.random.default_rng(SEED)
    layer = MAKERS[next(iter(MAKERS))](random)
    model = dataclasses.replace(model_of(layer), nodes=())
    x = [np.concatenate([a, a]) for a in inputs_for(model, random, 2)]
    for output in model.infer(x):
        np.testing.assert_array_equal(output, np.zeros_like(output))
