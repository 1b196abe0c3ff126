"""`make cluster-test`: the chart in a real cluster."""
