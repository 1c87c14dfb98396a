"""Images and labels: sources, files and how they are decoded.

It must not know models.
"""
