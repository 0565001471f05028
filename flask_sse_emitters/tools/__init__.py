"""The commands of ``flask sse``, the monitor, and the definitions of the metrics."""
