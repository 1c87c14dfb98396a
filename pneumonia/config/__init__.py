"""What the user wrote: composed, checked before TensorFlow is imported, and built.

It must not know what a search, a network or a store is.
"""
