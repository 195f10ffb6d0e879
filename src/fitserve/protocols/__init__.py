"""Protocols: bytes to rows and outputs to bytes. One file is one protocol: it exports ``PROTOCOL``."""
