"""Interim."""
from __future__ import annotations
def best_table(rows, **k): return "\n".join(map(str, rows))
def scores_table(scores): return "\n".join(f"{k}: {v}" for k, v in scores.estimates().items())
def next_commands(*a): return str(a)
def description(*a, **k): return "note"
