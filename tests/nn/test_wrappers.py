"""What wraps, shards, offloads, prunes, averages, replaces or starts modules anew finds sampled layers in order."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import parametrizations, parametrize, prune

import metric_zoo as mz
from metric_zoo.errors import ConversionError
from metric_zoo.nn import SampledConv2d
from metric_zoo.nn.registry import get_kind
from tests.kinds import LOSSLESS, SAMPLED, options_of

X = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
FORMS = ["full", "separable", "pointwise", "bottleneck"]


def network(kind: str = "deformable", **options) -> nn.Module:
    """A converted network whose rule has been trained."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8))
    model = mz.convert(net, kind, where="all", example_input=X, **options).eval()
    for parameter in mz.nn.head_parameters(model):
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def convolutions(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_weights_that_are_kept_elsewhere(form, tmp_path):
    """The oracle is the network with its weights at hand."""
    from accelerate import cpu_offload, disk_offload

    for offload in (cpu_offload, lambda m, **o: disk_offload(m, str(tmp_path), **o)):
        model = network(head=form)
        expected = model(X)
        assert torch.equal(offload(model, execution_device=torch.device("cpu"))(X), expected)


@torch.no_grad()
def test_a_checkpoint_dispatched_into_a_model_without_values(tmp_path):
    from accelerate import Accelerator, load_checkpoint_and_dispatch

    model = network(head="separable")
    Accelerator(cpu=True).save_model(model, str(tmp_path))
    empty = load_checkpoint_and_dispatch(network(head="separable").to("meta"), str(tmp_path), device_map={"": "cpu"})
    assert torch.equal(empty(X), model(X))


@pytest.mark.parametrize("form", FORMS)
def test_pruned_convolutions_train_on(form):
    model = network("shifted", head=form)
    prune.global_unstructured([(m, "weight") for m in convolutions(model)], prune.L1Unstructured, amount=0.2)
    for _ in range(3):
        model.zero_grad()
        model(X).square().mean().backward()
        assert all(m.weight_orig.grad is not None for m in convolutions(model))
    expected = model(X)
    for module in convolutions(model):
        prune.remove(module, "weight")
    torch.testing.assert_close(model(X), expected)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_weight_norm_of_every_convolution_changes_nothing(form):
    model = network(head=form)
    expected = model(X)
    for module in convolutions(model):
        parametrizations.weight_norm(module)
    torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-5)
    for module in convolutions(model):
        parametrize.remove_parametrizations(module, "weight")
    torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def process_group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def shard(model: nn.Module) -> nn.Module:
    """Every convolution for itself, those of heads before their layers."""
    from torch.distributed.fsdp import fully_shard

    for module in [*reversed(convolutions(model)), model]:
        fully_shard(module)
    return model


@pytest.mark.parametrize("form", ["separable", "bottleneck"])
def test_every_convolution_can_be_sharded(form, process_group):
    """The oracle is the network before it was sharded."""
    model = network(head=form)
    expected = model(X)
    expected.square().mean().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    output = shard(model)(X)
    output.square().mean().backward()
    torch.testing.assert_close(output, expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.full_tensor(), wanted[name])
    with pytest.raises(ConversionError, match="revert it, then shard it"):
        mz.revert(model)


def test_sharded_layers_without_values_start_at_the_identity(process_group):
    """Made on the meta device, sharded, then `reset_parameters`: the oracle is the ordinary convolution."""
    with torch.device("meta"):
        model = nn.Sequential(mz.nn.MetricConv2d(8, 8, 3, padding=1))
    _start(shard(model).to_empty(device="cpu"))
    output = model(X)
    model[0].unshard()
    torch.testing.assert_close(output, _dense(model[0]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def _two_processes(rank: int, path: str) -> None:
    distributed.init_process_group("gloo", store=distributed.FileStore(path, 2), rank=rank, world_size=2)
    for form in ("separable", "bottleneck"):
        model = network(head=form)
        whole, expected = model[1].weight.untyped_storage().nbytes(), model(X)
        torch.testing.assert_close(shard(model)(X), expected)
        tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor) and t.shape[1:] == (2, 3, 3)]
        held = {(t.to_local() if hasattr(t, "to_local") else t).untyped_storage().nbytes() for t in tensors}
        assert held and whole not in held
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_share_every_convolution(tmp_path):
    torch.multiprocessing.spawn(_two_processes, (str(tmp_path / "store"),), nprocs=2)


def _start(model: nn.Module) -> None:
    """As trainers do after `to_empty`: parents first, then children."""
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def _dense(layer: SampledConv2d) -> Tensor:
    return nn.functional.conv2d(X, layer.weight, layer.bias, padding=1, groups=layer.groups)


@pytest.mark.parametrize(
    ("kind", "form"), [(kind, "full") for kind in LOSSLESS] + [("metric", form) for form in FORMS[1:]]
)
def test_reset_parameters_starts_a_fresh_rule(kind, form):
    layer = network(kind, **({"head": form} if "head" in options_of(kind) else {}))[1]
    for parameter in layer.parameters():
        parameter.data.fill_(torch.nan)
    _start(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(X), _dense(layer), rtol=1e-4, atol=1e-5)
    layer(X).square().mean().backward()
    last = get_kind(kind).rule_parameters(layer)[0]
    assert last.grad.abs().sum() > 0


@torch.no_grad()
def test_averages_are_of_every_parameter():
    """The oracle is the mean of two networks' parameters, and what it computes."""
    from timm.utils import ModelEmaV3
    from torch.optim.swa_utils import AveragedModel

    first, second, mean = network(), network(), network()
    for parameter, other in zip(second.parameters(), mean.parameters(), strict=True):
        parameter += 1e-3
        other += 5e-4
    swa, ema = AveragedModel(first), ModelEmaV3(first, decay=0.5)
    swa.update_parameters(first), swa.update_parameters(second), ema.update(second)
    for average in (swa.module, ema.module):
        torch.testing.assert_close(average(X), mean(X), rtol=1e-4, atol=1e-5)
        assert mz.conversion_report(average).converted.keys() == {"1"}


def _eager_quantization(model: nn.Module) -> nn.Module:
    model.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    prepared = torch.ao.quantization.prepare(model)
    prepared(X)
    return torch.ao.quantization.convert(prepared)


REPLACERS = {
    "eager": _eager_quantization,
    "dynamic": lambda model: torch.ao.quantization.quantize_dynamic(model, dtype=torch.qint8),
    "sync-norm": nn.SyncBatchNorm.convert_sync_batchnorm,
}


@pytest.mark.parametrize("name", REPLACERS)
@pytest.mark.filterwarnings("ignore")
def test_what_replaces_modules_by_their_class_leaves_sampled_layers(name):
    model = network()
    layer = REPLACERS[name](copy.deepcopy(model))[1]
    assert type(layer) is mz.nn.DeformConv2d
    with torch.no_grad():
        torch.testing.assert_close(layer(X), model[1](X))


@torch.no_grad()
def test_channels_last():
    model = network()
    expected = model(X)
    output = model.to(memory_format=torch.channels_last)(X.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def _same_kernel(layer: SampledConv2d, factor: Tensor | float = 1.0) -> nn.Conv2d:
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=4)
    conv.weight.data = layer.weight.data * factor
    return conv


TAKEOVERS = {
    "copied": lambda model: model.__setattr__("1", _same_kernel(model[1])),
    "folded": lambda model: model.__setitem__(1, _same_kernel(model[1], torch.linspace(-2, 3, 8).view(8, 1, 1, 1))),
    "half": lambda model: model.add_module("1", _same_kernel(model[1]).half()),
}


@pytest.mark.parametrize("kind", SAMPLED)
@pytest.mark.parametrize("name", TAKEOVERS)
def test_taking_a_trained_layers_kernel_without_its_sampling_is_refused(name, kind):
    model = network(kind)
    with pytest.raises(ConversionError, match="drops its trained sampling"):
        TAKEOVERS[name](model)
    assert isinstance(model[1], SampledConv2d)
    if kind in LOSSLESS:
        model[1].reset_rule()
        TAKEOVERS[name](model)
        assert type(model[1]) is nn.Conv2d


@pytest.mark.parametrize("kind", ["active", "dilated"])
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no MKLDNN")
def test_another_kernel_format_is_refused(kind):
    """`to_mkldnn` takes every Conv2d, and would run a layer that has no children on the ordinary grid."""
    from torch.utils.mkldnn import to_mkldnn

    with pytest.raises(ConversionError, match="MkldnnConv2d takes the kernel"):
        to_mkldnn(network(kind))


@torch.no_grad()
def test_other_modules_may_take_a_layers_place():
    model = network()
    for other in (nn.Identity(), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Sequential(model[1]), model[1]):
        model[1] = other
