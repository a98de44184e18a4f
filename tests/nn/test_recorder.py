"""What modules are called with is told in order, and no hook stays. Oracle: what the modules say they were given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metric_zoo.nn.recorder import first_inputs, on_calls


class Twice(nn.Module):
    """Calls one module by place and by name, and never the other."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.idle = nn.Conv2d(1, 1, 1, bias=False), nn.Identity()
        nn.init.constant_(self.body.weight, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(input=self.body(x))


X = torch.full((1, 1, 2, 2), 2.0, requires_grad=True)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_every_call_is_told(before):
    model, calls = Twice(), []
    with on_calls([model.body, model.idle], calls.append, before=before):
        model(X)
    assert [call.module for call in calls] == [model.body, model.body]
    assert [call.input[0, 0, 0, 0].item() for call in calls] == [2.0, 6.0]
    assert [call.output is None for call in calls] == [before, before]
    assert not hooks(model)


def test_first_inputs():
    model = Twice()
    with first_inputs(model.children()) as seen:
        model(X)
    assert list(seen) == [model.body] and torch.equal(seen[model.body], X) and not seen[model.body].requires_grad


def test_the_output_is_the_module_s_own():
    model, calls = Twice(), []
    model.body.register_forward_hook(lambda module, arguments, output: output + 100)
    with on_calls([model.body], calls.append):
        model(X)
    assert calls[0].output[0, 0, 0, 0].item() == 6.0


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_nothing_stays_when_the_run_fails(before):
    model, calls = Twice(), []
    with pytest.raises(RuntimeError), on_calls(model.modules(), calls.append, before=before):
        model(torch.ones(1, 5, 2, 2))
    assert not hooks(model)
    assert [call.module for call in calls] == ([model, model.body] if before else [])
