"""Weights from object storage, a hub or a folder to a local disk: once per node, verified, safe to kill at any moment.

The command line is cli.py, the order of the steps fetch.py, what stands where on the disk store.py, and what is let in
at all names.py and contents.py. This package never imports vLLM or torch, and never unpickles anything.
"""
