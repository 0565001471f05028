"""This package and its peers at the same work, in one run: ``python -m benchmarks``. See README.md."""
