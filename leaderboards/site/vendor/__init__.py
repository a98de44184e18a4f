"""DataTables (MIT licence, beside it), inlined into the page so that nothing is fetched."""
