"""Models by name, in the registries, and on disk."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import safetensors.torch
import timm
import torch
import torchvision

import metric_zoo as mz
from metric_zoo.nn.kind import kind_of
from tests.kinds import EVERY, LOSSLESS, takes_dense


@pytest.fixture(scope="module", autouse=True)
def _registered():
    mz.register()
    mz.register()  # a second call does nothing


def kinds_of(model) -> set[str]:
    return {m.kind for m in model.modules() if kind_of(m)}


@pytest.mark.parametrize("kind", EVERY)
def test_both_registries_build_every_kind(kind):
    names, options = ("resnet18", "resnet18"), {}
    if not takes_dense(kind):
        names = ("test_convnext", "convnext_tiny")
        where = "stages.2.blocks.0.conv_dw|features.1.0.block.0"
        options = {"where": where, "steps": 1, "max_error": 1e9, "min_speedup": 0}
    ours = timm.create_model(f"{kind}_{names[0]}", num_classes=7, in_chans=1, **options)
    assert kinds_of(ours) == {kind} and ours(torch.rand(1, 1, 64, 64)).shape == (1, 7)
    theirs = torchvision.models.get_model(f"{kind}_{names[1]}", num_classes=7, **options)
    assert kinds_of(theirs) == {kind} and theirs.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.filterwarnings("error")
def test_sparse_kernels_come_back_under_their_names(tmp_path):
    """Their options are not the network's, whichever way they were given."""
    options = {"layers": 2, "steps": 1, "max_error": 1e9, "min_speedup": 0, "where": "stages.2.blocks.0.conv_dw"}
    mz.save(timm.create_model("sparse_test_convnext", num_classes=3, **options), tmp_path / "registry")
    mz.save(mz.create_model("test_convnext", to="sparse", num_classes=3, **options), tmp_path / "ours")
    for folder in ("registry", "ours"):
        loaded = mz.load(tmp_path / folder)
        assert kinds_of(loaded) == {"sparse"} and loaded(torch.rand(1, 3, 64, 64)).shape == (1, 3)
        assert loaded.stages[2].blocks[0].conv_dw.config.layers == 2
    assert "sparse_convnext_tiny" in mz.list_models("convnext*", to="sparse", source="torchvision")


def test_registries_list_them():
    listed = timm.list_models("metric_*")
    assert "metric_resnet50" in listed and len(listed) == len(timm.list_models(module="metric"))
    assert len(listed) > 1000
    assert "metric_resnet50" in torchvision.models.list_models()
    assert mz.list_models("resnet50", to="shifted") == ["shifted_resnet50"]
    assert set(mz.list_models("resnet*")) <= set(listed)
    with pytest.raises(mz.ConversionError, match="keep their own names"):
        mz.list_models(to="standard")
    assert "deformable_fasterrcnn_resnet50_fpn" in mz.list_models(to="deformable", source="torchvision")


def test_options_and_pretrained_tags_reach_the_model():
    model = timm.create_model("metric_resnet18.a1_in1k", pretrained=False, eps_omega=1.0, where="layer4.*conv2")
    assert model.layer4[0].conv2.config.eps_omega == 1.0
    assert type(model.layer3[0].conv2) is torch.nn.Conv2d
    assert model.pretrained_cfg["tag"] == "a1_in1k"


def test_torchvision_finds_the_weights():
    assert torchvision.models.get_model_weights("metric_resnet50") is torchvision.models.ResNet50_Weights


def test_pretrained_weights_load_from_a_file(tmp_path):
    """The loading code of timm runs, on a local file instead of the hub."""
    source = timm.create_model("resnet18")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    model = timm.create_model("metric_resnet18", pretrained=True, pretrained_cfg_overlay=overlay)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model.eval()(x), source.eval()(x), rtol=1e-4, atol=1e-5)


def test_registries_list_the_tags():
    """As timm lists those of the originals; the weights are the originals' too."""
    for name in ("resnet18", "vgg11", "convnext_atto", "test_resnet"):
        for kind in ("metric", "active"):
            ours, theirs = f"{kind}_{name}", name
            assert timm.list_pretrained(f"{ours}*") == [f"{kind}_{tag}" for tag in timm.list_pretrained(f"{theirs}*")]
            listed = timm.list_models(ours, pretrained=True)
            assert listed == [f"{kind}_{tag}" for tag in timm.list_models(theirs, pretrained=True)] and listed
            for tag in listed:
                cfg = timm.models.get_pretrained_cfg(tag)
                assert cfg == timm.models.get_pretrained_cfg(tag.removeprefix(f"{kind}_"))
                assert timm.models.is_model_pretrained(tag)
    assert timm.models.is_model_pretrained("metric_resnet18")
    assert not timm.models.is_model_pretrained("metric_resnet18.x")
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model("metric_resnet18.x")
    assert timm.list_pretrained("shifted_resnet18.tv*") == ["shifted_resnet18.tv_in1k"]
    assert timm.models.get_pretrained_cfg_value("metric_resnet18.tv_in1k", "interpolation") == "bilinear"


def test_tags_do_not_become_models_of_the_plain_registry():
    """`register` a second time, and the lists of names, see originals only."""
    assert not any("." in name for name in mz.list_models("*", to="metric"))
    mz.register()
    assert timm.list_pretrained("metric_metric_*") == []


def test_a_wrong_tag_is_one_line():
    with pytest.raises(mz.ConversionError, match="resnet18 has no tag 'a9_in1k'; did you mean"):
        mz.create_model("resnet18.a9_in1k")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A network and its checkpoint."""
    source = timm.create_model("test_resnet", num_classes=3).eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("plain") / "plain.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, path)
    return source, path


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_plain_checkpoint_is_loaded_at_creation(kind, plain):
    source, path = plain
    model = timm.create_model(f"{kind}_test_resnet", num_classes=3, checkpoint_path=path).eval()
    x = torch.rand(1, 3, 64, 64)
    assert kinds_of(model) == {kind}
    torch.testing.assert_close(model(x), source(x))


def test_a_checkpoint_of_the_converted_model_is_loaded_strictly(tmp_path):
    source = trained(timm.create_model("metric_test_resnet", num_classes=3))
    state = source.state_dict()
    torch.save(state, tmp_path / "whole.pth")
    model = timm.create_model("metric_test_resnet", num_classes=3, checkpoint_path=tmp_path / "whole.pth").eval()
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(x), source(x))
    former = {key.replace(".sampler.", ".head."): value for key, value in state.items()}
    torch.save(former, tmp_path / "former.pth")
    model = timm.create_model("metric_test_resnet", num_classes=3, checkpoint_path=tmp_path / "former.pth").eval()
    assert torch.equal(model(x), source(x))


def first_head(state: dict) -> str:
    return next(key for key in state if ".sampler." in key)


def plainly(state: dict) -> dict:
    return {key: value for key, value in state.items() if ".sampler." not in key}


WRONG = {
    "one head less": (lambda s: {k: v for k, v in s.items() if k != first_head(s)}, "Missing key.*sampler"),
    "one head only": (
        lambda s: {**plainly(s), first_head(s): s[first_head(s)]},
        "Missing key",
    ),
    "no classifier": (lambda s: {k: v for k, v in plainly(s).items() if k != "fc.bias"}, "fc.bias"),
    "something more": (
        lambda s: {**plainly(s), "more": s["fc.bias"]},
        "more",
    ),
    "another size": (lambda s: {**s, "fc.bias": torch.zeros(4)}, "size mismatch"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_checkpoints_still_fail(change, message, tmp_path):
    state = timm.create_model("metric_test_resnet", num_classes=3).state_dict()
    torch.save(change(state), tmp_path / "wrong.pth")
    with pytest.raises(RuntimeError, match=message):
        timm.create_model("metric_test_resnet", num_classes=3, checkpoint_path=tmp_path / "wrong.pth")


def test_trained_rules_are_not_mixed_with_a_plain_checkpoint(plain):
    source, _ = plain
    model = trained(timm.create_model("metric_test_resnet", num_classes=3))
    with pytest.raises(RuntimeError, match="Missing key.*sampler"):
        model.load_state_dict(source.state_dict())


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.create_model("metric_test_resnet", scriptable=True),
        lambda: mz.create_model("test_resnet", scriptable=True),
        lambda: mz.create_model("test_resnet", "standard", scriptable=True, where="last"),
    ],
    ids=["registry", "create_model", "create_model, where"],
)
def test_scriptable_is_refused_at_creation(make):
    with pytest.raises(mz.ConversionError, match="scriptable=True: .*torch.jit.trace, torch.export or torch.compile"):
        make()


def test_the_context_of_scriptable_layers_is_seen():
    model = timm.create_model("test_resnet")
    with timm.layers.set_scriptable(True), pytest.raises(mz.ConversionError, match="scriptable=True"):
        mz.convert(model)
    with timm.layers.set_layer_config(scriptable=True), pytest.raises(mz.ConversionError, match="scriptable=True"):
        torchvision.models.get_model("metric_resnet18")
    assert kinds_of(mz.convert(model)) == {"metric"}
    assert not kinds_of(mz.create_model("test_resnet", "standard", scriptable=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "layer", [mz.nn.MetricConv2d(2, 2, 3), mz.nn.SparseKernelComplex2d(2, 7)], ids=["metric", "sparse"]
)
def test_torch_jit_script_says_what_to_do(layer):
    with pytest.raises(mz.MetricZooError, match=f"{type(layer).__name__}: use torch.jit.trace"):
        torch.jit.script(torch.nn.Sequential(torch.nn.ReLU(), layer))


def test_registration_is_quick():
    """The budget of processor time, after the registries are loaded."""
    code = (
        "import time, timm, torchvision, metric_zoo as mz; import metric_zoo.zoo\n"
        "start = time.process_time(); mz.register(); print(time.process_time() - start)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 0.5


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet5000",), {}, "timm has no model 'resnet5000'; did you mean"),
        (("resnet18",), {"source": "torchub"}, "source='torchub'"),
        (("resnt18",), {"source": "torchvision"}, "torchvision has no model 'resnt18'; did you mean 'resnet18'"),
        (("resnet18", "metrik"), {}, "unknown kind 'metrik'"),
        (("resnet18",), {"where": "nothing"}, "matches none"),
        (("resnet18",), {"eps_omga": 0.5}, "has an option 'eps_omga'; did you mean 'eps_omega'"),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises(mz.MetricZooError, match=message):
        mz.create_model(*arguments, **options)


SAVED = {
    "create-timm": lambda: mz.create_model("resnet18", "metric", num_classes=3, in_chans=1, eps_omega=0.1),
    "create-torchvision": lambda: mz.create_model("mobilenet_v2", "modulated", source="torchvision", num_classes=3),
    "registry": lambda: timm.create_model("shifted_tf_efficientnet_b0", num_classes=3),
    "registry-torchvision": lambda: torchvision.models.get_model("active_resnet18", num_classes=3),
    "plain-timm": lambda: mz.convert(timm.create_model("nf_regnet_b1", num_classes=3), to="deformable"),
    "polar": lambda: mz.create_model("resnet18", "metric", num_classes=3, sampling="polar", init="uniform"),
    "standard": lambda: mz.create_model("resnet18", "standard", num_classes=3),
}


def trained(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter and statistic moved."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("make", SAVED.values(), ids=SAVED)
def test_save_and_load(make, tmp_path):
    model = trained(make())
    mz.save(model, tmp_path / "model")
    loaded = mz.load(tmp_path / "model")
    channels = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)).in_channels
    x = torch.rand(1, channels, 64, 64)
    assert torch.equal(loaded(x), model(x))
    assert type(loaded) is type(model) and kinds_of(loaded) == kinds_of(model)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_folders_of_the_former_submodule_name_load(tmp_path):
    """What predicts the sampling was called ``head`` in folders written before."""
    model = trained(mz.create_model("resnet10t", num_classes=3, head="separable"))
    mz.save(model, tmp_path)
    path = tmp_path / "model.safetensors"
    state = safetensors.torch.load_file(path)
    former = {name.replace(".sampler.", ".head."): tensor for name, tensor in state.items()}
    assert former.keys() != state.keys()
    safetensors.torch.save_file(former, path, {"format": "pt"})
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(mz.load(tmp_path)(x), model(x))


def test_a_model_of_ones_own_needs_its_architecture(tmp_path):
    make = lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))  # noqa: E731
    model = trained(mz.convert(make(), example_input=torch.rand(1, 3, 16, 16)))
    mz.save(model, tmp_path)
    with pytest.raises(mz.ConversionError, match="does not name its architecture"):
        mz.load(tmp_path)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(mz.load(tmp_path, model=make())(x), model(x))


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_unknown_keys_are_tolerated_newer_formats_refused(tmp_path):
    model = trained(mz.create_model("resnet18", num_classes=3))
    mz.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    layers = {n: {**e, "colour": 1, "options": {**e["options"], "unheard_of": 2}} for n, e in config["layers"].items()}
    change(tmp_path, note="from the future", layers=layers)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(mz.load(tmp_path)(x), model(x))
    change(tmp_path, format_version=99)
    with pytest.raises(mz.ConversionError, match="format 99"):
        mz.load(tmp_path)


DAMAGE = [
    (lambda f: (f / "config.json").unlink(), "does not exist"),
    (lambda f: (f / "config.json").write_text("{"), "is not a configuration"),
    (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
    (lambda f: (f / "model.safetensors").write_bytes(b"junk"), "cannot be loaded"),
    (lambda f: change(f, layers={"layer9": {"kind": "metric"}}), "no ordinary convolution 'layer9'"),
    (lambda f: change(f, layers={"layer1.0.conv1": {"kind": "magic"}}), "unknown kind 'magic'"),
    (lambda f: change(f, layers={}), "cannot be loaded"),
    (lambda f: change(f, layers=[]), "'layers' is"),
    (lambda f: change(f, layers={"layer1.0.conv1": {"kind": "metric", "options": None}}), "expected its kind"),
    (lambda f: change(f, layers={"layer1.0.conv1": {"kind": "metric", "options": {"scale": 5}}}), "scale=5"),
    (lambda f: change(f, dtype="float99"), "dtype 'float99'"),
    (lambda f: change(f, model={"source": "timm"}), "does not describe an architecture"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[m for _, m in DAMAGE])
def test_damaged_folders_are_named(damage, message, tmp_path):
    mz.save(mz.create_model("resnet18", num_classes=3), tmp_path)
    damage(tmp_path)
    with pytest.raises(mz.ConversionError, match=message):
        mz.load(tmp_path)


CHANGES = {
    "strides": lambda m: [setattr(c, "stride", (1, 1)) for c in (m.layer2[0].conv1, m.layer2[0].downsample[0])],
    "an activation": lambda m: setattr(m.layer1[0], "act1", torch.nn.SiLU()),
    "a block less": lambda m: setattr(m, "layer4", m.layer4[:1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_the_name_does_not_tell_is_found_out(change, tmp_path):
    """Also where every key and shape agree: other strides, another activation."""

    def make() -> torch.nn.Module:
        model = timm.create_model("resnet18", num_classes=3)
        change(model)
        return model.eval()

    model = mz.convert(make(), where="layer1.*", inplace=True)
    with pytest.warns(UserWarning, match="builds 'resnet18.a1_in1k' .* differently"):
        mz.save(model, tmp_path)
    with pytest.raises(mz.ConversionError, match="does not name its architecture"):
        mz.load(tmp_path)
    loaded, x = mz.load(tmp_path, model=make()), torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.forward_features(x), model.forward_features(x))


def test_a_classifier_reset_after_creation_is_saved(tmp_path):
    model = mz.create_model("resnet18", num_classes=3)
    model.reset_classifier(5)
    mz.save(trained(model), tmp_path)
    assert mz.load(tmp_path).fc.out_features == 5


def test_dtype_survives_the_disk(tmp_path):
    model = trained(mz.create_model("resnet18", num_classes=3)).bfloat16()
    mz.save(model, tmp_path)
    x = torch.rand(1, 3, 64, 64).bfloat16()
    assert torch.equal(mz.load(tmp_path)(x), model(x))


def test_a_failed_load_leaves_the_model_given(tmp_path):
    make = lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))  # noqa: E731
    mz.save(mz.convert(make(), example_input=torch.rand(1, 3, 16, 16)), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    model = make()
    with pytest.raises(mz.ConversionError):
        mz.load(tmp_path, model=model)
    assert not kinds_of(model) and not hasattr(model, "_metric_zoo_report")


def test_saving_onto_a_file_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(mz.ConversionError, match="cannot be written"):
        mz.save(mz.create_model("resnet18", num_classes=3), tmp_path / "file")
