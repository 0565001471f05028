"""What the Python servers serve. Nothing here imports the rest of the benchmarks."""
