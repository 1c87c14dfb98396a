"""What a user sees in a terminal while a search runs and when it ends.

It must not know where the figures come from.
"""
