"""Optuna's tree-structured Parzen estimator as an oracle of KerasTuner.

A plug-in as a user writes it: this class, and `plugin/tuner/tpe.yaml` that names it.
"""

from __future__ import annotations

from typing import Annotated, Any

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as hp
from keras_tuner.engine.trial import Trial, TrialStatus
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pneumonia.config.constraints import Bounds


class TPE(keras_tuner.Oracle):  # type: ignore[misc]
    """Asks Optuna for values, and tells it what they came to (Bergstra et al. 2011).

    A start value of a range, the tag `default:`, would be passed over: Optuna does not know of it.

    Args:
        startup: Random trials at the start.
        seed: Of the sampler.
        **given: What every oracle is given.
    """

    def __init__(
        self, *, startup: Annotated[int, Bounds(1)] = 10, seed: int, max_trials: int, **given: Any
    ) -> None:
        super().__init__(seed=seed, max_trials=max_trials, **given)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed)
        direction = "maximize" if self.objective.direction == "max" else "minimize"
        self._study = optuna.create_study(sampler=sampler, direction=direction)
        self._asked: dict[str, optuna.Trial] = {}

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial."""
        space = {one.name: _distribution(one) for one in self.hyperparameters.space}
        asked = self._asked[trial_id] = self._study.ask(space)
        return {"status": TrialStatus.RUNNING, "values": dict(asked.params)}

    @keras_tuner.synchronized  # type: ignore[untyped-decorator]
    def end_trial(self, trial: Trial) -> None:
        """Take in what a trial came to."""
        super().end_trial(trial)
        has_failed = trial.status != TrialStatus.COMPLETED
        state = optuna.trial.TrialState.FAIL if has_failed else None
        self._study.tell(self._asked.pop(trial.trial_id), trial.score, state=state)


def _distribution(one: Any) -> BaseDistribution:
    if isinstance(one, hp.Int | hp.Float):
        kind = IntDistribution if isinstance(one, hp.Int) else FloatDistribution
        return kind(one.min_value, one.max_value, log=one.sampling == "log")
    return CategoricalDistribution(list(one.values))
