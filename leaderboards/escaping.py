"""Text that a spreadsheet or LaTeX takes as text."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNSEEN = ("Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp")
_FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters of Hangul that nobody sees either."""


def no_formula(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet runs: an apostrophe stands before text that begins with a sign, also
    with a full-width one or behind what cannot be seen. Numbers stay numbers."""
    if not isinstance(value, str) or _PLAIN_NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith(("\t", "\r", "\n")) or _first_sign(value) in _SIGNS else value


_SIGNS = ("=", "+", "-", "@", "\u2212")
"""The last is the minus of mathematics."""


def _first_sign(text: str) -> str:
    """The first character that is seen, as a spreadsheet that normalises width and style reads it."""
    seen = (c for c in text if unicodedata.category(c) not in _UNSEEN and c not in _FILLERS)
    return unicodedata.normalize("NFKC", next(seen, " "))[0]


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "†": r"$\dagger$",
}  # fmt: skip


def latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line; control characters are left out."""
    escaped = "".join(_LATEX.get(c, c) for c in " ".join(text.split()) if c.isprintable())
    # At the beginning of a row a bracket or a star would be an argument of the line before.
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped
