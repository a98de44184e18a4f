"""Implementations of the sampled convolution, with one face: `torch`, `native` and `triton`."""
