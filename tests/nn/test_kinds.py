"""What kinds say of themselves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import matplotlib.colors
import matplotlib.markers
import pytest
import torch

import metric_zoo as mz
from metric_zoo import MetricZooError
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.runs import expand
from metric_zoo.nn import config
from metric_zoo.nn import kind as kind_module
from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import KINDS, Promise, kind_of
from metric_zoo.nn.registry import featured_kinds, get_kind
from tests.kinds import EVERY, stand_in

OTHERS = {"dilated": Promise.NOTHING, "sparse": Promise.APPROXIMATION}
"""But for these a layer starts as the convolution it replaces."""


@pytest.mark.parametrize("kind", EVERY)
def test_a_kind_knows_its_layers(kind):
    layer, found = stand_in(kind), get_kind(kind)
    assert kind_of(layer) is found and type(layer).kind == found.name == kind
    assert isinstance(layer.config, found.config) and issubclass(found.conversion, found.config)
    assert found.promise is OTHERS.get(kind, Promise.FUNCTION) and found.lossless == (kind not in OTHERS)
    own = {id(p): name for name, p in layer.named_parameters()}
    rule = {own[id(p)] for p in found.rule_parameters(layer)}
    assert bool(rule) == (kind != "dilated") and not rule & {"weight", "weights", "bias"}


@pytest.mark.parametrize("module", [torch.nn.Conv2d(2, 2, 3), torch.nn.ReLU()], ids=["convolution", "other"])
def test_what_no_conversion_makes_has_no_kind(module):
    assert kind_of(module) is None


def test_every_kind_looks_different():
    """Names of colours and markers are matplotlib's."""
    looks = [(kind.colour, kind.marker) for kind in KINDS.values()]
    for index in (0, 1):
        assert len({look[index] for look in looks}) == len(looks)
    assert all(matplotlib.colors.is_color_like(colour) for colour, _ in looks)
    assert all(marker in matplotlib.markers.MarkerStyle.markers for _, marker in looks)


@pytest.mark.parametrize(
    "name", ["ActiveConfig", "DeformConfig", "DilatedConfig", "MetricConfig", "SparseConfig", "StandardConfig"]
)
def test_options_are_found_where_they_were(name):
    """Whole layers that were pickled before name them there."""
    found = getattr(config, name)
    assert found.__name__ == name and issubclass(found, config.KindOptions)
    with pytest.raises(AttributeError, match="no attribute 'NoConfig'"):
        config.NoConfig  # noqa: B018


def test_a_kind_may_say_no_more_than_where_it_samples(monkeypatch):
    """Without options and without looks; its head is the full one."""
    monkeypatch.setattr(kind_module, "KINDS", {**KINDS})

    @kind_module.kind("minimal", options=config.KindOptions)
    class Minimal(mz.nn.SampledConv2d):
        def _head_channels(self) -> int:
            return 2

        def _field(self, input, pads):
            return Field(self.sampler(input, pads).unflatten(1, (1, 1, 2)), None, "offset")

    layer, x = Minimal(2, 3, 3), torch.randn(1, 2, 6, 6)
    assert layer.sampler.form == "full"
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias))


def test_a_kind_s_head_is_checked_whatever_its_options_check(monkeypatch):
    @dataclass(frozen=True)
    class Unchecked(config.KindOptions):
        head: str = "full"

    class Layer(mz.nn.DeformConv2d):
        options = Unchecked

        def _sample_groups(self) -> int:
            return 1

    with pytest.raises(MetricZooError, match="head='x': expected one of"):
        Layer(2, 2, 3, head="x")


def test_the_order_does_not_depend_on_what_is_imported_first():
    code = "import metric_zoo.nn.geodesic; from metric_zoo.nn.kind import KINDS; print(*KINDS)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["standard", *EVERY]


def test_what_is_shown_without_being_asked_for():
    assert featured_kinds() == ("metric", "deformable", "shifted")


def test_the_ordinary_convolution_has_no_layer():
    kind = get_kind("standard")
    assert kind.layer is None and kind.lossless and kind.why_not(torch.nn.Conv2d(2, 2, 3)) == ""
    with pytest.raises(mz.MetricZooError, match="'standard' has no layer"):
        kind.build(torch.nn.Conv2d(2, 2, 3), 0, {})


def test_recipes_take_what_a_conversion_takes(tmp_path):
    """Also options of the conversion that are none of the layer's."""
    path = tmp_path / "recipe.yaml"
    text = "name: x\nmodels: [test_convnext]\nkinds: [{kind: sparse, options: {steps: 5, samples: 8}}]\n"
    path.write_text(text, encoding="utf-8")
    (run,) = expand(load_recipe(path))
    assert run.convolution.options == {"steps": 5, "samples": 8}
    path.write_text(text.replace("steps", "stepz"), encoding="utf-8")
    with pytest.raises(mz.RecipeError, match="kind 'sparse' has no option 'stepz'; did you mean 'steps'"):
        expand(load_recipe(path))
