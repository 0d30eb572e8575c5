"""Throughput of both frameworks, measured so that the comparison can be trusted."""
