"""Deformable layers of other libraries: found, moved to this project's operators, proved, and given back."""
