"""The winner of a search by folds: trained again on all that the folds were made of."""

from __future__ import annotations

import numpy as np

from pneumonia.artifacts import ArtifactStore
from pneumonia.datasets.cache import load_data
from pneumonia.evaluation.thresholds import fit_temperature, logit, sigmoid
from pneumonia.training import calibration, held_out, network, trial
from pneumonia.training.calibration import Decided
from pneumonia.training.inputs import class_weights
from pneumonia.training.trial import Hooks, Task

# Beside 1, float32 has no number that is nearer.
_MOST = 1 - 2.0**-24


def crown(task: Task, epochs: int, store: ArtifactStore, hooks: Hooks) -> Decided:
    """Return the best trial, trained on train and val for a number of epochs.

    Temperature and threshold are found on what each fit gave for the fold that it was held out of,
    several executions averaged; so are the probabilities of val.

    Args:
        task: The trial that won.
        epochs: The mean of the best epochs of its fits, rounded.
        store: Where its state is.
        hooks: What is told meanwhile.

    Raises:
        StateError: Its state is missing or damaged, and training again would not give the same.
    """
    config, rule = task.config, task.config["training"]["class_weight"]
    labels = held_out.labels(config)
    probabilities = held_out.gather(config, trial.all_fits(task, store, hooks)).mean(axis=0)
    can_calibrate = calibration.is_foldable(network.trainable(config, 0))
    temperature = 1.0
    if config["threshold"]["calibrate"] and can_calibrate:
        logits = logit(np.clip(probabilities.astype(np.float64), np.finfo(np.float32).tiny, _MOST))
        temperature = fit_temperature(labels, logits, class_weights(labels, rule))
        probabilities = sigmoid(logits / temperature).astype(np.float32)
    decision = calibration.conclude(
        probabilities,
        labels,
        config,
        temperature,
        can_calibrate=can_calibrate,
        where="out of fold",
    )
    weights = network.retrain(config, epochs, temperature=temperature, report=hooks.report)
    return Decided(decision, weights, probabilities[len(load_data(config).train) :])
