#!/usr/bin/env bash
# A decomposition of a custom operator that makes a small constant from a list, given to an exported program.
#
# Guess: torch.tensor([1.0, 2.0]) becomes a constant of the program, as it does in a module's forward.
# Seen (torch 2.14.1): ExportedProgram.run_decompositions stops with an internal AssertionError, "expected to have an
# entirely functional graph, but found detach_", for torch.tensor(list) and for x.new_tensor(list) alike. The same
# numbers from torch.arange are fine, and so is the list in the forward of the module that is exported.
# Output seen:
#   torch.tensor in forward: right
#   torch.arange in a decomposition: right
#   torch.tensor in a decomposition: AssertionError, expected to have an entirely functional graph, but found detach_
#   x.new_tensor in a decomposition: AssertionError, expected to have an entirely functional graph, but found detach_
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import re

import torch


@torch.library.custom_op("example::scaled", mutates_args=())
def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * torch.tensor([1.0, 2.0])


@scaled.register_fake
def _(x):
    return torch.empty_like(x)


class Operator(torch.nn.Module):
    def forward(self, x):
        return torch.ops.example.scaled(x)


class Forward(torch.nn.Module):
    def forward(self, x):
        return x * torch.tensor([1.0, 2.0])


decompositions = {
    "torch.arange": lambda x: x * (torch.arange(2) + 1.0),
    "torch.tensor": lambda x: x * torch.tensor([1.0, 2.0]),
    "x.new_tensor": lambda x: x * x.new_tensor([1.0, 2.0]),
}
x = torch.ones(3, 2)


def tried(module, table):
    try:
        program = torch.export.export(module, (x,)).run_decompositions(table)
    except AssertionError as error:
        return f"AssertionError, {re.search('expected to .* found .detach_', str(error)).group().replace('%', '')}"
    return "right" if torch.equal(program.module()(x), scaled(x)) else "wrong"


found = {"torch.tensor in forward": tried(Forward(), {})}
for name, decomposition in decompositions.items():
    found[f"{name} in a decomposition"] = tried(Operator(), {torch.ops.example.scaled.default: decomposition})
for name, result in found.items():
    print(f"{name}: {result}")
assert list(found.values())[:2] == ["right", "right"]
assert all(result.startswith("AssertionError") for result in list(found.values())[2:])
PY
