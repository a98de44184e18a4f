"""What training hands back: wrappers come off, shards are gathered, the rest is refused before anything is written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import accelerate
import pytest
import timm
import torch
from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

import metric_zoo as mz

X = torch.rand(2, 3, 64, 64)


def network() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=3)


def converted() -> nn.Module:
    """With rules that have moved."""
    model = mz.convert(network(), "metric").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def part(wrap):
    """The first stage alone is wrapped."""

    def change(model: nn.Module) -> nn.Module:
        model.layer1 = wrap(model.layer1)
        return model

    return change


def prepared(**options):
    def change(model: nn.Module) -> nn.Module:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        return accelerate.Accelerator(cpu=True, **options).prepare(model)

    return change


def in_place(model: nn.Module) -> nn.Module:
    model.compile()
    return model


@pytest.fixture
def group():
    """A group of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "compile": torch.compile,
    "compile in place": in_place,
    "compile of DataParallel": lambda model: torch.compile(nn.DataParallel(model)),
    "compiled part": part(torch.compile),
    "parallel part": part(nn.DataParallel),
    "part of a compiled one": lambda model: torch.compile(part(torch.compile)(model)),
    "checkpointed part": part(checkpoint_wrapper),
    "AveragedModel": AveragedModel,
    "average of DataParallel": lambda model: AveragedModel(nn.DataParallel(model)),
    "ModelEma": ModelEma,
    "ModelEmaV2": ModelEmaV2,
    "ModelEmaV3": ModelEmaV3,
    "accelerate": prepared(),
    "accelerate, bfloat16": prepared(mixed_precision="bf16"),
}


def check(wrapped: nn.Module, expected: torch.Tensor, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mz.save(wrapped, folder)
    for loaded in (mz.load(folder), mz.load(folder, model=network())):
        assert type(loaded) is timm.models.ResNet and torch.equal(loaded(X), expected)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_come_off(wrap, tmp_path):
    model = converted()
    expected = model(X)
    check(wrap(model), expected, tmp_path)


def test_distributed_data_parallel_comes_off(group, tmp_path):
    model = converted()
    check(nn.parallel.DistributedDataParallel(model), model(X), tmp_path)


def test_shards_of_one_process_are_gathered(group, tmp_path):
    model = converted()
    expected = model(X)
    fully_shard(model.layer1)
    check(fully_shard(model), expected, tmp_path)


def test_parts_of_a_larger_storage_are_copied(tmp_path):
    model = converted()
    flat = torch.cat([model.fc.weight.detach().flatten(), torch.zeros(7)])
    model.fc.weight = nn.Parameter(flat[:-7].view_as(model.fc.weight))
    check(model, model(X), tmp_path)


@pytest.mark.slow
def test_shards_of_two_processes_are_gathered(tmp_path):
    """Every process reads back what the whole model computed, and learns of a failure of the one that writes."""
    (tmp_path / "file").write_text("")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    places = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, str(Path(__file__).with_name("sharded.py")), str(tmp_path / "m"), str(tmp_path / "file")]
    running = [
        subprocess.Popen(command, env={**os.environ, **places, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for each in running:
        output, _ = each.communicate(timeout=240)
        assert each.returncode == 0 and "refused: True" in output
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]


def on(change):
    """Of the first converted layer."""

    def apply(model: nn.Module) -> nn.Module:
        change(model.layer1[0].conv1)
        return model

    return apply


def quantized(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


REFUSED = {
    "weight norm": (on(parametrizations.weight_norm), "weight of layer1.0.conv1 .*remove_parametrizations"),
    "orthogonal": (on(parametrizations.orthogonal), "weight of layer1.0.conv1 .*remove_parametrizations"),
    "spectral norm": (on(parametrizations.spectral_norm), "weight of layer1.0.conv1 .*remove_parametrizations"),
    "former weight norm": (on(nn.utils.weight_norm), "weight of layer1.0.conv1 .*remove_weight_norm"),
    "former spectral norm": (on(nn.utils.spectral_norm), "weight of layer1.0.conv1 .*remove_spectral_norm"),
    "pruned": (on(lambda c: prune.l1_unstructured(c, "weight", 0.5)), "weight of layer1.0.conv1 .*prune.remove"),
    "pruned head": (
        on(lambda c: prune.l1_unstructured(c.sampler, "bias", 0.5)),
        "bias of layer1.0.conv1.sampler .*prune.remove",
    ),
    "quantized": (quantized, "fc is quantized"),
    "traced part": (lambda model: nn.Sequential(model, torch.jit.trace(nn.ReLU(), X)), "1 is a TorchScript module"),
    "meta": (lambda model: model.to("meta"), "meta device"),
    "offloaded": (accelerate.cpu_offload, "remove_hook_from_submodules"),
    "no model": (lambda model: model.state_dict(), "OrderedDict"),
    "no values yet": (lambda model: nn.Sequential(model, nn.LazyLinear(2)), "run the model once"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_folder_holds_is_refused_before_anything_is_written(change, message, tmp_path):
    with pytest.raises(mz.ConversionError, match=message) as raised:
        mz.save(change(converted()), tmp_path / "model")
    assert "\n" not in str(raised.value) and not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (parametrizations.weight_norm, lambda c: nn.utils.parametrize.remove_parametrizations(c, "weight")),
        (lambda c: prune.l1_unstructured(c, "weight", 0.5), lambda c: prune.remove(c, "weight")),
    ],
    ids=["weight norm", "pruned"],
)
def test_the_way_out_is_one(change, undo, tmp_path):
    model = converted()
    change(model.layer1[0].conv1)
    undo(model.layer1[0].conv1)
    mz.save(model, tmp_path)
    torch.testing.assert_close(mz.load(tmp_path)(X), model(X))


def test_offloaded_models_come_back_as_the_message_says(tmp_path):
    model = converted()
    expected = model(X)
    accelerate.hooks.remove_hook_from_submodules(accelerate.cpu_offload(model))
    check(model, expected, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: prune.l1_unstructured(m.fc, "weight", 0.5),
        lambda m: parametrizations.weight_norm(m.fc),
        lambda m: m.layer1[0].conv1.add_module("adapter", nn.Linear(2, 2)),
    ],
    ids=["pruned classifier", "weight norm of the classifier", "a module hung on a converted layer"],
)
def test_what_the_architecture_may_have_too_is_read(change, tmp_path):
    """A warning tells that the architecture must be passed, and with the same change it is read."""
    model, architecture = converted(), network()
    change(model)
    with pytest.warns(UserWarning, match="only mz.load"):
        mz.save(model, tmp_path)
    change(architecture)
    assert torch.equal(mz.load(tmp_path, model=architecture)(X), model(X))


def test_adapters_of_peft_are_refused(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(converted(), peft.LoraConfig(target_modules=["fc", "layer1.0.conv1"]))
    with pytest.raises(mz.ConversionError, match="merge_and_unload"):
        mz.save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    merged = model.merge_and_unload().eval()
    mz.save(merged, tmp_path / "model")
    assert torch.equal(mz.load(tmp_path / "model")(X), merged(X))


def test_wrapped_architectures_are_no_place_to_load_into(tmp_path):
    mz.save(converted(), tmp_path)
    with pytest.raises(mz.ConversionError, match="wrapped"):
        mz.load(tmp_path, model=nn.DataParallel(network()))


@pytest.mark.parametrize("failing", ["weights", "description"])
def test_a_failed_save_leaves_the_folder_that_was_there(failing, tmp_path, monkeypatch):
    model = converted()
    mz.save(model, tmp_path / "old")
    files = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    if failing == "weights":
        monkeypatch.setattr("safetensors.torch.save_file", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    for name in ("old", "new"):
        with pytest.raises(mz.ConversionError, match="No space left"):
            mz.save(converted(), tmp_path / name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == files
    assert not (tmp_path / "new").exists()
