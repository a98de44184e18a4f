"""Records become tables and a site. Reads files only and needs no torch, but to check a submitted record's network."""
