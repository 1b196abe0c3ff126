"""Compares gateways in front of one simulated engine on one machine; `python -m loadtest.bench_gateway` runs it."""
