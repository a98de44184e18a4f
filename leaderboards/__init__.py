"""Records become tables and a page. Reads files only; never runs a model and needs no torch."""
