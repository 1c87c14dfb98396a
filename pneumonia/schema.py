"""What every key of the config may hold: one check per key, for values and for ranges of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pneumonia import targets


@dataclass(frozen=True, slots=True)
class Check:
    """What a value must be.

    Attributes:
        expected: A noun phrase for messages.
        accepts: Says whether a value is right.
    """

    expected: str
    accepts: Callable[[object], bool]

    def __or__(self, other: Check) -> Check:
        return Check(
            f"{self.expected.replace(' or ', ', ')} or {other.expected}",
            lambda value: self.accepts(value) or other.accepts(value),
        )


def integer(low: int, high: int | None = None) -> Check:
    """Return the check for an integer from `low` to `high`, both included."""
    if high is not None:
        expected = f"an integer from {low} to {high}"
    else:
        expected = "a positive integer" if low == 1 else f"an integer of at least {low}"
    return Check(expected, lambda value: _is_integer(value) and low <= value <= (high or math.inf))  # type: ignore[operator]


def number(
    low: float, high: float = math.inf, *, with_low: bool = True, with_high: bool = True
) -> Check:
    """Return the check for a finite number between two, which may count or not."""

    def accepts(value: object) -> bool:
        if not _is_number(value) or not math.isfinite(value):  # type: ignore[arg-type]
            return False
        above = value >= low if with_low else value > low  # type: ignore[operator]
        return above and (value <= high if with_high else value < high)  # type: ignore[operator]

    if high == math.inf:
        expected = f"a number of at least {low:g}" if with_low else f"a number above {low:g}"
    else:
        expected = f"a number from {low:g} to {'' if with_high else 'below '}{high:g}"
    return Check(expected, accepts)


def one_of(*values: str) -> Check:
    """Return the check for one of some texts."""
    *most, last = values
    return Check(f"{', '.join(most)} or {last}" if most else last, lambda value: value in values)


TEXT = Check("a text", lambda value: isinstance(value, str) and value.strip() != "")
NULL = Check("null", lambda value: value is None)
BOOLEAN = Check("true or false", lambda value: isinstance(value, bool))
SCALAR = Check(
    "a number, text, true, false or null",
    lambda value: value is None or isinstance(value, str | int | float),
)
ANY = Check("anything", lambda value: True)
POSITIVE = number(0, with_low=False)
FRACTION = number(0, 1)
EXISTING = Check(
    "a path that exists",
    lambda value: (
        isinstance(value, str)
        and value != ""
        and ("://" in value or Path(value).expanduser().exists())
    ),
)
FILE = Check(
    "a file that exists",
    lambda value: isinstance(value, str) and Path(value).expanduser().is_file(),
)
ACTIVATION = Check(
    "the name of a Keras activation",
    lambda value: isinstance(value, str) and value in targets.names("keras.activations"),
)
CLASS_WEIGHT = Check(
    "{0: weight, 1: weight}",
    lambda value: (
        isinstance(value, dict)
        and {str(key) for key in value} == {"0", "1"}
        and all(POSITIVE.accepts(weight) for weight in value.values())
    ),
)
SEED = integer(0, 2**31 - 1)

KEYS: dict[str, Check] = {
    "seed": SEED,
    "resume": TEXT | NULL,
    "objective.name": TEXT,
    "objective.direction": one_of("max", "min"),
    "features.folder": TEXT,
    "features.max_gb": POSITIVE,
    "features.dtype": one_of("float32", "float16"),
    "features.precision": one_of("float32", "bfloat16"),
    "features.cache": BOOLEAN,
    "dataset.path": EXISTING | NULL,
    "dataset.data_dir": TEXT | NULL,
    "dataset.manual_dir": EXISTING | NULL,
    "augment.views": integer(1) | one_of("online"),
    "augment.flip": BOOLEAN,
    "augment.rotation": number(0, 180),
    "augment.zoom": number(0, 0.99),
    "augment.crop": number(0, 0.99),
    "augment.shift": FRACTION,
    "augment.brightness": FRACTION,
    "augment.contrast": FRACTION,
    "model.image_size": integer(1),
    "model.weights": one_of("imagenet") | NULL | FILE,
    "model.layer": TEXT | NULL,
    "model.pooling": one_of("avg", "max", "flatten"),
    "model.trainable": BOOLEAN | Check("the name of a layer", TEXT.accepts),
    "model.scaling": one_of("imagenet", "unit"),
    "model.blocks": integer(1),
    "model.filters": integer(1),
    "model.growth": integer(1),
    "model.kernel_size": integer(1),
    "model.channels": Check("1 or 3", lambda value: _is_integer(value) and value in (1, 3)),
    "dense.units": integer(1),
    "dense.dropout": number(0, 1, with_high=False),
    "dense.activation": ACTIVATION,
    "optimizer.learning_rate": POSITIVE,
    "optimizer.momentum": FRACTION,
    "optimizer.rho": FRACTION,
    "optimizer.beta_1": number(0, 1, with_high=False),
    "optimizer.beta_2": number(0, 1, with_high=False),
    "optimizer.epsilon": POSITIVE,
    "optimizer.weight_decay": number(0) | NULL,
    "optimizer.clipnorm": POSITIVE | NULL,
    "optimizer.clipvalue": POSITIVE | NULL,
    "optimizer.global_clipnorm": POSITIVE | NULL,
    "optimizer.nesterov": BOOLEAN,
    "optimizer.centered": BOOLEAN,
    "optimizer.amsgrad": BOOLEAN,
    "optimizer.use_ema": BOOLEAN,
    "optimizer.ema_momentum": FRACTION,
    "tuner.max_epochs": integer(1),
    "tuner.max_trials": integer(1) | NULL,
    "tuner.factor": integer(2),
    "tuner.hyperband_iterations": integer(1),
    "tuner.num_initial_points": integer(1) | NULL,
    "tuner.alpha": POSITIVE,
    "tuner.beta": number(0),
    "tuner.seed": SEED,
    "tuner.max_consecutive_failures": integer(1),
    "training.batch_size": integer(1),
    "training.class_weight": one_of("balanced") | NULL | CLASS_WEIGHT,
    "training.early_stopping": NULL | Check("{patience, min_delta}", lambda value: False),
    "training.early_stopping.patience": integer(1),
    "training.early_stopping.min_delta": number(0),
    "training.executions_per_trial": integer(1),
    "training.retrain": BOOLEAN,
    "training.tensorboard": BOOLEAN,
    "training.jit": BOOLEAN | one_of("auto"),
    "tracking.uri": TEXT | NULL,
    "tracking.experiment": TEXT,
    "tracking.log_models": one_of("all", "best", "none"),
    "tracking.artifacts": TEXT | NULL,
    "tracking.registered_model": TEXT,
    "tracking.alias": TEXT,
    "executor.workers": integer(1),
    "executor.address": TEXT | NULL,
}
"""The check of every key that has one of its own."""

_SHARE = number(0, 1, with_high=False)

BY_TARGET: dict[str, dict[str, Check]] = {
    "pneumonia.datasets.npz": {"dataset.path": EXISTING},
    "pneumonia.datasets.image_folder": {
        "dataset.path": EXISTING,
        "dataset.val_fraction": _SHARE,
        "dataset.test_fraction": _SHARE,
        "dataset.seed": SEED,
    },
    "pneumonia.phantom.phantom": {
        **{f"dataset.{split}": integer(2, 1_000_000) for split in ("train", "val", "test")},
        "dataset.image_size": integer(32, 512),
        "dataset.positive_fraction": number(0.01, 0.99),
        "dataset.difficulty": FRACTION,
        "dataset.seed": SEED,
    },
    "pneumonia.backbones.efficientnet_lite0": {"model.image_size": integer(32)},
    "pneumonia.backbones.inception_v3": {"model.image_size": integer(75)},
    "pneumonia.backbones.keras_application": {
        "model.name": Check(
            "the name of a network of keras.applications",
            lambda value: (
                isinstance(value, str)
                and value[:1].isupper()
                and value in targets.names("keras.applications")
            ),
        )
    },
    "pneumonia.executors.local": {
        "executor.workers": Check(
            "1, with executor=local", lambda value: _is_integer(value) and value == 1
        )
    },
    "pneumonia.optimizers.by_name": {
        "optimizer.name": Check(
            "the name of an optimizer of Keras",
            lambda value: (
                isinstance(value, str)
                and value.lower() in map(str.lower, targets.names("keras.optimizers"))
            ),
        )
    },
}
"""The checks of keys that depend on the target of their section."""

CLOSED = ("objective", "features", "training", "training.early_stopping", "tracking")
"""Mappings that hold nothing but the keys above and mappings named in `SECTIONS`."""

SECTIONS = {
    "dataset": (),
    "augment": ("views",),
    "model": (),
    "dense": (),
    "optimizer": (),
    "tuner": ("max_trials", "max_epochs", "max_consecutive_failures"),
    "executor": (),
    "training.loss": (),
}
"""Mappings that hold a `_target_` and its arguments, with the keys beside those arguments."""

GIVEN = {"augment": ("image_size", "seed")}
"""Arguments without a default that the program gives, not the config."""

_BY_TYPE = {
    "int": Check("an integer", lambda value: _is_integer(value)),
    "float": Check("a number", lambda value: _is_number(value)),
    "str": Check("a text", lambda value: isinstance(value, str)),
    "bool": BOOLEAN,
    "None": NULL,
}


def check_of(path: str, target: object = None, annotation: str = "") -> Check:
    """Return the check of a key: its own, or what the type of the argument allows.

    Args:
        path: Dotted path of the key.
        target: The `_target_` of its section, if it has one.
        annotation: The type written for the argument that the key is passed to, such as
            `str | None`; other types than the plain ones allow anything.
    """
    special = BY_TARGET.get(str(target), {})
    if path in special or path in KEYS:
        return special.get(path) or KEYS[path]
    parts = [_BY_TYPE.get(part.strip()) for part in annotation.split("|")]
    if None not in parts:
        first, *rest = [part for part in parts if part]
        for part in rest:
            first |= part
        return first
    return SCALAR if path.startswith("optimizer.") else ANY


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
