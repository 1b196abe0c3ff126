"""What the chart is made and checked with: generated files, and the pinned helm."""
