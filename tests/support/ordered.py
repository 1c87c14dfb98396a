"""Trials of an oracle without a search: they end in any order, and are told in theirs."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from pneumonia.search.oracle import Oracle
from pneumonia.search.trials import Proposal


def run_in_order(
    oracle: Oracle,
    workers: int,
    rng: random.Random,
    failing: Collection[str],
    *,
    score: Callable[[Proposal], float],
) -> tuple[list[Proposal], int]:
    """Run trials as `Search` with `in_order`.

    Args:
        oracle: It proposes them.
        workers: How many run at once, at most.
        rng: Draws which one ends next.
        failing: The names of those that fail.
        score: Returns what one of the others comes to.

    Returns:
        The trials, and how many of them ran at once, at most.
    """
    proposed, running, told, most, is_over = list[Proposal](), list[Proposal](), 0, 0, False
    while True:
        while told < len(proposed) and proposed[told] not in running:
            one = proposed[told]
            oracle.tell(one.trial_id, None if one.trial_id in failing else score(one))
            told += 1
        if not is_over and len(running) < workers and oracle.can_propose():
            proposal = oracle.propose()
            is_over = proposal is None
            if proposal is not None:
                proposed.append(proposal)
                running.append(proposal)
                most = max(most, len(running))
        elif running:
            running.pop(rng.randrange(len(running)))
        else:
            return proposed, most
