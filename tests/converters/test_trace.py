"""The analysis falls back from tracing the whole model to its parts; hooks and names are the oracles."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from metric_zoo.converters import analyse

X = torch.rand(1, 3, 32, 32)


class Block(nn.Module):
    """A convolution, its normalisation, and a decision that only shapes or values can make."""

    def __init__(self, decide) -> None:
        super().__init__()
        self.conv, self.norm, self.decide = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), decide

    def forward(self, x):
        x = self.norm(self.conv(x))
        return x * 2 if self.decide(x) else x


class Whole(nn.Module):
    """A backbone that traces, under a forward that does not."""

    def __init__(self, decide) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
        self.decide = decide

    def forward(self, x):
        x = self.backbone(x)
        return x * 2 if self.decide(x) else x


def shapes(x):
    return x.shape[-1] > 8


def values(x):
    return bool(x.sum() > 0)


def test_symbolically():
    node = analyse(Block(lambda x: True), X).nodes[0]
    assert (node.norm, node.receptive_field) == ("norm", 3)


def test_with_the_shapes_of_one_input():
    analysis = analyse(nn.Sequential(Block(shapes), Block(shapes)), X)
    assert analysis.traced
    assert [(n.norm, n.receptive_field) for n in analysis.nodes] == [("0.norm", 3), ("1.norm", 5)]


def test_the_backbone_alone():
    analysis = analyse(Whole(values), X)
    node = analysis.nodes[0]
    assert analysis.traced and node.norm == "backbone.2" and node.explicit_pad and node.receptive_field is None


def test_hooks_alone():
    analysis = analyse(Block(values), X)
    node = analysis.nodes[0]
    assert not analysis.traced and node.norm is None and node.calls == 1 and node.input_shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("model", "conv", "norm"),
    [
        (lambda: timm.create_model("mobilevit_xxs"), "stages.0.0.conv2_kxk.conv", "stages.0.0.conv2_kxk.bn"),
        (lambda: timm.create_model("tiny_vit_5m_224"), "patch_embed.conv2.conv", "patch_embed.conv2.bn"),
        (
            lambda: torchvision.models.get_model("fasterrcnn_resnet50_fpn", weights_backbone=None, min_size=96),
            "backbone.body.layer1.0.conv2",
            "backbone.body.layer1.0.bn2",
        ),
    ],
    ids=["mobilevit", "tiny_vit", "fasterrcnn"],
)
def test_models_that_do_not_trace_as_they_are(model, conv, norm):
    nodes = {node.name: node for node in analyse(model()).nodes}
    assert nodes[conv].norm == norm


def test_nothing_is_printed(capfd):
    analyse(Block(values), X)
    analyse(timm.create_model("naflexvit_base_patch16_gap"))
    assert capfd.readouterr() == ("", "")
