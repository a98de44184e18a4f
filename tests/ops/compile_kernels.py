"""Compile the kernels for NVIDIA GPUs of given compute capabilities, which need not be there; print their names.

A program by itself, since the tests' process has given triton to its interpreter.
"""

from __future__ import annotations

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from metric_zoo.benchmarks.operators.calls import Call
from metric_zoo.ops import blended_conv2d, choice
from metric_zoo.ops.backends import BACKENDS
from metric_zoo.ops.backends.triton import configs, launch
from metric_zoo.ops.backends.triton.taps import BLEND

CALLS = (
    (Call(channels=32, out_channels=32, channels_last=True), torch.bfloat16),
    (Call(kind="modulated", channels=32, out_channels=32, groups=32), torch.float32),
)
FORMULAS = (  # for the last of the GPUs
    (Call(kind="similar", channels=32, out_channels=32), torch.bfloat16),
    (Call(kind="star", channels=32, out_channels=32, groups=32), torch.float32),
    (Call(kind="snake", channels=32, out_channels=32, kernel=(3, 5)), torch.float32),
)


class Target:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_instead(call, kernel, name, programs, tune=True, **arguments) -> None:
    arguments = {"s": call.samples, **call._options, **arguments}
    tuning = (call.tuning(arguments.get("into", ())),) if tune else ()
    if tune:
        launch._tuned(kernel, name, 0)  # does triton accept it?
    blocks = configs.candidates(name)[1].kwargs if tune else {}
    kernel.warmup(call.problem, *tuning, grid=(1,), **arguments, **blocks)
    name = f"{name}_blended" if arguments["RULE"] == BLEND.value else name
    rule = f"_of_{arguments['NUMBERS']}" if arguments["NUMBERS"] else ""
    print(f"{name.replace('samples_depthwise', 'samples')}{rule}-{driver.active.get_current_target().arch}")


def main() -> None:
    choice._process, BACKENDS["triton"].device = "triton", "cpu"
    launch._Call.run = compile_instead
    for capability in sys.argv[1:]:
        driver.set_active(Target(int(capability)))
        for call, dtype in (*CALLS, *FORMULAS) if capability == sys.argv[-1] else CALLS:
            leaves = {name: tensor.to(dtype) for name, tensor in call.leaves().items()}
            call.outcome_of(leaves)
            torch.use_deterministic_algorithms(True)
            call.outcome_of(leaves)
            torch.use_deterministic_algorithms(False)
        for grid in ((3,), (3, 4)):
            place, table = torch.zeros(1, len(grid), 8, 8), torch.zeros(*grid, 5)
            blended_conv2d(torch.zeros(1, 4, 8, 8), place, torch.zeros(*grid, 5, 2), table)


main()
