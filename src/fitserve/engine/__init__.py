"""The line of one prediction: lease, check, run."""
