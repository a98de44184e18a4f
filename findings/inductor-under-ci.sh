#!/usr/bin/env bash
# A custom operator, with a decomposition in torch's table so that ONNX export finds it, compiled by inductor.
#
# Guess: inductor calls the operator as it is, or takes the decomposition; the same on a desk and in a CI job.
# Seen (torch 2.14.1): inductor reads the environment variable CI. Without it, the operator is called as it is. With it,
# as every large CI service sets it, compiling ends in an InductorError that asks to edit inductor's own tables. The
# table is global, so an export to ONNX that registers the decomposition breaks compiling later in the same process,
# which a test suite does in some orders only.
# Output seen:
#   CI unset: [2.0, 2.0]
#   CI=true: InductorError, a decomposition exists
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5 setuptools
cd "$folder"
cat > compiled.py <<'PY'
import torch
from torch._decomp import register_decomposition


@torch.library.custom_op("example::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@twice.register_fake
def _(x):
    return torch.empty_like(x)


register_decomposition(torch.ops.example.twice.default)(lambda x: x + x)
try:
    print(torch.compile(lambda x: torch.ops.example.twice(x) + 0)(torch.ones(2)).tolist())
except Exception as error:
    print(f"{type(error).__name__}, {'a decomposition exists' if 'a decomposition exists' in str(error) else error}")
PY
export TORCHINDUCTOR_FORCE_DISABLE_CACHES=1  # or what compiled once is not looked at again
alone=$(env -u CI "$folder/venv/bin/python" -W ignore compiled.py 2>/dev/null)
inside=$(CI=true "$folder/venv/bin/python" -W ignore compiled.py 2>/dev/null)
echo "CI unset: $alone"
echo "CI=true: $inside"
[ "$alone" = "[2.0, 2.0]" ] && [ "$inside" = "InductorError, a decomposition exists" ]
