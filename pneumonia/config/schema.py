"""What every key of the config may hold: one check per key, for values and for ranges of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pneumonia.config import signatures
from pneumonia.config.constraints import (
    ANY,
    BOOLEAN,
    FRACTION,
    NULL,
    POSITIVE,
    SCALAR,
    TEXT,
    Check,
    integer,
    is_integer,
    is_number,
    named,
    number,
    one_of,
    path,
)
from pneumonia.errors import without_passwords


def _activations() -> list[str]:
    return [
        name
        for name in signatures.names("keras.activations")
        if name not in ("deserialize", "get", "serialize")
    ]


def _networks() -> list[str]:
    return [name for name in signatures.names("keras.applications") if name[0].isupper()]


@cache
def optimizers() -> tuple[str, ...]:
    """List the optimizers of Keras that need nothing but a learning rate, in lower case."""
    module, found = "keras.optimizers", []
    for name in signatures.names(module):
        if name[0].isupper() and name != "Optimizer":
            signature = signatures.inspect("optimizer.name", f"{module}.{name}")
            if signature and "learning_rate" in signature.types:
                found.append(name.lower())
    return tuple(found)


EXISTING = path("a path that exists", Path.exists)
FOLDER = path("an existing folder", Path.is_dir)
# Not yet there, or a folder.
PLACE = path("a folder", lambda path: path.is_dir() or not path.exists())
WEIGHTS = path(
    "an existing file of weights (.weights.h5, .h5, .keras)", Path.is_file, ".h5", ".keras"
)
_HOST = r"([^\s/?#@\[\]]+@)?([\w.-]+|\[[\da-fA-F:.]+\])(:(?P<port>\d{1,5}))?(/[^\s?#@]*)?"
_STORES = re.compile(
    rf"(https?://{_HOST}"
    rf"|(postgresql|mysql|mssql)(\+\w+)?://{_HOST.replace('port', 'own')}(\?\w+=[^\s#@]*)?"
    r"|sqlite(\+pysqlite)?:///(?s:.+)|databricks(://[\w.:-]+)?)"
)


def _is_store(value: object) -> bool:
    found = _STORES.fullmatch(value) if isinstance(value, str) else None
    return found is not None and int(found["port"] or found["own"] or 0) < 2**16


URI = Check(
    "the URI of an MLflow store (sqlite:///mlruns/mlflow.db, http://host:5000, ...), in whose "
    "password / is written %2F and @ %40",
    _is_store,
)
# What MLflow refuses only after a search, and what the columns of its databases hold.
MOST_CHARACTERS = 256
MODEL_NAME = Check(
    "a name of at most 256 characters, without / : ? @ ' and .. at its beginning",
    lambda value: (
        TEXT.accepts(value)
        and value == str(value).strip()
        and len(str(value)) <= MOST_CHARACTERS
        and str(value).isprintable()
        and not re.search(r"[/:?@']|^\.\.|^\.$", str(value))
    ),
)
ALIAS = Check(
    "at most 255 letters, digits, _ and -, and neither latest nor v1, v2, ..., which are MLflow's",
    lambda value: (
        isinstance(value, str)
        and bool(re.fullmatch(r"[\w-]{1,255}", value))
        and not re.fullmatch(r"latest|v\d+", value.lower())
    ),
)
_ARTIFACTS = r"(file|s3|gs|wasbs?|abfss?|r2|b2|s?ftp|dbfs|hdfs|viewfs|https?|mlflow-artifacts):/"
ARTIFACTS = Check(
    "a folder or the URI of one (s3://, gs://, ...), without a password, which MLflow would show",
    lambda value: (
        without_passwords(str(value)) == str(value)
        and (
            (PLACE.accepts(value) and ":/" not in str(value))
            or bool(re.match(_ARTIFACTS, str(value)))
        )
    ),
)
ACTIVATION = named("the name of a Keras activation", _activations)
CLASS_NAMES = Check(
    "two different texts in a list, the negative class first",
    lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(name, str) and name.strip() for name in value)
        and value[0] != value[1]
    ),
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
MOST_PIXELS = 4096
"""A side of more pixels is a typing error: one batch would not fit into any memory."""

KEYS: dict[str, Check] = {
    "seed": SEED,
    "resume.search": TEXT | NULL,
    "resume.fork": BOOLEAN,
    "plan": BOOLEAN,
    "progress": one_of("auto", "live", "plain") | BOOLEAN,
    "budget.seconds": POSITIVE | NULL,
    "budget.trials": integer(1) | NULL,
    "budget.epochs": integer(1) | NULL,
    "objective.name": TEXT,
    "objective.direction": one_of("max", "min"),
    "features.folder": PLACE,
    "features.max_gb": POSITIVE,
    "features.dtype": one_of("float32", "float16"),
    "features.precision": one_of("float32", "bfloat16"),
    "features.cache": BOOLEAN,
    "threshold.rule": FRACTION | one_of("youden", "sensitivity", "cost"),
    "threshold.target": number(0, 1, with_low=False),
    "threshold.false_negative_cost": POSITIVE,
    "threshold.false_positive_cost": POSITIVE,
    "threshold.prevalence": number(0, 1, with_low=False, with_high=False) | NULL,
    "threshold.calibrate": BOOLEAN,
    "dataset.path": EXISTING | NULL,
    "dataset.data_dir": PLACE | NULL,
    "dataset.manual_dir": FOLDER | NULL,
    "dataset.class_names": CLASS_NAMES | NULL,
    "augment.views": integer(1) | one_of("online"),
    "augment.flip": BOOLEAN,
    "augment.rotation": number(0, 180),
    "augment.zoom": number(0, 0.99),
    "augment.crop": number(0, 0.99),
    "augment.shift": FRACTION,
    "augment.brightness": FRACTION,
    "augment.contrast": FRACTION,
    "model.image_size": integer(1, MOST_PIXELS),
    "model.weights": one_of("imagenet") | NULL | WEIGHTS,
    "model.layer": TEXT | NULL,
    "model.pooling": one_of("avg", "max", "flatten"),
    "model.trainable": BOOLEAN | Check("the name of a layer", TEXT.accepts),
    "model.scaling": one_of("imagenet", "unit"),
    "model.blocks": integer(1),
    "model.filters": integer(1),
    "model.growth": integer(1),
    "model.kernel_size": integer(1),
    "model.channels": Check("1 or 3", lambda value: is_integer(value) and value in (1, 3)),
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
    "optimizer.ema_overwrite_frequency": integer(1) | NULL,
    "optimizer.gradient_accumulation_steps": integer(2) | NULL,
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
    "training.loss.label_smoothing": FRACTION,
    "training.class_weight": one_of("balanced") | NULL | CLASS_WEIGHT,
    "training.early_stopping": NULL | Check("{patience, min_delta}", lambda value: False),
    "training.early_stopping.patience": integer(1),
    "training.early_stopping.min_delta": number(0),
    "training.executions_per_trial": integer(1),
    "training.max_seconds": POSITIVE | NULL,
    "training.retrain": BOOLEAN,
    "training.jit": BOOLEAN | one_of("auto"),
    "tracking.uri": URI | NULL,
    "tracking.experiment": TEXT,
    "tracking.log_models": one_of("all", "best", "none"),
    "tracking.artifacts": ARTIFACTS | NULL,
    "tracking.registered_model": MODEL_NAME,
    "tracking.alias": ALIAS,
    "executor.workers": integer(1),
    "executor.address": TEXT | NULL,
}
"""The check of every key that has one of its own."""

PATHS = frozenset({"dataset.path", "dataset.data_dir", "dataset.manual_dir", "model.weights"})
"""Keys that hold the path of something; a range of them may stand for it."""

TEXTS = PATHS | {
    *("dataset.patient_pattern", "dataset.positive", "features.folder"),
    *("tracking.uri", "tracking.artifacts", "tracking.experiment"),
    *("tracking.registered_model", "tracking.alias", "hydra.run.dir", "hydra.sweep.dir"),
}
"""Keys that hold what Hydra's grammar wants quoted: spaces, umlauts, parentheses, commas."""

_SHARE = number(0, 1, with_high=False)

BY_TARGET: dict[str, dict[str, Check]] = {
    "pneumonia.datasets.sources.npz": {
        "dataset.path": path("an .npz file in MedMNIST's format that exists", Path.exists)
    },
    "pneumonia.datasets.sources.image_folder": {
        "dataset.path": path("a folder with images in two classes that exists", Path.exists),
        "dataset.val_fraction": _SHARE,
        "dataset.test_fraction": _SHARE,
        "dataset.seed": SEED,
    },
    "pneumonia.datasets.chest_phantom.phantom": {
        **{f"dataset.{split}": integer(2, 1_000_000) for split in ("train", "val", "test")},
        "dataset.image_size": integer(32, 512),
        "dataset.positive_fraction": number(0.01, 0.99),
        "dataset.difficulty": FRACTION,
        "dataset.seed": SEED,
    },
    "pneumonia.models.backbones.efficientnet_lite0": {"model.image_size": integer(32, MOST_PIXELS)},
    "pneumonia.models.backbones.inception_v3": {"model.image_size": integer(75, MOST_PIXELS)},
    "pneumonia.models.backbones.keras_application": {
        "model.name": named("the name of a network of keras.applications", _networks)
    },
    "pneumonia.models.backbones.cnn": {"model.weights": NULL | WEIGHTS},
    "pneumonia.training.optimizers.by_name": {
        "optimizer.name": named("the name of an optimizer of Keras", optimizers, any_case=True)
    },
}
"""The checks of keys that depend on the target of their section."""

CLOSED = (
    *("objective", "budget", "features", "training", "training.early_stopping", "tracking"),
    "threshold",
    "resume",
)
"""Mappings that hold nothing but the keys above and mappings named in `SECTIONS`."""

SECTIONS = {
    "dataset": (),
    "augment": ("views",),
    "model": (),
    "dense": (),
    "optimizer": (),
    "tuner": ("max_trials", "max_epochs", "max_consecutive_failures", "seed"),
    "executor": (),
    "training.loss": (),
}
"""Mappings that hold a `_target_` and its arguments, with the keys beside those arguments."""

MOVED = {"training.tensorboard": "Write callbacks=[default,tensorboard]"}
"""Keys that there were; what there is instead."""

_RANGES = "The hyperparameters are the ranges of the config, all known beforehand"
GIVEN = {
    "tuner.objective": "Write objective.name=<metric> objective.direction=<max or min>",
    "tuner.hyperparameters": _RANGES,
    "tuner.tune_new_entries": _RANGES,
    "tuner.allow_new_entries": _RANGES,
    "tuner.max_consecutive_failed_trials": "Write tuner.max_consecutive_failures=<number>",
    "tuner.max_retries_per_trial": "A trial that fails would fail again, and is not repeated",
}
"""Arguments that the program gives or leaves without an effect; what there is instead."""

_BY_TYPE = {
    "int": Check("an integer", lambda value: is_integer(value)),
    "float": Check("a number", lambda value: is_number(value)),
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


def is_whole(path: str) -> bool:
    """Say whether a key holds whole numbers only."""
    return path in KEYS and KEYS[path].is_whole


def accepts(path: str, numbers: Sequence[str]) -> bool:
    """Say whether numbers, given as text, are all right for a key."""
    values = [float(text) if "." in text else int(text or 0) for text in numbers]
    return path not in KEYS or all(map(KEYS[path].accepts, values))


def takes_list(path: str) -> bool:
    """Say whether a key holds a list."""
    return path in KEYS and KEYS[path].accepts(["a", "b"])
