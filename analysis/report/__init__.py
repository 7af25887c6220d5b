"""One self-contained page of many runs: `python -m analysis report`."""
