"""What a conversion asks its strategy for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from metric_zoo.converters.analyse import Analysis
from metric_zoo.converters.build import build_layer
from metric_zoo.converters.conv_types import unsupported_reason
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.options import layer_options, split_options
from metric_zoo.converters.prove import Proof, Reference, moved_output, proof_of
from metric_zoo.converters.replacement import Decision, Replacement
from metric_zoo.converters.verify import Difference
from metric_zoo.errors import ConversionError
from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import Kind, kind_of


class Strategy:
    """How layers take the place of convolutions. A conversion has one, made for it; its methods are called in order.

    Args:
        to: the kind that is asked for.
        options: of the conversion, as they were given.
    """

    init: ClassVar[str]
    """By which `metric_zoo.convert` asks for it."""

    def __init__(self, to: Kind, options: Mapping[str, Any]) -> None:
        self.to, self.options = to, options

    def check(self, model: nn.Module, example_input: Any) -> None:
        """Raise for arguments that it cannot do with.

        Raises:
            ConversionError: saying what would do.
        """

    def decide(self, node: ConvNode, kind: Kind, explicit: bool) -> Decision:
        """Whether a convolution becomes ``kind``: here, every one of a known class that is not converted yet.

        Args:
            node: that was selected, and that no filter leaves out.
            kind: one that has a layer.
            explicit: whether the user's ``where`` selected it, not the policy.

        Raises:
            ConversionError: for a layer of another kind.
        """
        found = kind_of(node.module)
        if found is kind:
            return Decision(None, f"already {kind.name}", "settled")
        if found is not None:
            raise ConversionError(
                f"{node.name} is already {found.name!r} and cannot become {kind.name!r}: revert the model first, "
                "or leave that layer out by 'where'"
            )
        useless = kind.unwanted(node, explicit=True)
        if useless:  # whatever its class
            return Decision(None, useless, "unwanted")
        unsupported = unsupported_reason(node.module)
        if unsupported:
            return Decision(None, unsupported, "unsupported")
        unwanted = kind.why_not(node.module) or kind.unwanted(node, explicit)
        return Decision(None, unwanted, "unwanted") if unwanted else Decision(kind.name)

    def try_out(self, replacements: Sequence[Replacement]) -> None:
        """Give every replacement its layer; nothing of the model changes. What does not fit is refused, by changing the
        decision: here, a convolution that the options do not fit.

        Raises:
            MetricZooError: for an option that no kind has.
        """
        settings = self.settings(replacements)
        for each in replacements:
            try:
                each.layer = self.layer_for(each, settings[each.kind.name])
            except ConversionError as error:
                each.decision = Decision(None, str(error).removeprefix(f"{each.name}: "), "misfit")

    def check_built(self, replacements: Sequence[Replacement]) -> None:
        """Of the layers as they are built.

        Raises:
            ConversionError: if one cannot start as was asked.
        """

    def settings(self, replacements: Sequence[Replacement]) -> dict[str, KindOptions]:
        """The options of every kind that is needed, by its name."""
        return split_options({each.kind for each in replacements} or {self.to}, self.options)

    def layer_for(self, replacement: Replacement, settings: KindOptions) -> nn.Module:
        """A layer at its start."""
        options = layer_options(replacement.kind, settings)
        return build_layer(replacement.name, replacement.conv, replacement.kind.name, options)

    def fill(self, model: nn.Module, analysis: Analysis, replacements: Sequence[Replacement]) -> None:
        """Give the layers what they start from, where that takes a run of the original."""

    def side(self, analysis: Analysis) -> int | None:
        """To what a detector may resize the image of a proof, in pixels; None is its own size."""
        return None

    def compare(self, model: nn.Module, analysis: Analysis, replacements: Sequence[Replacement]) -> Reference | None:
        """Run the original, before the swap, with the layers beside it; None where nothing is to be compared.

        Raises:
            ConversionError: if a layer does not compute what was promised.
        """
        return None

    def prove(self, model: nn.Module, reference: Reference | None, replacements: Sequence[Replacement]) -> Proof:
        """What the swap did to the outputs.

        Raises:
            ConversionError: if that is not what was promised.
        """
        why = self.why_not_compared(model, replacements) if replacements else "nothing was swapped"
        if why is not None:
            return Proof(not_compared=why)
        assert reference is not None, "`compare` has run where outputs are compared"
        found = moved_output(model, reference)
        return proof_of(found, None if found is None else self.judge(model, found, reference, replacements))

    def why_not_compared(self, model: nn.Module, replacements: Sequence[Replacement]) -> str | None:
        """Why the outputs are not compared; None where they are."""
        return None

    def judge(
        self, model: nn.Module, found: Difference, reference: Reference, replacements: Sequence[Replacement]
    ) -> Difference | None:
        """Raise if the outputs moved further than was promised.

        Returns:
            The difference in float64, where that was needed to tell.
        """
        return None

    def finish(self, replacements: Sequence[Replacement]) -> None:
        """What can only be done once nothing can fail any more."""
