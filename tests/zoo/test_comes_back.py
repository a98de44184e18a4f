"""Everything that `create_model` was given comes back: options that leave no trace, and the tag's preprocessing."""

from __future__ import annotations

import json
import warnings

import pytest
import timm
import torch
import torchvision
from timm.data import resolve_model_data_config
from torch import nn

import metric_zoo as mz

X = torch.rand(1, 3, 64, 64)


@pytest.fixture(scope="module", autouse=True)
def _registered():
    mz.register()


def round_trip(model: nn.Module, folder) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mz.save(model, folder)
    return mz.load(folder)


WAYS = {
    "timm, then convert": lambda name, **options: mz.convert(timm.create_model(name, **options), "shifted"),
    "create_model": lambda name, **options: mz.create_model(name, "shifted", **options),
    "registry": lambda name, **options: timm.create_model(f"shifted_{name}", **options),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("tag", ["resnet18.tv_in1k", "mobilenetv3_small_100.lamb_in1k", "test_efficientnet.r160_in1k"])
def test_a_tag_keeps_its_preprocessing(way, tag, tmp_path):
    """timm's own resolution is the judge."""
    model = way(tag, num_classes=3)
    loaded = round_trip(model, tmp_path)
    plain = timm.create_model(tag, num_classes=3)
    for test_size in (False, True):
        expected = resolve_model_data_config(plain, use_test_size=test_size)
        assert resolve_model_data_config(loaded, use_test_size=test_size) == expected
    assert loaded.pretrained_cfg["tag"] == model.pretrained_cfg["tag"]
    assert mz.explain.Look.of(loaded) == mz.explain.Look.of(plain)


CHANGED = {
    "mean": (0.1, 0.2, 0.3),
    "std": (0.5, 0.6, 0.7),
    "crop_pct": 0.5,
    "interpolation": "nearest",
    "input_size": (3, 96, 128),
    "test_input_size": None,
    "label_names": ("tench", "goldfish, a “fish”"),
    "label_descriptions": {"n01440764": "a tench"},
}


@pytest.mark.parametrize("way", ["overlay", "dict", "later", "given"])
def test_another_preprocessing_comes_back(way, tmp_path):
    """From an overlay, from a dict of one's own, changed after creation; also into an architecture that is given."""
    name, cfg = "test_resnet", {"architecture": "test_resnet", "num_classes": 1000, **CHANGED}
    if way in ("overlay", "given"):
        model = mz.create_model(name, pretrained_cfg_overlay=CHANGED)
    elif way == "dict":
        model = mz.create_model(name, pretrained_cfg=cfg)
    else:
        model = mz.create_model(name)
        model.pretrained_cfg.update(CHANGED)
    loaded = round_trip(model, tmp_path)
    if way == "given":
        loaded = mz.load(tmp_path, model=timm.create_model(name))
    assert resolve_model_data_config(loaded) == resolve_model_data_config(model)
    assert {key: loaded.pretrained_cfg.get(key) for key in CHANGED} == CHANGED
    assert mz.explain.Look.of(loaded).mean == CHANGED["mean"]
    again = round_trip(loaded, tmp_path / "again")
    assert again.pretrained_cfg["mean"] == CHANGED["mean"]


def test_no_place_of_weights_is_written(tmp_path):
    """Whose folder it is may be private."""
    model = timm.create_model("test_resnet", pretrained_cfg_overlay={"file": "/secret/place", "url": "http://secret"})
    mz.save(mz.convert(model), tmp_path)
    assert "secret" not in (tmp_path / "config.json").read_text()


def drops(model: nn.Module) -> list[float]:
    return [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]


OPTIONS = {
    "drop_rate": ("resnet10t", {"drop_rate": 0.3}, lambda m: m.drop_rate),
    "drop_path_rate": ("resnet10t", {"drop_path_rate": 0.2}, drops),
    "global_pool": ("resnet10t", {"global_pool": "max"}, lambda m: m.global_pool.pool_type),
    "no pool": ("resnet10t", {"global_pool": "", "num_classes": 0}, lambda m: m(X).shape),
    "act_layer": ("resnet10t", {"act_layer": "silu"}, lambda m: type(m.act1)),
    "norm_layer": ("resnet18", {"norm_layer": "groupnorm"}, lambda m: type(m.bn1)),
    "channels": ("resnet10t", {"channels": [8, 16, 24, 32]}, lambda m: m.num_features),
    "output_stride": ("resnet10t", {"output_stride": 8}, lambda m: m.forward_features(X).shape),
    "features": ("resnet10t", {"features_only": True, "out_indices": (1, 3)}, lambda m: [f.shape for f in m(X)]),
    "features by hook": ("resnet10t", {"features_only": True, "feature_cls": "hook"}, lambda m: len(m(X))),
    "channels of the image": ("resnet10t", {"in_chans": 1}, lambda m: m.conv1[0].in_channels),
    "image size": ("coatnet_pico_rw_224", {"img_size": 96}, lambda m: m(torch.zeros(1, 3, 96, 96)).shape),
    "exportable": ("mobilenetv3_small_050", {"exportable": True}, lambda m: type(m.act2)),
}


TRIED = [("timm, then convert", row) for row in OPTIONS]
TRIED += [(way, row) for way in ("create_model", "registry") for row in ("drop_rate", "features", "exportable")]


@pytest.mark.parametrize(("way", "row"), TRIED)
def test_options_come_back(way, row, tmp_path):
    name, options, told = OPTIONS[row]
    model = WAYS[way](name, **{"num_classes": 3, **options}).eval()
    loaded = round_trip(model, tmp_path)
    assert told(loaded) == told(model) and type(loaded) is type(model)


CHANGES = {
    "classes": lambda m: m.reset_classifier(7),
    "classes and pool": lambda m: m.reset_classifier(7, "avg"),
    "dropout": lambda m: setattr(m, "drop_rate", 0.4),
}


def test_what_timm_s_own_methods_change_comes_back(tmp_path):
    model = mz.create_model("test_vit", "standard", num_classes=3, global_pool="token")
    model.set_input_size(96)
    model.reset_classifier(5, "avg")
    loaded = round_trip(model.eval(), tmp_path)
    image = torch.rand(1, 3, 96, 96)
    assert loaded.global_pool == "avg" and torch.equal(loaded(image), model(image))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_settings_changed_after_creation_come_back(change, tmp_path):
    model = mz.create_model("resnet10t", num_classes=3, drop_rate=0.1, where="last")
    change(model)
    loaded = round_trip(model, tmp_path)
    assert (loaded.num_classes, loaded.drop_rate) == (model.num_classes, model.drop_rate)
    assert loaded.fc.out_features == model.fc.out_features


DETECTOR = {"num_classes": 2, "min_size": 64, "max_size": 96, "box_score_thresh": 0.25, "rpn_post_nms_top_n_test": 7}
TORCHVISION = {
    "dropout": ("mobilenet_v2", {"dropout": 0.45}, lambda m: m.classifier[0].p),
    "transform_input": ("inception_v3", {"transform_input": True, "init_weights": False}, lambda m: m.transform_input),
    "width": ("mobilenet_v2", {"width_mult": 0.5}, lambda m: m.features[0][0].out_channels),
    "detector": (
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        DETECTOR,
        lambda m: (m.transform.min_size, m.roi_heads.score_thresh, m.rpn.post_nms_top_n()),
    ),
}


@pytest.mark.parametrize(("name", "options", "told"), TORCHVISION.values(), ids=TORCHVISION)
@pytest.mark.parametrize("registry", [False, True], ids=["create_model", "registry"])
def test_torchvision_s_options_come_back(registry, name, options, told, tmp_path):
    options = {"num_classes": 3, **options}
    if registry and name.startswith("fasterrcnn"):
        pytest.skip("the registry is torchvision's, and fetches a backbone")
    where = "rpn.head.conv.*" if name.startswith("fasterrcnn") else "last"
    model = (
        torchvision.models.get_model(f"shifted_{name}", where=where, **options)
        if registry
        else mz.create_model(name, "shifted", source="torchvision", where=where, **options)
    ).eval()
    assert told(round_trip(model, tmp_path)) == told(model)


IMPLIED = {
    "googlenet": ("inception5b.*", lambda m: (m.transform_input, m.aux_logits)),
    "lraspp_mobilenet_v3_large": ("backbone.15.*", lambda m: m.classifier.low_classifier.out_channels),
}


@pytest.mark.parametrize("name", IMPLIED)
def test_what_torchvision_s_weights_imply_comes_back(name, tmp_path, monkeypatch):
    """The network that pretrained weights ask for, here weights that are drawn."""
    where, told = IMPLIED[name]
    weights = torchvision.models.get_model_weights(name)
    options = {"init_weights": False} if name == "googlenet" else {"weights_backbone": None, "num_classes": 21}
    plain = torchvision.models.get_model(name, weights=None, **options)
    monkeypatch.setattr(weights, "get_state_dict", lambda self, *a, **k: plain.state_dict())
    model = mz.create_model(name, "shifted", source="torchvision", pretrained=True, where=where).eval()
    loaded = round_trip(model, tmp_path)
    assert told(loaded) == told(model)
    outputs = (torch.utils._pytree.tree_leaves(m(X)) for m in (model, loaded))
    assert all(map(torch.equal, *outputs))


def test_networks_made_to_be_quantized_are_floats_still(tmp_path):
    model = mz.create_model("quantized_resnet18", "shifted", source="torchvision", num_classes=3, where="last").eval()
    assert torch.equal(round_trip(model, tmp_path)(X), model(X))


def test_what_cannot_be_written_is_said(tmp_path):
    model = mz.create_model("resnet10t", num_classes=3, act_layer=nn.SiLU)
    with pytest.warns(UserWarning, match="act_layer=<class"):
        mz.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model"] is None


def test_folders_without_a_preprocessing_load(tmp_path):
    """As written before there was one."""
    model = mz.create_model("test_resnet.r160_in1k", num_classes=3).eval()
    mz.save(model, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["preprocessing"]
    path.write_text(json.dumps(config))
    assert torch.equal(mz.load(tmp_path)(X), model(X))
