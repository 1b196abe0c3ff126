"""Deploys to a cluster, looks, goes back, writes it down and tells people. Standard library only, for bare CI runners.

Run from the repository's root: `PYTHONPATH=.github/scripts python3 -m delivery --help`.
"""
