#!/usr/bin/env bash
# Counting the operations of a network whose convolutions have weight norm (torch.nn.utils.parametrizations).
#
# Guess: every counter gives a weight-normed convolution the operations of the convolution, or says that it does not.
# Seen (torch 2.14.1, thop 0.1.1.post2209072238, torchinfo 1.8.0, fvcore 0.1.5.post20221221): the parametrization is a
# child module, and thop and torchinfo count only modules without children, so the layer costs nothing, without a word:
# of two equal convolutions one is left. fvcore and torch's own counter, which count calls, are right. With the older
# torch.nn.utils.weight_norm, which adds no child, thop is right too.
# Output seen (multiply-adds):
#   plain:       thop 4718592, torchinfo 4751360, fvcore 4718592, torch 4718592
#   weight norm: thop 2359296, torchinfo 2375680, fvcore 4718592, torch 4718592
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy thop==0.1.1.post2209072238 torchinfo==1.8.0 \
  fvcore==0.1.5.post20221221
"$folder/venv/bin/python" -W ignore - <<'PY'
import thop
import torch
import torchinfo
from fvcore.nn import FlopCountAnalysis
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import FlopCounterMode

images = torch.randn(1, 16, 32, 32)


def network():
    return torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(2)))


def count(model):
    of_thop = int(thop.profile(model, inputs=(images,), verbose=False)[0])
    of_torchinfo = torchinfo.summary(model, input_data=images, verbose=0).total_mult_adds
    of_fvcore = int(FlopCountAnalysis(model.eval(), images).unsupported_ops_warnings(False).total())
    with FlopCounterMode(display=False) as counter:
        model(images)
    found = of_thop, of_torchinfo, of_fvcore, counter.get_total_flops() // 2
    print("thop {}, torchinfo {}, fvcore {}, torch {}".format(*found))
    return found


plain = count(network())
normed = network()
weight_norm(normed[1])
assert plain == (4718592, 4751360, 4718592, 4718592)
assert count(normed) == (2359296, 2375680, 4718592, 4718592)
PY
