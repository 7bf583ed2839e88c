"""Benchmarks: ``python -m benchmarks``. Each figure stands beside a raw floor measured in the same round."""
