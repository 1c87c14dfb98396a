"""report.html and its parts.

It reads a search's folder, and must not know how the search runs.
"""
