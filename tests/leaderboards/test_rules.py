"""The page of sampling rules says what the committed records say."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_that_of_the_records():
    made = runpy.run_path(str(DOCS / "rules.py"))["page"]()
    assert (DOCS / "rules.md").read_text(encoding="utf-8") == made, "run make rules"
    assert made.count("| deformable | 18 |") == 2 and "| metric | 7 |" in made
