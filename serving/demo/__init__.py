"""The demo: a toy shop catalogue, the tiny checkpoint that reads it, and the launcher of `make demo`."""
