"""Deformable layers of other libraries become ours, and compute what they did: torchvision's operator is the oracle."""

from __future__ import annotations

import copy
import pickle
import types

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops import DeformConv2d as TorchvisionConv

import metric_zoo as mz
from metric_zoo.nn.adopted import Adopted
from tests.converters import deformable
from tests.converters.deformable import Hidden, Sampled, enliven

MODELS = {  # how to build it, its input's (channels, side), and what is adopted in it
    "torchvision layers in a resnet": (deformable.resnet, (3, 40), {"layer4.0.deform", "layer4.2.deform"}),
    "calls in an ASPP": (deformable.Aspp, (6, 13), {"branches.0.0", "branches.1.0", "branches.2.0"}),
    "mmcv packs": (deformable.packs, (6, 15), {"0", "2"}),
    "mmcv layers that are given offsets": (deformable.Given, (6, 11), {"first", "second"}),
    "a subclass that predicts its offsets": (deformable.Own, (6, 11), {""}),
    "a call in a method called compute": (deformable.Named, (6, 11), {""}),
    "a call of a helper": (deformable.ByHelper, (6, 11), {""}),
    "a call behind a branch on values": (deformable.ByBranch, (6, 11), {""}),
    "a call of what forward imports": (deformable.ByImport, (6, 11), {""}),
    "a call of the registered operator": (deformable.ByOperator, (6, 11), {""}),
    "a call of a partial attribute": (lambda: Hidden("attribute"), (6, 11), {""}),
}
FEW = {name: MODELS[name] for name in [*MODELS][:3]}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}
"""Of the largest magnitude of a tensor; through up to 20 layers."""


def of(case, dtype=torch.float32) -> tuple[nn.Module, Tensor]:
    build, (channels, side), _ = case
    image = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return enliven(build()).to(dtype), image


def adopted(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, Adopted)}


class WithoutTorchvision(TorchFunctionMode):
    """Nothing calls torchvision's operator."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert "torchvision" not in str(func), func
        return func(*args, **(kwargs or {}))


def gradients(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    image = image.clone().requires_grad_()
    output = model(image)
    found = torch.autograd.grad(output.square().sum(), [image, *(p for _, p in used(model))])
    return dict(zip(["output", "input", *(name for name, _ in used(model))], [output.detach(), *found], strict=True))


def used(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Kernels that are only read may have a bias that is not."""
    unread = {"kernel.bias"}
    return [(name, p) for name, p in model.named_parameters() if name not in unread]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_values_and_gradients_are_those_of_torchvision(case, dtype):
    model, image = of(case, dtype)
    expected = gradients(model, image)
    ours = mz.adopt(model)
    assert adopted(ours) == case[2] and not adopted(model)
    with WithoutTorchvision():
        found = gradients(ours, image)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == dtype and expected[name].abs().max() > 1e-3, name
        difference = (value - expected[name]).abs().max() / expected[name].abs().max()
        assert difference <= TOLERANCE[dtype], (name, difference)


@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_state_dicts_load_strictly_before_and_after(case):
    model, image = of(case)
    other = enliven(case[0](), seed=5)
    expected, state = other(image), copy.deepcopy(other.state_dict())
    ours = mz.adopt(model)
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state, strict=True)
    torch.testing.assert_close(ours(image), expected, rtol=1e-3, atol=1e-4)
    model.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(model(image), expected)


def test_old_checkpoints_load_as_the_class_loads_them():
    """What a class does to a state dict it still does."""

    class Pack(deformable.DeformConv2dPack):
        def _load_from_state_dict(self, state_dict, prefix, *others):
            for key in ("weight", "bias"):
                state_dict[f"{prefix}conv_offset.{key}"] = state_dict.pop(f"{prefix}old_offset.{key}")
            super()._load_from_state_dict(state_dict, prefix, *others)

    model = mz.adopt(nn.Sequential(Pack(2, 2, 3)))
    state = {key.replace("conv_offset", "old_offset"): value for key, value in model.state_dict().items()}
    assert model.load_state_dict(state, strict=True) and adopted(model) == {"0"}


def test_objects_hooks_modes_and_sharing_stay():
    model, image = of(MODELS["mmcv packs"])
    shared = nn.Sequential(model[0], nn.ReLU(), model[2], model[1])
    shared.again = model[0]
    seen = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(type(module).__name__))
    model[0].train()
    model[2].weight.requires_grad_(False)
    before, objects = dict(shared.named_parameters()), list(shared.modules())
    back = mz.adopt(shared, inplace=True)
    assert back is shared and all(a is b for a, b in zip(shared.modules(), objects, strict=True))
    assert shared.again is shared[0] and isinstance(shared[0], deformable.DeformConv2dPack)
    assert all(parameter is before[name] for name, parameter in shared.named_parameters())
    assert shared[0].training and not shared[2].training and not shared[2].weight.requires_grad
    shared(image)
    assert seen == 2 * ["AdoptedDeformConv2dPack"]


def test_a_moved_model_is_adopted_where_it_is():
    model, image = of(MODELS["calls in an ASPP"])
    ours = mz.adopt(model.bfloat16())
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    expected = enliven(deformable.Aspp())(image)  # torchvision has no bfloat16 on CPU
    found = ours(image.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):  # where torchvision refuses the offsets' dtype
        found = mz.adopt(enliven(deformable.Aspp()))(image)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
    with torch.device("meta"):
        bare = mz.adopt(deformable.Aspp(), example_input=torch.rand(1, 6, 9, 9))
    assert adopted(bare) and "meta device has no values" in str(mz.conversion_report(bare))


COPIES = {"copy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model)), "shallow": copy.copy}


@pytest.mark.parametrize("case", FEW.values(), ids=FEW)
@pytest.mark.parametrize("twin", COPIES.values(), ids=COPIES)
def test_copies_are_adopted_too(case, twin):
    model, image = of(case)
    expected = model(image)
    other = twin(mz.adopt(model))
    assert adopted(other) == case[2]
    with WithoutTorchvision():
        torch.testing.assert_close(other(image), expected, rtol=1e-3, atol=1e-4)


def test_a_replica_reads_its_own_parameters():
    """As DataParallel makes one for each device."""
    block, image = mz.adopt(enliven(Sampled(6, 4, 3))), torch.rand(1, 6, 9, 9)
    replica = block._replicate_for_data_parallel()
    replica.regular_conv = nn.Conv2d(6, 4, 3, bias=False)
    nn.init.zeros_(replica.regular_conv.weight)
    assert replica(image).abs().max() == 0 and block(image).abs().max() > 0


@pytest.mark.parametrize("case", FEW.values(), ids=FEW)
def test_torch_export_holds_our_operator(case):
    model, image = of(case)
    program = torch.export.export(mz.adopt(model), (image,))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("metric_zoo.sampled_conv2d.default") == len(case[2])
    assert not any("torchvision" in target for target in targets)
    torch.testing.assert_close(program.module()(image), model(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", FEW.values(), ids=FEW)
def test_a_compiler_meets_our_operator_without_a_break(case):
    model, image = of(case)
    called: list[str] = []

    def backend(graph, inputs):
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    compiled = torch.compile(mz.adopt(model), fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(image), model(image), rtol=1e-3, atol=1e-4)
    assert called.count("metric_zoo.sampled_conv2d.default") == len(case[2])
    assert not any("torchvision" in target for target in called)


@pytest.mark.parametrize("case", FEW.values(), ids=FEW)
def test_torch_fx_sees_a_leaf(case):
    model, image = of(case)
    graph = torch.fx.symbolic_trace(mz.adopt(model))
    assert case[2] <= {node.target for node in graph.graph.nodes if node.op == "call_module"}
    torch.testing.assert_close(graph(image), model(image), rtol=1e-3, atol=1e-4)


def test_onnxruntime_runs_an_adopted_model(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = enliven(nn.Sequential(Sampled(4, 4, 3), deformable.ModulatedDeformConv2dPack(4, 2, 3, padding=1)))
    image = torch.rand(1, 4, 7, 7)
    torch.onnx.export(mz.adopt(model), (image,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_revert_gives_the_classes_back(case):
    model, image = of(case)
    classes = {name: type(module) for name, module in model.named_modules()}
    ours = mz.adopt(model)
    for parameter in ours.parameters():
        parameter.data += 0.01
    back = mz.revert(ours)
    assert adopted(ours) and {name: type(module) for name, module in back.named_modules()} == classes
    assert [*vars(back)] == [*vars(model)]
    torch.testing.assert_close(back(image), ours(image), rtol=1e-3, atol=1e-4)
    with pytest.raises(mz.ConversionError, match="no conversion report"):
        mz.conversion_report(back)


def test_revert_in_place_keeps_the_object():
    block = mz.adopt(Sampled(2, 2, 3), inplace=True)
    assert mz.revert(block, inplace=True) is block and type(block) is Sampled


def test_a_class_that_has_changed_since_is_not_given_back():
    model = mz.adopt(nn.Sequential(TorchvisionConv(2, 2, 3)))
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(mz.ConversionError, match="^0 has become a ParametrizedAdoptedDeformConv2d since"):
        mz.revert(model)
    nn.utils.parametrize.remove_parametrizations(model[0], "weight")
    assert type(mz.revert(model)[0]) is TorchvisionConv


def test_the_report_says_what_was_adopted_and_how_far_it_moved():
    model, image = of(MODELS["torchvision layers in a resnet"])
    report = mz.conversion_report(mz.adopt(model, example_input=image))
    layers = report.converted
    assert [layers[name].kind for name in layers] == 2 * ["adopted DeformConv2d"]
    assert all(0 < layer.difference.relative < 1e-5 for layer in layers.values())
    assert 0 < report.output.relative < 1e-5 and not report.skipped and report.head_parameters == 0
    text = str(report)
    assert "2 of 2 convolutions converted (2 adopted DeformConv2d)" in text and "output unchanged" in text
    assert report.to_frame()["kernel"].tolist() == ["3x3", "3x3"]


def test_without_an_example_nothing_is_said_to_be_compared():
    text = str(mz.conversion_report(mz.adopt(deformable.packs())))
    assert "not compared: no example_input was given" in text and "unchanged" not in text


def test_what_is_adopted_is_adopted_once():
    model, image = of(MODELS["mmcv packs"])
    once = mz.adopt(model, example_input=image)
    report = mz.conversion_report(mz.adopt(once))
    assert set(report.converted) == {"0", "2"} and report.output is not None


def test_a_model_without_deformable_layers_comes_back():
    model = mz.adopt(nn.Sequential(nn.Conv2d(3, 3, 3), mz.nn.DeformConv2d(3, 3, 3), nn.ReLU()))
    report = mz.conversion_report(model)
    assert not report.converted and "0 of 0 convolutions converted (nothing to swap)" in str(report)


def test_conversion_and_adoption_add_up():
    model = enliven(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), deformable.Given()))
    image = torch.rand(1, 3, 16, 16)
    ours = mz.adopt(mz.convert(model, "shifted", example_input=image, where=["0", "1"]), example_input=image)
    report = mz.conversion_report(ours)
    assert set(report.converted) == {"0", "1", "2.first", "2.second"} and "2.offset" in report.skipped
    later = mz.convert(mz.adopt(model), "shifted", example_input=image, where=["0", "1"])
    assert set(mz.conversion_report(later).converted) == set(report.converted)
    for both in (ours, later):
        back = mz.revert(both)
        assert [type(m) for m in back.modules()] == [type(m) for m in model.modules()]
        torch.testing.assert_close(back(image), model(image))


def test_a_folder_is_loaded_into_either_architecture(tmp_path):
    model, image = of(MODELS["mmcv packs"])
    mz.save(mz.adopt(model), tmp_path)
    for fresh in (deformable.packs(), mz.adopt(deformable.packs())):
        torch.testing.assert_close(mz.load(tmp_path, model=fresh)(image), model(image), rtol=1e-3, atol=1e-4)
    with pytest.raises(mz.ConversionError, match="does not name its architecture"):
        mz.load(tmp_path)


def test_hidden_calls_are_counted():
    report = mz.conversion_report(mz.adopt(Hidden("container"), example_input=torch.rand(1, 6, 9, 9)))
    assert report.skipped == {
        "torchvision.ops.deform_conv2d": "1 calls on the example input, from code that does not show them"
    }


def replaced_forward() -> nn.Module:
    layer = TorchvisionConv(2, 2, 3)
    layer.forward = layer.forward
    return layer


def parametrized() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(TorchvisionConv(2, 2, 3))


class DeformConv(deformable.DeformConv2d):
    """As detectron2's, which has more in it."""

    def forward(self, x, offset):
        weight, grid = self.weight, (self.stride, self.padding, self.dilation)
        return self.activation(deformable.deform_conv2d(x, offset, weight, *grid, 1, 1, False, 32))


class ModulatedDeformConvPack(deformable.ModulatedDeformConv2dPack):
    """Whose factors start at 1."""

    def forward(self, x):
        first, second, mask = torch.chunk(self.conv_offset(x), 3, dim=1)
        grid = (self.stride, self.padding, self.dilation, self.groups, self.deform_groups)
        offset, mask = torch.cat((first, second), dim=1), 2 * torch.sigmoid(mask)
        return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, *grid)


modulated_deform_conv2d = deformable.modulated_deform_conv2d


class FromFeatures(deformable.ModulatedDeformConv2dPack):
    """As BasicSR's, whose offsets come from another tensor."""

    def forward(self, x, features):
        return deformable.ModulatedDeformConv2d.forward(self, x, *self.conv_offset(features).split((18, 9), 1))


class Sealed(TorchvisionConv):
    """From which no class can be derived without a word."""

    def __init_subclass__(cls, *, word: str) -> None:
        super().__init_subclass__()


class DeformConvFunction(torch.autograd.Function):
    """Of mmcv's compiled part."""


deform_conv = DeformConvFunction.apply


class CallsMmcv(nn.Module):
    def forward(self, x, offset, weight):
        return deform_conv(x, offset, weight)


def odd_head() -> nn.Module:
    pack = deformable.DeformConv2dPack(2, 2, 3)
    pack.conv_offset = nn.Conv2d(2, 9, 3)
    return pack


def script() -> nn.Module:
    return torch.jit.script(TorchvisionConv(2, 2, 3))


def graph() -> nn.Module:
    tracer = torch.fx.Tracer(autowrap_functions=(deformable.operator,))
    block = Sampled(2, 2, 3)
    return torch.fx.GraphModule(block, tracer.trace(block))


LEFT_ALONE = {
    "a forward of accelerate's": (replaced_forward, "its forward was replaced on this object (hooks of accelerate)"),
    "a parametrized weight": (parametrized, "a parameter is parametrized, by a class of its own: adopt first"),
    "a script": (script, "a TorchScript module: adopt the Python model, then trace it"),
    "a graph": (graph, "a torch.fx.GraphModule, whose class is its code: adopt the model, then trace it"),
    "a call of mmcv's function": (
        CallsMmcv,
        "its forward calls mmcv's DeformConvFunction, which nothing can take over",
    ),
    "a class that takes a word": (lambda: Sealed(2, 2, 3), "no class can be derived from Sealed: "),
    "a layer that does more": (
        lambda: DeformConv(2, 2, 3),
        "the forward of this DeformConv uses 'activation', which mmcv's does not",
    ),
    "a doubled sigmoid": (
        lambda: ModulatedDeformConvPack(2, 2, 3),
        "the forward of this ModulatedDeformConvPack uses '2', which mmcv's does not",
    ),
    "another forward": (
        lambda: FromFeatures(2, 2, 3),
        "FromFeatures overrides the forward of ModulatedDeformConv2dPack",
    ),
    "groups that do not divide": (
        lambda: deformable.DeformConv2d(4, 2, 3, deform_groups=3),
        "3 deformable groups do not divide its 4 channels",
    ),
    "a head of another size": (odd_head, "its conv_offset predicts 9 channels, not 18"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("build", "why"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_the_report_names_what_was_left_alone(build, why):
    model = nn.ModuleDict({"odd": build(), "plain": deformable.DeformConv2dPack(2, 2, 3)})
    classes = [type(module) for module in model["odd"].modules()]
    mz.adopt(model, inplace=True)
    report = mz.conversion_report(model)
    assert list(report.skipped) == ["odd"] and report.skipped["odd"].startswith(why)
    assert [type(module) for module in model["odd"].modules()] == classes and set(report.converted) == {"plain"}
    assert why in str(report)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_that_cannot_be_adopted_are_one_clear_error():
    layer = nn.Sequential(TorchvisionConv(2, 2, 3))
    refused = {
        "model is a int, expected an nn.Module": 3,
        "the model is a TorchScript module: adopt the Python model": script(),
        "the model is wrapped in OptimizedModule: adopt the model inside": torch.compile(layer),
        "example_input is a str, expected a tensor": (layer, "image"),
    }
    for why, given in refused.items():
        model, image = given if isinstance(given, tuple) else (given, None)
        with pytest.raises(mz.ConversionError, match=f"^{why}"):
            mz.adopt(model, example_input=image)
    assert not adopted(layer)


def lying() -> nn.Module:
    """A layer by mmcv's names and code, whose function doubles."""
    source = deformable.DeformConv2dPack.forward
    doubled = {**source.__globals__, "deform_conv2d": lambda *given: 2 * deformable.deform_conv2d(*given)}
    cls = type("DeformConv2dPack", (deformable.DeformConv2dPack,), {})
    cls.forward = types.FunctionType(source.__code__, doubled, closure=source.__closure__)
    return enliven(nn.Sequential(cls(6, 6, 3, padding=1)))


def test_a_layer_that_computes_something_else_is_found_out():
    model, image = lying(), torch.rand(1, 6, 9, 9)
    with pytest.raises(mz.ConversionError, match="^layer 0 differs by .* the model was left as it was"):
        mz.adopt(model, example_input=image, inplace=True)
    assert not adopted(model)


def test_an_original_that_does_not_run_here_is_not_compared(monkeypatch):
    """mmcv without its compiled part."""
    model, image = of(MODELS["mmcv packs"])
    expected = model(image)

    def absent(*given):
        raise NotImplementedError("deform_conv_forward_impl: implementation for device cpu not found.\nat somewhere")

    monkeypatch.setattr(deformable, "deform_conv2d", absent)
    ours = mz.adopt(model, example_input=image)
    torch.testing.assert_close(ours(image), expected, rtol=1e-3, atol=1e-4)
    text = str(mz.conversion_report(ours))
    assert "not compared: the original does not run here: deform_conv_forward_impl: implementation for" in text
    assert "somewhere" not in text


def test_an_input_that_does_not_fit_leaves_the_model_as_it_was():
    model = deformable.packs()
    with pytest.raises(mz.ConversionError, match="^Sequential does not run on the example input, adopted: "):
        mz.adopt(model, example_input=torch.rand(1, 5, 9, 9), inplace=True)
    assert not adopted(model)
