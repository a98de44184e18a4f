"""The harness: recipes expand into runs, each trained and measured, each leaving one record."""
