"""Which models there are, and which version answers."""
