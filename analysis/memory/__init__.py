"""What is memorised, example by example: measures over `examples.parquet`, one file each.

Definitions, units and sources: `docs/measures.md`.
"""
