"""Asynchronous successive halving: the best go on as scores come, and no round waits for its end.

Li et al., 2020, "A System for Massively Parallel Hyperparameter Tuning", Algorithm 2
(https://arxiv.org/abs/1810.05934).
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import keras_tuner
from keras_tuner.engine import trial as kt_trial

from pneumonia.config.constraints import Bounds

# What KerasTuner's Hyperband calls them among a trial's values.
_ROUND, PARENT = "tuner/round", "tuner/trial_id"


class AshaOracle(keras_tuner.Oracle):  # type: ignore[misc]
    """Owns the rounds of a search, which are the paper's rungs, and who was promoted from them.

    Trials of round k are trained up to `min_epochs * factor**k` epochs, those of the last round up
    to `max_epochs`. Whoever asks gets the best trial that is among the best 1/factor of those with
    a score in its round and was not promoted yet, from the highest round that has one: it goes on
    in the next round. Where there is none, the first round gets new random values.

    This is the rule of the paper, which promotes. Ray Tune and Optuna stop instead: there a trial
    trains on unless a round that it reaches has had better ones. Here a trial is a task whose last
    epoch is known when it starts, and another goes on from its state, so to promote asks nothing
    of what runs. It also errs less: the first to reach a round are not let through whatever their
    scores, and one that was passed over goes on once it is among the best.

    A trial that failed belongs to no round. Of equal scores the earlier trial's is the better.

    Args:
        objective: A KerasTuner objective.
        hyperparameters: What is searched.
        max_epochs: Of a trial that is promoted to the last round; the paper's R.
        min_epochs: Of a trial in the first round; the paper's r.
        factor: One trial in so many is promoted, to so many times the epochs; the paper's eta.
        max_trials: When the search ends; every promotion is a trial too. None: when there are no
            new values and nobody to promote.
        seed: Of the random values.
        max_consecutive_failed_trials: As of KerasTuner.
    """

    _seed_state: int  # KerasTuner's own, drawn from with every random value

    def __init__(
        self,
        objective: keras_tuner.Objective,
        hyperparameters: keras_tuner.HyperParameters,
        *,
        max_epochs: int,
        min_epochs: Annotated[int, Bounds(1)] = 1,
        factor: Annotated[int, Bounds(2)] = 3,
        max_trials: int | None = None,
        seed: int | None = None,
        max_consecutive_failed_trials: int = 3,
    ) -> None:
        super().__init__(
            objective=objective,
            hyperparameters=hyperparameters,
            max_trials=max_trials,
            seed=seed,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self._factor = factor
        self.epochs = [min_epochs]  # at which the trials of each round end
        while self.epochs[-1] < max_epochs:
            self.epochs.append(min(self.epochs[-1] * factor, max_epochs))
        # Of each round but the last, the trials with a score, the best first.
        self._ranked: list[list[tuple[float, int, str]]] = [[] for _ in self.epochs[1:]]
        self._promoted: set[str] = set()

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial: the paper's `get_job`."""
        for number in reversed(range(len(self._ranked))):
            parent = self._promotable(number)
            if parent is not None:
                self._promoted.add(parent)
                values = {**self.trials[parent].hyperparameters.values, PARENT: parent}
                return {"status": "RUNNING", "values": self._placed(values, number + 1)}
        before = self._seed_state
        values = self._random_values()
        if not values:
            self._seed_state = before  # who asks again gets the same answer
            return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}
        return {"status": "RUNNING", "values": self._placed(values, 0)}

    def end_trial(self, trial: kt_trial.Trial) -> None:
        """Take in what came of a trial."""
        super().end_trial(trial)
        ended = self.trials[trial.trial_id]
        number = ended.hyperparameters.values[_ROUND]
        if ended.status == kt_trial.TrialStatus.COMPLETED and number < len(self._ranked):
            cost = -ended.score if self.objective.direction == "max" else ended.score
            bisect.insort(self._ranked[number], (cost, int(ended.trial_id), ended.trial_id))

    def can_propose(self) -> bool:
        """Tell whether the next trial is the same, whatever comes of those that run.

        One that runs may turn out the best of its round, and be promoted, as soon as the round has
        `factor` trials with it.
        """
        running = Counter(self._running(_ROUND))
        for number in reversed(range(len(self._ranked))):
            if running[number]:
                if len(self._ranked[number]) + running[number] >= self._factor:
                    return False
            elif self._promotable(number) is not None:
                return True
        return True

    def promotable(self) -> set[str]:
        """Return the trials that another goes on from, or may yet."""
        found = {parent for parent in self._running(PARENT) if parent is not None}
        coming = len(self.ongoing_trials) + (self.max_trials or 0) - len(self.trials)
        for ranked in self._ranked:
            # However many there will be in the round, one beyond is not among its best.
            most = (len(ranked) + coming) // self._factor if self.max_trials else None
            found |= {trial_id for *_, trial_id in ranked[:most]} - self._promoted
        return found

    def usual(self, trials: float, combinations: float) -> list[int]:
        """Return how many trials each round gets, where scores change nothing about who is best.

        Args:
            trials: How many there may be, or infinity.
            combinations: How many different values there are, or infinity; not both.
        """
        sizes = [0 for _ in self.epochs]
        while sum(sizes) < trials:
            pairs = reversed([*enumerate(itertools.pairwise(sizes), start=1)])
            owing = (k for k, (size, above) in pairs if size // self._factor > above)
            number = next(owing, 0)
            if number == 0 and sizes[0] >= combinations:
                break
            sizes[number] += 1
        return sizes

    def most_epochs(self, trials: int) -> int:
        """Return the most epochs that some trials can take.

        A round promotes nobody before it has `factor` trials, and then at most one for each that
        comes: so no round has more than the one before it less `factor` - 1, and deepest is
        dearest, but for a last round that adds few epochs.
        """
        added = [end - start for start, end in zip([0, *self.epochs], self.epochs, strict=False)]
        found = 0
        for rounds in range(1, len(self.epochs) + 1):
            fewer = [(rounds - 1 - number) * (self._factor - 1) for number in range(rounds)]
            each, rest = divmod(trials - sum(fewer), rounds)
            if each > 0 or rounds == 1:
                sizes = [each + few + (number < rest) for number, few in enumerate(fewer)]
                found = max(found, sum(map(int.__mul__, sizes, added)))
        return found

    def _promotable(self, number: int) -> str | None:
        """Return the best trial to promote from a round, if there is one."""
        ranked = self._ranked[number]
        best = (trial_id for *_, trial_id in ranked[: len(ranked) // self._factor])
        return next((trial_id for trial_id in best if trial_id not in self._promoted), None)

    def _placed(self, values: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Return values with a round, and a bracket, of which there is one."""
        epochs = self.epochs[number]
        return {**values, "tuner/epochs": epochs, "tuner/bracket": 0, _ROUND: number}

    def _running(self, name: str) -> list[Any]:
        """Return a value of each trial that runs."""
        return [one.hyperparameters.values.get(name) for one in self.ongoing_trials.values()]

    def _compute_values_hash(self, values: Mapping[str, Any]) -> str:
        own = {name: value for name, value in values.items() if not name.startswith("tuner/")}
        return str(super()._compute_values_hash(own))
