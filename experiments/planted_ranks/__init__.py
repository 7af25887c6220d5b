"""Does a method find the rank that is there? `python -m experiments.planted_ranks --help`."""
