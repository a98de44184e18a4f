"""Whoever waits longer than two seconds is told, and detectors are proved on small images."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import metric_zoo as mz
from metric_zoo.converters import analyse
from metric_zoo.converters.resize import images_of

X = torch.rand(1, 3, 16, 16)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))


@pytest.fixture
def waited(monkeypatch):
    """As if two seconds had passed before every convolution."""
    from tqdm import std

    clock = iter(range(0, 10**6, 3))
    monkeypatch.setattr(std, "time", lambda: float(next(clock)))


def test_a_short_conversion_says_nothing(capsys):
    mz.convert(network(), example_input=X)
    assert capsys.readouterr() == ("", "")


def test_a_long_conversion_shows_how_far_it_is(capsys, waited):
    mz.convert(network(), example_input=X)
    output, errors = capsys.readouterr()
    assert not output and "converting Sequential" in errors and "convolutions run" in errors


def test_so_do_fits(capsys, waited):
    sampled = mz.convert(network(), "shifted", example_input=X)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 15, padding=7, groups=4))
    capsys.readouterr()
    mz.convert(net, "sparse", example_input=X, steps=5, max_error=99, min_speedup=0)
    assert "sparse kernels" in capsys.readouterr().err
    mz.convert(sampled, init="fit", example_input=X)
    assert "fitting" in capsys.readouterr().err


def test_no_hook_stays_behind():
    from torch.nn.modules import module

    before = dict(module._global_forward_hooks)
    mz.convert(network(), example_input=X)
    with pytest.raises(mz.ConversionError):
        mz.convert(network(), example_input=torch.rand(1, 5, 16, 16))
    assert module._global_forward_hooks == before


def detector(name: str, **options) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3, **options).eval()


def test_a_detector_is_understood_at_its_size_and_proved_on_a_small_image():
    model = detector("fasterrcnn_mobilenet_v3_large_fpn", min_size=256, max_size=320)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(min(arguments[0].shape[-2:])))
    converted = mz.convert(model, where="rpn.head.conv.*", inplace=True)
    report = mz.conversion_report(converted)
    assert seen.count(256) == 2  # on the meta device, which fails, and for real
    assert set(seen) == {256, 96} and seen.count(96) >= 3
    assert next(iter(report.converted.values())).input_shape[-2:] == (8, 8)
    assert (converted.transform.min_size, converted.transform.max_size) == ((256,), 320)


def test_an_example_of_one_s_own_is_proved_as_it_is():
    model = detector("fasterrcnn_mobilenet_v3_large_fpn", min_size=128, max_size=160)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(min(arguments[0].shape[-2:])))
    mz.convert(model, where="rpn.head.conv.*", example_input=[torch.rand(3, 64, 64)], inplace=True)
    assert set(seen) == {128}


def test_a_detector_of_a_fixed_size_keeps_it():
    model = detector("ssdlite320_mobilenet_v3_large")
    analysis = analyse(model, neighbours=False)
    assert analysis.side is None and len(analysis.proofs) == 1


def test_sizes_come_back_after_an_error():
    model = detector("fasterrcnn_mobilenet_v3_large_fpn", min_size=(100, 200), max_size=300)
    with pytest.raises(RuntimeError, match="inside"), images_of(model, 64):
        assert (model.transform.min_size, model.transform.max_size) == ((64,), 64)
        raise RuntimeError("inside")
    assert (model.transform.min_size, model.transform.max_size) == ((100, 200), 300)


def test_a_small_image_still_finds_a_wrong_layer(monkeypatch):
    from metric_zoo.nn import MetricConv2d

    model = detector("fasterrcnn_mobilenet_v3_large_fpn", min_size=128, max_size=160)
    right = MetricConv2d.forward
    monkeypatch.setattr(MetricConv2d, "forward", lambda self, x: right(self, x) * 1.001)
    with pytest.raises(mz.ConversionError, match="layer rpn.head.conv.0.0 differs"):
        mz.convert(model, where="rpn.head.conv.*", inplace=True)
