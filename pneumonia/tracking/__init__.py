"""MLflow, which no other wing imports.

It must not know the search: the journal is all the two share.
"""
