"""Balls, fields and Grad-CAM: where things are drawn, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from typer.testing import CliRunner

import metric_zoo as mz
from metric_zoo.benchmarks.input_look import look_of
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.cli import app
from metric_zoo.errors import DataError, MetricZooError
from metric_zoo.explain import draw_balls, draw_fields, explain_models, grad_cam, prepare, probe
from tests.kinds import LEARNED, on_networks


def image(size: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def moved(kind: str, model: str = "resnet10t", **options) -> nn.Module:
    """Converted, with sampling that differs from pixel to pixel."""
    torch.manual_seed(0)
    found = mz.convert(timm.create_model(model, num_classes=5), kind, **options)
    for layer in found.modules():
        if isinstance(layer, mz.nn.SampledConv2d) and layer.sampler is not None:
            nn.init.normal_(layer.sampler.weight, std=0.05)
    return found.eval()


def test_centres_are_where_impulses_are_seen():
    """A 1-pixel impulse at a window's centre reaches, of all outputs of an untrained stack, that window the most.

    The oracle is the network itself as a linear map: every convolution averages, so the response's centre of mass over
    outputs is the impulse's place.
    """
    torch.manual_seed(0)
    stack = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1), mz.nn.DeformConv2d(1, 1, 3, stride=2, padding=1))
    for layer in stack:
        nn.init.constant_(layer.weight, 1 / 9)
        nn.init.zeros_(layer.bias)
    found = probe(stack, torch.zeros(1, 1, 32, 32), "1")
    assert found.centres.shape == (2, 8, 8)
    column, row = found.centres[:, 3, 4].round().long().tolist()
    x = torch.zeros(1, 1, 32, 32, requires_grad=True)
    stack(x)[0, 0, 3, 4].backward()
    weights = x.grad[0, 0]
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    mass = [(weights * axis).sum() / weights.sum() for axis in (columns, rows)]
    # Strided layers see every second pixel from the first on: half a stride of each lies between.
    assert abs(mass[0] - column) <= 1.5 and abs(mass[1] - row) <= 1.5


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_centres_of_one_layer(padding, stride, dilation):
    """The mean place of what an output's gradient reaches, inside the image; exact for one layer."""
    layer = mz.nn.ShiftedConv2d(1, 1, 3, stride=stride, padding=padding, dilation=dilation)
    nn.init.constant_(layer.weight, 1.0)
    x = torch.zeros(1, 1, 20, 22, requires_grad=True)
    output = layer(x)
    found = probe(layer_in(layer), x.detach(), "0")
    assert found.centres.shape[1:] == output.shape[-2:]
    row, column = output.shape[-2] // 2, output.shape[-1] // 2
    output[0, 0, row, column].backward()
    rows, columns = x.grad[0, 0].nonzero().double().mean(0)
    torch.testing.assert_close(found.centres[:, row, column], torch.stack((columns, rows)))


def layer_in(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer)


def test_samples_are_in_the_image_s_pixels():
    """Behind a stride of 2, a shift of one pixel is one of two."""
    layer = mz.nn.ShiftedConv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.sampler.bias.copy_(torch.tensor([1.0, 0.5]))  # (dy, dx)
    model = nn.Sequential(nn.AvgPool2d(2), layer)
    samples = probe(model, torch.rand(1, 1, 16, 16), "1").samples
    assert samples.shape == (1, 9, 2, 8, 8)
    torch.testing.assert_close(samples[0, 4, :, 3, 3], torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(samples[0, 8, :, 3, 3], torch.tensor([3.0, 4.0]))
    uneven = nn.Sequential(nn.AvgPool2d((4, 2)), layer)  # rows count twice as much
    samples = probe(uneven, torch.rand(1, 1, 32, 16), "1").samples
    torch.testing.assert_close(samples[0, 8, :, 3, 3], torch.tensor([3.0, 8.0]))


def test_a_layer_s_own_metric_and_one_that_is_fitted():
    own = probe(moved("metric"), image(), "layer3.0.conv1")
    assert own.own and own.kind == "metric" and own.reach == (8, 8)  # a pixel of layer 2's output, behind a stride of 8
    fitted = probe(moved("deformable"), image(), "layer3.0.conv1")
    assert not fitted.own and bool(fitted.metric.is_feasible().all())


@pytest.mark.parametrize("kind", on_networks(LEARNED))
@pytest.mark.parametrize("ending", ["png", pytest.param("svg", marks=pytest.mark.slow)])
def test_every_kind_is_drawn(tmp_path, kind, ending):
    model, picture = moved(kind), image()
    draw_balls(model, picture, picture, tmp_path / f"b.{ending}", pixels=[(3, 4), (40, 50)])
    draw_fields(model, picture, picture, tmp_path / f"f.{ending}", "layer2.0.conv2")
    for name in ("b", "f"):
        content = (tmp_path / f"{name}.{ending}").read_bytes()
        if ending == "png":
            assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 10  # something is drawn
        else:
            assert content.startswith(b"<?xml") and b"<path" in content
    draw_balls(model, picture, picture, tmp_path / f"again.{ending}", pixels=[(3, 4), (40, 50)])
    assert (tmp_path / f"again.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_grad_cam_against_its_definition():
    """ReLU of the maps weighted by their mean gradients (Selvaraju et al.), scaled to [0, 1], by autograd alone."""
    model, x = moved("metric"), image()
    maps = []
    handle = model.layer4.register_forward_hook(lambda *a: maps.append(a[2]))
    score = model(x)[0, 3]
    handle.remove()
    gradient = torch.autograd.grad(score, maps[0])[0]
    heat = F.relu((gradient.mean((2, 3), keepdim=True) * maps[0]).sum(1))[0].detach().numpy()
    found = grad_cam(model, x, target=3, layer="layer4")
    assert found.shape == (64, 64) and found.min() >= 0 and found.max() <= 1
    if heat.max() > 0:
        small = np.asarray(Image.fromarray(found).resize(heat.shape[::-1], Image.Resampling.BOX))
        assert np.corrcoef(small.ravel(), heat.ravel())[0, 1] > 0.9
    assert all(p.grad is None for p in model.parameters())


def test_the_last_map_is_the_last_stage():
    model, x = moved("shifted"), image()
    np.testing.assert_array_equal(grad_cam(model, x, 0), grad_cam(model, x, 0, layer="layer4"))


def test_prepared_as_timm_prepares():
    """timm's own evaluation transform of the same picture."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**{**config, "crop_pct": 1.0, "interpolation": "bicubic"})
    pixels = np.random.default_rng(0).integers(0, 255, (300, 260, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(pixels).resize((520, 600), Image.Resampling.BICUBIC))
    input, shown = prepare(model, torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255)
    expected = transform(Image.fromarray(pixels))[None]
    assert input.shape == expected.shape and shown.shape == (1, 3, 224, 224)
    assert (input - expected).abs().mean() < 0.01  # PIL rounds to whole levels in between
    assert float(shown.min()) >= 0 and float(shown.max()) <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, p: draw_balls(m, x, x, p / "a.png", layers=["layer3.0.conv"]), "did you mean 'layer3.0.conv"),
        (lambda m, x, p: draw_balls(m, x, x, p / "a.png", pixels=[(64, 1)]), r"\(64, 1\) lies outside"),
        (lambda m, x, p: draw_balls(m, x, x[..., :32], p / "a.png"), "picture has shape"),
        (lambda m, x, p: draw_balls(m, x.repeat(2, 1, 1, 1), x, p / "a.png"), r"expected \(1, C, H, W\)"),
        (lambda m, x, p: draw_balls(timm.create_model("resnet10t"), x, x, p / "a.png"), "convert it first"),
        (lambda m, x, p: draw_fields(m, x, x, p / "a.gif", "layer2.0.conv2"), ".png, .svg, .pdf"),
        (lambda m, x, p: grad_cam(m, x, layer="layer9"), "no layer 'layer9'"),
        (lambda m, x, p: grad_cam(m, x, target=5), "target=5, but there are 5 classes"),
        (lambda m, x, p: grad_cam(nn.Conv2d(3, 3, 1), x), "does not answer with classes"),
        (lambda m, x, p: prepare(m, x, size=0), "0 pixels a side"),
        (lambda m, x, p: grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)), x), "answers with a map"),
        (lambda m, x, p: explain_models({}, x, p), "no model to explain"),
    ],
)
def test_refusals(tmp_path, call, message):
    with pytest.raises((MetricZooError, DataError), match=message):
        call(moved("metric"), image(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_modes_and_hooks_are_left_as_they_were():
    model = moved("metric").train()
    model.layer2.eval()
    probe(model, image(), "layer3.0.conv1")
    grad_cam(model, image())
    assert model.training and not model.layer2.training and model.layer3.training
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("task", ["denoising", "classification"])
def test_a_record_s_network_sees_pictures_as_its_data(tmp_path, task):
    """Grey and in the data's size; a denoiser tells no class."""
    recipe = {
        "name": "t",
        "task": task,
        "data": {"name": "digits", "image_size": 16},
        "models": [{"name": "resnet10t", "options": {"channels": [8, 8, 8, 8]}, "small_image_stem": True}],
        "kinds": ["shifted"],
        "train": {"epochs": 1, "batch_size": 64},
        "measure": {"batch_size": 2, "warmup": 0, "repeats": 3, "seconds": 0, "corruptions": False},
    }
    if task == "denoising":
        recipe["data"] = {"name": "scikit-image", "noise": 0.1, "image_size": 32}
        recipe["models"] = [{"name": "single-layer", "source": "metric-zoo", "options": {"kernel_size": 3}}]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    run_recipe(tmp_path / "r.yaml", tmp_path / "out", cpu=True, weights=True)
    (record,) = (tmp_path / "out").glob("*.json")
    look = look_of(read_record(record))
    assert (look.size, look.channels) == ((32, 1) if task == "denoising" else (16, 1))
    if task == "classification":
        pixels = load_digits().images / 16
        assert look.mean[0] == pytest.approx(pixels.mean(), abs=0.01) and 0.1 < look.std[0] < 0.5
    path = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    result = CliRunner().invoke(app, ["explain", str(record), str(path), "--out", str(tmp_path / "pictures")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "pictures" / "grad-cam.png").exists() == (task == "classification")


def test_models_of_one_name(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path)
    arguments = ["explain", "resnet10t", str(path), "--size", "64", "--out", str(tmp_path / "o"), "--beside"]
    assert CliRunner().invoke(app, [*arguments, "resnet14t"]).exit_code == 0
    names = {p.name for p in (tmp_path / "o").glob("balls*.png")}
    assert names == {"balls-resnet10t-metric.png", "balls-resnet14t-metric.png"}
    result = CliRunner().invoke(app, [*arguments, "resnet10t"])
    assert "two models are called" in str(result.exception)


def test_command(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)).save(path)
    saved = tmp_path / "mine"
    mz.save(mz.create_model("resnet10t", to="shifted"), saved)
    arguments = ["explain", "resnet10t", str(path), "--to", "metric", "--to", "deformable", "--beside", str(saved)]
    arguments += ["--out", str(tmp_path / "out"), "--size", "64", "--pixel", "20,30"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    names = {p.name for p in (tmp_path / "out").iterdir()}
    kinds = ("resnet10t-metric", "resnet10t-deformable", "mine")
    expected = {f"{word}-{kind}.{e}" for word in ("balls", "fields") for kind in kinds for e in ("png", "svg")}
    assert names == expected | {"grad-cam.png", "grad-cam.svg"}
    result = CliRunner().invoke(app, ["explain", "resnet10t", str(path), "--pixel", "20"])
    assert isinstance(result.exception, MetricZooError) and "expected X,Y" in str(result.exception)
    (tmp_path / "r.json").write_text(json.dumps({}))
    result = CliRunner().invoke(app, ["explain", str(tmp_path / "r.json"), str(path)])
    assert isinstance(result.exception, MetricZooError) and not Path("explained").exists()
