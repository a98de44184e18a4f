"""Selection, options, errors and atomicity of `convert`, on small networks."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import metric_zoo as mz
from metric_zoo.converters import analyse, verify
from metric_zoo.nn import SampledConv2d


class Net(nn.Module):
    """A stem, two stages, a depthwise and a 1x1 convolution, and one that evaluation never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 16, 1))
        self.patch = nn.Conv2d(16, 16, 2, stride=2)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.small = nn.Conv2d(16, 16, 3, stride=2)
        self.late = nn.Conv2d(16, 16, 3, padding=1)
        self.auxiliary = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x):
        x = self.layer2(self.layer1(self.stem(x)))
        if self.training:
            self.auxiliary(x)
        return self.late(self.small(self.pad(self.patch(x))))


X = torch.rand(2, 3, 24, 24)


def converted_names(model: nn.Module) -> dict[str, str]:
    return {name: m.kind for name, m in model.named_modules() if isinstance(m, SampledConv2d)}


def test_default_policy_and_its_reasons():
    report = mz.conversion_report(mz.convert(Net(), example_input=X))
    assert list(report.converted) == ["layer1.0", "layer2.0", "small"]
    assert report.skipped == {
        "stem": "stem: the first convolution",
        "layer2.1": "1x1 kernel: one sample, nothing to spread",
        "patch": "patch embedding: stride equals kernel",
        "late": "input of 6 px, below 8",
        "auxiliary": "not called in evaluation",
    }


SELECTIONS = [
    (r"layer1\.0|stem", {"stem": "metric", "layer1.0": "metric"}),
    (["layer2", "late"], {"layer2.0": "metric", "late": "metric"}),
    ({"layer*": "metric", "layer2.*": "deformable", "re:.*1.*": None}, {"layer2.0": "deformable"}),
    (
        {"*": "shifted"},
        dict.fromkeys(["stem", "layer1.0", "layer2.0", "patch", "small", "late", "auxiliary"], "shifted"),
    ),
    (lambda node: node.depthwise, {"layer2.0": "metric"}),
    (lambda node: "active" if node.norm else None, {"layer1.0": "active"}),
    (lambda node: node.explicit_pad, {"small": "metric"}),
    (
        lambda node: node.calls == 1 and node.output_shape[-1] == 24 and node.order > 0,
        dict.fromkeys(["layer1.0", "layer2.0"], "metric"),
    ),
]


@pytest.mark.parametrize(("where", "expected"), SELECTIONS, ids=range(len(SELECTIONS)))
def test_where(where, expected):
    model = Net().eval()
    converted = mz.convert(model, where=where, example_input=X)
    assert converted_names(converted) == expected
    torch.testing.assert_close(converted(X), model(X), rtol=1e-4, atol=1e-6)


def test_options_reach_the_kinds_that_know_them():
    rules = {"layer1*": "metric", "layer2*": "deformable"}
    model = mz.convert(Net(), where=rules, example_input=X, eps_omega=0.25, offset_groups=2)
    assert model.layer1[0].config.eps_omega == 0.25
    assert model.layer2[0].config.offset_groups == 2


def test_inplace_keeps_the_object_and_the_parameters():
    model = Net()
    weight = model.layer1[0].weight
    assert mz.convert(model, example_input=X, inplace=True) is model
    assert model.layer1[0].weight is weight


def test_shared_modules_hooks_modes_and_flags_survive():
    model = Net()
    model.again = model.layer1[0]
    model.layer1[0].weight.requires_grad_(False)
    model.layer2.eval()
    seen = []
    model.layer1[0].register_forward_hook(lambda m, a, o: seen.append(type(m).__name__))
    converted = mz.convert(model, example_input=X, inplace=True)
    seen.clear()
    assert converted.again is converted.layer1[0]
    assert not converted.layer1[0].weight.requires_grad and converted.layer1[0].sampler.weight.requires_grad
    assert converted.training and not converted.layer2[0].training and converted.layer1[0].training
    converted(X)
    assert seen == ["MetricConv2d"]


def test_uniform_start_is_the_papers():
    model = mz.convert(Net(), init="uniform", sampling="polar", example_input=X)
    assert (model.layer1[0].weight == 1 / 72).all()
    assert mz.conversion_report(model).output is None
    assert "not compared: init='uniform'" in str(mz.conversion_report(model))


def test_converting_twice():
    once = mz.convert(Net(), example_input=X, where="layer1.*")
    twice = mz.convert(once, to="metric", example_input=X)
    assert list(mz.conversion_report(twice).converted) == ["layer1.0", "layer2.0", "small"]
    with pytest.raises(mz.ConversionError, match="layer1.0 is already 'metric' and cannot become 'shifted'"):
        mz.convert(once, to="shifted", example_input=X)
    mixed = mz.convert(once, to="shifted", where=["layer2"], example_input=X)
    assert converted_names(mixed) == {"layer1.0": "metric", "layer2.0": "shifted"}


def test_standard_changes_nothing():
    model = mz.convert(Net(), to="standard", example_input=X)
    assert not converted_names(model)


def test_dilated_is_not_held_to_the_old_function():
    model = mz.convert(Net(), to="dilated", factor=2.0, example_input=X)
    assert converted_names(model)["layer1.0"] == "dilated"
    assert mz.conversion_report(model).output is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(dtype):
    model = mz.convert(Net().to(dtype).eval(), example_input=X.to(dtype))
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_meta_models_convert_without_arithmetic():
    with torch.device("meta"):
        model = Net()
    converted = mz.convert(model, example_input=torch.empty(1, 3, 24, 24))
    assert list(converted_names(converted)) == ["layer1.0", "layer2.0", "small"]


class Unknown(nn.Conv2d):
    """A class the converter has never seen."""


def test_unknown_classes_are_skipped_or_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Unknown(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    nn.utils.parametrizations.weight_norm(model[2])
    with pytest.warns(UserWarning, match="nothing to swap"):
        report = mz.conversion_report(mz.convert(model, example_input=X))
    assert "unknown convolution class" in report.skipped["1"] and "Unknown" in report.skipped["1"]
    assert "weight is computed" in report.skipped["2"]
    with pytest.raises(mz.ConversionError, match="strict: 1 cannot be converted"):
        mz.convert(model, example_input=X, strict=True)


BAD = [
    (lambda: mz.convert(Net(), to="metrics", example_input=X), "unknown kind 'metrics'; did you mean 'metric'"),
    (lambda: mz.convert("resnet18"), "model is a str"),
    (lambda: mz.convert(Net(), example_input=X, where="layer9.*"), "'layer9.*' matches none of the 8 convolutions"),
    (lambda: mz.convert(Net(), example_input=X, where="(("), "is not a regular expression"),
    (lambda: mz.convert(Net(), example_input=X, where=["layr1"]), "'layr1'"),
    (lambda: mz.convert(Net(), example_input=X, where={"layer1*": "metrc"}), "unknown kind 'metrc'"),
    (lambda: mz.convert(Net(), example_input=X, where=lambda node: 3), "returned 3"),
    (lambda: mz.convert(Net(), example_input=X, where=lambda node: False), "nothing to swap"),
    (lambda: mz.convert(Net(), example_input=X, where=["layer2.1"]), "nothing to swap.*1x1"),
    (lambda: mz.convert(Net(), example_input=X, where=3), "where is a int"),
    (lambda: mz.convert(Net(), example_input=X, where={3: "metric"}), "3 is a int, expected a pattern"),
    (lambda: mz.convert(Net(), to=["metric"], example_input=X), "unknown kind"),
    (lambda: mz.convert(Net(), example_input=X, eps_omga=0.5), "no option 'eps_omga'; did you mean 'eps_omega'"),
    (lambda: mz.convert(Net(), example_input=X, eps_omega=2), "eps_omega=2"),
    (lambda: mz.convert(Net(), example_input=X, sampling="polar"), "does not start as the original"),
    (lambda: mz.convert(Net(), example_input=X, metric_groups=3), "layer1.0: .*3 sampling groups"),
    (lambda: mz.convert(Net(), example_input=X, init="random"), "init='random'"),
    (lambda: mz.convert(Net(), example_input=X, output="onnx"), "output='onnx'"),
    (lambda: mz.convert(Net(), example_input=torch.rand(1, 5, 24, 24)), "does not run on the example_input"),
    (lambda: mz.convert(Net(), example_input="image"), "example_input is a str"),
    (lambda: mz.convert(nn.Conv2d(3, 4, 3), example_input=X), "is itself a convolution"),
    (lambda: mz.convert(Net(), to="standard", init="uniform", example_input=X), "would do nothing"),
    (lambda: mz.convert(Net(), example_input=X, scale=5), "scale=5"),
    (lambda: mz.convert(mz.convert(Net(), example_input=X), example_input=X, eps_omega=0.1), "eps_omega=0.5, asked"),
    (lambda: mz.conversion_report(Net()), "no conversion report"),
    (lambda: mz.revert(3), "model is a int"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_errors_name_the_value(call, message):
    with pytest.raises(mz.MetricZooError, match=message):
        call()


@pytest.mark.parametrize(
    "options", [{"sampling": "polar"}, {"metric_groups": 3}, {"init": "uniform", "metric_groups": 3}]
)
def test_a_failed_conversion_leaves_the_model_as_it_was(options):
    model = Net()
    before, types = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    with pytest.raises(mz.ConversionError):
        mz.convert(model, example_input=X, inplace=True, **options)
    assert [type(m) for m in model.modules()] == types
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not hasattr(model, "_metric_zoo_report")


def test_a_wrong_replacement_is_found_and_undone(monkeypatch):
    """Break the operator: the check must notice, although a zeroed branch hides the layer from the output."""
    from metric_zoo.nn.metric import MetricConv2d

    model = Net().eval()
    with torch.no_grad():
        model.layer2[0].weight.zero_()  # nothing of layer1 reaches the output
        model.layer2[0].bias.zero_()
    right = MetricConv2d._operator
    monkeypatch.setattr(MetricConv2d, "_operator", lambda self, x, pads: right(self, x, pads) * 1.001)
    with pytest.raises(mz.ConversionError, match="layer layer1.0 differs"):
        mz.convert(model, where=["layer1"], example_input=X, inplace=True)
    assert type(model.layer1[0]) is nn.Conv2d


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_wrong_replacement_is_found_in_half_precision(dtype, monkeypatch):
    from metric_zoo.nn.metric import MetricConv2d

    right = MetricConv2d._operator
    monkeypatch.setattr(MetricConv2d, "_operator", lambda self, x, pads: right(self, x, pads) * 1.1)
    with pytest.raises(mz.ConversionError, match="differs"):
        mz.convert(Net().to(dtype), example_input=X.to(dtype))


def test_a_lossy_kind_beside_it_excuses_no_layer(monkeypatch):
    rules = {"layer1*": "metric", "layer2*": "dilated"}
    with pytest.raises(mz.ConversionError, match="layer1.0: .* does not start as the original"):
        mz.convert(Net(), where=rules, sampling="polar", example_input=X)
    report = mz.conversion_report(mz.convert(Net(), where=rules, example_input=X))
    assert report.converted["layer1.0"].difference is not None
    assert report.converted["layer2.0"].difference is None and report.output is None
    assert "layers unchanged" in str(report) and "kind 'dilated' starts as another function" in str(report)


class IllConditioned(nn.Module):
    """Makes ten thousand times more of every rounding error."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        return torch.sin(1e4 * self.conv(self.stem(x)))


def test_rounding_that_a_network_amplifies_is_no_difference():
    torch.manual_seed(0)
    report = mz.conversion_report(mz.convert(IllConditioned(), example_input=X))
    assert report.output.relative > 1e-5 and report.worst_layer[1].relative < 1e-5
    assert report.output_float64.relative < 1e-9
    assert "in float64" in str(report) and "amplifies float32 rounding" in str(report)


def test_a_difference_that_stays_in_float64_is_found(monkeypatch):
    from metric_zoo.converters import prove
    from metric_zoo.nn.metric import MetricConv2d

    right = MetricConv2d._operator
    monkeypatch.setattr(MetricConv2d, "_operator", lambda self, x, pads: right(self, x, pads) * 1.01)
    run_beside = prove.run_beside
    monkeypatch.setattr(prove, "run_beside", lambda model, inputs, _: run_beside(model, inputs, []))  # blind to layers
    model = IllConditioned()
    with pytest.raises(mz.ConversionError, match="the output in float64 differs"):
        mz.convert(model, example_input=X, inplace=True)
    assert not converted_names(model)


def test_every_kind_of_hook_survives():
    model, seen = Net(), []
    conv = model.layer1[0]
    conv.register_full_backward_hook(lambda m, gi, go: seen.append("backward"))
    conv.register_forward_pre_hook(lambda m, a: seen.append("before"))
    conv.register_state_dict_post_hook(lambda m, state, prefix, meta: seen.append("state"))
    conv.register_buffer("calls", torch.zeros(1))
    converted = mz.convert(model, example_input=X, inplace=True)
    seen.clear()
    converted(X).sum().backward()
    assert "layer1.0.calls" in converted.state_dict()
    assert seen == ["before", "backward", "state"]


def test_convolutions_called_by_keyword():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.conv(input=self.stem(input=x))

    assert list(mz.conversion_report(mz.convert(Keyword(), example_input=X)).converted) == ["conv"]


class Record:
    """An output that is no tensor, tuple or dict."""

    def __init__(self, value) -> None:
        self.value = value


def test_an_output_without_tensors_is_not_said_to_be_unchanged():
    class Opaque(Net):
        def forward(self, x):
            return Record(super().forward(x))

    report = mz.conversion_report(mz.convert(Opaque(), example_input=X))
    assert report.output is None and "output unchanged" not in str(report) and "layers unchanged" in str(report)


def test_a_model_that_changes_its_input_or_draws_numbers_is_compared_fairly():
    class Restless(Net):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x.sub_(0.5)))

    image = X.clone()
    mz.convert(Restless(), example_input=image)
    assert torch.equal(image, X)


def test_attributes_hung_on_a_convolution_survive():
    class Tagged(Net):
        def forward(self, x):
            return super().forward(x) * self.layer1[0].tag

    model = Tagged()
    model.layer1[0].tag = 2.0
    assert mz.convert(model, example_input=X).layer1[0].tag == 2.0


def test_pruned_convolutions_are_left_alone():
    model = Net()
    torch.nn.utils.prune.l1_unstructured(model.layer2[0], "bias", 0.5)
    report = mz.conversion_report(mz.convert(model, example_input=X))
    assert "its bias is computed" in report.skipped["layer2.0"]


def test_a_conversion_that_does_nothing_keeps_what_was_proved():
    once = mz.convert(Net(), example_input=X)
    again = mz.convert(once, example_input=X)
    assert mz.conversion_report(again).output == mz.conversion_report(once).output
    assert "not compared" not in str(mz.conversion_report(again))


def test_trained_rules_do_not_revert():
    model = mz.convert(Net(), example_input=X)
    with torch.no_grad():
        model.layer2[0].sampler.weight[0, 0, 0, 0] = 0.1
    with pytest.raises(mz.ConversionError, match="1 of 3 layers no longer equal a convolution, 'layer2.0'"):
        mz.revert(model, inplace=True)
    assert len(converted_names(model)) == 3


def test_revert_keeps_trained_kernels():
    model = mz.convert(Net(), example_input=X)
    with torch.no_grad():
        model.layer1[0].weight.mul_(2)
    plain = mz.revert(model)
    assert torch.equal(plain.layer1[0].weight, model.layer1[0].weight)
    assert converted_names(model) and not converted_names(plain)


def test_analysis_leaves_no_trace():
    model = Net()
    hooks = [len(m._forward_hooks) for m in model.modules()]
    analysis = analyse(model, X)
    assert analysis.traced and model.training
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert all(p.device.type == "cpu" for p in model.parameters())


def test_parameter_groups_slow_the_heads():
    model = mz.convert(Net(), to="metric", example_input=X)
    backbone, heads = mz.parameter_groups(model, lr=0.1, head_lr_scale=0.05)
    assert heads["lr"] == pytest.approx(0.005) and backbone["lr"] == 0.1
    assert {id(p) for p in heads["params"]} == {id(p) for n, p in model.named_parameters() if ".sampler." in n}
    assert len(backbone["params"]) + len(heads["params"]) == len(list(model.parameters()))
    assert len(mz.parameter_groups(Net(), lr=0.1)) == 1
    with pytest.raises(mz.MetricZooError, match="lr=0"):
        mz.parameter_groups(model, lr=0)
    active = mz.convert(Net(), to="active", example_input=X)
    assert all(p.shape[1:] == (2,) for p in mz.parameter_groups(active, lr=0.1)[1]["params"])


def test_the_frame_has_one_row_per_convolution():
    report = mz.conversion_report(mz.convert(Net(), example_input=X))
    frame = report.to_frame()
    assert len(frame) == 8 and set(frame.columns) >= {"name", "kind", "difference", "reason"}
    assert frame.set_index("name").loc["layer1.0", "input"] == "2x8x24x24"


def test_every_branch_of_a_stem_is_the_stem():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.point, self.window, self.body = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.body(self.point(x) + self.window(x))

    report = mz.conversion_report(mz.convert(Branches(), example_input=X))
    assert list(report.converted) == ["body"] and report.skipped["window"] == "stem: the first convolution"


def test_proofs_in_two_threads_leave_the_process_as_it_was():
    """The first to begin would otherwise be the first to put back what the second began with."""
    began, ended = threading.Event(), threading.Event()

    class First(nn.Module):
        def forward(self, x):
            began.wait(0.2)  # for the other to begin, which it may not
            return x

    class Second(nn.Module):
        def forward(self, x):
            began.set()
            ended.wait(0.2)
            return x

    def run(model: nn.Module) -> None:
        verify.run(model, (X,))
        ended.set()

    torch.backends.cudnn.allow_tf32, before = True, torch.backends.cudnn.allow_tf32
    torch.manual_seed(1)
    state = torch.get_rng_state()
    threads = [threading.Thread(target=run, args=(model,)) for model in (First(), Second())]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.equal(torch.get_rng_state(), state) and torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
