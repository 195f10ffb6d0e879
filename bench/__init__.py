"""Speed as ratios to a hand-rolled server. Never part of the tests: ``make bench``."""
