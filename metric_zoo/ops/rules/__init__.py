"""Sampling rules by name: what ``sampling`` says of an operator's field. Every backend asks the rule, and no name."""

from __future__ import annotations

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.ops.rules.ball import BALLS
from metric_zoo.ops.rules.given import GIVEN
from metric_zoo.ops.rules.linear import MAPS
from metric_zoo.ops.rules.rule import Form, Rule
from metric_zoo.ops.rules.snake import SNAKES
from metric_zoo.ops.rules.star import STARS

__all__ = ["RULES", "Form", "Rule", "rule_of"]

RULES: dict[str, Rule] = {rule.name: rule for rule in (*GIVEN, *BALLS, *MAPS, *SNAKES, *STARS)}


def rule_of(sampling: str) -> Rule:
    """Look a rule up.

    Raises:
        MetricZooError: for an unknown name, with the nearest known one.
    """
    if sampling not in RULES:
        known = tuple(RULES)
        raise MetricZooError(f"unknown sampling {sampling!r}{suggest(sampling, known)}; known: {known}")
    return RULES[sampling]
