"""Processes that may compute and little else."""
