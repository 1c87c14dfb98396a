"""Networks and their files: backbones, heads, the classifier, heat maps, LiteRT.

It must not know how they are trained, nor on what.
"""
