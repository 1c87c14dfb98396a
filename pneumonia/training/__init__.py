"""One trial: its inputs, the compiled loop, checkpoints, the feature cache.

It must not know the search that it is part of.
"""
