"""What a key may hold where no signature of ours says it: keys of our own, and of libraries."""

from __future__ import annotations

import re

from pneumonia.config.constraints import (
    ANY,
    BOOLEAN,
    NULL,
    PLACE,
    SCALAR,
    SEED,
    TEXT,
    Bounds,
    Check,
    one_of,
)
from pneumonia.errors import without_passwords

COUNT = Bounds(1).integer()
POSITIVE = Bounds(above=0).number()
FRACTION = Bounds(0, 1).number()
_SEED = SEED.integer()
_SHARE = Bounds(0, below=1).number()
_FROM_ZERO = Bounds(0).number()

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


def _is_line(value: object) -> bool:
    text = str(value)
    return TEXT.accepts(value) and len(text) <= MOST_CHARACTERS and text.isprintable()


EXPERIMENT = Check("a text of at most 256 characters, all on one line", _is_line)
MODEL_NAME = Check(
    "a name of at most 256 characters, without / : ? @ ' and .. at its beginning",
    lambda value: (
        _is_line(value)
        and value == str(value).strip()
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
STORE = Check(
    "the address of a folder, as file:///data/states or s3://bucket/states, without a password",
    lambda value: (
        isinstance(value, str)
        and bool(re.fullmatch(r"[a-z][a-z\d+]*://\S+", value))
        and without_passwords(value) == value
    ),
)
# Ray takes `local` too, for one that is begun here without what makes null safe.
CLUSTER = Check(
    "host:port or auto",
    lambda value: (
        isinstance(value, str) and bool(re.fullmatch(r"auto|(ray://)?[^\s/?#@]+:\d{1,5}", value))
    ),
)
GPUS = Check(
    "a whole number or a share below 1, of one",
    lambda value: _FROM_ZERO.accepts(value) and (value < 1 or value % 1 == 0),  # type: ignore[operator]
)
CLASS_WEIGHT = Check(
    "{0: weight, 1: weight}",
    lambda value: isinstance(value, dict) and {str(key) for key in value} == {"0", "1"},
)
KEYS: dict[str, Check] = {
    "seed": _SEED,
    "resume.search": TEXT | NULL,
    "resume.fork": BOOLEAN,
    "plan": BOOLEAN,
    "progress": one_of("auto", "live", "plain") | BOOLEAN,
    "budget.seconds": POSITIVE | NULL,
    "budget.trials": COUNT | NULL,
    "budget.epochs": COUNT | NULL,
    "objective.name": TEXT,
    "objective.direction": one_of("max", "min"),
    "objective.folds": Bounds(2).integer() | NULL,
    "features.folder": PLACE,
    "features.max_gb": POSITIVE,
    "features.dtype": one_of("float32", "float16"),
    "features.precision": one_of("float32", "bfloat16"),
    "features.cache": BOOLEAN,
    "threshold.rule": FRACTION | one_of("youden", "sensitivity", "cost"),
    "threshold.target": Bounds(above=0, high=1).number(),
    "threshold.false_negative_cost": POSITIVE,
    "threshold.false_positive_cost": POSITIVE,
    "threshold.prevalence": Bounds(above=0, below=1).number() | NULL,
    "threshold.calibrate": BOOLEAN,
    "dataset.drop_duplicates": BOOLEAN,
    "winner.members": COUNT,
    "winner.selection": one_of("best", "greedy"),
    "winner.flips": BOOLEAN,
    "winner.image_size": Bounds(1, 4096).integer() | NULL,
    "winner.test": BOOLEAN,
    "augment.views": COUNT | one_of("online"),
    "tuner.max_epochs": COUNT,
    "tuner.max_trials": COUNT | NULL,
    "tuner.seed": _SEED,
    "tuner.max_consecutive_failures": COUNT,
    "training.batch_size": COUNT,
    "training.class_weight": one_of("balanced") | NULL | CLASS_WEIGHT,
    "training.class_weight.0": POSITIVE,
    "training.class_weight.1": POSITIVE,
    "training.early_stopping": NULL | Check("{patience, min_delta}", lambda value: False),
    "training.early_stopping.patience": COUNT,
    "training.early_stopping.min_delta": _FROM_ZERO,
    "training.executions_per_trial": COUNT,
    "training.max_seconds": POSITIVE | NULL,
    "training.retrain": BOOLEAN,
    "training.schedule": one_of("constant", "cosine"),
    "training.schedule_epochs": COUNT,
    "training.warmup": _FROM_ZERO,
    "training.average": one_of("ema", "swa") | NULL,
    "training.ema_decay": _SHARE,
    "training.swa_start": _SHARE,
    "training.mixup": _FROM_ZERO,
    "training.balanced_batches": BOOLEAN,
    "training.head_epochs": Bounds(0).integer(),
    "training.rest_learning_rate": POSITIVE,
    "training.jit": BOOLEAN | one_of("auto"),
    "training.precision": one_of("float32", "mixed_float16", "mixed_bfloat16"),
    "training.threads": Bounds(1, 1024).integer() | NULL,
    "tracking.uri": URI | NULL,
    "tracking.experiment": EXPERIMENT,
    "tracking.log_models": one_of("all", "best", "none"),
    "tracking.artifacts": ARTIFACTS | NULL,
    "tracking.registered_model": MODEL_NAME | NULL,
    "tracking.alias": ALIAS,
    "executor.workers": COUNT,
    "tracking.promote": one_of("better", "always", "never"),
    "executor.address": CLUSTER | NULL,
    "executor.cpus": POSITIVE,
    "executor.gpus": GPUS,
    "executor.store": STORE | NULL,
    "executor.retries": Bounds(0).integer(),
}
"""Keys that no plug-in takes."""

LIBRARIES: dict[str, dict[str, Check]] = {
    "keras.optimizers": {
        "learning_rate": POSITIVE,
        "momentum": FRACTION,
        "rho": FRACTION,
        "beta_1": _SHARE,
        "beta_2": _SHARE,
        "epsilon": POSITIVE,
        "weight_decay": _FROM_ZERO | NULL,
        "clipnorm": POSITIVE | NULL,
        "clipvalue": POSITIVE | NULL,
        "global_clipnorm": POSITIVE | NULL,
        "nesterov": BOOLEAN,
        "centered": BOOLEAN,
        "amsgrad": BOOLEAN,
        "use_ema": BOOLEAN,
        "ema_momentum": FRACTION,
        "ema_overwrite_frequency": COUNT | NULL,
        "gradient_accumulation_steps": Bounds(2).integer() | NULL,
    },
    "keras_tuner.oracles": {
        "factor": Bounds(2).integer(),
        "hyperband_iterations": COUNT,
        "num_initial_points": COUNT | NULL,
        "alpha": POSITIVE,
        "beta": _FROM_ZERO,
    },
    "keras.losses": {"label_smoothing": FRACTION},
}
"""Arguments of libraries, by the module that a `_target_` is of: their signatures do not tell."""

TEXTS = {
    *("dataset.path", "dataset.data_dir", "dataset.manual_dir", "model.weights"),
    *("dataset.patient_pattern", "dataset.positive", "features.folder"),
    *("tracking.uri", "tracking.artifacts", "tracking.experiment"),
    *("tracking.registered_model", "tracking.alias", "hydra.run.dir", "hydra.sweep.dir"),
}
"""Keys that hold what Hydra's grammar wants quoted: spaces, umlauts, parentheses, commas."""

CLOSED = (
    *("objective", "budget", "features", "training", "training.early_stopping", "tracking"),
    "threshold",
    "winner",
    "resume",
)
"""Mappings that hold nothing but the keys above and mappings named in `SECTIONS`."""

SECTIONS = {
    "dataset": ("drop_duplicates",),
    "augment": ("views",),
    "model": (),
    "dense": (),
    "optimizer": (),
    "tuner": ("max_trials", "max_epochs", "max_consecutive_failures", "seed"),
    "executor": (),
    "training.loss": (),
}
"""Mappings that hold a `_target_` and its arguments, with the keys beside those arguments."""

OF_PROCESS = {
    "training.threads": "TensorFlow keeps them as long as its process: one command for each number",
}
"""Keys of the groups that hold no range, as they cannot change from trial to trial; why."""

MOVED = {
    "training.tensorboard": "Write callbacks=[default,tensorboard]",
    "training.epochs": "Write tuner.max_epochs=<number>",
    "winner.crop": "Write winner.image_size=<pixels>",
}
"""Keys that there were, or that are looked for; what there is instead."""

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


def check_of(path: str, target: object = None, own: Check | None = None) -> Check:
    """Return the check of a key.

    Args:
        path: Dotted path of the key.
        target: The `_target_` of its section, if it has one.
        own: What the signature of the target says.
    """
    module, _, _ = str(target).rpartition(".")
    section, _, name = path.rpartition(".")
    found = KEYS.get(path) or own or LIBRARIES.get(module, {}).get(name)
    return found or (SCALAR if section == "optimizer" else ANY)
