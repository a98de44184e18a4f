"""Layers against the golden numbers: the reference program's outputs and gradients in float64."""

from __future__ import annotations

import pytest
import torch

from metric_zoo import nn

RTOL = 1e-9


def build(case: dict, arrays: dict) -> nn.SampledConv2d:
    common = {
        "in_channels": case["in_channels"],
        "out_channels": case["out_channels"],
        "kernel_size": case["kernel_size"],
        "stride": case["stride"],
        "padding": case["padding"],
        "dilation": case["dilation"],
        "dtype": torch.float64,
    }
    if case["layer"] == "metric":
        names = ("parametrization", "sampling", "drift", "eps_omega", "eps_L")
        layer = nn.MetricConv2d(**common, **{n: case[n] for n in names}, scale=(case["scale_min"], case["scale_max"]))
    else:
        layer = {"deform": nn.DeformConv2d, "shifted": nn.ShiftedConv2d}[case["layer"]](**common)
    with torch.no_grad():
        layer.weight.copy_(arrays["weight"])
        layer.bias.copy_(arrays["bias"])
        layer.sampler.weight.copy_(arrays["head_weight"])
        layer.sampler.bias.copy_(arrays["head_bias"])
    return layer


def assert_relative(actual: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < RTOL, f"{name}: relative error {error:.2e}"


def test_output_and_gradients(golden):
    case, arrays = golden
    layer = build(case, arrays)
    x = arrays["x"].requires_grad_()
    y = layer(x)
    (y * arrays["grad_y"]).sum().backward()
    assert_relative(y, arrays["y"], "y")
    for name, grad in {
        "grad_x": x.grad,
        "grad_weight": layer.weight.grad,
        "grad_head_weight": layer.sampler.weight.grad,
        "grad_head_bias": layer.sampler.bias.grad,
    }.items():
        if name in arrays:
            assert_relative(grad, arrays[name], name)


def test_metric_fields(golden):
    case, arrays = golden
    if case["layer"] != "metric":
        pytest.skip("a metric case only")
    layer = build(case, arrays)
    metric = layer.metric(arrays["x"])
    assert_relative(metric.matrix.flatten(1, 3), arrays["M"], "M")
    assert_relative(metric.drift.flatten(1, 2), arrays["omega"], "omega")
    assert_relative(layer.sample_positions(arrays["x"]), arrays["positions_xy"], "positions")
    assert metric.is_feasible().all()
