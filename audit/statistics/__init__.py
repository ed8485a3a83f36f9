"""Scores and truth to estimates with intervals (NumPy and SciPy only)."""
