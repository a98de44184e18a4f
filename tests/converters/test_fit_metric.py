"""``init="fit"``: metric layers that start from layers which sample freely."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

import metric_zoo as mz
from metric_zoo.converters.fit_metric import fit_rule
from metric_zoo.errors import ConversionError
from metric_zoo.nn import ActiveConv2d, DeformConv2d, MetricConv2d

GRID = np.array([(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)])


def ball_samples(matrix: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """g / F(g / |g|) for the cells g of a 3 x 3 grid, by the definition of a Randers norm."""
    found = np.zeros_like(GRID)
    for index, cell in enumerate(GRID):
        if cell.any():
            unit = cell / np.linalg.norm(cell)
            found[index] = cell / (np.sqrt(unit @ matrix @ unit) + omega @ unit)
    return found


def test_a_metric_s_own_samples_are_found_again():
    """A table of offsets that came from a metric: the fit must find that metric, and so the samples."""
    matrix, omega = np.array([[1.3, 0.2], [0.2, 0.8]]), np.array([0.15, -0.1])
    table = ball_samples(matrix, omega) - GRID
    old = ActiveConv2d(2, 2, 3, padding=1)
    with torch.no_grad():
        old.offset.copy_(torch.from_numpy(table[:, ::-1].copy()).reshape(old.offset.shape))  # (dy, dx)
    new, x = MetricConv2d(2, 2, 3, padding=1, eps_omega=0.1), torch.randn(1, 2, 8, 8)
    assert fit_rule(new, old, x) > 1 - 1e-6
    metric = new.metric(x)
    np.testing.assert_allclose(metric.matrix[0, 0, ..., 4, 4].detach(), matrix, atol=2e-3)
    np.testing.assert_allclose(metric.drift[0, 0, :, 4, 4].detach(), omega, atol=2e-3)


def test_what_varies_with_the_image_is_predicted():
    """Balls whose size follows the input, as a deformable layer stretches its grid: y = (1 + a x) g, |a x| < 1/2."""
    old = DeformConv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        for cell, (x, y) in enumerate(GRID):
            old.sampler.weight[2 * cell, 0, 1, 1], old.sampler.weight[2 * cell + 1, 0, 1, 1] = 0.3 * y, 0.3 * x
    image = torch.rand(1, 1, 24, 24)
    image = nn.functional.avg_pool2d(image, 3, 1, 1) * 2 - 1
    new = MetricConv2d(1, 1, 3, padding=1)
    assert fit_rule(new, old, image) > 0.98
    other = nn.functional.avg_pool2d(torch.rand(1, 1, 24, 24), 3, 1, 1) * 2 - 1  # never seen
    stretched = torch.from_numpy(GRID).float()[None, :, :, None, None] * (1 + 0.3 * other[:, :, None])
    missed = (new.sample_positions(other) - stretched).square().mean()
    assert missed < 0.05 * (stretched - torch.from_numpy(GRID)[None, :, :, None, None]).square().mean()


def deformable(kind: str = "deformable", **options) -> nn.Module:
    """A small network whose sampling has moved."""
    model = mz.convert(timm.create_model("resnet10t", num_classes=3), kind, where="layer[34].*conv.*", **options)
    torch.manual_seed(0)
    for layer in model.modules():
        if getattr(layer, "sampler", None) is not None:
            nn.init.normal_(layer.sampler.weight, std=0.01)
            nn.init.normal_(layer.sampler.bias, std=0.2)
    return model


def test_a_network():
    model, images = deformable(), torch.rand(2, 3, 64, 64)
    before = model(images).detach()
    fitted = mz.convert(model, "metric", init="fit", example_input=images)
    report = mz.conversion_report(fitted)
    assert len(report.converted) == 4 and all(0 < layer.explained < 1 for layer in report.converted.values())
    assert "offsets explained" in str(report) and "approximates" in str(report)
    for name, layer in model.named_modules():
        if isinstance(layer, DeformConv2d):
            new = fitted.get_submodule(name)
            assert type(new) is MetricConv2d and torch.equal(new.weight, layer.weight)
            assert new.sample_positions(torch.ones(1, layer.in_channels, 8, 8)).isfinite().all()
    assert torch.equal(model(images), before)  # a copy was converted
    plain = mz.convert(timm.create_model("resnet10t", num_classes=3), "metric", where="layer[34].*conv.*")
    assert fitted.state_dict().keys() == plain.state_dict().keys()
    fitted(images).sum().backward()
    assert all(p.grad.isfinite().all() for p in fitted.parameters())


def test_offset_groups_become_metric_groups():
    model = deformable(offset_groups=2)
    fitted = mz.convert(model, "metric", init="fit", example_input=torch.rand(1, 3, 64, 64))
    assert {m.config.metric_groups for m in fitted.modules() if isinstance(m, MetricConv2d)} == {2}


def test_layers_that_stay():
    model = deformable()
    model.layer4[0].conv1 = mz.nn.ModulatedDeformConv2d(256, 512, 3, stride=2, padding=1)
    fitted = mz.convert(model, "metric", init="fit", where="layer4.*", example_input=torch.rand(1, 3, 64, 64))
    assert type(fitted.layer4[0].conv1) is mz.nn.ModulatedDeformConv2d  # a metric has no masks
    assert isinstance(fitted.layer3[0].conv1, DeformConv2d) and isinstance(fitted.layer4[0].conv2, MetricConv2d)


def scaled(model: nn.Module) -> nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(model.layer4[0].conv2) and model


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (nn.Module.half, {}, "needs weights in float32"),
        (lambda model: model.to("meta"), {}, "not half or meta"),
        (lambda model: model, {"where": {"layer4.*": "shifted"}}, "to='shifted' has none"),
        (lambda model: model, {"metric_groups": 2}, "metric_groups=2, but it samples in 1 groups"),
        (lambda model: model, {"example_input": torch.full((1, 3, 64, 64), torch.nan)}, "not finite"),
        (scaled, {"where": "layer4.0.conv2"}, "its weight is computed"),
    ],
    ids=["half", "meta", "kind", "groups", "nan", "weight norm"],
)
def test_what_cannot_be_fitted(change, arguments, message):
    model = change(deformable())
    classes = [type(module) for module in model.modules()]
    dtype = next(model.parameters()).dtype
    example = torch.rand(1, 3, 64, 64, dtype=dtype)
    with pytest.raises(ConversionError, match=message):
        mz.convert(model, **{"init": "fit", "example_input": example, "inplace": True, **arguments})
    assert [type(module) for module in model.modules()] == classes


def test_other_cells_than_the_grid_s_are_not_compared():
    model = mz.convert(timm.create_model("resnet10t"), where="layer4.*conv.*", sampling="onion", init="uniform")
    with pytest.raises(ConversionError, match="its cells are not the grid's"):
        mz.convert(model, "geodesic", init="fit", where="layer4.*", example_input=torch.rand(1, 3, 64, 64))


def test_parameters_are_counted_against_the_plain_convolution():
    fitted = mz.convert(deformable(), "metric", init="fit", example_input=torch.rand(1, 3, 64, 64))
    report = mz.conversion_report(fitted)
    assert report.head_parameters == sum(p.numel() for p in mz.nn.head_parameters(fitted)) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs example_input"),
        ({"to": "shifted"}, "to='shifted' has none, use 'metric' or 'geodesic'"),
        ({"sampling": "polar"}, "sampling='polar' has other cells"),
        ({"init": "fitted"}, "did you mean 'fit'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ConversionError, match=message):
        mz.convert(deformable(), **{"init": "fit", **arguments})


def test_an_ordinary_network_has_nothing_to_fit():
    with pytest.raises(ConversionError, match="nothing to swap .*no samples to fit"):
        mz.convert(timm.create_model("resnet10t"), init="fit", where="layer3.*", example_input=torch.rand(1, 3, 64, 64))
