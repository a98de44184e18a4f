"""The published program's confusion of a batch, against the formula that describes it."""

from __future__ import annotations

import pytest
import torch

from metric_zoo import RecipeError
from metric_zoo.benchmarks.ablations import mix_batches
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.nn import MetricConv2d
from metric_zoo.ops import sampled_conv2d


def layer(**options) -> MetricConv2d:
    torch.manual_seed(0)
    made = MetricConv2d(4, 6, 3, padding=1, **options)
    torch.nn.init.normal_(made.sampler.weight, std=0.3)
    return made


@pytest.mark.parametrize("groups", [1, 2])
def test_sample_i_of_image_b_takes_the_metric_of_image_bn_plus_i(groups):
    """The oracle computes every sample from the metric that the specification names, one by one."""
    plain = layer(metric_groups=groups)
    x = torch.randn(3, 4, 5, 6)
    own = plain.sample_positions(x).unflatten(1, (groups, 9))
    expected = own.clone()
    for image in range(3):
        for cell in range(9):
            expected[image, :, cell] = own[(image * 9 + cell) % 3, :, cell]
    expected = expected.flatten(1, 2)
    mixed = mix_batches(layer(metric_groups=groups))
    torch.testing.assert_close(mixed.sample_positions(x), expected)
    output = sampled_conv2d(x, plain.weight, expected, plain.bias, padding=1)
    torch.testing.assert_close(mixed(x), output, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed(x), plain(x), atol=1e-3)


def test_one_image_is_not_mixed_and_our_own_layers_never_mix():
    x, plain = torch.randn(3, 4, 5, 5), layer()
    torch.testing.assert_close(mix_batches(layer())(x[:1]), plain(x[:1]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain(x)[1:2], plain(x[1:2]), rtol=1e-4, atol=1e-5)


def test_recipes_ask_for_it(write_recipe, tmp_path):
    kinds = [{"kind": "metric", "batch_mixed": True}]
    assert run_recipe(write_recipe(kinds=kinds, train={"epochs": 1}), tmp_path, cpu=True)["ok"] == 1
    (path,) = tmp_path.glob("*.json")
    assert read_record(path).config["kind"]["batch_mixed"]
    with pytest.raises(RecipeError, match="batch_mixed: the model has no metric convolution"):
        run_recipe(write_recipe(kinds=[{"kind": "standard", "batch_mixed": True}]), tmp_path / "none", cpu=True)
