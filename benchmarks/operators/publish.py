"""A measurement's two files: JSON with every figure, Markdown to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metric_zoo.files import replacing


def publish(out: Path, name: str, report: dict[str, Any], table: str) -> None:
    """Write ``name.json`` and ``name.md`` into a folder, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    for ending, text in (("json", json.dumps(report, indent=1) + "\n"), ("md", table)):
        with replacing(out / f"{name}.{ending}") as temporary:
            temporary.write_text(text, encoding="utf-8")
