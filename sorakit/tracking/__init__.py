"""Weights & Biases: a mirror of run folders, live or afterwards, and the dashboard as code."""
