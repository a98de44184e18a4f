#!/usr/bin/env bash
# Sizes that are divided and rounded up the usual way, -(-n // 2), in a network exported to ONNX with free sizes.
#
# Guess: the file computes the sizes that Python computes, for every size of the input.
# Seen (torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0): Python's // rounds down, ONNX's Div of integers rounds
# towards zero, and the exporter writes the one as the other. For a negative number, as here, the file is one short at
# every odd size, without a warning, and right at the even sizes that examples have. Padding as TensorFlow's "same" is
# often written in that way; (n + 1) // 2 is right.
# Output seen:
#   width 16: torch 8, ONNX 8; width 17: torch 9, ONNX 8; width 19: torch 10, ONNX 9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import onnxruntime
import torch
from torch import nn


class Halved(nn.Module):
    def __init__(self, rounded_up):
        super().__init__()
        self.rounded_up = rounded_up

    def forward(self, images):
        return images.new_ones(self.rounded_up(images.shape[3])) + 0 * images.sum()


def widths(rounded_up, sizes):
    model, free = Halved(rounded_up), torch.export.Dim.DYNAMIC
    torch.onnx.export(
        model, (torch.ones(1, 1, 8, 16),), "halved.onnx", dynamo=True, dynamic_shapes=({2: free, 3: free},), verbose=False
    )
    session = onnxruntime.InferenceSession("halved.onnx")
    for size in sizes:
        images = torch.ones(1, 1, 8, size)
        yield len(model(images)), len(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


found = list(widths(lambda n: -(-n // 2), (16, 17, 18, 19)))
for size, (of_torch, of_onnx) in zip((16, 17, 18, 19), found):
    print(f"width {size}: torch {of_torch}, ONNX {of_onnx}")
assert found == [(8, 8), (9, 8), (9, 9), (10, 9)]
assert list(widths(lambda n: (n + 1) // 2, (16, 17, 18, 19))) == [(8, 8), (9, 9), (9, 9), (10, 10)]
PY
