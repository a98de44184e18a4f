"""Checkpoints of the original network, loaded strictly into a converted one that is still that network."""

from __future__ import annotations

from typing import Any

from torch import nn

from metric_zoo.nn.base import SampledConv2d, current_key
from metric_zoo.nn.training import head_parameters


def accept_plain_checkpoints(model: nn.Module) -> nn.Module:
    """Let ``model`` load a state dict without a single key of its sampling rules, as long as none has been trained.

    The rules then stay as they are, and the network computes what the checkpoint's computes. A state dict with some of
    these keys must have all of them.
    """
    model.register_load_state_dict_pre_hook(_keep_fresh_rules)
    return model


def _keep_fresh_rules(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    layers = {f"{prefix}{name}.": m for name, m in model.named_modules() if isinstance(m, SampledConv2d)}
    owned = {id(parameter) for parameter in head_parameters(model)}
    rules = {f"{prefix}{name}": p.detach() for name, p in model.named_parameters() if id(p) in owned}
    if any(rule.is_meta for rule in rules.values()):  # no values: nothing is known of the rules, nor could they stay
        return
    present = {current_key(key, key[: key.rfind("head.")]) for key in state if "head." in key}
    if rules.keys() & (state.keys() | present) or not all(layer.is_identity() for layer in layers.values()):
        return
    state.update(rules)
