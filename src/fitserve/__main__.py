"""The ``fitserve`` command; also ``python -m fitserve``."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from fitserve.cli import build_cli

    build_cli()()


if __name__ == "__main__":
    main()
