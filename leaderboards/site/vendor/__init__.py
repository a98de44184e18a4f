"""DataTables (MIT licence, beside it), copied into the site so that nothing is fetched."""
