#!/usr/bin/env bash
# A layer of five channels, sharded over two processes by fully_shard, gathered with full_tensor() and saved.
#
# Guess: what is gathered is an ordinary tensor, and every way of saving it works alike.
# Seen (torch 2.14.1, safetensors 0.8.0, CPU, gloo): where the first axis does not divide by the number of processes, the
# gathered tensor is a contiguous view of the padded storage of all shards (6 rows for 5). safetensors' save_file takes it;
# save_model refuses a module that holds it, with a message about shared names of which there are none; torch.save
# writes the padding into the file. With 6 channels nothing of this shows. A clone() before saving mends all.
# Output seen:
#   5 channels: 540 bytes of weight in a storage of 648; save_file ok; save_model RuntimeError; cloned ok
#   6 channels: 648 bytes of weight in a storage of 648; save_file ok; save_model ok; cloned ok
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5 safetensors==0.8.0 packaging
cd "$folder"
cat > gathered.py <<'PY'
import torch
import torch.distributed as dist
from safetensors.torch import save_file, save_model
from torch import nn
from torch.distributed.fsdp import fully_shard


def outcome(save):
    try:
        save()
        return "ok"
    except RuntimeError as error:
        assert "no suitable name to keep" in str(error), error
        return "RuntimeError"


def gathered(channels):
    model = nn.Conv2d(3, channels, 3)
    fully_shard(model)
    return {name: value.full_tensor() for name, value in model.state_dict().items()}


def holding(state, channels):
    model = nn.Conv2d(3, channels, 3)
    model.load_state_dict(state, assign=True)
    return model


dist.init_process_group("gloo")
for channels in (5, 6):
    state = gathered(channels)
    cloned = {name: value.clone() for name, value in state.items()}
    if dist.get_rank() == 0:
        weight = state["weight"]
        print(
            f"{channels} channels: {weight.nbytes} bytes of weight in a storage of {weight.untyped_storage().nbytes()}; "
            f"save_file {outcome(lambda: save_file(state, 'a.safetensors'))}; "
            f"save_model {outcome(lambda: save_model(holding(state, channels), 'b.safetensors'))}; "
            f"cloned {outcome(lambda: save_model(holding(cloned, channels), 'c.safetensors'))}"
        )
    dist.barrier()
dist.destroy_process_group()
PY
found=$("$folder/venv/bin/python" -W ignore -m torch.distributed.run --nproc-per-node 2 gathered.py 2>"$folder/log") || {
  cat "$folder/log" >&2
  exit 1
}
echo "$found"
[ "$found" = "5 channels: 540 bytes of weight in a storage of 648; save_file ok; save_model RuntimeError; cloned ok
6 channels: 648 bytes of weight in a storage of 648; save_file ok; save_model ok; cloned ok" ]
