"""Figures and the report of a run, drawn from what is on disk."""
