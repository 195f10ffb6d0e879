"""Switches, bad files, dying workers, stops: what they cost the callers, over a long time; `python -m bench.soak`."""
