"""Convert one architecture to some kinds, and check everything that a conversion promises."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from metric_zoo.benchmarks.conversion.architectures import Architecture
from metric_zoo.benchmarks.conversion.result import Result
from metric_zoo.benchmarks.provenance import Clock
from metric_zoo.converters import conversion_report, convert, revert
from metric_zoo.converters.analyse import Analysis, analyse
from metric_zoo.converters.example_inputs import cropped
from metric_zoo.converters.model_state import meta_copy, shell_copy, to_meta
from metric_zoo.converters.original import restore
from metric_zoo.converters.prove import difference_in_float64
from metric_zoo.converters.replacement import chosen
from metric_zoo.converters.selection.select import Selection, select
from metric_zoo.converters.verify import RELATIVE_TOLERANCE, output_difference, run
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.kind import kind_of
from metric_zoo.nn.policy import MIN_INPUT_SIDE
from metric_zoo.nn.training import head_parameters

_CLASSES = 7
_TRAINING_SIDE = 64
_FLOAT64_TOLERANCE = 1e-9
_HIDDEN, _VISIBLE = 0.01, 0.3


class CheckFailed(Exception):
    """A promise that was not kept: the check's name, and what happened."""


@contextmanager
def check(name: str) -> Iterator[None]:
    """Whatever fails inside is a failure of this check."""
    try:
        yield
    except Exception as error:
        text = str(error).splitlines()[0][:300] if str(error) else ""
        raise CheckFailed(name, f"{type(error).__name__}: {text}") from error


def check_architecture(architecture: Architecture, kinds: Sequence[str]) -> list[Result]:
    """One result per kind; a failure is a result too.

    The model is built once, with random weights, and converted and reverted in place; it is built again after a
    failure. Where nothing is eligible, which the meta device tells, it is not built at all.
    """
    clock = Clock()
    blank = Result(architecture.source, architecture.name, architecture.family)
    try:
        analysis = _analyse(architecture, blank, kinds[0])
        if blank.status == "nothing to swap":
            blank.seconds = clock.seconds()
            return [blank.for_kind(kind) for kind in kinds]
        subject = _Subject(architecture, analysis)
    except CheckFailed as failure:
        blank.status, (blank.check, blank.message) = "failed", failure.args
        blank.seconds = clock.seconds()
        return [blank.for_kind(kind) for kind in kinds]
    results = []
    for kind in kinds:
        result = blank.for_kind(kind)
        try:
            subject = subject or _Subject(architecture, analysis)
            _check_kind(subject, kind, result, first=kind == kinds[0])
            result.status = "ok"
        except CheckFailed as failure:
            result.status, (result.check, result.message) = "failed", failure.args
            subject = None
        result.seconds = clock.seconds()
        clock = Clock()
        results.append(result)
    return results


def _analyse(architecture: Architecture, blank: Result, kind: str) -> Analysis:
    """What the model is made of, without storage where it can be built so; ``blank`` receives it."""
    try:
        with torch.device("meta"):
            model = architecture.build()
        analysis = analyse(model)
    except Exception:
        with check("build"):
            model = architecture.build()
        with check("analyse"):
            analysis = analyse(model)
    blank.parameters = sum(p.numel() for p in model.parameters())
    blank.convolutions, blank.traced = len(analysis.nodes), bool(analysis.traced)
    decided = select(analysis.nodes, Selection(kind))
    if not chosen(decided):
        blank.status = "nothing to swap"
        blank.skipped = dict(Counter(each.decision.reason for each in decided))
    return analysis


class _Subject:
    """A real model, what it computes, and what it is made of."""

    def __init__(self, architecture: Architecture, analysis: Analysis) -> None:
        torch.manual_seed(0)
        self.architecture = architecture
        with check("build"):
            self.model = _enliven(architecture.build()).eval()
        with check("run"):
            self.proofs = [_filled(inputs) for inputs in analysis.proofs]
            self.inputs = next(inputs for inputs in self.proofs if self._runs(inputs))
        self.plain = shell_copy(self.model)
        self.keys = list(self.model.state_dict())
        self.classes = [type(m) for m in self.model.modules()]
        self.convolutions = {
            name: m for name, m in self.model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)
        }

    def _runs(self, inputs: Any) -> bool:
        try:
            self.before = run(self.model, inputs)
        except Exception:
            return False
        return True


def _filled(inputs: Any) -> Any:
    """The same arguments with random images in place of those without storage."""
    return _pytree.tree_map(lambda v: torch.rand(v.shape) if isinstance(v, Tensor) and v.is_meta else v, inputs)


@torch.no_grad()
def _enliven(model: nn.Module) -> nn.Module:
    """Give branches that start at zero (residual gains, layer scales) a say, or the output would hide their layers."""
    for name, parameter in model.named_parameters():
        gain = parameter.numel() == max(parameter.shape, default=1) and "bias" not in name.rpartition(".")[2]
        if gain and parameter.abs().max() < _HIDDEN:
            parameter.fill_(_VISIBLE)
    return model


def _check_kind(subject: _Subject, kind: str, result: Result, first: bool) -> None:
    """All checks; what timm's methods do does not depend on the kind, and is asked of the ``first`` only."""
    model = subject.model
    with check("convert"), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "nothing to swap" is a failure here
        convert(model, kind, inplace=True)
    report = conversion_report(model)
    result.swapped, result.skipped = len(report.converted), dict(Counter(report.skipped.values()))
    result.heads = dict(Counter(layer.head for layer in report.converted.values() if layer.head))
    with check("selection"):
        _check_selection(subject, report)
    with check("output unchanged"):
        _check_output(subject, report, result)
    with check("state dict"):
        _check_keys(subject)
    with check("deepcopy"):
        _check_copy(model)
    if first and subject.architecture.source == "timm":
        with check("timm methods"):
            _check_methods(subject)
        with check("features_only"):
            _check_features_only(subject, kind)
    # Last: what some models keep from a training step cannot be copied.
    with check("training step"):
        _check_training(subject)
    with check("revert"):
        _check_revert(subject)


def _check_selection(subject: _Subject, report: Any) -> None:
    """The policy in its own words, on what the modules themselves say."""
    decided = set(report.converted) | set(report.skipped)
    assert set(subject.convolutions) <= decided, "a convolution was neither converted nor skipped with a reason"
    for name, layer in report.converted.items():
        conv = subject.convolutions[name]
        assert max(conv.kernel_size) > 1 and conv.kernel_size != conv.stride, f"{name} should not be converted"
        assert min(layer.input_shape[-2:]) >= MIN_INPUT_SIDE, f"{name} has a small input"
    for name, reason in report.skipped.items():
        conv = subject.convolutions.get(name)
        kept = conv is None or max(conv.kernel_size) == 1 or conv.kernel_size == conv.stride
        told = ("stem", "not called", "input of", "three-dimensional", "one-dimensional", "transposed")
        assert kept or reason.startswith(told), f"{name} should be converted, was skipped: {reason}"


def _check_output(subject: _Subject, report: Any, result: Result) -> None:
    worst = report.worst_layer
    result.layer_difference = worst[1].relative if worst else None
    found = output_difference(run(subject.model, subject.inputs), subject.before)
    if found is None:
        assert worst is not None, "the output's shape depends on the data and no layer was compared"
        return
    result.difference = found.relative
    if not found.relative <= RELATIVE_TOLERANCE:
        # A network may amplify rounding; what is more than rounding stays in float64.
        exact = difference_in_float64(subject.model, subject.inputs, report.converted)
        assert exact is not None and exact.relative <= _FLOAT64_TOLERANCE, (
            f"differs by {found.maximum:.3g} at a scale of {found.scale:.3g}"
        )
        result.difference = exact.relative
        result.notes = f"in float64; float32 rounding alone gives {found.relative:.1e}"


def _check_keys(subject: _Subject) -> None:
    keys = set(subject.model.state_dict())
    missing = [key for key in subject.keys if key not in keys]
    assert not missing, f"{len(missing)} keys vanished, {missing[0]} the first"
    extra = [key for key in keys.difference(subject.keys) if ".sampler." not in key and not key.endswith(".offset")]
    assert not extra, f"{extra[0]} appeared"


def _check_training(subject: _Subject) -> None:
    """A step in training mode, with gradients for the sampling rules alone, to spare memory."""
    model = subject.model
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    wanted = [p.requires_grad for p in model.parameters()]
    own = {id(parameter) for parameter in head_parameters(model)}
    rules = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}
    try:
        model.requires_grad_(False)
        for parameter in rules.values():
            parameter.requires_grad_(True)
        outputs = _pytree.tree_leaves(_training_outputs(subject))
        learned = [t.float().square().mean() for t in outputs if isinstance(t, Tensor) and t.requires_grad]
        loss = torch.stack(learned).sum()
        loss.backward()
        for name, parameter in rules.items():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()
        for parameter, flag in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _training_outputs(subject: _Subject) -> Any:
    model = subject.model.train()
    if subject.architecture.task == "detection":
        images = [image for image in subject.inputs[0]] * 2
        return model(images, [_target(image) for image in images])
    small = [cropped(inputs, _TRAINING_SIDE) for inputs in subject.proofs[:-1]]
    larger = _pytree.tree_map(lambda v: nn.functional.interpolate(v, scale_factor=1.5), subject.proofs[-1])
    for inputs in (*small, *subject.proofs, larger):
        try:
            return model(*_pytree.tree_map(lambda v: torch.cat([v, 1 - v]), inputs))
        except Exception:  # an auxiliary head may need a larger image than evaluation does
            if inputs is larger:
                raise


def _target(image: Tensor) -> dict[str, Tensor]:
    """One box, with whatever any detector may want to know of it."""
    height, width = image.shape[-2:]
    return {
        "boxes": torch.tensor([[width / 8, height / 8, width / 2, height / 2]]),
        "labels": torch.ones(1, dtype=torch.long),
        "masks": torch.ones(1, height, width, dtype=torch.uint8),
        "keypoints": torch.full((1, 17, 3), min(height, width) / 4),
    }


def _check_methods(subject: _Subject) -> None:
    """What timm models can do besides forward, as far as the original can."""
    converted, plain, inputs = shell_copy(subject.model), shell_copy(subject.plain), subject.inputs
    for name, use in (
        ("forward_features", lambda m: m.forward_features(*inputs)),
        ("set_grad_checkpointing", lambda m: (m.set_grad_checkpointing(True), m.set_grad_checkpointing(False))),
        ("reset_classifier", lambda m: (m.reset_classifier(_CLASSES), m(*inputs))[1]),
    ):
        expected = _attempt(plain, use)
        if expected is None:
            continue
        found = _attempt(converted, use)
        assert found is not None, f"{name} works on the original only"
        assert _shapes(found[0]) == _shapes(expected[0]), f"{name} returns another shape"


def _attempt(model: nn.Module, use: Callable[[nn.Module], Any]) -> tuple[Any] | None:
    try:
        with torch.no_grad():
            return (use(model),)
    except Exception:
        return None


def _shapes(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in _pytree.tree_leaves(outputs) if isinstance(t, Tensor)]


def _check_features_only(subject: _Subject, kind: str) -> None:
    """The backbone that timm makes for detectors converts, and knows its features as before; about code alone."""
    import timm

    try:
        with torch.device("meta"):
            plain = timm.create_model(subject.architecture.name, features_only=True).eval()
        plain(*to_meta(subject.inputs))
        nodes = analyse(plain, neighbours=False).nodes
    except Exception:
        return
    if not chosen(select(nodes, Selection(kind))):
        return
    converted = convert(plain, kind)
    assert any(kind_of(m) is not None for m in converted.modules()), "nothing was converted"
    now, before = (cast(Any, each).feature_info.channels() for each in (converted, plain))  # timm's
    assert now == before, "its feature_info changed"


def _check_copy(model: nn.Module) -> None:
    """A copy has layers and heads of its own, each with the convolution it reverts to."""
    source = meta_copy(model)
    twin = copy.deepcopy(source)
    shared = {id(p) for p in source.parameters()} & {id(p) for p in twin.parameters()}
    assert not shared, "a copy shares parameters"
    assert [type(m) for m in twin.modules()] == [type(m) for m in source.modules()], "a copy has other classes"
    for name, layer in twin.named_modules():
        if isinstance(layer, SampledConv2d):
            assert restore(layer).weight is layer.weight, f"{name}: a copy reverts to another weight"


def _check_revert(subject: _Subject) -> None:
    model = revert(subject.model, inplace=True)
    assert [type(m) for m in model.modules()] == subject.classes, "other classes came back"
    assert list(model.state_dict()) == subject.keys, "other keys came back"
    after = run(model, subject.inputs)
    same = len(after) == len(subject.before) and all(
        torch.equal(new.nan_to_num(), old.nan_to_num()) for new, old in zip(after, subject.before, strict=True)
    )
    assert same, "the reverted model computes something else"
