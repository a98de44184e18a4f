#!/usr/bin/env bash
# Forward-mode derivatives (torch.func.jvp, jacfwd) of torchvision's deformable convolution.
#
# Guess: an error that says that forward mode is not implemented, as for other operators that lack it.
# Seen (torch 2.14.1, torchvision 0.29.1, CPU): where no input asks for gradients, as under torch.func.jvp and jacfwd,
# the derivative is exactly zero, without an error or a warning; the operator is linear in its input, so that the
# derivative along the input itself is the output. Inside torch.autograd.forward_ad the tangent is just gone. Only where
# an input asks for gradients does it raise. torch.func.jacrev raises, too; torch.autograd.functional.jacobian is right.
# Output seen:
#   output: sum of magnitudes 77.4515
#   torch.func.jvp: 0.0
#   torch.func.jacfwd: 0.0
#   forward_ad: None
#   reverse mode: 77.4515
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.autograd import forward_ad
from torchvision.ops import deform_conv2d

torch.manual_seed(0)
image, offset, weight = torch.randn(1, 2, 4, 4), torch.zeros(1, 18, 4, 4), torch.randn(1, 2, 3, 3)


def convolve(x):
    return deform_conv2d(x, offset, weight, padding=1)


def size(tensor):
    return round(tensor.abs().sum().item(), 4)


output, tangent = torch.func.jvp(convolve, (image,), (image,))
jacobian = torch.func.jacfwd(convolve)(image)
with forward_ad.dual_level():
    dual = forward_ad.unpack_dual(convolve(forward_ad.make_dual(image, image))).tangent
reverse = torch.einsum("abcdefgh,efgh->abcd", torch.autograd.functional.jacobian(convolve, image), image)

print(f"output: sum of magnitudes {size(output)}")
print(f"torch.func.jvp: {size(tangent)}")
print(f"torch.func.jacfwd: {size(jacobian)}")
print(f"forward_ad: {dual}")
print(f"reverse mode: {size(reverse)}")
assert size(output) > 1 and size(tangent) == size(jacobian) == 0 and dual is None
torch.testing.assert_close(reverse, output)
PY
