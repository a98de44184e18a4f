"""How well, and how fast, sparse kernel complexes and their peers stand in for dense kernels."""
