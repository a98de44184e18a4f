"""What a converted layer keeps of the convolution it replaced: enough to revert, and no second kernel."""

from __future__ import annotations

import gc
import pickle
import types

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn
from torch.nn.utils import parametrize

import metric_zoo as mz
from metric_zoo.errors import ConversionError

X = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))


def network(conv: nn.Conv2d | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 8, 1), conv or nn.Conv2d(8, 32, 3, padding=1))


def converted(net: nn.Module | None = None, kind: str = "deformable", **options) -> nn.Module:
    return mz.convert(net or network(), kind, where="all", example_input=X, **options)


def storages(root: object) -> dict[int, int]:
    """Address and bytes of every storage that can be reached from an object, through whatever holds it."""
    found, seen, todo = {}, set(), [root]
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        todo += gc.get_referents(value)
    return found


@pytest.mark.parametrize("inplace", [True, False])
def test_nothing_but_parameters_is_reachable(inplace):
    model = converted(inplace=inplace)
    assert set(storages(model)) == {p.untyped_storage().data_ptr() for p in model.parameters()}


def test_a_parameter_that_gets_other_storage_leaves_none_behind():
    """As sharding does: each process keeps its part alone."""
    model = converted()
    whole = model[1].weight.untyped_storage().nbytes()
    for module in model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = nn.Parameter(parameter[: len(parameter) // 2].clone())
    assert max(storages(model).values()) < whole


def test_a_pickle_is_no_larger_than_its_parameters():
    plain, model = network(), converted()
    added = sum(p.nbytes for p in model.parameters()) - sum(p.nbytes for p in plain.parameters())
    assert len(pickle.dumps(model)) - len(pickle.dumps(plain)) < added + 8000  # of 9216 for the kernel alone


def test_a_sparse_complex_keeps_the_kernel_it_approximates():
    net = network(nn.Conv2d(8, 8, 9, padding=4, groups=8)).double()
    model = mz.convert(net, "sparse", example_input=X.double(), steps=1, max_error=9, min_speedup=0)
    plain = mz.revert(model.float())
    assert torch.equal(plain[1].weight, net[1].weight.float()) and plain[1].weight.dtype == torch.float32


WAYS = {
    "moved": lambda model: model.bfloat16(),
    "cast": lambda model: model.double(),
    "assigned": lambda model: model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()
                                                     if "sampler" not in k}, strict=False, assign=True) and model,
    "pickled": lambda model: pickle.loads(pickle.dumps(model)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_revert_takes_the_parameters_as_they_are(way):
    model = WAYS[way](converted())
    plain = mz.revert(model, inplace=True)
    assert type(plain[1]) is nn.Conv2d and plain[1].padding == (1, 1)
    assert list(plain.state_dict()) == list(network().state_dict())
    with torch.no_grad():
        x = X.to(plain[1].weight)
        expected = nn.functional.conv2d(plain[0](x), plain[1].weight, plain[1].bias, padding=1)
        torch.testing.assert_close(plain(x), expected)


def test_revert_brings_back_the_class_and_all_that_hangs_on_the_layer():
    conv = ScaledStdConv2d(8, 16, 3, padding=1)
    conv.register_buffer("seen", torch.zeros(1))
    conv.register_buffer("secret", torch.ones(1), persistent=False)
    conv.note, conv.probe = "before", nn.Identity()
    conv._register_state_dict_hook(lambda module, state, prefix, meta: state.update({f"{prefix}extra": torch.ones(1)}))
    model = converted(network(conv)).eval()
    layer = model[1]
    layer.note, layer.added, layer.seen = "after", 3, torch.full((1,), 7.0)
    calls = []
    layer.register_forward_hook(lambda *_: calls.append("forward"))
    expected = model(X)
    plain = mz.revert(model)
    back = plain[1]
    assert type(back) is ScaledStdConv2d and (back.eps, back.scale) == (conv.eps, conv.scale) and not back.training
    assert (back.note, back.added, back.seen.item(), back.secret.item()) == ("after", 3, 7, 1)
    assert (
        isinstance(back.probe, nn.Identity) and "1.extra" in plain.state_dict() and "1.secret" not in plain.state_dict()
    )
    calls.clear()
    torch.testing.assert_close(plain(X), expected)
    assert calls == ["forward"]
    assert not {"config", "standardization", "_origin", "_metric_zoo_name", "sampler"} & {*vars(back), *back._modules}
    mz.convert(plain, where="all", example_input=X)


def test_a_layer_keeps_the_children_of_the_convolution():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    conv.probe = nn.BatchNorm2d(8)
    model = converted(network(conv))
    assert {"1.probe.weight", "1.probe.running_mean"} <= set(model.state_dict())


def test_a_parametrized_kernel_is_not_reverted():
    model = converted()
    parametrize.register_parametrization(model[1], "weight", nn.Identity())
    with pytest.raises(ConversionError, match="weight is computed"):
        mz.revert(model)


def test_parametrizations_of_the_rule_do_not_go_back():
    model = converted(kind="active")
    parametrize.register_parametrization(model[1], "offset", nn.Identity())
    assert [name for name, _ in mz.revert(model)[1].named_children()] == []


def test_save_load_revert(tmp_path):
    mz.save(converted(), tmp_path)
    plain = mz.revert(mz.load(tmp_path, model=network()))
    torch.testing.assert_close(plain(X), network()(X))


@pytest.mark.parametrize("bound", ["forward", "compiled"])
def test_what_is_bound_to_a_layer_does_not_follow_it(bound):
    """accelerate's hooks replace `forward` on the object (1.15), `Module.compile` its call: both run the old one."""
    x = torch.randn(1, 3, 16, 16)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1))
    model = mz.convert(net, "deformable", where="all", example_input=x)
    if bound == "forward":
        hooks = pytest.importorskip("accelerate.hooks")
        hooks.add_hook_to_module(model[1], hooks.AlignDevicesHook(io_same_device=True))
    else:
        model[1].compile(backend="eager")
    plain = mz.revert(model)
    plain[1].weight = nn.Parameter(torch.zeros_like(plain[1].weight))
    torch.testing.assert_close(plain(x), plain[1].bias[:, None, None].expand(1, 4, 16, 16))


def test_a_forward_replaced_on_the_object_is_left_alone():
    """Its sampling would never run."""
    hooks = pytest.importorskip("accelerate.hooks")
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    hooks.add_hook_to_module(net[2], hooks.AlignDevicesHook(io_same_device=True))
    report = mz.conversion_report(mz.convert(net, where="all", example_input=torch.randn(1, 3, 16, 16)))
    assert list(report.converted) == ["1"] and "its forward was replaced" in report.skipped["2"]
