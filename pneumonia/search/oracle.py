"""What to try next: KerasTuner's oracles, asked and told one trial at a time."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras_tuner
from keras_tuner.engine import trial as kt_trial
from threadpoolctl import threadpool_limits

from pneumonia.config.instantiate import build, locate
from pneumonia.config.search_space import Space
from pneumonia.errors import ConfigError
from pneumonia.evaluation.objective import Objective
from pneumonia.search.asha import PARENT, AshaOracle
from pneumonia.search.trials import Proposal

Config = dict[str, Any]

# KerasTuner takes a seed of 0 for none.
_SEED_FOR_ZERO = 2**31 - 1
_BRACKET = "tuner/bracket"
_TUNER_ID = "pneumonia"
_MOST_REPEATED = 20  # in a row, as KerasTuner's random proposals
_Bayesian = keras_tuner.oracles.BayesianOptimizationOracle
# Oracles that never ask what came of a trial.
_BLIND = (keras_tuner.oracles.RandomSearchOracle, keras_tuner.oracles.GridSearchOracle)


class _Most(int):
    """A number of trials; KerasTuner names trials in as many digits as its text has.

    A search that goes on with more trials would have other names for those that it has.
    """

    def __str__(self) -> str:
        return "0000"


@dataclass(frozen=True, slots=True)
class Round:
    """Some trials of a plan that are alike.

    Attributes:
        bracket: The bracket, where trials are promoted; else None.
        round: The round within the bracket, from 0.
        trials: How many trials.
        start: The epoch that they go on from.
        epochs: The epoch up to which they are trained.
    """

    bracket: int | None
    round: int
    trials: int
    start: int
    epochs: int

    @property
    def trained(self) -> int:
        """How many epochs its trials train together, in one fit of each."""
        return self.trials * (self.epochs - self.start)


class Oracle:
    """Owns the KerasTuner oracle of a search, and nothing of what the trials do.

    With nothing to search there is no oracle, and one trial. KerasTuner's own files are not
    written: what it was told is in the journal, which brings a new oracle to the same state.

    Args:
        space: What is searched.
        tuner: The section of the tuner.
        objective: What trials are ranked by.

    Raises:
        ConfigError: Where the tuner does not exist or does not take its arguments.
    """

    def __init__(self, space: Space, tuner: Config, objective: Objective) -> None:
        self._space, self._tuner, self._objective = space, tuner, objective
        self._oracle = _build(space, tuner, objective) if len(space) else None
        self._count = 0

    def can_propose(self) -> bool:
        """Tell whether the next trial is the same, whatever comes of those that run.

        A random or grid search asks for nothing but what it has tried; Hyperband asks for scores at
        the end of a round, ASHA at almost every step, Bayesian optimization when its first random
        trials are over. Of another oracle nobody knows.
        """
        oracle = self._oracle
        if oracle is None or not oracle.ongoing_trials:
            return True
        if type(oracle) is keras_tuner.oracles.HyperbandOracle:
            return _is_round_open(oracle)
        if type(oracle) is AshaOracle:
            return oracle.can_propose()
        if type(oracle) is _Bayesian:
            first = oracle.num_initial_points or max(3 * len(oracle.hyperparameters.space), 3)
            return len(oracle.trials) < first
        return type(oracle) in _BLIND

    def propose(self) -> Proposal | None:
        """Return the next trial, or None where the search has come to its end.

        While other trials run, it may be asked only if `can_propose` says so. What a Gaussian
        process proposes a second time is not run again: the oracle is told what came of it.
        """
        if self._oracle is None:
            self._count += 1
            only = Proposal("0000", 1, {}, self._tuner["max_epochs"])
            return only if self._count == 1 else None
        trial = self._ask_new()
        if trial is None or trial.status != kt_trial.TrialStatus.RUNNING:
            return None
        if type(self._oracle) is keras_tuner.oracles.GridSearchOracle:
            # What follows a trial's values is known as soon as these are.
            self._oracle._populate_next.append(trial.trial_id)
        self._count += 1
        if self._count == 1:
            self._start(trial)
        values = trial.hyperparameters.values
        tags = {}
        if parent := values.get(PARENT):
            tags["promoted_from"] = parent
        if _BRACKET in values:
            if parent:  # where trials end in any order, KerasTuner writes the newest bracket
                values[_BRACKET] = self._oracle.trials[parent].hyperparameters.values[_BRACKET]
            tags |= {"bracket": str(values[_BRACKET]), "round": str(values["tuner/round"])}
        epochs = values.get("tuner/epochs", self._tuner["max_epochs"])
        decoded = self._space.decode(values)
        return Proposal(trial.trial_id, self._count, decoded, int(epochs), tags)

    def _ask_new(self) -> kt_trial.Trial | None:
        if not isinstance(self._oracle, _Bayesian):
            return self._ask()
        if len(self._oracle._tried_so_far) < self._combinations():
            for _ in range(_MOST_REPEATED):
                trial = self._ask()
                if (twin := self._twin(trial)) is None:
                    return trial
                self.tell(trial.trial_id, twin.score, step=twin.best_step or 0)
        return None

    def _ask(self) -> kt_trial.Trial:
        with contextlib.ExitStack() as stack:
            if isinstance(self._oracle, _Bayesian):
                # Another number of threads rounds otherwise; those of two searches wait for others.
                stack.enter_context(threadpool_limits(1, "blas"))
            # To the oracle, everyone who runs a trial is another tuner.
            return self._oracle.create_trial(f"{_TUNER_ID}-{self._count}")  # type: ignore[union-attr]

    def _twin(self, trial: kt_trial.Trial) -> kt_trial.Trial | None:
        """Return an earlier trial with the same values that has ended, if there is one."""
        values, others = trial.hyperparameters.values, self._oracle.trials.values()  # type: ignore[union-attr]
        alike = (one for one in others if one.hyperparameters.values == values)
        return next((one for one in alike if one.status != kt_trial.TrialStatus.RUNNING), None)

    def tell(self, trial_id: str, score: float | None, *, step: int = 0) -> None:
        """Tell what came of a trial.

        Args:
            trial_id: The trial.
            score: Its objective, or None where it failed.
            step: The epoch at which it had that score.
        """
        if self._oracle is None:
            return
        trial = self._oracle.get_trial(trial_id)
        if score is None or math.isnan(score):
            trial.status = kt_trial.TrialStatus.FAILED
        else:
            self._oracle.update_trial(trial_id, {self._objective.name: score}, step=step)
            trial.status = kt_trial.TrialStatus.COMPLETED
        self._oracle.end_trial(trial)

    def promotable(self) -> set[str]:
        """Return the trials that another goes on from, or may yet."""
        if isinstance(self._oracle, AshaOracle):
            return self._oracle.promotable()
        if not isinstance(self._oracle, keras_tuner.oracles.HyperbandOracle):
            return set()
        running = (one.hyperparameters.values for one in self._oracle.ongoing_trials.values())
        # A bracket is forgotten as soon as its last trial has begun.
        return {values[PARENT] for values in running if PARENT in values} | {
            info["id"]
            for bracket in self._oracle._brackets
            for trials in bracket["rounds"][:-1]
            for info in trials
        }

    def plan(self, most: int | None = None) -> list[Round]:
        """Return the trials to expect, as far as the tuner and the space tell.

        Args:
            most: How many trials there may be, if fewer than the tuner would have.
        """
        oracle = self._oracle
        if oracle is None:
            return [Round(None, 0, 1, 0, self._tuner["max_epochs"])]
        if isinstance(oracle, keras_tuner.oracles.HyperbandOracle):
            rounds = _hyperband_rounds(oracle)
            if (size := self._space.size()) < rounds[0].trials:
                # KerasTuner ends a search when it finds no new values, before any promotion.
                rounds = [replace(rounds[0], trials=int(size))]
            return capped(capped(rounds, self._tuner.get("max_trials")), most)
        limit = min(most or math.inf, self._tuner["max_trials"] or math.inf)
        if isinstance(oracle, AshaOracle):
            sizes = oracle.usual(limit, self._combinations())
            spans = zip(sizes, [0, *oracle.epochs], oracle.epochs, strict=False)
            return [Round(0, number, *span) for number, span in enumerate(spans)]
        # Nobody knows whether another oracle tries something twice.
        trials = min(limit, self._combinations() if type(oracle) in (*_BLIND, _Bayesian) else limit)
        return [
            Round(None, 0, 0 if math.isinf(trials) else int(trials), 0, self._tuner["max_epochs"])
        ]

    def most_epochs(self, rounds: Sequence[Round]) -> int:
        """Return how many epochs the trials of a plan take at the most, in one fit of each."""
        if isinstance(self._oracle, AshaOracle):
            return self._oracle.most_epochs(sum(item.trials for item in rounds))
        return sum(item.trained for item in rounds)

    def shortfall(self) -> str:
        """Return a warning where the space is too small for the tuner, or nothing."""
        if not isinstance(self._oracle, keras_tuner.oracles.HyperbandOracle):
            return ""
        first, size = _hyperband_rounds(self._oracle)[0], self._space.size()
        if size >= first.trials:
            return ""
        return (
            f"warning: there are {size:.0f} combinations, and Hyperband's first bracket wants "
            f"{first.trials}. KerasTuner then ends the search after {first.epochs} epochs each, "
            "without promoting any: use tuner=grid, or wider ranges"
        )

    def scope(self) -> str:
        """Return why there are fewer trials than asked for, where Hyperband is not at work."""
        most, size = self._tuner.get("max_trials"), self._combinations()
        is_hyperband = isinstance(self._oracle, keras_tuner.oracles.HyperbandOracle)
        if self._oracle is None or is_hyperband or not most:
            return ""
        if sum(item.trials for item in self.plan()) >= most:
            return ""
        what = "is 1 combination" if size == 1 else f"are {size:.0f} combinations"
        return f"there {what}, and none is tried twice: so not the {most} of tuner.max_trials"

    def waits(self, workers: int) -> str:
        """Return a warning where most of some workers wait for scores in order, or nothing."""
        if workers == 1 or not isinstance(self._oracle, AshaOracle):
            return ""
        return (
            "warning: in order, what ASHA tries next waits for scores: of the "
            f"{workers} workers one or two work. With executor.in_order=false none waits"
        )

    def _combinations(self) -> float:
        """Return how many trials there can be, at the most, before values repeat."""
        size, oracle = self._space.size(), self._oracle
        if oracle is None or type(oracle) is not keras_tuner.oracles.GridSearchOracle:
            return size
        axes = oracle.hyperparameters.space  # of an interval, the grid has a few values
        return min(size, math.prod(len({one.default, *one.values}) for one in axes))

    def _start(self, trial: kt_trial.Trial) -> None:
        """Give the first trial the start values, which no other trial is to have."""
        started = self._space.encode(self._space.given_start())
        values = trial.hyperparameters.values
        values.update({path: value for path, value in started.items() if path in values})
        trial.hyperparameters.ensure_active_values()
        self._oracle._record_values(trial)  # type: ignore[union-attr]


def _build(space: Space, tuner: Config, objective: Objective) -> keras_tuner.Oracle:
    takes = inspect.signature(locate(tuner["_target_"], "tuner")).parameters
    # Keys of ours, of which an oracle may take some.
    own = {"max_consecutive_failures"} | {"max_epochs", "max_trials"} - takes.keys()
    section = {name: value for name, value in tuner.items() if name not in own}
    section["seed"] = tuner["seed"] or _SEED_FOR_ZERO
    oracle = build(
        section,
        "tuner",
        objective=keras_tuner.Objective(objective.name, objective.direction),
        hyperparameters=space.hyperparameters(),
        # The search itself counts failures, and says more about them.
        max_consecutive_failed_trials=2**31,
    )
    if not isinstance(oracle, keras_tuner.Oracle):
        raise ConfigError("tuner._target_", "a KerasTuner oracle", tuner["_target_"])
    most = tuner.get("max_trials")
    oracle.max_trials = None if most is None else _Most(most)
    oracle.verbose = 0
    # Their cost grows with the number of trials.
    oracle.save = lambda: None
    oracle._save_trial = lambda trial: None
    return oracle


def _is_round_open(oracle: keras_tuner.oracles.HyperbandOracle) -> bool:
    """Tell whether the next trial belongs to a round of which everything is known."""
    running = {trial.trial_id for trial in oracle.ongoing_trials.values()}
    for bracket in oracle._brackets:
        before: list[str] = []
        for number, members in enumerate(bracket["rounds"]):
            size = oracle._get_size(bracket["bracket_num"], number)
            if len(members) == size:
                before = [info["id"] for info in members]
                continue
            if not number:
                return True
            promoted = {info["past_id"] for info in members}
            rest = [oracle.trials[trial_id] for trial_id in before if trial_id not in promoted]
            completed = [one for one in rest if one.status == kt_trial.TrialStatus.COMPLETED]
            if running.isdisjoint(before) and len(completed) > len(before) - size:
                return True
            # Where too many have failed, it is stuck, and the next bracket has its turn.
            everyone = (info["id"] for one in bracket["rounds"] for info in one)
            if not running.isdisjoint(everyone):
                return False
            break
    return False


def _hyperband_rounds(oracle: keras_tuner.oracles.HyperbandOracle) -> list[Round]:
    rounds = []
    for bracket in reversed(range(oracle._get_num_brackets())):
        for number in range(oracle._get_num_rounds(bracket)):
            size = oracle._get_size(bracket, number)
            start = oracle._get_epochs(bracket, number - 1) if number else 0
            epochs = oracle._get_epochs(bracket, number)
            rounds.append(Round(bracket, number, size, start, epochs))
    return rounds * int(oracle.hyperband_iterations)


def capped(rounds: list[Round], most: int | None) -> list[Round]:
    """Return rounds with so many trials at the most, those that come first."""
    if most is None:
        return rounds
    result = []
    for item in rounds:
        trials = min(item.trials or most, most)  # 0 is unknown
        most -= trials
        if trials:
            result.append(replace(item, trials=trials))
    return result
