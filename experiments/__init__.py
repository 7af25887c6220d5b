"""Experiments: YAML differences from sorakit/config.py, and scripts that make artefacts."""
