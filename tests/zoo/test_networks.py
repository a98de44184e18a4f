"""InternImage: keys and shapes as published, its function written out, and what timm asks of a network."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import group_parameters
from torch import Tensor

import metric_zoo as mz
from metric_zoo.zoo.networks import register_networks
from tests import dcn
from tests.dcn import Window
from tests.published import flash_internimage, internimage

register_networks()

SIZES = {
    "internimage_t_1k_224": ((64, 128, 256, 512), (4, 4, 18, 4), (4, 8, 16, 32), 29_918_424),
    "internimage_s_1k_224": ((80, 160, 320, 640), (4, 4, 21, 4), (5, 10, 20, 40), 50_079_880),
    "internimage_b_1k_224": ((112, 224, 448, 896), (4, 4, 21, 4), (7, 14, 28, 56), 97_461_832),
    "flash_internimage_t_1k_224": ((64, 128, 256, 512), (4, 4, 18, 4), (4, 8, 16, 32), 29_815_528),
}
"""Widths, depths, groups, and the number of parameters of the published networks."""
SMALL = {"channels": 16, "depths": (1, 2, 1, 1), "groups": (1, 2, 4, 8), "num_classes": 5}
NAMES = ["internimage_t_1k_224", "internimage_s_1k_224", "flash_internimage_t_1k_224"]


def small(name: str, **options) -> torch.nn.Module:
    """With parameters that take samples off the grid, and residuals that count."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{**SMALL, **options})
    for key, parameter in model.named_parameters():
        if "offset" in key or "mask" in key:
            torch.nn.init.normal_(parameter, std=0.3)
        if "gamma" in key:
            torch.nn.init.normal_(parameter, 0.5, 0.1)
    return model.eval()


def linear_shapes(key: str, outputs: int, inputs: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{key}.weight": (outputs, inputs), **({f"{key}.bias": (outputs,)} if bias else {})}


def norm_shapes(key: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{key}.weight": (channels,), f"{key}.bias": (channels,)}


def block_shapes(key: str, width: int, group: int, flash: bool, scaled: bool) -> dict[str, tuple[int, ...]]:
    shapes = {**norm_shapes(f"{key}.norm1.0", width), **norm_shapes(f"{key}.norm2.0", width)}
    shapes |= linear_shapes(f"{key}.mlp.fc1", 4 * width, width)
    shapes |= linear_shapes(f"{key}.mlp.fc2", width, 4 * width, not flash)
    shapes |= linear_shapes(f"{key}.dcn.output_proj", width, width, not flash)
    if scaled:
        shapes |= {f"{key}.gamma1": (width,), f"{key}.gamma2": (width,)}
    if flash:
        shapes |= linear_shapes(f"{key}.dcn.offset_mask", -(-27 * group // 8) * 8, width)
        return shapes | linear_shapes(f"{key}.dcn.value_proj", width, width)
    shapes |= {f"{key}.dcn.dw_conv.0.weight": (width, 1, 3, 3), f"{key}.dcn.dw_conv.0.bias": (width,)}
    shapes |= norm_shapes(f"{key}.dcn.dw_conv.1.1", width) | linear_shapes(f"{key}.dcn.offset", 18 * group, width)
    return (
        shapes
        | linear_shapes(f"{key}.dcn.mask", 9 * group, width)
        | linear_shapes(f"{key}.dcn.input_proj", width, width)
    )


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """By the rules that the published networks' state dicts follow."""
    widths, depths, groups, _ = SIZES[name]
    flash, scaled = name.startswith("flash"), "_s_" in name or "_b_" in name
    first, last, hidden = widths[0], widths[-1], widths[-1] * 3 // 2
    shapes = {"patch_embed.conv1.weight": (first // 2, 3, 3, 3), "patch_embed.conv1.bias": (first // 2,)}
    shapes |= {"patch_embed.conv2.weight": (first, first // 2, 3, 3), "patch_embed.conv2.bias": (first,)}
    shapes |= norm_shapes("patch_embed.norm1.1", first // 2) | norm_shapes("patch_embed.norm2.1", first)
    for level, (width, depth, group) in enumerate(zip(widths, depths, groups, strict=True)):
        for block in range(depth):
            shapes |= block_shapes(f"levels.{level}.blocks.{block}", width, group, flash, scaled)
        if not scaled:
            shapes |= norm_shapes(f"levels.{level}.norm.0", width)
        if level < 3:
            shapes |= {f"levels.{level}.downsample.conv.weight": (2 * width, width, 3, 3)}
            shapes |= norm_shapes(f"levels.{level}.downsample.norm.1", 2 * width)
    shapes |= {"conv_head.0.weight": (hidden, last, 1, 1), **norm_shapes("conv_head.1.0", hidden)}
    shapes |= {f"conv_head.1.0.running_{kind}": (hidden,) for kind in ("mean", "var")}
    return {**shapes, "conv_head.1.0.num_batches_tracked": (), **linear_shapes("head", 1000, hidden)}


@pytest.mark.parametrize("name", SIZES)
def test_keys_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == published_shapes(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[name][-1]


class Reference:
    """The networks' function, from a state dict and the framework's functions alone."""

    def __init__(self, name: str, weights: dict[str, Tensor]) -> None:
        self.weights, self.flash, self.post = weights, name.startswith("flash"), "_s_" in name
        self.dcn = dcn.dcnv4 if self.flash else dcn.dcnv3

    def part(self, key: str) -> dict[str, Tensor]:
        return {name.removeprefix(key): value for name, value in self.weights.items() if name.startswith(key)}

    def conv(self, x: Tensor, key: str) -> Tensor:
        """3x3 at stride 2 of ``(B, C, H, W)``, to channels last."""
        bias = self.weights.get(f"{key}.bias")
        return F.conv2d(x, self.weights[f"{key}.weight"], bias, 2, 1).permute(0, 2, 3, 1)

    def stem(self, image: Tensor) -> Tensor:
        x = F.gelu(dcn.norm(self.conv(image, "patch_embed.conv1"), self.weights, "patch_embed.norm1.1"))
        return dcn.norm(self.conv(x.permute(0, 3, 1, 2), "patch_embed.conv2"), self.weights, "patch_embed.norm2.1")

    def block(self, x: Tensor, weights: dict[str, Tensor], group: int) -> Tensor:
        def convolved(x: Tensor) -> Tensor:
            own = {name.removeprefix("dcn."): w for name, w in weights.items() if name.startswith("dcn.")}
            return self.dcn(x, own, Window(group))

        def perceived(x: Tensor) -> Tensor:
            return dcn.linear(F.gelu(dcn.linear(x, weights, "mlp.fc1")), weights, "mlp.fc2")

        for number, run in (("1", convolved), ("2", perceived)):
            norm = f"norm{number}.0"
            branch = dcn.norm(run(x), weights, norm) if self.post else run(dcn.norm(x, weights, norm))
            x = x + weights.get(f"gamma{number}", 1) * branch
        return x

    def features(self, image: Tensor) -> list[Tensor]:
        """Of every level, ``(B, H, W, C)``."""
        x, found = self.stem(image), []
        for level, (depth, group) in enumerate(zip(SMALL["depths"], SMALL["groups"], strict=True)):
            for block in range(depth):
                x = self.block(x, self.part(f"levels.{level}.blocks.{block}."), group)
            if not self.post:
                x = dcn.norm(x, self.weights, f"levels.{level}.norm.0")
            found.append(x)
            if level < 3:
                x = self.conv(x.permute(0, 3, 1, 2), f"levels.{level}.downsample.conv")
                x = dcn.norm(x, self.weights, f"levels.{level}.downsample.norm.1")
        return found

    def logits(self, image: Tensor) -> Tensor:
        x = F.conv2d(self.features(image)[-1].permute(0, 3, 1, 2), self.weights["conv_head.0.weight"])
        kinds = ("running_mean", "running_var", "weight", "bias")
        x = F.gelu(F.batch_norm(x, *(self.weights[f"conv_head.1.0.{kind}"] for kind in kinds)))
        return dcn.linear(x.mean((2, 3)), self.weights, "head")


@pytest.mark.parametrize("size", [(64, 64), (48, 83)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_published_function_written_out(name, size):
    model, image = small(name).double(), torch.randn(2, 3, *size, dtype=torch.float64)
    reference = Reference(name, model.state_dict())
    torch.testing.assert_close(model(image), reference.logits(image), rtol=1e-8, atol=1e-10)
    found = model.forward_intermediates(image, output_fmt="NHWC", intermediates_only=True)
    for level, (features, expected) in enumerate(zip(found, reference.features(image), strict=True)):
        torch.testing.assert_close(features, expected, rtol=1e-8, atol=1e-10, msg=lambda m, at=level: f"{at}: {m}")


@pytest.mark.parametrize("name", NAMES)
def test_published_checkpoints_load(name, tmp_path):
    """They hold the weights beside the state of their training."""
    model, path = small(name), tmp_path / "published.pth"
    torch.save({"model": model.state_dict(), "epoch": 300}, path)
    image = torch.randn(1, 3, 32, 32)
    loaded = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 5}, **SMALL
    )
    torch.testing.assert_close(loaded.eval()(image), model(image))
    other = {**SMALL, "num_classes": 7, "in_chans": 1}
    tuned = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 5}, **other
    )
    assert tuned.eval()(image[:, :1]).shape == (1, 7)


@pytest.mark.parametrize("name", NAMES)
def test_features_only(name):
    model = small(name, features_only=True, in_chans=4)
    features = model(torch.randn(1, 4, 64, 96))
    assert [tuple(f.shape) for f in features] == [(1, 16 * 2**i, 16 // 2**i, 24 // 2**i) for i in range(4)]
    assert (model.feature_info.channels(), model.feature_info.reduction()) == ([16, 32, 64, 128], [4, 8, 16, 32])
    fewer = small(name, features_only=True, out_indices=(1,))
    assert len(fewer(torch.randn(1, 3, 32, 32))) == 1


def test_the_classifier_is_timms():
    model, image = small("internimage_t_1k_224", drop_rate=0.1), torch.randn(1, 3, 32, 32)
    features = model.forward_features(image)
    assert features.shape == (1, model.num_features, 1, 1)
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    assert model.get_classifier().out_features == 5
    model.reset_classifier(3)
    assert model(image).shape == (1, 3)
    model.reset_classifier(0, "")
    assert model(image).shape == (1, model.head_hidden_size, 1, 1)


def test_every_parameter_belongs_to_a_depth():
    model = small("internimage_t_1k_224")
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    order = [groups[f"levels.{level}.blocks.0.dcn.offset.weight"] for level in range(4)]
    assert groups["patch_embed.conv1.weight"] < order[0] and order == sorted(set(order))
    assert groups["head.weight"] > order[-1] < groups["conv_head.0.weight"]


def test_checkpointing_changes_no_gradient():
    plain, saving = small("internimage_t_1k_224").train(), small("internimage_t_1k_224").train()
    saving.set_grad_checkpointing()
    image = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        model(image).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_they_are_named_by_create_model_and_register():
    known = {f"metric_internimage_{size}_1k_224" for size in "tsb"}
    assert set(mz.list_models("internimage*")) == known
    mz.register()
    model = timm.create_model("metric_internimage_t_1k_224", **SMALL)
    assert mz.conversion_report(model).converted


@pytest.mark.parametrize("name", ["internimage_t_1k_224", "flash_internimage_t_1k_224"])
def test_other_convolutions_convert_and_it_is_saved(name, tmp_path):
    model, image = mz.create_model(name, to="standard", **SMALL).eval(), torch.randn(1, 3, 128, 128)
    converted = mz.convert(model, "metric")
    torch.testing.assert_close(converted(image), model(image), rtol=1e-4, atol=1e-5)
    mz.save(converted, tmp_path)
    torch.testing.assert_close(mz.load(tmp_path).eval()(image), converted(image))


@pytest.mark.parametrize("name", ["internimage_t_1k_224", "flash_internimage_t_1k_224"])
def test_it_compiles_whole_and_runs_in_onnxruntime(name, tmp_path):
    import onnxruntime

    model, image = small(name, depths=(1, 1), groups=(2, 4)), torch.randn(2, 3, 48, 64)
    expected = model(image)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), expected, rtol=1e-4, atol=1e-5)
    torch.onnx.export(model, (image,), dynamo=True, verbose=False).save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SIZES)
def test_it_is_the_published_network(name, monkeypatch):
    widths, depths, groups, _ = SIZES[name]
    flash, scaled = name.startswith("flash"), "_s_" in name or "_b_" in name
    sizes = {"channels": widths[0], "depths": list(depths), "groups": list(groups), "offset_scale": 1.0}
    torch.manual_seed(0)
    build = (flash_internimage if flash else internimage)(monkeypatch)
    other = build(layer_scale=1e-5 if scaled else None, post_norm=scaled, **sizes).eval()
    for key, parameter in other.named_parameters():
        if "offset" in key or "mask" in key:  # more, and 30 blocks tear rounding apart
            torch.nn.init.normal_(parameter, std=0.02)
    model = timm.create_model(name).eval()
    model.load_state_dict(other.state_dict(), strict=True)
    assert list(model.state_dict()) == list(other.state_dict())
    for size in ((224, 224), (160, 232)):
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(model(image), other(image), rtol=1e-4, atol=1e-5)
            features = model.forward_intermediates(image, output_fmt="NHWC", intermediates_only=True)
            for ours, theirs in zip(features, other.forward_features_seq_out(image), strict=True):
                theirs = theirs.permute(0, 2, 3, 1) if flash else theirs
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
