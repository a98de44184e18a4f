"""What a conversion did to a model, and where the model keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from metric_zoo.converters.converted import is_converted
from metric_zoo.converters.layer_report import Approximation, LayerReport, describe
from metric_zoo.converters.model_state import drop, keep
from metric_zoo.converters.original import NAME, plain_view
from metric_zoo.converters.paper_resnet import is_atrous
from metric_zoo.converters.prove import Proof
from metric_zoo.converters.replacement import Replacement
from metric_zoo.converters.report_text import text_of
from metric_zoo.converters.verify import Difference
from metric_zoo.errors import ConversionError
from metric_zoo.nn.registry import KINDS
from metric_zoo.text import size

if TYPE_CHECKING:
    import pandas

_ATTRIBUTE = "_metric_zoo_report"
_ORDINARY = next(name for name, kind in KINDS.items() if kind.layer is None)
COLUMNS = (
    "name",
    "kind",
    "kernel",
    "input",
    "output",
    "head",
    "head_parameters",
    "difference",
    "kernel_error",
    "speedup",
    "reason",
)
"""Of a report's frame; sizes are text, ``"3x3"``."""


@dataclass
class ConversionReport:
    """What `convert`, or `adopt`, did to a model.

    Attributes:
        model: the model's class.
        converted: name -> `LayerReport`.
        skipped: name -> reason, for every other convolution.
        output: difference of the whole model's output (of several approximations one after the other the sum, which it
            does not exceed); None if nothing was compared: its shapes depend on the data (then the layers' own
            differences are the proof), it is empty, or it has no finite value.
        output_float64: the same in double precision, where float32's rounding alone exceeds the tolerance; else None.
        not_compared: why the outputs were not compared; None if they were.
        atrous: whether ResNet's layer 4 now runs at stride 1, with dilation 2 (the paper's preset).
        gone: names of layers that were converted and have since been taken out of the model (merged, replaced).
    """

    model: str
    converted: dict[str, LayerReport] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    output: Difference | None = None
    output_float64: Difference | None = None
    not_compared: str | None = None
    atrous: bool = False
    gone: tuple[str, ...] = ()

    @property
    def worst_layer(self) -> tuple[str, Difference] | None:
        """The converted layer whose output moved most, relative to its scale; None if none was compared."""
        compared = {
            name: v.difference for name, v in self.converted.items() if v.difference is not None and not v.shows_nothing
        }
        return max(compared.items(), key=lambda item: item[1].relative, default=None)

    @property
    def approximations(self) -> dict[str, Approximation]:
        """Of the layers that only approximate the convolution they replace, by name."""
        return {name: v.approximation for name, v in self.converted.items() if v.approximation is not None}

    @property
    def head_parameters(self) -> int:
        """Parameters that the conversion added."""
        return sum(layer.head_parameters for layer in self.converted.values())

    def to_frame(self) -> pandas.DataFrame:
        """One row per convolution, with the columns `COLUMNS`."""
        import pandas

        rows = [_row(name, layer) for name, layer in self.converted.items()]
        rows += [{"name": name, "kind": _ORDINARY, "reason": reason} for name, reason in self.skipped.items()]
        return pandas.DataFrame(rows, columns=list(COLUMNS))

    def __str__(self) -> str:
        return text_of(self)


def _row(name: str, layer: LayerReport) -> dict[str, Any]:
    return {
        "name": name,
        "kind": layer.kind,
        "kernel": size(layer.kernel),
        "input": size(layer.input_shape),
        "output": size(layer.output_shape),
        "head": layer.head,
        "head_parameters": layer.head_parameters,
        "difference": None if layer.difference is None or layer.shows_nothing else layer.difference.maximum,
        "kernel_error": layer.approximation.kernel_error if layer.approximation else None,
        "speedup": layer.approximation.speedup if layer.approximation else None,
        "reason": "",
    }


def report_of(
    model: nn.Module, decided: Iterable[Replacement], leftovers: Mapping[str, str], proof: Proof
) -> ConversionReport:
    """The report of a conversion that is done.

    Args:
        decided: every convolution of the model.
        leftovers: name -> reason, of convolutions that are no modules.
    """
    decided = list(decided)
    return ConversionReport(
        type(model).__name__,
        converted={each.name: _described(each) for each in decided if each.chosen},
        skipped={each.name: each.decision.reason for each in decided if not each.chosen} | dict(leftovers),
        atrous=is_atrous(model),
        output=proof.output,
        output_float64=proof.output_float64,
        not_compared=proof.not_compared,
    )


def _described(each: Replacement) -> LayerReport:
    shapes = (each.node.input_shape, each.node.output_shape)
    return describe(each.built, plain_view(each.conv), *shapes, each.difference, each.explained, each.approximation)


def earlier_report(model: nn.Module) -> ConversionReport | None:
    """Of what has been done to a model before, as it was written then."""
    return getattr(model, _ATTRIBUTE, None)


def attach(model: nn.Module, report: ConversionReport) -> None:
    """Keep the report on the model; a second conversion adds to the first."""
    previous = earlier_report(model)
    if previous is not None:
        if not report.converted:  # nothing was done: what was proved before still holds
            report = replace(previous, skipped=report.skipped)
        if previous.approximations and previous.output and report.output:
            report.output += previous.output  # what was approximated before still moves it
        report.converted = {**previous.converted, **report.converted}
        report.skipped = {name: why for name, why in report.skipped.items() if name not in report.converted}
        report.atrous |= previous.atrous
    keep(model, _ATTRIBUTE, report)
    # Each knows its name: wrappers (PEFT's, FSDP's) put their own before it, and what is merged takes it along.
    for name, module in model.named_modules(remove_duplicate=False):
        if name in report.converted and is_converted(module):
            setattr(module, NAME, name)


def detach(model: nn.Module) -> None:
    """Forget the report: the model is plain again."""
    drop(model, _ATTRIBUTE)


def conversion_report(model: nn.Module) -> ConversionReport:
    """The report of a model that `convert` or `adopt` returned: of the layers that are still there.

    Raises:
        ConversionError: if the model was neither converted nor adopted.
    """
    report = earlier_report(model)
    if report is None:
        raise ConversionError(
            f"{type(model).__name__} has no conversion report: it did not come from mz.convert or mz.adopt"
        )
    present = {getattr(module, NAME, None) for module in model.modules() if is_converted(module)}
    there = {name: layer for name, layer in report.converted.items() if name in present}
    return replace(report, converted=there, gone=tuple(name for name in report.converted if name not in there))
