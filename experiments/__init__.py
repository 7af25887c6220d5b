"""Experiments: sweeps, one a table or figure, and scripts for assets, oracles and simulations."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
"""Committed records and tables."""
