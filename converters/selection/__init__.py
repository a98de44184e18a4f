"""Which convolutions to convert, and why not the others."""
