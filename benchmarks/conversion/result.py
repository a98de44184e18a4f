"""What a sweep knows about one architecture and one kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

PASSED = ("ok", "nothing to swap")
STATUSES = (*PASSED, "failed", "out of memory", "timed out")


@dataclass
class Result:
    """One row of the table.

    Attributes:
        source, model, family, kind: what was converted to what.
        status: one of `STATUSES`.
        parameters, convolutions, swapped: counts.
        skipped: reason -> count, for every convolution that was not swapped.
        heads: form -> count.
        traced: whether torch.fx saw the model's structure.
        difference: of the output, as a share of its largest magnitude; None where its shape depends on the data.
        layer_difference: the same of the layer whose own output moved most.
        seconds: of all checks.
        check, message: which check failed, and how.
        notes: what a reader of ``difference`` must know.
    """

    source: str
    model: str
    family: str
    kind: str = ""
    status: str = ""
    parameters: int = 0
    convolutions: int = 0
    swapped: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    traced: bool = False
    difference: float | None = None
    layer_difference: float | None = None
    seconds: float = 0.0
    check: str = ""
    message: str = ""
    notes: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.status in PASSED

    def for_kind(self, kind: str) -> Result:
        """A copy for one kind."""
        return replace(self, kind=kind, skipped=dict(self.skipped), heads=dict(self.heads))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
