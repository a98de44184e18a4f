"""The ``triton`` backend: fused kernels for CUDA."""

import os

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# TRITON_INTERPRET is triton's own setting, read once: its functions are what they are when they have been defined.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
"""Whether triton runs kernels in Python, on CPU: slow, and for tests."""
