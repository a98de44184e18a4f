"""The promise "any timm or torchvision model" as a measured fact: convert every registered architecture, and check."""
