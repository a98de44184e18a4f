"""What a sweep knows about one architecture and one kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

PASSED = ("ok", "nothing to swap")


@dataclass
class Result:
    """One row of the table.

    Attributes:
        source, model, family, kind: what was converted to what.
        status: one of `PASSED`, ``"failed"``, ``"out of memory"`` or ``"timed out"``.
        parameters, convolutions, swapped: counts.
        skipped: reason -> count, for every convolution that was not swapped.
        heads: form -> count.
        traced: whether torch.fx saw every convolution of the model.
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

    def to_row(self) -> dict[str, str]:
        """Text for a table's cells; figures are rounded to what they mean."""
        row = {name: str(value) for name, value in self.to_dict().items()}
        row.update(skipped=counts(self.skipped), heads=counts(self.heads), seconds=f"{self.seconds:.1f}")
        row.update({name: "" if row[name] == "None" else f"{float(row[name]):.2e}" for name in _SHARES})
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Result:
        """The inverse of `to_row`.

        Raises:
            KeyError, ValueError: if a cell is missing or cannot be read.
        """
        return cls(**{f.name: _PARSERS.get(str(f.type), str)(row[f.name]) for f in fields(cls)})


def counts(counted: Mapping[str, int]) -> str:
    """``{"full": 12, "pointwise": 3} -> "12 x full; 3 x pointwise"``."""
    return "; ".join(f"{count} x {name}" for name, count in counted.items())


def _parse_counts(text: str) -> dict[str, int]:
    pairs = (entry.partition(" x ") for entry in text.split("; ") if entry)
    return {name: int(count) for count, _, name in pairs}


_SHARES = ("difference", "layer_difference")

_PARSERS = {
    "int": int,
    "float": float,
    "bool": {"True": True, "False": False}.__getitem__,
    "float | None": lambda text: float(text) if text else None,
    "dict[str, int]": _parse_counts,
}
