"""Selection by stage, resolution, receptive field and preset. Oracles: ResNet's own names, timm's and torchvision's
dilated ResNets, and autograd for receptive fields."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

import metric_zoo as mz
from metric_zoo.converters import analyse
from metric_zoo.nn import SampledConv2d
from tests.converters.models import enliven, images


def converted(model: nn.Module, **options) -> list[str]:
    return list(mz.conversion_report(mz.convert(model, **options)).converted)


@pytest.fixture(scope="module")
def resnet():
    return timm.create_model("resnet18").eval()


def test_stages_are_resnets_layers(resnet):
    names = [name for name, m in resnet.named_modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    for stage in (1, 2, 3):
        assert converted(resnet, stages=[stage]) == [n for n in names if n.startswith(f"layer{stage}.")]
    assert converted(resnet, where="all", stages=(2, 4)) == [n for n in names if n[:6] in ("layer2", "layer4")]


def test_dilated_and_partial_backbones_keep_resnets_numbers():
    dilated = timm.create_model("resnet18", output_stride=16)
    assert all(name.startswith("layer4.") for name in converted(dilated, stages=[4]))
    backbone = timm.create_model("resnet18", features_only=True, out_indices=(2, 3, 4))
    assert all(name.startswith("layer2.") for name in converted(backbone, stages=[2]))
    assert all(n.startswith("layer4.") for n in converted(torchvision.models.resnet18(), where="paper", stages=[4]))


STAGES = {  # model -> where its stage 3, at a sixteenth of the image, lies
    "timm/convnext_atto": "stages.2.",
    "timm/efficientnet_b0": ("blocks.3.", "blocks.4."),
    "timm/regnety_002": "s3.",
    "timm/densenet121": "features.denseblock3.",
    "timm/ghostnet_050": ("blocks.5.", "blocks.6.", "blocks.7."),  # its feature_info lists where stages begin
    "torchvision/resnet18": "layer3.",
    "torchvision/mobilenet_v3_small": ("features.4.", "features.5.", "features.6.", "features.7.", "features.8."),
}


@pytest.mark.parametrize("name", STAGES)
def test_stage_three_of_other_families(name):
    source, name = name.split("/")
    model = timm.create_model(name) if source == "timm" else torchvision.models.get_model(name)
    found = converted(model, stages=[3])
    prefixes = STAGES[f"{source}/{name}"]
    assert found and all(layer.startswith(prefixes) for layer in found)
    for prefix in [prefixes] if isinstance(prefixes, str) else prefixes:
        assert any(layer.startswith(prefix) for layer in found)


def test_resolution_is_that_of_the_input(resnet):
    """At 224 pixels layer2 reads 56 (its first convolution) and 28, layer3 28 and 14, layer4 14 and 7."""
    assert converted(resnet, resolution=(28, 28)) == [
        "layer2.0.conv2",
        "layer2.1.conv1",
        "layer2.1.conv2",
        "layer3.0.conv1",
    ]
    assert converted(resnet, resolution=(None, 14)) == [
        "layer3.0.conv2",
        "layer3.1.conv1",
        "layer3.1.conv2",
        "layer4.0.conv1",
    ]


def test_receptive_fields_are_what_gradients_reach():
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, stride=2),
        nn.AvgPool2d(2, 2),  # unlike the maximum, it lets every pixel's gradient through
        nn.Conv2d(1, 1, 3, dilation=2),
        nn.Conv2d(1, 1, (1, 5)),
    )
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    fields = [n.receptive_field for n in analyse(model, torch.rand(1, 1, 96, 96)).nodes]
    reached = []
    for depth in (1, 3, 4):
        x = torch.rand(1, 1, 96, 96, requires_grad=True)
        y = model[:depth](x)
        y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
        spans = (x.grad[0, 0].any(dim).nonzero() for dim in (0, 1))
        reached.append(max(int(span.max() - span.min()) + 1 for span in spans))
    assert fields == reached


def test_receptive_field_selects(resnet):
    """ResNet-18: 7 after the stem, 11 after its pool, then 8 more for each 3x3 of layer1 and 16 of layer2."""
    assert converted(resnet, receptive_field=(40, 90)) == [
        "layer1.1.conv2",
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer2.1.conv1",
    ]


def test_functional_pools_count_and_resizing_leaves_the_field_unknown():
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            x = self.b(nn.functional.max_pool2d(self.a(x), 2))
            return self.c(nn.functional.interpolate(x, scale_factor=2))

    assert [n.receptive_field for n in analyse(Pools(), torch.rand(1, 3, 32, 32)).nodes] == [3, 8, None]


def test_presets(resnet):
    windows = {n: m for n, m in resnet.named_modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1}
    assert converted(resnet, where="all") == [n for n in windows if n != "conv1"]
    assert converted(resnet, where="stem+all") == [*windows]
    assert converted(resnet, where="last") == [n for n in windows if n.startswith("layer4.")]
    assert "layer4.1.conv2" not in converted(resnet), "the policy leaves inputs below 8 px alone, presets do not"


# --- the paper's preset -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    return enliven(timm.create_model("resnet50"))


def dilated(name: str, state: dict[str, torch.Tensor]) -> nn.Module:
    if name == "timm":
        model = timm.create_model("resnet50", output_stride=16)
    else:
        model = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True])
    model.load_state_dict(state)
    return model.eval()


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_the_papers_network_is_the_dilated_resnet(resnet50, source):
    model = resnet50
    if source == "torchvision":
        model = torchvision.models.resnet50()
        model.load_state_dict(resnet50.state_dict())
        model.eval()
    found = mz.convert(model, where="paper")
    image, expected = images(1, 96), dilated(source, resnet50.state_dict())
    with torch.no_grad():
        new, old = found(image), expected(image)
    assert (new - old).abs().max() <= 1e-5 * old.abs().max()
    with torch.no_grad():
        assert (new - model(image)).abs().max() > 1e-2 * old.abs().max(), "the argument stays as it was"
    windows = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert list(mz.conversion_report(found).converted) == [
        n for n in windows if n[:6] in ("layer2", "layer3", "layer4")
    ]
    assert "stride 1, dilation 2" in str(mz.conversion_report(found))


def test_a_saved_paper_network_comes_back(tmp_path):
    model = mz.create_model("resnet18", where="paper", num_classes=3).eval()
    mz.save(model, tmp_path)
    image = images(1, 64)
    with torch.no_grad():
        assert torch.equal(mz.load(tmp_path)(image), model(image))


def test_a_failed_paper_conversion_restores_the_strides(resnet50):
    strides = [m.stride for m in resnet50.modules() if isinstance(m, nn.Conv2d)]
    with pytest.raises(mz.ConversionError, match="does not start as the original"):
        mz.convert(resnet50, where="paper", sampling="polar", inplace=True)
    assert [m.stride for m in resnet50.modules() if isinstance(m, nn.Conv2d)] == strides
    assert not any(isinstance(m, SampledConv2d) for m in resnet50.modules())


BAD = {
    "stage that is none": ({"stages": [7]}, r"stages=\[7\]: no convolution is in stage 7; there are \[0, 1, 2, 3, 4\]"),
    "stages as a word": ({"stages": "layer2"}, "stages='layer2': expected a list"),
    "no stage": ({"stages": []}, "expected a list of stage numbers"),
    "upside down": ({"resolution": (28, 14)}, r"resolution=\(28, 14\): expected \(least, most\)"),
    "one bound": ({"receptive_field": 7}, "receptive_field=7: expected"),
    "empty": ({"resolution": (9, 10)}, "nothing to swap"),
    "no preset": ({"where": "papers"}, r"'papers' matches none .* none of the presets \['paper'"),
}


@pytest.mark.parametrize("case", BAD)
def test_impossible_selections(resnet, case):
    options, message = BAD[case]
    with pytest.raises(mz.ConversionError, match=message):
        mz.convert(resnet, **options)


def test_the_papers_preset_needs_a_layer4_that_is_not_converted(resnet):
    model = mz.convert(resnet, where=["layer4"])
    with pytest.raises(mz.ConversionError, match="layer4.0.conv1 is converted: revert the model first"):
        mz.convert(model, where="paper", inplace=True)
    assert model.layer4[0].downsample[0].stride == (2, 2)
    mz.revert(model)(images(1, 64))


@pytest.mark.parametrize(
    ("name", "message"), [("convnext_atto", "has no 'layer2'"), ("resnet18d", "layer4.0.downsample.0 .* pools")]
)
def test_the_papers_preset_is_for_plain_resnets(name, message):
    with pytest.raises(mz.ConversionError, match=message):
        mz.convert(timm.create_model(name), where="paper")


def test_a_receptive_field_needs_a_trace():
    class Branching(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.shape[0] < 9 and float(x.sum()) > -1 else x

    with pytest.raises(mz.ConversionError, match="torch.fx cannot trace"):
        mz.convert(
            Branching(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)),
            receptive_field=(1, 9),
            example_input=torch.rand(1, 3, 24, 24),
        )
