"""What a GPU takes, by its own counter."""

from __future__ import annotations

from importlib import import_module

import torch


def gpu_joules(device: torch.device) -> float | None:
    """Joules that a GPU has taken since its driver was loaded (NVML's total energy counter).

    Only differences mean something; the counter moves every 20 to 100 ms. It needs the package ``nvidia-ml-py``.

    Returns:
        None for a device that is no GPU, has no such counter, or cannot be asked.
    """
    if device.type != "cuda":
        return None
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        # By its UUID: NVML counts all GPUs, torch those that CUDA_VISIBLE_DEVICES leaves.
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    except nvml.NVMLError:
        return None
