"""Folders of strangers: nothing is opened or fetched, absurd sizes end before memory is taken, in one line each."""

from __future__ import annotations

import json
import os
import shutil
import struct

import pytest
import safetensors.torch
import timm
import torch
import torchvision

import metric_zoo as mz


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    mz.save(mz.create_model("test_resnet", num_classes=3), folder / "model")
    return folder / "model"


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def no_reading(monkeypatch):
    """What opens or fetches weights must not be called."""

    def refuse(*arguments, **options):
        raise AssertionError(f"asked for {arguments}")

    for module, name in (
        (timm.models._factory, "load_checkpoint"),
        (timm.models._factory, "load_model_config_from_hf"),
        (timm.models._factory, "load_model_config_from_path"),
        (timm.models._builder, "load_pretrained"),
        (torch.hub, "load_state_dict_from_url"),
        (torchvision.models._api, "load_state_dict_from_url"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, refuse)


def describe(folder, **model):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model": {**config["model"], **model}}))


def one_line(folder) -> str:
    with pytest.raises(mz.ConversionError) as raised:
        mz.load(folder)
    text = str(raised.value)
    assert "\n" not in text and len(text) < 900
    return text


OPTIONS = {
    "checkpoint_path": "{marker}",
    "pretrained": True,
    "pretrained_cfg": {"file": "{marker}"},
    "pretrained_cfg_overlay": {"url": "http://localhost/weights"},
    "cache_dir": "{marker}",
    "weights_backbone": "DEFAULT",
    "weights": "DEFAULT",
    "pretrained_backbone": True,
    "quantize": True,
    "pruned": True,
    "kwargs": {"num_classes": 3},
    "device": "cuda",
    "": 1,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_shape_no_network_are_refused(option, folder, no_reading, tmp_path):
    value = json.loads(json.dumps(OPTIONS[option]).replace("{marker}", str(tmp_path / "marker")))
    describe(folder, options={"num_classes": 3, option: value})
    assert "options that shape a network" in one_line(folder)


VALUES = {
    "classes-without-end": ({"num_classes": 10**12}, "num_classes=1000000000000"),
    "classes-of-1000-bits": ({"num_classes": 2**1000}, "more than 30 digits"),
    "classes-of-5000-bits": ({"num_classes": 2**5000}, "1506 digits"),
    "classes-below-none": ({"num_classes": -3}, "fc.bias has shape"),
    "classes-that-fit-no-file": ({"num_classes": 10**7}, "fc.bias has shape"),
    "classes-of-text": ({"num_classes": "three"}, "cannot be built"),
    "classes-of-a-list": ({"num_classes": [3]}, "cannot be built"),
    "channels-of-a-table": ({"in_chans": {"a": 1}}, "in_chans={'a': 1}"),
    "channels-of-a-million": ({"in_chans": 10**6}, "in_chans=1000000"),
    "blocks-of-a-million": ({"layers": [10**6] * 4}, "layers=1000000"),
    "a-list-of-a-million": ({"channels": [1] * 10**6}, "short lists"),
    "lists-in-lists": ({"channels": [[[[[1]]]]]}, "short lists"),
    "a-path": ({"act_layer": "../act"}, "act_layer='../act'"),
    "an-address": ({"act_layer": "http://localhost"}, "act_layer='http"),
    "an-unknown-word": ({"act_layer": "frelu"}, "cannot be built"),
    "no-number": ({"drop_rate": 1e999}, "is not a configuration"),
    "options-of-a-list": ([], "'options' is \\[\\]"),
}


@pytest.mark.parametrize(("options", "message"), VALUES.values(), ids=VALUES)
def test_implausible_values_end_in_one_line(options, message, folder, no_reading):
    describe(folder, options=options)
    with pytest.raises(mz.ConversionError, match=message):
        mz.load(folder)
    one_line(folder)


def test_a_number_that_json_reads_as_infinite_is_refused(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"num_classes": 3', '"drop_rate": 1e999'))
    assert "drop_rate=inf" in one_line(folder)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "hf-hub:someone/test_resnet"},
        {"name": "local-dir:/tmp"},
        {"name": "../test_resnet"},
        {"name": "test_resnet.../../x"},
        {"name": "test_resnet.no_such_tag"},
        {"name": "test_resnet/test_resnet"},
        {"name": ["test_resnet"]},
        {"name": None},
        {"name": "metric_test_resnet"},
        {"source": "torch.hub"},
        {"source": ["timm"]},
        {"source": "torchvision"},
        {"name": "swin_t", "source": "timm"},
    ],
    ids=str,
)
def test_only_registered_architectures_have_names(model, folder, no_reading):
    mz.register()
    describe(folder, **model)
    assert "does not describe an architecture" in one_line(folder)


def test_a_detector_fetches_no_backbone(tmp_path, no_reading):
    options = {"num_classes": 2, "min_size": 64, "max_size": 96}
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    model = mz.create_model(name, "standard", source="torchvision", weights_backbone=None, **options)
    mz.save(model, tmp_path)
    loaded = mz.load(tmp_path)
    assert loaded.transform.min_size == (64,) and loaded.transform.max_size == 96
    describe(tmp_path, options={**options, "weights_backbone": "DEFAULT"})
    assert "weights_backbone" in one_line(tmp_path)


CONFIGS = {
    "deep": '{"format_version": 1, "model": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "digits": '{"format_version": ' + "9" * 6000 + "}",
    "large": '{"format_version": 1, "note": "' + "x" * 2**24 + '"}',
    "a-list": "[1]",
    "a-number": "3",
    "empty": "",
    "NaN": '{"format_version": NaN}',
    "version-0": '{"format_version": 0}',
    "version-true": '{"format_version": true}',
    "version-text": '{"format_version": "1"}',
    "bytes": "\udcff\udcfe",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_are_none(text, folder):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    one_line(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(name, make, folder):
    (folder / name).unlink()
    make(folder / name)
    one_line(folder)


def header(text: str, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text.encode()


WEIGHTS = {
    "no-length": b"\x01",
    "longer-than-the-file": header("{}", 10**6),
    "longer-than-memory": header("{}", 2**63),
    "no-json": header("{{{"),
    "deep": header('{"a":' + "[" * 50_000 + "]" * 50_000 + "}"),
    "beyond-the-end": header('{"fc.bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'),
    "shape-without-end": header('{"fc.bias":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
    "below-zero": header('{"fc.bias":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}'),
    "unknown-dtype": header('{"fc.bias":{"dtype":"X7","shape":[0],"data_offsets":[0,0]}}'),
    "no-tensors": header("{}"),
}


@pytest.mark.parametrize("content", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_lie(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    assert "cannot be loaded" in one_line(folder)


STATES = {
    "integers": (lambda s: s | {"fc.bias": torch.zeros(3, dtype=torch.int64)}, "fc.bias is torch.int64"),
    "no-integers": (
        lambda s: s | {"bn1.num_batches_tracked": torch.tensor(0.5)},
        "num_batches_tracked is torch.float32",
    ),
    "one-missing": (lambda s: {k: v for k, v in s.items() if k != "fc.bias"}, "1 tensors .* missing, fc.bias"),
    "one-more": (lambda s: s | {"fc.more": torch.zeros(1)}, "fc.more has shape"),
    "another-shape": (lambda s: s | {"fc.bias": torch.zeros(4)}, "fc.bias has shape"),
}


@pytest.mark.parametrize(("change", "message"), STATES.values(), ids=STATES)
def test_nothing_is_loaded_half(change, message, folder):
    """Into a model that was given, too: its weights, convolutions and dtype stay."""
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path)
    with pytest.raises(mz.ConversionError, match=message):
        mz.load(folder)
    model = timm.create_model("test_resnet", num_classes=3).double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(mz.ConversionError, match=message):
        mz.load(folder, model=model)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert after["fc.bias"].dtype is torch.float64


def test_half_weights_in_a_folder_of_floats_are_loaded_as_they_are(folder):
    path = folder / "model.safetensors"
    state = {key: value.half() if value.is_floating_point() else value for key, value in
             safetensors.torch.load_file(path).items()}  # fmt: skip
    safetensors.torch.save_file(state, path)
    loaded = mz.load(folder)
    assert torch.equal(loaded.fc.weight, state["fc.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_kernel_size": 10**9}, "head_kernel_size=1000000000"),
        ({"metric_groups": 2**40}, "metric_groups"),
        ({"scale": [1e999, 1]}, "scale"),
        ({"head_kernel_size": 4001}, "has shape"),
    ],
    ids=str,
)
def test_implausible_layers(options, message, folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["layers"]["layer1.0.conv1"]["options"] |= options
    path.write_text(json.dumps(config).replace("Infinity", "1e999"))
    assert message in one_line(folder)


def test_implausible_preprocessing(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for fields in ([1], {"mean": "grey"}, {"input_size": [3, 10**9, 10**9]}, {"interpolation": "../x"}):
        path.write_text(json.dumps({**config, "preprocessing": fields}))
        assert "preprocessing" in one_line(folder)


def test_preprocessing_names_no_weights(folder, no_reading):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["preprocessing"] |= {"url": "http://localhost/x", "file": "/etc/hostname", "hf_hub_id": "a/b", "source": "x"}
    path.write_text(json.dumps(config))
    cfg = mz.load(folder).pretrained_cfg
    assert "file" not in cfg and cfg["hf_hub_id"] == "timm/test_resnet.r160_in1k"


def test_other_files_are_not_touched(folder):
    (folder / "pytorch_model.bin").write_bytes(b"junk")
    os.mkfifo(folder / "training_args.bin")
    assert mz.load(folder).fc.out_features == 3
