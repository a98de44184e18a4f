"""Deformable convolutions that are modules of their networks: no kernel, so no convolution that they could replace."""
