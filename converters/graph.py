"""A model as one torch.fx graph that is right in training and in evaluation, its convolutions all modules."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils import _pytree

from metric_zoo.converters.model_state import keep, shell_copy
from metric_zoo.converters.trace import trace
from metric_zoo.errors import ConversionError

_CONV2D = (F.conv2d, torch.conv2d)
_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_CARRIED = ("feature_info", "pretrained_cfg", "num_classes", "num_features")


class ByMode(nn.Module):
    """A value that depends on the mode: what a model computes from ``self.training``."""

    def __init__(self, training: Any, evaluation: Any) -> None:
        super().__init__()
        self.values = (evaluation, training)

    def forward(self) -> Any:
        """The value of the present mode."""
        return self.values[self.training]


def to_graph(model: nn.Module) -> fx.GraphModule:
    """Trace ``model`` in both modes, join the two, and turn functional convolutions into modules.

    Args:
        model: its parameters are shared with the result.

    Returns:
        A GraphModule in the model's mode. The convolutions have the model's names; a functional one is named after its
        weight, ``block.weight`` giving ``block_conv2d``.

    Raises:
        ConversionError: if the model cannot be traced, or runs other operations in training than in evaluation.
    """
    evaluation, training = trace(shell_copy(model).eval()), trace(shell_copy(model).train())
    if evaluation is None or training is None:
        raise ConversionError(
            f"{type(model).__name__} cannot be traced by torch.fx, because its forward depends on values: use "
            "output='module'"
        )
    _check_hooks(model, evaluation)
    _join_modes(evaluation, training)
    _lift_convolutions(evaluation)
    evaluation.graph.lint()
    evaluation.recompile()
    _carry(model, evaluation)
    return evaluation


def _carry(model: nn.Module, graph: fx.GraphModule) -> None:
    """What a model is besides its forward: what it tells of itself, its hooks, and every module's mode."""
    for name, value in vars(model).items():
        if name in _CARRIED or name.startswith("_metric_zoo_"):
            keep(graph, name, value)
        elif "hook" in name:
            setattr(graph, name, value)
    graph.train(model.training)
    originals = dict(model.named_modules())
    for name, module in graph.named_modules():
        owner = name.rpartition(".")[0] if isinstance(module, ByMode) else name
        if owner in originals:
            module.training = originals[owner].training


def _check_hooks(model: nn.Module, graph: fx.GraphModule) -> None:
    """A graph calls the leaves only: what hangs on a module around them would be lost without a word."""
    kept = {node.target for node in graph.graph.nodes if node.op == "call_module"} | {""}
    for name, module in model.named_modules():
        if name not in kept and (module._forward_hooks or module._forward_pre_hooks):
            raise ConversionError(
                f"{name} has forward hooks, which a graph does not call: remove them, or output='module'"
            )


def functional_leftovers(graph: fx.GraphModule) -> dict[str, str]:
    """Functional convolutions that stayed what they are, by the name of their node, and why."""
    reason = "functional convolution whose kernel is computed, or is no parameter"
    return {node.name: reason for node in graph.graph.nodes if _is_functional(node)}


def _join_modes(evaluation: fx.GraphModule, training: fx.GraphModule) -> None:
    """Make every argument on which the two graphs differ depend on the mode."""
    ours, theirs = list(evaluation.graph.nodes), list(training.graph.nodes)
    if [(n.op, n.target) for n in ours] != [(n.op, n.target) for n in theirs]:
        raise _different(evaluation, "runs other operations")
    twins = dict(zip(theirs, ours, strict=True))
    for node, twin in zip(ours, theirs, strict=True):
        node.args = _joined(evaluation, node, node.args, twin.args, twins)
        node.kwargs = _joined(evaluation, node, node.kwargs, twin.kwargs, twins)
        if node.op == "get_attr" and not _same(_attribute(evaluation, node.target), _attribute(training, node.target)):
            raise _different(evaluation, "makes a tensor of other values")


def _different(graph: fx.GraphModule, how: str) -> ConversionError:
    return ConversionError(
        f"{graph._get_name()} {how} in training than in evaluation, which one graph cannot do: use output='module'"
    )


def _same(ours: Any, theirs: Any) -> bool:
    if not isinstance(ours, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return ours is theirs
    return ours is theirs or (ours.shape == theirs.shape and torch.equal(ours, theirs))


def _joined(graph: fx.GraphModule, node: fx.Node, ours: Any, theirs: Any, twins: dict[fx.Node, fx.Node]) -> Any:
    if isinstance(ours, (tuple, list)) and isinstance(theirs, (tuple, list)) and len(ours) == len(theirs):
        return type(ours)(_joined(graph, node, a, b, twins) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return {key: _joined(graph, node, ours[key], theirs[key], twins) for key in ours}
    if isinstance(ours, slice) and isinstance(theirs, slice):
        a, b = ((s.start, s.stop, s.step) for s in (ours, theirs))
        return slice(*_joined(graph, node, a, b, twins))
    if isinstance(theirs, fx.Node):
        theirs = twins[theirs]
    if ours is theirs or ours == theirs:
        return ours
    if isinstance(ours, fx.Node) or isinstance(theirs, fx.Node):
        raise _different(graph, f"feeds {node.name!r} otherwise")
    # In the module whose forward asked for its mode: that may be frozen while the rest trains.
    owner = next(reversed(node.meta.get("nn_module_stack") or {"": None}))
    name = f"{owner}.by_mode_{sum(isinstance(m, ByMode) for m in graph.modules())}".lstrip(".")
    graph.add_submodule(name, ByMode(theirs, ours))
    with graph.graph.inserting_before(node):
        return graph.graph.call_module(name)


def _lift_convolutions(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        conv = _as_module(graph, node) if _is_functional(node) else None
        if conv is None:
            continue
        input, weight = (_argument(node, name) for name in ("input", "weight"))
        name = _free_name(graph, weight.target.rpartition(".")[0].replace(".", "_"))
        graph.add_submodule(name, conv)
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.call_module(name, (input,)))
        graph.graph.erase_node(node)


def _is_functional(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in _CONV2D


def _argument(node: fx.Node, name: str) -> Any:
    given = {**dict(zip(_PARAMETERS, node.args, strict=False)), **node.kwargs}
    return given.get(name, _DEFAULTS.get(name))


def _as_module(graph: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """The `nn.Conv2d` with the parameters of a functional call; None if its kernel is no parameter."""
    weight, bias = (_parameter(graph, _argument(node, name)) for name in ("weight", "bias"))
    options = {name: _argument(node, name) for name in ("stride", "padding", "dilation", "groups")}
    fixed = not any(isinstance(leaf, fx.Node) for leaf in _pytree.tree_leaves(list(options.values())))
    if weight is None or not fixed or (bias is None and _argument(node, "bias") is not None):
        return None
    out_channels, per_group, height, width = weight.shape
    conv = nn.Conv2d(
        per_group * options["groups"], out_channels, (height, width), bias=bias is not None, device="meta", **options
    )
    conv.weight, conv.bias = weight, bias
    return conv


def _parameter(graph: fx.GraphModule, node: Any) -> nn.Parameter | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = _attribute(graph, str(node.target))
    return value if isinstance(value, nn.Parameter) else None


def _attribute(graph: fx.GraphModule, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(graph.get_submodule(owner), name)


def _free_name(graph: fx.GraphModule, owner: str) -> str:
    base = f"{owner}_conv2d" if owner else "conv2d"
    taken = {name for name, _ in graph.named_modules()}
    return next(name for name in (base, *(f"{base}_{n}" for n in range(1, len(taken) + 2))) if name not in taken)
