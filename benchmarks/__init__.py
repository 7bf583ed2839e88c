"""Benchmarks: ``python -m benchmarks``. Each figure stands beside a raw floor measured in the same round."""

import sys
from pathlib import Path

# Servers are started by modules of the tests, which import each other by their names alone.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
