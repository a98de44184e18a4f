"""Conversion of real architectures: the original model is the oracle."""

from __future__ import annotations

import pytest
import timm
import torch

import metric_zoo as mz
from metric_zoo.nn import SampledConv2d
from tests.converters.models import NAMES, build, images, output
from tests.kinds import LOSSLESS, on_networks


@pytest.fixture(scope="module", params=NAMES)
def original(request):
    torch.manual_seed(0)
    model = build(request.param)
    image = images(1)
    return request.param, model, image, output(model, image)


@pytest.mark.parametrize("kind", on_networks(LOSSLESS))
def test_output_is_unchanged(original, kind):
    name, model, image, before = original
    converted = mz.convert(model, to=kind)
    report = mz.conversion_report(converted)
    assert report.converted, name
    after = output(converted, image)
    assert len(after) == len(before) > 0
    for new, old in zip(after, before, strict=True):
        assert (new - old).abs().max() <= 1e-5 * old.abs().max()
    layers = {n: m for n, m in converted.named_modules() if isinstance(m, SampledConv2d)}
    assert set(layers) == set(report.converted)
    assert all(layer.kind == kind for layer in layers.values())
    assert set(model.state_dict()) <= set(converted.state_dict())
    assert type(converted) is type(model)
    assert not any(isinstance(m, SampledConv2d) for m in model.modules()), "the argument must stay as it was"


def test_converted_layers_are_alive(original):
    """The check above must be able to fail: a moved rule changes the output."""
    _, model, image, before = original
    converted = mz.convert(model, to="shifted")
    with torch.no_grad():
        for layer in converted.modules():
            if isinstance(layer, SampledConv2d):
                layer.sampler.bias += 0.25
    after = output(converted, image)
    assert any((new - old).abs().max() > 1e-3 * old.abs().max() for new, old in zip(after, before, strict=True))


def test_revert_restores_classes_and_function(original):
    _, model, image, before = original
    reverted = mz.revert(mz.convert(model, to="metric"))
    assert [type(m) for m in reverted.modules()] == [type(m) for m in model.modules()]
    assert list(reverted.state_dict()) == list(model.state_dict())
    for new, old in zip(output(reverted, image), before, strict=True):
        assert torch.equal(new, old)


def test_constant_kernels_and_standardised_weights_exclude_each_other():
    with pytest.raises(mz.ConversionError, match="weight standardisation turns into zeros"):
        mz.convert(timm.create_model("nf_regnet_b1"), init="uniform")


def test_a_transformer_says_that_there_is_nothing_to_swap():
    model = timm.create_model("swinv2_cr_tiny_224", img_size=64)
    with pytest.warns(UserWarning, match="nothing to swap in SwinTransformerV2Cr.*patch embedding"):
        converted = mz.convert(model)
    report = mz.conversion_report(converted)
    assert not report.converted and list(report.skipped.values()) == ["patch embedding: stride equals kernel"]
    assert "nothing to swap" in str(report)
    with pytest.raises(mz.ConversionError, match="nothing to swap"):
        mz.convert(model, strict=True)


def test_timm_methods_survive_and_heads_learn():
    model = mz.convert(timm.create_model("resnet18", num_classes=5), to="metric")
    model.reset_classifier(3)
    model.set_grad_checkpointing(False)
    assert model.forward_features(torch.rand(2, 3, 64, 64)).shape[1] == 512
    model.train()
    model(torch.rand(2, 3, 64, 64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
