"""Numbers: metrics and their intervals, thresholds, tests of a difference, plots of them.

It must not know what a search is.
"""
