#!/usr/bin/env bash
# PEFT's LoRA on a network with weight standardisation (timm's BiT ResNets), merged.
#
# Guess: merging a LoRA adapter into a convolution keeps the function, as it does for nn.Conv2d, or is refused.
# Seen (peft 0.21.2, timm 1.0.31, torch 2.14.1): no error and no warning, and another function. Both factors and the
# base layer are linear only before they are standardised: the first factor is built as type(base_layer), so it is a
# StdConv2d of its own, and the sum of the kernels is standardised again after the merge. timm's Conv2dSame, another
# subclass of nn.Conv2d, merges to rounding.
# Output seen:
#   StdConv2d, relative change by merging: 0.588
#   Conv2dSame, relative change by merging: 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 peft==0.21.2
"$folder/venv/bin/python" - <<'PY'
import timm
import torch
from peft import LoraConfig, get_peft_model


def change(name, targets):
    torch.manual_seed(0)
    model, images = timm.create_model(name, num_classes=5).eval(), torch.randn(2, 3, 96, 96)
    (layer,) = {type(m).__name__ for n, m in model.named_modules() if n.endswith(targets)}
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=rf".*{targets}", init_lora_weights=False)).eval()
    before = adapted(images)
    after = adapted.merge_and_unload().eval()(images)
    relative = ((after - before).norm() / before.norm()).item()
    print(f"{layer}, relative change by merging: {relative:.3f}")
    return relative


assert change("resnetv2_50x1_bit", "blocks.0.conv2") > 0.1
assert change("tf_efficientnet_b0", "conv_stem") < 1e-5
PY
