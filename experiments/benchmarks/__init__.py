"""Benchmarks: ratios from interleaved runs in one process."""
