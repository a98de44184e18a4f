"""Nobody asks which task it is: its name stands in its own files, in tests, recipes and documentation."""

from __future__ import annotations

import re
from pathlib import Path

from metric_zoo.benchmarks.tasks import tasks_for

ROOT = Path(__file__).parents[2]
EXCEPTIONS = {
    "benchmarks/conversion/architectures.py": "says what torchvision's and timm's families are for",
}


def test_only_its_own_files_name_a_task():
    tasks = tasks_for([])
    own = {type(task).__module__.removeprefix("metric_zoo.").replace(".", "/") for task in tasks}
    words = "|".join(re.escape(name) for task in tasks for name in (task.name, task.main.name, task.main.short))
    schemas = "|".join(task.scores.__name__ for task in tasks)
    pattern = re.compile(rf"[\"']({words})[\"']|import .*\b({schemas})\b")
    found = set()
    for part in ("metric_zoo", "benchmarks", "leaderboards", "converters"):
        for path in (ROOT / part).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if pattern.search(path.read_text(encoding="utf-8")) and not name.startswith(tuple(own)):
                found.add(name)
    assert found == set(EXCEPTIONS)
