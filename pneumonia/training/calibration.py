"""What a trained model decides by: its temperature and its threshold, found on val."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pneumonia.evaluation.thresholds import Decision, choose, fit_temperature, logit
from pneumonia.training import compiled_loop, loop
from pneumonia.training.feeds import Feed, read_all
from pneumonia.training.inputs import class_rule, class_weights, positive_share

Array = np.ndarray[Any, Any]
Config = dict[str, Any]
Weights = tuple[Array, ...]

FLAT = 64.0
"""Dividing logits by it keeps their sigmoids away from 0 and 1, where float32 has lost them."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A model that is ready to decide.

    Attributes:
        decision: How it does.
        weights: The values of its variables, with the temperature in them.
        probabilities: What these weights give for val, float32 (n,).
    """

    decision: Decision
    weights: Weights
    probabilities: Array


def decide(
    model: keras.Model, weights: Weights, *, val: Feed, labels: Array, config: Config
) -> Decided:
    """Calibrate a model if asked, and choose its threshold.

    Args:
        model: What was trained; its own weights do not matter.
        weights: The values of its variables.
        val: The inputs of val, which these weights were not trained on.
        labels: int64 (n,), those of val.
        config: The whole configuration of the trial.
    """
    x, temperature = read_all(val), None
    with loop.started(model, loop.exact(config), config["seed"]) as program:
        if config["threshold"]["calibrate"] and is_foldable(model):
            program.set_weights(fold(model, weights, FLAT))
            logits = FLAT * logit(program.predict(x))
            weighted = class_weights(labels, class_rule(config))
            temperature = fit_temperature(labels, logits, weighted)
            weights = fold(model, weights, temperature)
        program.set_weights(weights)
        probabilities = program.predict(x)
    return Decided(conclude(labels, probabilities, config, temperature), weights, probabilities)


def conclude(
    labels: Array,
    probabilities: Array,
    config: Config,
    temperature: float | None,
    *,
    where: str = "on val",
) -> Decision:
    """Return how to decide by calibrated probabilities (n,) of images that were held out.

    Args:
        labels: int64 (n,), theirs.
        probabilities: Of the images.
        config: The whole configuration of the trial.
        temperature: What their logits were divided by; None where none was fitted.
        where: What the images are, for the words.
    """
    section = config["threshold"]
    share = positive_share(labels, class_rule(config))
    threshold, statement = choose(labels, probabilities, section, share=share, where=where)
    if section["calibrate"] and temperature is None:
        statement += "; not calibrated, as the head does not end in a dense layer with a sigmoid"
    rule = section["rule"] if isinstance(section["rule"], str) else Decision().rule
    return Decision(threshold, rule, 1.0 if temperature is None else temperature, statement)


def fold(model: keras.Model, weights: Weights, temperature: float) -> Weights:
    """Divide the logits by a temperature: weights and bias of the last layer, exactly.

    The model is foldable unless the temperature is 1.
    """
    if temperature == 1:
        return weights
    last = {id(variable) for variable in model.get_layer("head").layers[-1].variables}
    return tuple(
        (value / temperature).astype(value.dtype) if id(variable) in last else value
        for variable, value in zip(compiled_loop.variables(model), weights, strict=True)
    )


def is_foldable(model: keras.Model) -> bool:
    """Tell whether a model ends in one dense sigmoid unit, whose logit can be divided."""
    last = model.get_layer("head").layers[-1]
    return type(last) is keras.layers.Dense and last.activation is keras.activations.sigmoid
