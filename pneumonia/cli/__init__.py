"""The commands: what a user types, and the wiring of what a search is made of.

Nothing imports it. It must not know how a trial trains.
"""
