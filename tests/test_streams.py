"""Firmware with streams between its layers: the bits of io_parallel, who reads what, how deep streams have to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import kconvert
from kconvert import streams
from kconvert.csim.network import Network
from kconvert.errors import ConfigError, StreamError
from kconvert.layers import Node
from kconvert.streams import StreamFirmware
from tests.layers.common import assert_same_in_streams, convert
from tests.layers.test_binary import binary_network
from tests.models import randomise
from tests.qkeras import nets


def keras_layers() -> Any:
    import keras

    return keras.layers


def skipping() -> Any:
    """A convolution whose output is added to what two more make of it."""
    import keras

    conv = keras.layers.Conv2D
    x = keras.Input((8, 7, 2), name="image")
    start = conv(3, 3, padding="same", activation="relu", name="start")(x)
    long = conv(3, 3, padding="same", name="second")(conv(3, 3, padding="same", name="first")(start))
    joined = keras.layers.Add(name="joined")([start, long])
    return randomise(keras.Model(x, keras.layers.GlobalMaxPooling2D(name="largest")(joined)))


def reading_alike() -> Any:
    """Tensors with several readers, an input that is an output, views of every kind, two inputs."""
    import keras

    layers = keras.layers
    image, line = keras.Input((4, 3, 2), name="image"), keras.Input((6,), name="line")
    twice = layers.Add(name="twice")([image, image])
    flat = layers.Flatten(name="flat")(twice)
    blocks = layers.Reshape((2, 3), name="blocks")(layers.ReLU(name="relu")(line))
    outputs = [
        line,
        layers.Flatten(name="same")(image),
        layers.Dense(2, name="dense")(flat),
        layers.ReLU(name="flat_relu")(flat),
        layers.Conv1D(2, 2, name="conv")(layers.Reshape((4, 6), name="rows")(twice)),
        layers.Conv1D(2, 2, name="odd_conv")(layers.Reshape((8, 3), name="odd_words")(flat)),
        layers.Concatenate(axis=1, name="below")([blocks, layers.Conv1D(3, 1, name="point")(blocks)]),
        layers.Concatenate(axis=-1, name="beside")([twice, image]),
        layers.Reshape((3, 2), name="out")(layers.Dense(6, name="six")(line)),
    ]
    return randomise(keras.Model([image, line], outputs))


def sliding() -> Any:
    """Windows with every kind of padding, gaps between them, and pixels that none of them sees."""
    import keras

    layers = keras.layers
    x, line = keras.Input((7, 8, 3), name="image"), keras.Input((11, 2), name="line")
    outputs = [
        layers.Conv2D(2, (2, 3), strides=(3, 2), name="rest")(x),
        layers.Conv2D(2, (5, 4), strides=2, padding="same", name="large")(x),
        layers.Conv2D(2, 2, strides=4, padding="same", name="gaps")(x),
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x),
        layers.Conv2D(2, (7, 8), padding="same", name="whole_same")(x),
        layers.MaxPooling2D((3, 2), strides=(2, 1), padding="same", name="max_same")(x),
        layers.AveragePooling2D(3, strides=2, padding="same", name="mean_same")(x),
        layers.AveragePooling2D((7, 8), name="whole_mean")(x),
        layers.GlobalAveragePooling2D(keepdims=True, name="kept")(x),
        layers.ZeroPadding2D(((1, 2), (0, 3)), name="zeros")(x),
        layers.Conv2DTranspose(2, 3, strides=2, padding="same", name="up")(x),
        layers.Conv1D(3, 4, strides=3, padding="same", name="line_same")(line),
        layers.MaxPooling1D(3, strides=4, name="line_gaps")(line),
        layers.Conv1D(2, 9, padding="same", name="line_long")(layers.AveragePooling1D(5, 3, name="line_mean")(line)),
        layers.LSTM(2, return_sequences=True, name="lstm")(line),
        layers.GRU(2, go_backwards=True, name="backwards")(line),
        layers.Softmax(name="softmax")(x),
    ]
    return randomise(keras.Model([x, line], outputs))


def quantised() -> Any:
    """A network with thresholds and scales behind its sums, and layers that follow a Flatten."""
    pytest.importorskip("qkeras")
    model = nets.build(7)
    nets.randomise(model, 7)
    return model


@pytest.fixture(scope="module")
def skip_model() -> Any:
    return skipping()


@pytest.fixture(scope="module")
def network(skip_model: Any) -> Network:
    return Network(streamed(skip_model))


def streamed(model: Any, config: Any = None, **options: Any) -> kconvert.HLSModel:
    return kconvert.convert_from_keras_model(model, config, io_type="io_stream", **options)


def forms(hls_model: kconvert.HLSModel) -> dict[str, str]:
    return {p.node.name: p.form for p in StreamFirmware(hls_model).processes if p.node is not None}


# ***** results *****


@pytest.mark.parametrize("factory", [reading_alike, sliding, binary_network, quantised, skipping])
def test_streams_carry_the_bits_of_io_parallel(factory: Callable[[], Any]) -> None:
    model = factory()
    config: dict[str, Any] = {"Model": {"Precision": "ap_fixed<10,4>"}}
    assert_same_in_streams(convert(model, config), model, config, count=150)


def test_strategy_and_reuse_change_no_bit(skip_model: Any) -> None:
    config = {"Model": {"Precision": "ap_fixed<9,4>", "Strategy": "Resource", "ReuseFactor": 9}}
    assert_same_in_streams(convert(skip_model, config), skip_model, config)


def test_what_streams_by_itself() -> None:
    found = forms(streamed(sliding()))
    assert {name for name, form in found.items() if form == "whole"} == {"backwards"}
    assert {name for name, form in found.items() if form == "position"} == {"softmax"}


def test_a_matrix_behind_a_flatten_collects_the_words_as_they_are() -> None:
    firmware = StreamFirmware(streamed(reading_alike()))
    (dense,) = [p for p in firmware.processes if p.node is not None and p.node.name == "dense"]
    assert [(s.words, s.width) for s in dense.reads] == [(12, 2)]
    repacked = {p.reads[0].words * 100 + p.writes[0].words for p in firmware.processes if p.form == "repack"}
    assert 1208 in repacked  # the odd words: 12 of 2 elements become 8 of 3
    assert all(s.words * s.width == s.size for s in firmware.streams)


def test_every_stream_has_one_writer_and_one_reader() -> None:
    firmware = StreamFirmware(streamed(reading_alike()))
    for stream in firmware.streams:
        ends = [sum(s is stream for p in firmware.processes for s in side(p)) for side in (_reads, _writes)]
        assert ends == [stream.reader is not None, stream.writer is not None]


def _reads(process: streams.Process) -> Any:
    return process.reads


def _writes(process: streams.Process) -> Any:
    return process.writes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "const auto w = x0.read(); for (int i = 0; i < 30; i++) y.write(w);",
            "'image_in': the caller .* 'pad', which leaves 11 words",
        ),
        ("for (int i = 0; i < 12; i++) y.write(x0.read());", "'pad_out': 'pad' writes words for 'relu', which reads"),
        ("for (int i = 0; i < 13; i++) x0.read();", "'image_in': .* for 'pad', which reads one more .12 words of 2"),
    ],
)
def test_a_layer_that_reads_or_writes_too_few_words_is_named(
    body: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    layers = keras_layers()
    x = keras.Input((4, 3, 2), name="image")
    model = keras.Model(x, layers.ReLU(name="relu")(layers.ZeroPadding2D(1, name="pad")(x)))
    original = streams.glue

    def wrong(node: Node, macro: str, *arguments: Any) -> str:
        return body if (node.name, macro) == ("pad", "stream") else original(node, macro, *arguments)

    monkeypatch.setattr(streams, "glue", wrong)
    hls_model = convert(model, io_type="io_stream")
    for _ in range(2):  # it is told anew in every run
        with pytest.raises(StreamError, match=message):
            hls_model.predict(np.zeros((300, 4, 3, 2)), threads=2)


# ***** depths *****


def test_clones_hold_all_words_unless_measured(skip_model: Any, network: Network) -> None:
    firmware = StreamFirmware(streamed(skip_model))
    given = {s.variable: s.depth for s in firmware.streams if not s.port}
    assert {name: depth for name, depth in given.items() if depth > 2} == {
        "start_relu_out_1": 56,
        "start_relu_out_2": 56,
    }
    network.check()
    measured = network.measure()
    assert measured.keys() == given.keys()
    # two windows of 3 x 3 see a word after a row and a column each, and a few words are on their way
    (skip,) = [depth for name, depth in measured.items() if depth > 8]
    assert 2 * (7 + 1) < skip < 2 * (7 + 1) + 10
    network.check(measured)


def test_functions_that_wait_for_each_other_are_named(network: Network) -> None:
    measured = network.measure()
    skip = max(measured, key=measured.__getitem__)
    with pytest.raises(StreamError, match=rf"wait for each other.*for room in {skip} \(depth 8\)"):
        network.check({**measured, skip: 8})


def test_measured_depths_are_written_and_read_back(skip_model: Any, tmp_path: Path) -> None:
    hls_model = streamed(skip_model, output_dir=tmp_path / "prj")
    assert "depth=56" in StreamFirmware(hls_model).top_function()
    depths = hls_model.fifo_depths(keep=True)
    assert max(depths.values()) < 56
    assert hls_model.fifo_depths() == depths
    folder = hls_model.write()
    text = (folder / "firmware" / "myproject.cpp").read_text()
    for name, depth in depths.items():
        assert f"#pragma HLS STREAM variable={name} depth={depth}\n" in text
    assert yaml.safe_load((folder / "kconvert_config.yml").read_text())["HLSConfig"]["FIFODepths"] == depths
    again = kconvert.convert_from_config(folder)
    assert StreamFirmware(again).top_function() == text


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ({"joined_out": 0}, r"FIFODepths → joined_out: 0 is not allowed; give a positive integer"),
        ({"joined_uot": 9}, r"FIFODepths → joined_uot: there is no such stream; did you mean 'joined_out'\?"),
        ({"image_in": 9}, r"FIFODepths → image_in: there is no such stream"),
        ([3], "FIFODepths: expected a mapping"),
    ],
)
def test_bad_depths(depths: Any, message: str, skip_model: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        streamed(skip_model, {"FIFODepths": depths})


def test_without_streams_there_are_no_depths(skip_model: Any) -> None:
    with pytest.raises(ConfigError, match="'io_parallel' has no streams"):
        kconvert.convert_from_keras_model(skip_model, {"FIFODepths": {"joined_out": 4}})
    with pytest.raises(ConfigError, match="'io_parallel' has no streams to measure"):
        kconvert.convert_from_keras_model(skip_model).fifo_depths()


# ***** the project *****


def test_words_are_packed_for_the_older_tool(skip_model: Any) -> None:
    text = StreamFirmware(streamed(skip_model, backend="Vivado")).top_function()
    assert text.count("#pragma HLS DATA_PACK variable=") == text.count("#pragma HLS STREAM") + 2  # and two ports
    assert "DATA_PACK" not in StreamFirmware(streamed(skip_model)).top_function()


@pytest.mark.parametrize("name", ["joined_layer", "start_relu_out_clones"])
def test_a_project_cannot_have_the_name_of_one_of_its_functions(name: str, skip_model: Any) -> None:
    with pytest.raises(ConfigError, match=f"project_name '{name}' is a name in the generated code"):
        streamed(skip_model, project_name=name)
