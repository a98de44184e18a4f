"""Adapters of PEFT on sampled layers: the oracle is the layer whose kernel has the adapter's change added by hand."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import metric_zoo as mz
from metric_zoo.errors import ConversionError
from tests.kinds import SAMPLED

peft = pytest.importorskip("peft")

X = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))


def network(kind: str = "deformable", groups: int = 1, stride: int = 2) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.first, net.conv = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, stride, padding=1, groups=groups)
    model = mz.convert(net, kind, where="all", example_input=X).eval()
    for parameter in mz.nn.head_parameters(model):
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def adapted(config, **options) -> nn.Module:
    model = peft.get_peft_model(network(**options), config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
    return model.eval()


def lora(**options):
    return peft.LoraConfig(**{"r": 4, "target_modules": ["conv"], **options})


CONFIGS = {
    "lora": lora,
    "rslora": lambda: lora(use_rslora=True),
    "adalora": lambda: peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, target_modules=["conv"]),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=["conv"]),
    "loha-effective": lambda: peft.LoHaConfig(r=4, target_modules=["conv"], use_effective_conv2d=True),
    "lokr": lambda: peft.LoKrConfig(r=4, target_modules=["conv"]),
    "lokr-effective": lambda: peft.LoKrConfig(r=4, target_modules=["conv"], use_effective_conv2d=True),
}


if not hasattr(peft.tuners.adalora, "SVDConv2d"):  # an older PEFT refuses convolutions itself
    del CONFIGS["adalora"]


def with_kernel(model: nn.Module, delta: Tensor) -> Tensor:
    """What ``model`` gives once ``delta`` is added to its kernel."""
    model.conv.weight.data += delta
    with torch.no_grad():
        return model(X)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_an_adapter_adds_to_the_kernel_at_the_same_positions(name):
    model = adapted(CONFIGS[name]())
    layer = model.base_model.model.conv
    expected = with_kernel(network(), layer.get_delta_weight("default"))
    assert (expected - network()(X)).abs().max() > 1e-3
    torch.testing.assert_close(model(X), expected, rtol=1e-6, atol=1e-6)
    with model.disable_adapter():
        torch.testing.assert_close(model(X), network()(X))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    torch.testing.assert_close(copied(X), expected, rtol=1e-6, atol=1e-6)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(X), expected, rtol=1e-6, atol=1e-6)
    assert type(merged.conv) is mz.nn.DeformConv2d


def test_loras_change_is_the_product_of_its_factors():
    model = adapted(lora())
    layer = model.base_model.model.conv
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    product = torch.einsum("or,rikl->oikl", b[..., 0, 0], a) * layer.scaling["default"]
    torch.testing.assert_close(model(X), with_kernel(network(), product.detach()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", SAMPLED)
@torch.no_grad()
def test_every_kind_can_be_adapted(kind):
    for name in ("lora", "loha"):
        model = adapted(CONFIGS[name](), kind=kind)
        expected = with_kernel(network(kind), model.base_model.model.conv.get_delta_weight("default"))
        torch.testing.assert_close(model(X), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["loha", "lokr"])
@torch.no_grad()
def test_grouped_layers_can_be_adapted(name):
    model = adapted(CONFIGS[name](), groups=8)
    expected = model(X)
    torch.testing.assert_close(model.merge_and_unload()(X), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_only_the_adapters_parameters_learn(name):
    model = adapted(CONFIGS[name]()).train()
    learning = {k: p for k, p in model.named_parameters() if p.requires_grad}
    assert learning and not [k for k in learning if "sampler" in k or "base_layer" in k]
    model(X).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learning.values())


@torch.no_grad()
def test_adapters_are_saved_and_loaded_and_told_apart(tmp_path):
    model = adapted(lora())
    model.add_adapter("second", lora(r=2, init_lora_weights=False))
    model.set_adapter("second")
    expected = model(X)
    model.save_pretrained(tmp_path, selected_adapters=["second"])
    torch.testing.assert_close(peft.PeftModel.from_pretrained(network(), tmp_path / "second").eval()(X), expected)
    with pytest.raises(ConversionError, match="one kernel for the whole batch"):
        model(X, adapter_names=["default", "second"])
    assert list(mz.conversion_report(model).converted) == ["conv"]


@torch.no_grad()
def test_the_sampling_can_be_trained_whole():
    model = adapted(lora(target_modules=["first"], modules_to_save=["sampler"]))
    expected = model(X)
    assert (expected - network()(X)).abs().max() > 1e-3
    torch.testing.assert_close(model.merge_and_unload()(X), expected)


REFUSED = {
    "dora": (lambda: lora(use_dora=True), "plain LoRA"),
    "lora-bias": (lambda: lora(lora_bias=True), "plain LoRA"),
    "dropout": (lambda: lora(lora_dropout=0.1), "set it to 0"),
    "sampler-lora": (lambda: lora(target_modules=["sampler"]), "modules_to_save"),
    "sampler-loha": (lambda: peft.LoHaConfig(target_modules=["sampler"]), "modules_to_save"),
    "ia3": (lambda: peft.IA3Config(target_modules=["conv"], feedforward_modules=["conv"]), "use LoRA"),
    "oft": (lambda: peft.OFTConfig(r=4, oft_block_size=0, target_modules=["conv"]), "use LoRA"),
    "boft": (lambda: peft.BOFTConfig(boft_block_size=4, target_modules=["conv"]), "use LoRA"),
    "hra": (lambda: peft.HRAConfig(target_modules=["conv"]), "use LoRA"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_compute_something_else_is_refused_when_it_is_made(name):
    config, why = REFUSED[name]
    with pytest.raises(ConversionError, match=why):
        peft.get_peft_model(network(), config())


def test_lora_on_a_grouped_layer_is_refused():
    with pytest.raises(ConversionError, match="use LoHa"):
        peft.get_peft_model(network(groups=8), lora(r=8))


def test_two_methods_on_one_layer_are_refused():
    model = peft.PeftMixedModel(network(), peft.LoHaConfig(target_modules=["conv"]))
    with pytest.raises(ConversionError, match="one at a time"):
        model.add_adapter("second", lora())


def test_a_factor_cannot_be_called():
    with pytest.raises(ConversionError, match="part of its kernel"):
        adapted(lora()).base_model.model.conv.lora_A["default"](X)


def test_an_offloaded_layer_is_refused_not_run_without_its_adapter():
    from accelerate import cpu_offload

    model = cpu_offload(adapted(lora()), execution_device=torch.device("cpu"))
    with pytest.raises(ConversionError, match="merge the adapter, then offload"):
        model(X)


@pytest.mark.parametrize("name", ["lora", "loha"])
def test_what_is_adapted_already_is_not_converted(name):
    model = peft.get_peft_model(nn.ModuleDict({"conv": nn.Conv2d(8, 8, 3)}), CONFIGS[name]())
    with pytest.raises(ConversionError, match="convert first, then adapt"):
        mz.convert(model, where="all", example_input=X)


def test_linear_layers_may_be_adapted_before_a_conversion():
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 12 * 12, 2))
    model = peft.get_peft_model(net, lora(target_modules=["3"]))
    assert list(mz.conversion_report(mz.convert(model, where="all", example_input=X)).converted) == [
        "base_model.model.1"
    ]


@torch.no_grad()
def test_an_ordinary_layer_of_a_converted_model_is_left_to_peft():
    model = adapted(lora(target_modules=["first"]))
    expected = model(X)
    assert type(model.base_model.model.first).__module__.startswith("peft.")
    torch.testing.assert_close(model.merge_and_unload()(X), expected, rtol=1e-5, atol=1e-5)
