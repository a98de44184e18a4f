#!/usr/bin/env bash
# torchvision's DeformConv2d under torch.autocast("cpu"), with the usual convolution beside it that predicts the offsets.
#
# Guess: it runs in float32, as on CUDA, where torchvision casts all arguments for it; torchvision does the same on CPU for
# its nms, roi_align and roi_pool.
# Seen (torch 2.14.1, torchvision 0.29.1): a RuntimeError about mixed dtypes, for bfloat16 and float16 alike: the operator
# has no cast on CPU, and the offsets come in half precision from a convolution that autocast did cast. The same model
# runs under autocast where the offsets are not predicted under it, and roi_align runs in any case. A layer in bfloat16
# throughout does not run either: the operator has no kernel for it on CPU.
# Output seen:
#   autocast bfloat16: RuntimeError, expected scalar type torch::headeronly::ScalarType::Float but found BFloat16
#   autocast float16: RuntimeError, expected scalar type torch::headeronly::ScalarType::Float but found Half
#   offsets cast back by hand: torch.float32
#   roi_align under the same autocast: torch.float32
#   all in bfloat16: RuntimeError, "deformable_im2col" not implemented for 'BFloat16'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torchvision.ops import DeformConv2d, roi_align

torch.manual_seed(0)
predict, deform = torch.nn.Conv2d(4, 18, 3, padding=1), DeformConv2d(4, 8, 3, padding=1)
x = torch.randn(1, 4, 8, 8)
boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]


def tried(run):
    try:
        return str(run().dtype)
    except RuntimeError as error:
        return f"RuntimeError, {str(error).splitlines()[0].split(', ')[-1]}"


found = {}
for dtype in (torch.bfloat16, torch.float16):
    with torch.autocast("cpu", dtype):
        found[f"autocast {str(dtype)[6:]}"] = tried(lambda: deform(x, predict(x)))
with torch.autocast("cpu", torch.bfloat16):
    found["offsets cast back by hand"] = tried(lambda: deform(x, predict(x).float()))
    found["roi_align under the same autocast"] = tried(lambda: roi_align(x, boxes, 2))
predict, deform, x = predict.bfloat16(), deform.bfloat16(), x.bfloat16()
found["all in bfloat16"] = tried(lambda: deform(x, predict(x)))
for name, result in found.items():
    print(f"{name}: {result}")
assert found["offsets cast back by hand"] == found["roi_align under the same autocast"] == "torch.float32"
assert all(found[name].startswith("RuntimeError") for name in ("autocast bfloat16", "autocast float16", "all in bfloat16"))
PY
