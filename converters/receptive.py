"""Receptive fields, from a trace."""

from __future__ import annotations

from torch import fx, nn

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def receptive_fields(graph: fx.GraphModule) -> dict[str, int]:
    """Pixels of the image, a side, that one output pixel of each convolution sees.

    The usual recursion over kernels, strides and dilations: r' = r + (k - 1) d j, j' = j s, the largest branch counting
    where branches meet (Araujo, Norris, Sim, *Computing Receptive Fields of Convolutional Neural Networks*, Distill
    2019). Global pooling and attention see everything and are left out, as that would say the same of all that follows.
    """
    modules = dict(graph.named_modules())
    fields: dict[fx.Node, tuple[int, int]] = {}
    found = {}
    for node in graph.graph.nodes:
        known = [fields[parent] for parent in node.all_input_nodes if parent in fields]
        field, jump = max(known, default=(1, 1))
        if node.op == "call_module" and isinstance(modules[node.target], _WINDOWED):
            module = modules[node.target]
            kernel, stride, dilation = (
                _longer(getattr(module, name, 1)) for name in ("kernel_size", "stride", "dilation")
            )
            field, jump = field + (kernel - 1) * dilation * jump, jump * stride
            if isinstance(module, nn.Conv2d):
                found[node.target] = max(field, found.get(node.target, 0))
        fields[node] = (field, jump)
    return found


def _longer(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else max(value)
