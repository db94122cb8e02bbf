"""Settings files of any age, and what is wrong with others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import kconvert
from kconvert.converters import keras_to_hls
from kconvert.errors import ConfigError, ConfigWarning, ModelError
from kconvert.optimizers import OPTIONAL, pipeline
from kconvert.optimizers.selection import select_passes
from kconvert.settings_file import MAX_BYTES, as_mapping, read_conversion
from tests.conftest import golden
from tests.light.handmade import write_h5
from tests.light.test_light import images


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_h5(tmp_path / "model.h5")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(text: str) -> kconvert.HLSModel:
    Path("config.yml").write_text(text)
    return kconvert.convert_from_config("config.yml")


# ***** keys *****


def test_old_and_new_spellings_mean_the_same() -> None:
    old = convert(
        """
KerasH5: model.h5
OutputDir: out
ProjectName: old
XilinxPart: xcku115-flvb2104-2-i
ClockPeriod: 5
Backend: Vivado
IOType: io_parallel
HLSConfig:
  Model: {Precision: 'ap_fixed<16,6>', ReuseFactor: 1, Strategy: Latency}
  LayerName:
    output: {Precision: {weight: 'ap_fixed<8,2>', bias: 'ap_fixed<8,2>'}, ReuseFactor: 4, Strategy: Resource}
    output_softmax: {exp_table_t: 'ap_fixed<18,8>', inv_table_t: 'ap_fixed<18,4>', table_size: 2048, Trace: true}
"""
    )
    new = convert(
        """
KerasModel: model.h5
OutputDir: out
ProjectName: old
Part: xcku115-flvb2104-2-i
ClockPeriod: 5.0
ClockUncertainty: 12.5
Backend: Vivado
IOType: io_parallel
HLSConfig:
  Model: {Precision: {default: 'fixed<16,6>'}}
  LayerName:
    output: {Precision: {weight: 'fixed<8,2>', bias: 'fixed<8,2>'}, ReuseFactor: 4, Strategy: resource}
    output_softmax: {Precision: {exp_table: 'fixed<18,8>', inv_table: 'fixed<18,4>'}, TableSize: 2048}
"""
    )
    assert str(old) == str(new)
    assert old["output"].strategy == new["output"].strategy == "Resource"
    assert old["output_softmax"].table_size == new["output_softmax"].table_size == 2048
    assert (old.settings.part, old.settings.uncertainty) == (new.settings.part, "12.5%")
    assert new.settings.clock_uncertainty == "12.5"


@pytest.mark.parametrize("stem", ["KERAS_3layer", "KERAS_conv1d_small", "jetTagger_Conv2D_Small"])
def test_json_and_weights(stem: str) -> None:
    models = golden("example-models") / "keras"
    hls_model = kconvert.convert_from_config(
        {"KerasJson": str(models / f"{stem}.json"), "KerasH5": str(models / f"{stem}_weights.h5")}
    )
    assert hls_model.spec.source == f"{stem}.json"


@pytest.mark.parametrize("name", ["keras-config.yml", "config-files/qkeras_3layer_config.yml"])
def test_settings_of_real_users(name: str) -> None:
    raw = yaml.safe_load((golden("example-models") / name).read_text())
    for key in ("KerasJson", "KerasH5"):
        raw[key] = str(golden("example-models") / raw[key])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfigWarning)
        hls_model = kconvert.convert_from_config(raw)
    hls_model.compile()
    assert hls_model.predict(np.ones((3, 16))).shape == (3, 5)
    assert Path(hls_model.settings.output_dir).name == raw["OutputDir"]


def test_a_dictionary_may_hold_a_live_model() -> None:
    keras = pytest.importorskip("keras", minversion="3")
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="fc")])
    hls_model = keras_to_hls({"KerasModel": model, "ProjectName": "live"})
    assert hls_model.keras_model is model
    assert hls_model.settings.project_name == "live"


def test_the_tag_of_the_peer_and_its_records() -> None:
    with pytest.warns(ConfigWarning, match="WriterConfig has no counterpart here; it is left out"):
        hls_model = convert(
            "KerasModel: !keras_model model.h5\nVersion: 1.3.0\nStamp: 1a\nWriterConfig: {WriteTar: true}\n"
        )
    assert hls_model.spec.source == "model.h5"


def test_test_bench_data_of_any_format() -> None:
    np.savez("in.npz", image=images())
    np.savetxt("out.csv", np.arange(80.0).reshape(20, 4), delimiter=",")
    inputs, outputs = convert("KerasH5: model.h5\nInputData: in.npz\nOutputPredictions: out.csv\n").test_bench_data
    assert np.array_equal(inputs[0], images())
    assert np.array_equal(outputs[0].ravel(), np.arange(80.0))


@pytest.mark.parametrize("suffix", ["keras", "h5", "json"])
def test_what_is_written_is_read_again(suffix: str, folder: Path) -> None:
    text = f"OutputDir: a/b\nInputData: x.npy\nHLSConfig: {{Model: {{ReuseFactor: 2}}}}\nKerasModel: d/m.{suffix}\n"
    Path("one.yml").write_text(text + ("KerasWeights: w.h5\n" if suffix != "h5" else ""))
    first = read_conversion(Path("one.yml"))
    (folder / "deep").mkdir()
    Path("deep/two.yml").write_text(yaml.safe_dump(as_mapping(first, Path("deep"))))
    second = read_conversion("deep/two.yml")

    def resolved(file: Any) -> Any:
        paths = [file.model, file.weights or Path("none"), file.options["output_dir"], file.options["input_data_tb"]]
        return [path.resolve() for path in paths], file.hls_config

    assert resolved(second) == resolved(first)


def test_the_first_files_had_no_hls_config() -> None:
    hls_model = convert("KerasH5: model.h5\nReuseFactor: 2\nDefaultPrecision: ap_fixed<18,8>\n")
    assert hls_model["output"].reuse_factor == 2
    assert str(hls_model["output"].typed("weight")) == "ap_fixed<18,8>"


def test_backends_in_small_letters_and_the_folder_called_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    settings = convert("KerasH5: model.h5\nBackend: vivado\nOutputDir: ~/prj\n").settings
    assert settings.backend == "Vivado"
    assert Path(settings.output_dir) == folder / "home" / "prj"


def test_keys_win_over_those_that_are_merged_in() -> None:
    hls_model = convert(
        """
KerasH5: model.h5
HLSConfig:
  Model: &model {Precision: 'ap_fixed<16,6>', ReuseFactor: 1}
  LayerType:
    Dense: {<<: *model, ReuseFactor: 2}
"""
    )
    assert hls_model["output"].reuse_factor == 2
    assert str(hls_model["output"].typed("weight")) == "ap_fixed<16,6>"


def test_a_name_that_is_not_utf8_is_not_written() -> None:
    with pytest.raises(ConfigError, match="not UTF-8 cannot be written into a settings file"):
        as_mapping(read_conversion({"KerasModel": "caf\udce9.h5"}), Path())


# ***** settings of other tools *****


def test_types_that_the_peer_has_for_every_softmax() -> None:
    softmax = "inv_inp: 'fixed<18,8>', exp_table: 'fixed<18,8,RND,SAT>', table: 'fixed<18,8>', accum: {}"
    text = "KerasH5: model.h5\nHLSConfig: {LayerName: {output_softmax: {Precision: {%s}}}}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfigWarning)
        hls_model = convert(text % softmax.format("auto"))
    assert str(hls_model["output_softmax"].typed("exp_table")) == "ap_fixed<18,8,AP_RND,AP_SAT>"
    with pytest.warns(ConfigWarning, match="LayerName → output_softmax → Precision → accum"):
        convert(text % softmax.format("'fixed<18,8>'"))
    with pytest.raises(ConfigError, match="Precision → recurrent_bias: unknown key"):
        convert(text % "recurrent_bias: 'fixed<18,8>'")
    with pytest.warns(ConfigWarning, match="Model → Precision → maximum: .* it is left out"):
        convert("KerasH5: model.h5\nHLSConfig: {Model: {Precision: {default: 'fixed<16,6>', maximum: 'fixed<32,16>'}}}")


def test_what_other_tools_write_for_every_layer_is_no_mistake() -> None:
    usual = (
        "{Precision: {result: 'fixed<16,6>'}, ReuseFactor: 1, Trace: false, table_size: 1024, table_t: 'fixed<18,8>'}"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfigWarning)
        hls_model = convert(f"KerasH5: model.h5\nHLSConfig: {{LayerName: {{conv_relu: {usual}}}}}\n")
    assert str(hls_model["conv_relu"].result_type) == "ap_fixed<16,6>"


def test_what_has_no_counterpart_is_left_out_with_one_warning() -> None:
    with pytest.warns(ConfigWarning) as caught:
        hls_model = convert(
            """
KerasH5: model.h5
HLSConfig:
  Model: {Precision: 'fixed<16,6>', Compression: true, BramFactor: 1000000000, TraceOutput: false}
  LayerType: {Dense: {Compression: false, ConvImplementation: LineBuffer}}
  LayerName:
    conv: {ParallelizationFactor: 4, ConvImplementation: Encoded, Strategy: compressed}
    conv_relu: {ReuseFactor: 8}
    output_softmax: {Strategy: Stable}
"""
        )
    messages = [str(w.message) for w in caught]
    assert messages == [
        "LayerName → conv → ConvImplementation: Encoded is built as LineBuffer",
        "LayerName → conv → Strategy: compressed is built as Resource",
        "left out, without effect on any result: Model → Compression; Model → BramFactor; LayerName → "
        "conv_relu → ReuseFactor "
        "(no counterpart here, or not that layer's)",
    ]
    assert hls_model["output_softmax"].implementation == "stable"
    conv = hls_model["conv"]
    assert (conv.strategy, conv.parallelization_factor) == ("Resource", 4)


def test_settings_of_hardware_mean_what_they_mean_elsewhere() -> None:
    text = "{Strategy: unrolled, ReuseFactor: 2, ParallelizationFactor: 4, ConvImplementation: LineBuffer}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfigWarning)
        conv = convert(f"KerasH5: model.h5\nHLSConfig: {{LayerName: {{conv: {text}}}}}\n")["conv"]
    assert (conv.strategy, conv.reuse_factor, conv.parallelization_factor) == ("Unrolled", 2, 4)


def test_the_linear_activation_of_the_peer_is_the_layer_itself() -> None:
    text = "{output: {Precision: {result: auto}}, output_linear: {Precision: {result: 'fixed<20,8>'}, Trace: true}}"
    write_h5(Path("model.h5"))
    raw = {"KerasModel": "model.h5", "HLSConfig": {"LayerName": yaml.safe_load(text)}}
    hls_model = kconvert.convert_from_config(raw)
    assert str(hls_model["output"].result_type) == "ap_fixed<20,8>"


# ***** passes *****


def test_a_pass_is_skipped() -> None:
    keras = pytest.importorskip("keras", minversion="3")
    layers = [keras.layers.Input((3,)), keras.layers.Dense(2, name="fc"), keras.layers.BatchNormalization(name="bn")]
    model = keras.Sequential(layers)
    names = {
        "all": None,
        "skipped": {"SkipOptimizers": ["fuse_batch_normalization"]},
        "restricted": {"Optimizers": ["drop_identities"]},
        "named": {"Optimizers": ["fold_batch_normalization", "infer_types"]},
    }
    found = {k: [n.name for n in kconvert.convert_from_keras_model(model, v)] for k, v in names.items()}
    first = found["all"][0]
    assert found == {
        "all": [first, "fc"],
        "skipped": [first, "fc", "bn"],
        "restricted": [first, "fc", "bn"],
        "named": [first, "fc"],
    }


def test_a_model_without_any_optional_pass_answers_the_same() -> None:
    with_all, with_none = (
        kconvert.convert_from_keras_model("model.h5", config) for config in (None, {"Optimizers": []})
    )
    with_all.compile()
    with_none.compile()
    assert np.array_equal(with_all.predict(images()), with_none.predict(images()))


def test_a_project_remembers_its_passes() -> None:
    config = {"SkipOptimizers": ["join_scales"], "Optimizers": ("drop_identities", "join_scales")}
    folder = kconvert.convert_from_keras_model("model.h5", config, output_dir="prj").write()
    assert kconvert.convert_from_config(folder).raw_config == {
        "SkipOptimizers": ["join_scales"],
        "Optimizers": ["drop_identities", "join_scales"],
    }


def test_what_passes_can_be_skipped() -> None:
    assert select_passes(None, ()) == pipeline()
    assert select_passes([], ()) == tuple(p for p in pipeline() if p not in OPTIONAL)
    for step in pipeline():
        if step in OPTIONAL:
            assert step not in select_passes(None, [step.name])
        else:
            with pytest.raises(ConfigError, match=f"{step.name} cannot be skipped"):
                select_passes(None, [step.name])
    with pytest.warns(ConfigWarning, match="SkipOptimizers: fuse_biasadd has no counterpart"):
        assert select_passes(None, ["fuse_biasadd"]) == pipeline()
    with pytest.raises(ConfigError, match=r"unknown pass 'drop_identity'; did you mean 'drop_identities'\?"):
        select_passes(["drop_identity"], ())


# ***** what is wrong *****


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "KerasH5: model.h5\nClockPeriode: 5",
            r"config\.yml: unknown key 'ClockPeriode'; did you mean 'ClockPeriod'\?",
        ),
        ("KerasH5: model.h5\nPart: a\nXilinxPart: b", "Part and XilinxPart mean the same; keep one"),
        ("KerasH5: model.h5\nKerasH5: model.h5", r"the key 'KerasH5' is there twice, again in line 2"),
        ("KerasH5: model.h5\nHLSConfig: {Model: {a: 1, a: 2}}", "the key 'a' is there twice"),
        ("KerasH5: model.h5\nHLSConfig: {Model: {<<: {b: 1}, a: 1, a: 2}}", "the key 'a' is there twice"),
        (
            "KerasH5: model.h5\nReuseFactor: 1\nHLSConfig: {}",
            "ReuseFactor beside HLSConfig; move it there, under Model",
        ),
        ("KerasH5: model.h5\nOutputDir: [a]", r"OutputDir: expected a path, got \['a'\]"),
        ("KerasH5: model.h5\nInputData: {a: 1}", "InputData: expected a path, got {'a': 1}"),
        ('KerasH5: "a\\0.h5"', "cannot be a path"),
        ("OutputDir: x", r"KerasModel is missing \(or KerasH5"),
        ("KerasJson: m.json", "KerasJson is the architecture alone"),
        ("KerasJson: m.json\nKerasModel: m.h5", "both name the model"),
        ("KerasModel: m.json\nKerasH5: m.h5\nKerasWeights: m.h5", "both name the weights"),
        ("KerasModel: m.json\nKerasH5: [1]", r"KerasH5: expected a path, got \[1\]"),
        ("OnnxModel: m.onnx", "OnnxModel: only Keras models convert"),
        ("KerasH5: model.h5\nHLSConfig: 3", "HLSConfig: expected a mapping, got int 3"),
        ("KerasH5: model.h5\nHLSConfig: {Modell: {}}", r"hls_config → Modell: unknown key; did you mean 'Model'\?"),
        ("KerasH5: model.h5\nHLSConfig: {Model: {Precision: {wieght: 'fixed<8,2>'}}}", "Precision → wieght"),
        ("KerasH5: model.h5\nHLSConfig: {LayerName: {conv: {Precison: {}}}}", r"LayerName → conv → Precison: unknown"),
        ("KerasH5: model.h5\nHLSConfig: {LayerName: {cnv: {}}}", r"did you mean 'conv'\?"),
        ("KerasH5: model.h5\nHLSConfig: {Optimizers: {a: 1}}", "Optimizers: expected a list of names"),
        ("KerasH5: model.h5\nIOType: io_serial", "'io_serial'"),
        ("KerasH5: model.h5\nBackend: 3", "Backend: expected text, got 3"),
        ("KerasH5: !!python/object/apply:os.system ['touch done']", "is not valid YAML.*could not determine a constr"),
        ("a: &a [1,1]\nb: &b [*a,*a]\nKerasH5: &c [*b, *c]", "its aliases .* come to more than"),
        ("[" * 5000, "is not valid YAML"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(text)
    assert not Path("done").exists()


def test_a_precision_role_that_no_layer_has_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Model → Precision → wieght: unknown key; did you mean 'weight'\?"):
        kconvert.convert_from_keras_model("model.h5", {"Model": {"Precision": {"wieght": "fixed<8,2>"}}})


def test_a_setting_of_a_type_is_for_those_layers_that_take_it() -> None:
    keras = pytest.importorskip("keras", minversion="3")
    layers = [keras.layers.Input((3,)), *(keras.layers.Activation(a, name=a) for a in ("relu", "sigmoid"))]
    config = {"LayerType": {"Activation": {"table_size": 64}}}
    hls_model = kconvert.convert_from_keras_model(keras.Sequential(layers), config)
    assert hls_model["sigmoid"].table_size == 64
    with pytest.raises(ConfigError, match="LayerType → Activation → Implementation: a Relu layer has no such setting"):
        kconvert.convert_from_keras_model(
            keras.Sequential(layers), {"LayerType": {"Activation": {"Implementation": "stable"}}}
        )


def test_files_that_are_none() -> None:
    Path("large.yml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match=r"large\.yml is larger than 1 MiB"):
        kconvert.convert_from_config("large.yml")
    Path("bytes.yml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        kconvert.convert_from_config("bytes.yml")
    with pytest.raises(ConfigError, match=r"cannot read .*kconvert_config\.yml"):
        kconvert.convert_from_config(".")
    with pytest.raises(ModelError, match="does not exist"):
        convert("KerasH5: nothing.h5")
