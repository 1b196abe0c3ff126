"""A discrete-event model of gateway, engines and autoscaler: what a scaling policy does to waits, refusals and cost.

Pure and seeded: the same input gives the same numbers. `make autoscale-sim` makes docs/autoscaling.md with it.
"""
