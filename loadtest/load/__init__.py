"""Load tests of the whole service: planned arrivals, checked answers, objectives, one page of findings."""
