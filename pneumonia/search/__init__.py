"""The search: the loop, the oracle, the executors, resuming, the winner.

It must not know MLflow.
"""
