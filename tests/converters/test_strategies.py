"""Strategies and presets answer for themselves: they undo what they have done when they fail, and a kind that promises
an approximation needs no place of its own. Oracle: the singular values of a kernel (Eckart and Young)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metric_zoo as mz
from metric_zoo.converters.inspect import inspect_convolutions
from metric_zoo.converters.selection import presets
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import KINDS, Promise, kind

X = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 9, padding=4, groups=4),
        nn.Conv2d(4, 4, 3, padding=1),
    )


def moved() -> nn.Sequential:
    model = mz.convert(network(), "active", where="all", example_input=X)
    nn.init.normal_(model[2].offset, std=0.1)
    return model


STRATEGIES = {
    "keep": (network, {}),
    "start anew": (network, {"init": "uniform"}),
    "fit": (moved, {"init": "fit"}),
    "approximate": (network, {"to": "sparse", "steps": 2, "max_error": 99, "min_speedup": 0}),
}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("step", ["prove", "finish"])
def test_what_fails_leaves_the_model_as_it_was(monkeypatch, name, step):
    make, options = STRATEGIES[name]
    model = make()
    before, values = list(model.modules()), [p.clone() for p in model.parameters()]
    swapped_in = []

    def fail(self, *arguments):
        swapped_in.extend(module for module in model.modules() if module not in before)
        raise RuntimeError("inside")

    for cls in (Strategy, *Strategy.__subclasses__()):
        if step in vars(cls):
            monkeypatch.setattr(cls, step, fail)
    with pytest.raises(RuntimeError, match="inside"):
        mz.convert(model, where="1|2", example_input=X, inplace=True, **{"to": "metric", **options})
    assert swapped_in
    assert list(model.modules()) == before
    assert all(torch.equal(new, old) for new, old in zip(model.parameters(), values, strict=True))


@contextmanager
def _dilated(model: nn.Module) -> Iterator[None]:
    model[2].dilation, model[2].padding = (2, 2), (2, 2)
    try:
        yield
    except BaseException:
        model[2].dilation, model[2].padding = (1, 1), (1, 1)
        raise


def test_a_preset_brings_its_change_of_the_model(monkeypatch):
    mine = presets.Preset(lambda node, nodes: node.name == "2", _dilated)
    monkeypatch.setitem(presets.PRESETS, "mine", mine)
    model, expected = network(), network()
    expected[2].dilation, expected[2].padding = (2, 2), (2, 2)
    converted = mz.convert(model, where="mine", example_input=X)
    assert list(mz.conversion_report(converted).converted) == ["2"]
    torch.testing.assert_close(converted(X), expected(X))
    assert model[2].dilation == (1, 1)
    with pytest.raises(mz.ConversionError, match="does not start as the original"):
        mz.convert(model, where="mine", example_input=X, inplace=True, sampling="polar")
    assert model[2].dilation == (1, 1)


# --- a kind of another package that approximates --------------------------------------------------------------------


@dataclass(frozen=True)
class SeparableConfig(KindOptions):
    """None."""


@dataclass(frozen=True)
class SeparableOptions(SeparableConfig):
    """When it pays."""

    max_error: float = 1.0
    min_speedup: float = 0.0


class Separable2d(nn.Module):
    """Depthwise, every kernel a column times a row."""

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.kernel_size, self.padding = SeparableConfig(), conv.kernel_size, padding
        self.columns, self.rows = (nn.Parameter(torch.ones(len(conv.weight), size)) for size in conv.kernel_size)
        self.bias = conv.bias

    @staticmethod
    def why_not(conv: nn.Module) -> str:
        return "" if conv.groups == conv.in_channels == conv.out_channels else "not depthwise"

    @staticmethod
    def unwanted(node: mz.ConvNode, explicit: bool) -> str:
        return ""

    @classmethod
    def replacing(cls, conv: nn.Conv2d, padding, options) -> Separable2d:
        return cls(conv, padding, **options)

    def rule_parameters(self) -> list[nn.Parameter]:
        return []

    @torch.no_grad()
    def approximate(self, conv: nn.Conv2d, options: SeparableOptions) -> None:
        u, s, v = torch.linalg.svd(conv.weight[:, 0])
        self.columns.copy_(u[:, :, 0] * s[:, :1])
        self.rows.copy_(v[:, 0])

    def kernel_error(self, kernels: Tensor) -> float:
        found = self.columns[:, :, None] * self.rows[:, None]
        return ((found - kernels[:, 0]).flatten(1).norm(dim=1) / kernels.flatten(1).norm(dim=1)).max().item()

    def is_identity(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        (down, right), channels = self.padding, len(self.rows)
        x = F.conv2d(x, self.columns[:, None, :, None], None, 1, (down, 0), 1, channels)
        return F.conv2d(x, self.rows[:, None, None], self.bias, 1, (0, right), 1, channels)


@pytest.fixture
def separable():
    looks = {"label": "separable", "colour": "#123456", "marker": "o"}
    declare = kind(
        "separable", options=SeparableConfig, conversion=SeparableOptions, promise=Promise.APPROXIMATION, **looks
    )
    yield declare(Separable2d)
    del KINDS["separable"]


def worst_rank_one_error(kernels: Tensor) -> float:
    values = np.linalg.svd(kernels[:, 0].detach().double().numpy(), compute_uv=False)
    return max(np.sqrt((values[:, 1:] ** 2).sum(1) / (values**2).sum(1)))


def test_an_approximating_kind_from_outside(separable, tmp_path):
    model = network()
    converted = mz.convert(model, "separable", example_input=X)
    report = mz.conversion_report(converted)
    assert list(report.converted) == ["1"] and report.skipped == {"0": "not depthwise", "2": "not depthwise"}
    expected = worst_rank_one_error(model[1].weight)
    assert report.approximations["1"].kernel_error == pytest.approx(expected, rel=1e-4)
    moved = (converted(X) - model(X)).abs().max().item()
    assert report.output.maximum == pytest.approx(moved, rel=1e-3) and "kernels moved" in str(report)
    assert torch.equal(mz.revert(converted)(X), model(X))
    mz.save(converted, tmp_path / "saved")
    assert torch.equal(mz.load(tmp_path / "saved", model=network())(X), converted(X))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_error": 0.1}, r"separable kernels are off by \d+%, more than 10%"),
        ({"min_speedup": 1e9}, "separable kernels are .* times as fast"),
        ({"init": "uniform"}, "to='separable' approximates the kernels that are there"),
        ({"where": {"1": "metric"}}, "'metric' in a conversion to 'separable': separable kernels stand in for fixed"),
        ({"where": {"1": "separable"}, "to": "metric"}, "'separable' in a conversion to 'metric'"),
    ],
    ids=["error", "speed", "init", "another kind", "in another conversion"],
)
def test_it_is_refused_as_any_other(separable, arguments, message):
    with pytest.raises(mz.ConversionError, match=message):
        mz.convert(network(), **{"to": "separable", "where": "1", "example_input": X, **arguments})


class Mixed(nn.Sequential):
    """What a snake along x, and a star, cannot become all of."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, (7, 1), padding=(3, 0)),
            nn.Conv2d(8, 6, (1, 7), padding=(0, 3)),
        )


MISFITS = {
    "snake": ("snake", {}, {"2": "axis='x': a kernel of 7x1 has no cells beside its middle"}),
    "snake along y": ("snake", {"axis": "y"}, {"3": "axis='y': a kernel of 1x7 has no cells beside its middle"}),
    "star": ("star", {}, {"2": "7x1 has cells in 2 directions", "3": "1x7 has cells in 2 directions"}),
    "polar": ("metric", {"sampling": "polar", "init": "uniform"}, {"2": "needs a square", "3": "needs a square"}),
}


@pytest.mark.parametrize(("to", "options", "expected"), MISFITS.values(), ids=MISFITS)
def test_what_options_do_not_fit_stays_with_the_reason(to, options, expected):
    model = Mixed().eval()
    converted = mz.convert(model, to, example_input=X, **options)
    report = mz.conversion_report(converted)
    assert list(report.converted) == [name for name in "123" if name not in expected]
    for name, reason in expected.items():
        assert reason in report.skipped[name] and type(converted[int(name)]) is nn.Conv2d
    if not options.get("init"):
        torch.testing.assert_close(converted(X), model(X), rtol=1e-4, atol=1e-5)
    if set(options) <= {"init"}:
        rows = {row["name"]: row["reason"] for row in inspect_convolutions(model, to, example_input=X)}
        assert all(reason in rows[name] for name, reason in expected.items())
    mz.convert(converted, to, example_input=X, **options)  # nothing is left to do, which is no error


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"strict": True}, "2"), ({"where": ["1", "3"]}, "3"), ({"harmonics": 9}, "1"), ({"offset_groups": 3}, "1")],
    ids=["strict", "chosen by name", "none fits", "groups"],
)
def test_what_was_asked_for_and_does_not_fit_is_one_error(arguments, name):
    model = Mixed()
    with pytest.raises(mz.ConversionError, match=f"^{name}: ") as error:
        mz.convert(model, "star", example_input=X, **arguments)
    assert "\n" not in str(error.value) and all(type(layer) is nn.Conv2d for layer in model)
