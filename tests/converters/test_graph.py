"""`output="graph"`: one graph for both modes, functional convolutions included. The original module is the oracle."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import metric_zoo as mz
from metric_zoo.nn import SampledConv2d

X = torch.rand(2, 3, 24, 24)


class Functional(nn.Module):
    """Convolves by functions as well: with parameters, with a computed kernel, by position and by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.weight, self.bias = nn.Parameter(torch.randn(8, 8, 3, 3) / 8), nn.Parameter(torch.randn(8))
        self.block = nn.Module()
        self.block.weight = nn.Parameter(torch.randn(8, 1, 5, 5) / 5)
        self.last = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        x = F.conv2d(x, self.weight, self.bias, 1, padding=1)
        x = torch.conv2d(input=x, weight=self.block.weight, padding="same", groups=8)
        x = F.conv2d(x, self.weight / 2)
        return self.last(x)


@pytest.mark.parametrize("kind", ["metric", "deformable", "shifted"])
def test_functional_convolutions_become_layers(kind):
    model = Functional().eval()
    graph = mz.convert(model, kind, output="graph", example_input=X)
    report = mz.conversion_report(graph)
    assert set(report.converted) == {"conv2d", "block_conv2d", "last"}
    computed = next(name for name, reason in report.skipped.items() if "kernel is computed" in reason)
    assert computed.startswith("conv2d") and report.skipped["stem"].startswith("stem")
    assert set(model.state_dict()) <= set(graph.state_dict())
    new, old = graph(X), model(X)
    assert (new - old).abs().max() <= 1e-5 * old.abs().max()
    graph(X).square().sum().backward()
    for layer in graph.modules():
        if isinstance(layer, SampledConv2d):
            assert layer.sampler.weight.grad is not None and layer.sampler.weight.grad.isfinite().all()
    with torch.no_grad():
        graph.block_conv2d.sampler.bias += 0.25
        assert (graph(X) - old).abs().max() > 1e-3 * old.abs().max(), "the layer is not in the graph"


def test_functional_convolutions_are_selected_by_name_and_strict_refuses_the_rest():
    graph = mz.convert(Functional(), output="graph", where=["block_conv2d"], example_input=X)
    assert list(mz.conversion_report(graph).converted) == ["block_conv2d"]
    with pytest.raises(mz.ConversionError, match="strict: conv2d.* cannot be converted: functional"):
        mz.convert(Functional(), output="graph", strict=True, example_input=X)


class Modes(nn.Module):
    """Depends on its mode in every way that one graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.path = nn.BatchNorm2d(8), timm.layers.DropPath(0.5)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = x + self.path(self.conv(x))
        x = F.dropout(x, 0.5, self.training)
        return x[:, : 4 if self.training else 6] * (2.0 if self.training else 1.0)


def test_a_graph_follows_the_mode():
    torch.manual_seed(0)
    model = Modes()
    graph = mz.convert(copy.deepcopy(model), output="graph", example_input=X)
    assert graph.training, "it is in the model's mode"
    for run in (1, 2):  # there and back
        graph.train(), model.train()
        torch.manual_seed(run)
        new = graph(X)
        torch.manual_seed(run)
        old = model(X)
        assert new.shape == old.shape == (2, 4, 24, 24) and (old == 0).float().mean() > 0.3
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
        graph.eval(), model.eval()
        assert graph(X).shape == (2, 6, 24, 24)
        torch.testing.assert_close(graph(X), model(X), rtol=1e-4, atol=1e-5)
    twin = copy.deepcopy(graph)
    assert twin.train()(X).shape[1] == 4 and not graph.training


@pytest.mark.parametrize(
    "name",
    ["resnet18", "convnext_atto", "efficientnet_b0", "nf_regnet_b1", "mobilevit_xxs", "swin_tiny_patch4_window7_224"],
)
@pytest.mark.filterwarnings("ignore:nothing to swap")
def test_timm_models_as_graphs(name):
    torch.manual_seed(0)
    model = timm.create_model(name, drop_rate=0.2, drop_path_rate=0.2).eval()
    graph = mz.convert(model, output="graph")
    assert list(mz.conversion_report(graph).converted) == list(mz.conversion_report(mz.convert(model)).converted)
    image = torch.rand(1, *model.pretrained_cfg["input_size"])
    with torch.no_grad():
        new, old = graph(image), model(image)
    assert (new - old).abs().max() <= 1e-5 * old.abs().max()
    assert set(model.state_dict()) <= set(graph.state_dict())


class Auxiliary(nn.Module):
    """Runs a convolution in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        return x + self.aux(x).mean() if self.training else x


class Branching(nn.Sequential):
    """Looks at its input's values."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


class Frozen(nn.Module):
    """Drops by a function, in a block that may be frozen."""

    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


def test_a_frozen_block_stays_frozen():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.block = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(8, 8, 3),
                nn.Sequential(Frozen(), nn.Identity()),
            )
            self.block[0].child = nn.Identity()  # so that it is entered, not a leaf

        def forward(self, x):
            return self.block(self.conv(self.stem(x)))

    model = Outer().train()
    model.block.eval()
    graph = mz.convert(model, output="graph", example_input=X)
    torch.testing.assert_close(graph(X), model(X), rtol=1e-4, atol=1e-5)
    graph.train()
    assert (graph(X) == 0).float().mean() > 0.3


def test_a_graph_keeps_what_a_model_tells_of_itself(tmp_path):
    model = timm.create_model("resnet18", num_classes=3)
    seen = []
    model.register_forward_hook(lambda *a: seen.append("root"))
    graph = mz.convert(mz.convert(model, where=["layer2"]), where=["layer3"], output="graph")
    seen.clear()
    graph.eval()(X)
    assert seen == ["root"]
    graph = copy.deepcopy(graph)  # fx copies no forward hooks, but what follows it does
    assert graph.num_classes == 3 and graph.pretrained_cfg == model.pretrained_cfg
    assert {n.split(".")[0] for n in mz.conversion_report(graph).converted} == {"layer2", "layer3"}
    torch.save(graph, tmp_path / "graph.pt")
    assert torch.equal(torch.load(tmp_path / "graph.pt", weights_only=False)(X), graph(X))


@pytest.mark.filterwarnings("ignore:timm builds")
def test_a_saved_graph_of_the_papers_network_comes_back(tmp_path):
    model = timm.create_model("resnet18", num_classes=3).eval()
    graph = mz.convert(model, where="paper", output="graph")
    assert model.layer4[0].conv1.stride == (2, 2) and mz.conversion_report(graph).atrous
    mz.save(graph, tmp_path)
    again = mz.load(tmp_path, model=mz.convert(model, "standard", output="graph"))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(again(image), graph(image))


class Constant(nn.Module):
    """Makes a tensor of its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.conv(self.stem(x)) * torch.tensor(2.0 if self.training else 1.0)


BAD = [
    (Constant(), "Constant makes a tensor of other values in training"),
    (Auxiliary(), "Auxiliary runs other operations in training than in evaluation"),
    (Branching(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), "Branching cannot be traced by torch.fx"),
]


@pytest.mark.parametrize(("model", "message"), BAD, ids=["constant", "auxiliary", "branching"])
def test_what_one_graph_cannot_do_is_refused(model, message):
    with pytest.raises(mz.ConversionError, match=message):
        mz.convert(model, inplace=True, output="graph", example_input=X)
    assert not any(isinstance(m, SampledConv2d) for m in model.modules())


def test_hooks_that_a_graph_would_not_call_are_refused():
    model = Modes()
    model.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    model.block.register_forward_hook(lambda m, a, output: output * 2)
    with pytest.raises(mz.ConversionError, match="block has forward hooks, which a graph does not call"):
        mz.convert(model, output="graph", example_input=X)
