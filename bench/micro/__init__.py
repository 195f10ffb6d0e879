"""What parts of a request cost, alone: `python -m bench.micro`."""
