"""Asynchronous successive halving: the paper's rule, whoever runs the trials in whatever order."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from omegaconf import OmegaConf
from ordered import run_in_order

from pneumonia.config.search_space import Space, find
from pneumonia.evaluation.objective import Objective
from pneumonia.search.oracle import Oracle
from pneumonia.search.trials import Proposal

MOST = Objective("val_auc", "max")
WIDE = {"dense": {"units": "int(interval(1, 4096))", "dropout": "interval(0.1, 0.5)"}}
FEW = {"dense": {"units": "choice(8, 16)", "dropout": "choice(0.1, 0.2, 0.3)"}}


def asha(ranges: dict[str, Any] = WIDE, objective: Objective = MOST, **changes: Any) -> Oracle:
    section = {
        "_target_": "pneumonia.search.asha.AshaOracle",
        **{"max_epochs": 9, "min_epochs": 1, "factor": 3, "max_trials": 30, "seed": 3},
        "max_consecutive_failures": 3,
    }
    space: Space = find(OmegaConf.create(ranges))
    return Oracle(space, section | changes, objective)


def place(proposal: Proposal) -> tuple[int, int | None]:
    """Return the round of a trial, and the number of the trial that it goes on from."""
    parent = proposal.parent
    return int(proposal.tags["round"]), None if parent is None else int(parent)


def alone(oracle: Oracle, scores: list[float | None]) -> list[tuple[int, int | None]]:
    """Run the trials one after the other, each with the next score; return where each stands."""
    found = []
    for score in scores:
        proposal = oracle.propose()
        assert proposal is not None
        found.append(place(proposal))
        oracle.tell(proposal.trial_id, score)
    return found


def test_a_table_of_scores_worked_out_by_hand() -> None:
    oracle = asha()
    # Rounds end at epochs 1, 3 and 9; the best third of a round goes on, rounded down.
    table = [
        (0.5, (0, None)),  # trial 0
        (0.7, (0, None)),  # trial 1
        (0.6, (0, None)),  # trial 2: of three in round 0, one goes on, the best
        (0.8, (1, 1)),  # trial 3, from trial 1
        (0.4, (0, None)),  # trial 4
        (0.9, (0, None)),  # trial 5: of five still one goes on, which is trial 5 by now
        (0.7, (1, 5)),  # trial 6
        (0.65, (0, None)),  # trial 7: of six the best two, trials 5 and 1, which have gone on
        (0.1, (0, None)),  # trial 8
        (0.2, (0, None)),  # trial 9
        (0.3, (0, None)),  # trial 10: of nine the best three; trial 7 has not gone on
        (0.6, (1, 7)),  # trial 11: of three in round 1, the best is trial 3
        (0.9, (2, 3)),  # trial 12: nobody goes on from the last round
        (0.1, (0, None)),  # trial 13
    ]
    scores, places = zip(*table, strict=True)
    # Round 0 has its sixth trial only with trial 7, its ninth with trial 10.
    assert alone(oracle, list(scores)) == list(places)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max_epochs": 27}, [1, 3, 9, 27]),
        ({"max_epochs": 20}, [1, 3, 9, 20]),
        ({"max_epochs": 20, "min_epochs": 2, "factor": 4}, [2, 8, 20]),
        ({"max_epochs": 1}, [1]),
    ],
)
def test_rounds_end_at_powers_of_the_factor_and_the_last_at_the_last_epoch(
    arguments: dict[str, Any], expected: list[int]
) -> None:
    oracle = asha(max_trials=400, **arguments)
    assert [item.epochs for item in oracle.plan()] == expected
    reached: dict[int, set[int]] = {}
    while (proposal := oracle.propose()) is not None:
        reached.setdefault(place(proposal)[0], set()).add(proposal.epochs)
        oracle.tell(proposal.trial_id, proposal.values["dense.dropout"])
    assert reached == {number: {epochs} for number, epochs in enumerate(expected)}


class Paper:
    """Algorithm 2, word by word, over numbers of trials: a rung is a list of (trial, score)."""

    def __init__(self, eta: int, rungs: int) -> None:
        self.eta, self.rungs = eta, [list[tuple[int, float]]() for _ in range(rungs)]
        self.promoted = [set[int]() for _ in range(rungs)]

    def get_job(self) -> tuple[int, int | None]:
        for k in range(len(self.rungs) - 2, -1, -1):
            best = sorted(self.rungs[k], key=lambda one: (-one[1], one[0]))
            candidates = best[: math.floor(len(self.rungs[k]) / self.eta)]
            promotable = [trial for trial, _ in candidates if trial not in self.promoted[k]]
            if len(promotable) > 0:
                self.promoted[k].add(promotable[0])
                return k + 1, promotable[0]
        return 0, None


@pytest.mark.parametrize("seed", range(12))
def test_it_is_algorithm_2_of_the_paper(seed: int) -> None:
    rng = random.Random(seed)
    eta, rungs, workers = rng.choice([2, 3, 4]), rng.choice([1, 2, 3, 4]), rng.choice([1, 2, 7, 40])
    sign = rng.choice([1, -1])
    objective = MOST if sign == 1 else Objective("val_loss", "min")
    oracle = asha(
        objective=objective, factor=eta, max_epochs=eta ** (rungs - 1), max_trials=150, seed=seed
    )
    paper, running, levels = Paper(eta, rungs), list[Proposal](), []
    values: dict[int, Any] = {}
    for number in range(150):
        while len(running) == workers:
            ended = running.pop(rng.randrange(workers))  # in any order
            failed = rng.random() < 0.1
            score = rng.choice([rng.random(), 0.5])  # some are equal
            if not failed:
                paper.rungs[place(ended)[0]].append((int(ended.trial_id), sign * score))
            oracle.tell(ended.trial_id, None if failed else score)
        proposal = oracle.propose()
        assert proposal is not None
        expected = paper.get_job()
        assert (int(proposal.trial_id), place(proposal)) == (number, expected)
        assert proposal.epochs == eta ** expected[0]
        levels.append(expected[0])
        values[number] = proposal.values
        if expected[1] is not None:  # the same values, trained on
            assert proposal.values == values[expected[1]]
        running.append(proposal)
    begun = [repr(values[number]) for number, level in enumerate(levels) if not level]
    assert len(set(begun)) == len(begun)
    assert max(levels) == rungs - 1 or workers == 40
    assert oracle.propose() is None


def drawn(proposal: Proposal) -> float:
    """Return a score of a trial's own, which grows with its epochs."""
    return random.Random(repr(proposal.values)).random() + 0.1 * proposal.epochs


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("ranges", [WIDE, FEW])
def test_in_order_it_is_the_same_for_any_number_of_workers(
    ranges: dict[str, Any], fails: bool
) -> None:
    rng = random.Random(5)
    failing = {f"{number:04d}" for number in range(60) if fails and rng.random() < 0.3}
    for factor in (2, 3, 5):
        expected, _ = run_in_order(asha(ranges, factor=factor), 1, rng, failing, score=drawn)
        for workers in (2, 4, 30):
            found, most = run_in_order(
                asha(ranges, factor=factor), workers, rng, failing, score=drawn
            )
            assert found == expected
            # A round of `factor` may promote: no more than that run beside each other.
            assert 2 <= most <= max(factor, 2) + 1


def test_a_small_space_ends_when_nobody_is_left_to_promote() -> None:
    oracle = asha(FEW)
    assert oracle.scope() == (
        "there are 6 combinations, and none is tried twice: so not the 30 of tuner.max_trials"
    )
    assert [item.trials for item in oracle.plan()] == [6, 2, 0]
    proposed, _ = run_in_order(oracle, 1, random.Random(), (), score=drawn)
    assert [place(one)[0] for one in proposed].count(0) == 6
    # Who runs is waited for: it may be promoted yet.
    oracle = asha(FEW)
    running = [oracle.propose() for _ in range(6)]
    assert oracle.propose() is None
    assert oracle.propose() is None
    for number, one in enumerate(running):
        assert one is not None
        oracle.tell(one.trial_id, number / 10)
    last = oracle.propose()
    assert last is not None
    assert place(last) == (1, 5)


@pytest.mark.parametrize("workers", [1, 5])
def test_only_the_states_of_those_who_may_go_on_are_needed(workers: int) -> None:
    rng, oracle = random.Random(1), asha(max_trials=90)
    running, ended, dropped, most = list[Proposal](), set[str](), set[str](), 0
    while proposal := oracle.propose():
        running.append(proposal)
        assert proposal.parent not in dropped
        assert proposal.parent is None or proposal.parent in oracle.promotable()
        if len(running) == workers:
            one = running.pop(rng.randrange(workers))
            oracle.tell(one.trial_id, rng.random())
            ended.add(one.trial_id)
            dropped = ended - oracle.promotable()
            most = max(most, len(ended - dropped))
    assert most < 30
    for one in running:
        oracle.tell(one.trial_id, rng.random())
    # The end has come before all could go on who would have.
    assert len(oracle.promotable()) < 5


def test_it_plans_what_is_usual() -> None:
    oracle = asha(max_trials=60, max_epochs=20)
    assert [item.trials for item in oracle.plan()] == [42, 13, 4, 1]
    assert [(item.start, item.epochs) for item in oracle.plan()] == [
        (0, 1),
        (1, 3),
        (3, 9),
        (9, 20),
    ]
    assert [item.trials for item in oracle.plan(12)] == [9, 3, 0, 0]


def epochs_of(oracle: Oracle, scores: list[float]) -> int:
    """Return how many epochs some trials take, one after the other, with these scores."""
    plan = oracle.plan()
    places = alone(oracle, list(scores))
    return sum(plan[number].epochs - plan[number].start for number, _ in places)


@pytest.mark.parametrize("last", [1, 3, 9, 10, 20, 27])
def test_it_knows_how_many_epochs_it_takes_at_the_most(last: int) -> None:
    rng = random.Random(last)
    for trials in (1, 2, 5, 13, 60):
        oracle = asha(max_trials=trials, max_epochs=last)
        most = oracle.most_epochs(oracle.plan())
        rising = [float(number) for number in range(trials)]  # each is better than those before
        mixed = [rng.random() + number * rng.random() for number in range(trials)]
        taken = [epochs_of(asha(max_trials=trials, max_epochs=last), it) for it in (rising, mixed)]
        assert max(taken) <= most <= 1.25 * max(taken) + last
