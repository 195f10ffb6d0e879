"""Model formats. One file is one format: it exports ``FORMAT`` and is found by its name."""
