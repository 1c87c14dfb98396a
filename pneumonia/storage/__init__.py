"""A search's folder: the journal and what is read from it.

It must not know who writes or reads it.
"""
