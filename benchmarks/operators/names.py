"""Operators that a measurement compares by name: the dense convolution, torchvision's, and the one it is about."""

DENSE, TORCHVISION, METRIC = "conv2d", "torchvision", "metric"
