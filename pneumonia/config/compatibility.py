"""Settings that are right each by itself and do not go together, and settings that are missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pneumonia.config import instantiate, schema, signatures
from pneumonia.config.constraints import OPTIMIZER, Check
from pneumonia.config.ranges import is_integer, looks_like_range, parse
from pneumonia.config.suggestions import nearest, value_meant
from pneumonia.errors import ConfigError, ConfigErrors, without_passwords
from pneumonia.formatting import short

_BEST = {"val_loss": "min", "val_accuracy": "max", "val_auc": "max"}
# What is good where it is low, by its name among the metrics of ours or of Keras.
_LOW = re.compile("loss|brier|entropy|error|hinge|divergence|huber|cosh|poisson|false", re.I)
_BACKBONES = "pneumonia.models.backbones"
_MISSING = "It is missing from the config"

Tree = dict[str, Any]


def find(tree: Tree, checks: Mapping[str, Check]) -> Iterator[ConfigError]:
    """Yield what does not go together in a config, whose top is all there.

    Args:
        tree: The composed config as plain mappings, unresolved.
        checks: What its keys may hold.
    """
    model, optimizer, training = tree["model"], tree["optimizer"], tree["training"]
    yield from _absent(tree)
    if "metrics" in training:
        yield from _objective(tree["objective"], training["metrics"])
    yield from _endless(tree["tuner"])
    yield from _first_round(tree["tuner"])
    yield from _halved(model)
    yield from _layers(model, checks)
    yield from _last_size(tree["winner"], model, checks)
    yield from _views(tree["augment"], model)
    yield from _optimizer(optimizer)
    yield from _unheeded(optimizer, training.get("loss"))
    yield from _idle(training, model)


def check_hydra(hydra: DictConfig) -> None:
    """Check Hydra's own part of a config, as far as a user may set what does not go with ours.

    Raises:
        ConfigErrors: With the first mistake.
        omegaconf.errors.OmegaConfBaseException: For a value that cannot be resolved.
    """
    for error in _hydra(hydra):
        raise ConfigErrors([error])


def check_jobs(jobs: Sequence[DictConfig]) -> None:
    """Check what searches that Hydra runs one after the other, in this process, must agree in.

    Raises:
        ConfigErrors: Where they cannot run in the same process.
    """
    if not jobs or not str(jobs[0].hydra.launcher.get("_target_")).endswith(".BasicLauncher"):
        return
    for path, hint in schema.OF_PROCESS.items():
        values = dict.fromkeys(OmegaConf.select(cfg, path) for cfg in jobs)
        if len(values) > 1:
            shown = ", ".join(map(short, values))
            raise ConfigErrors([ConfigError(path, "one number for all searches", shown, hint)])


def _hydra(hydra: DictConfig) -> Iterator[ConfigError]:
    # `hydra.launcher=x`, which assigns a text to a group, for `hydra/launcher=x`.
    for group in ("launcher", "sweeper", "job_logging", "hydra_logging", "help"):
        value = hydra.get(group)
        if OmegaConf.is_missing(hydra, group):
            yield ConfigError(f"hydra/{group}", "a value", None, _MISSING)
        elif isinstance(value, str):
            hint = f"Options are chosen by hydra/{group}={value}"
            yield ConfigError(f"hydra.{group}", "a mapping of keys", value, hint)
    if hydra.job.chdir:
        expected = "false, as paths count from the folder where the command is typed"
        yield ConfigError("hydra.job.chdir", expected, hydra.job.chdir)
    callbacks: Any = OmegaConf.to_container(hydra.callbacks, resolve=True)
    for name, section in callbacks.items():
        yield from _callback(f"hydra.callbacks.{name}", section)
    for key in ("run.dir", "sweep.dir"):
        value = OmegaConf.select(hydra, key)
        if (text := str(value or "").strip())[:1] in ("", "~"):
            hint = f"Write the whole path, or ./{text} for a folder of that name" if text else ""
            yield ConfigError(f"hydra.{key}", "a folder", value, hint)
    for key in ("run.dir", "sweep.dir", "sweep.subdir"):
        value = str(OmegaConf.select(hydra, key, throw_on_resolution_failure=False))
        if without_passwords(value) != value:
            expected = "a folder whose name holds no password"
            yield ConfigError(f"hydra.{key}", expected, value)


def _callback(key: str, section: Any) -> Iterator[ConfigError]:
    """Refuse what is no callback: Hydra calls whatever they name, before there is a job."""
    kind: object = None
    target = section.get("_target_") if isinstance(section, dict) else None
    if target is not None:
        signatures.inspect(f"{key}._target_", target)
        kind = instantiate.locate(target, key)
    is_plain = str(section).count("_target_") == 1 and not section.get("_partial_")
    if not (is_plain and isinstance(kind, type) and issubclass(kind, Callback)):
        expected = "a mapping whose only `_target_` is a subclass of "
        expected += "hydra.experimental.callback.Callback"
        yield ConfigError(key, expected, section)


def _absent(tree: Tree) -> Iterator[ConfigError]:
    """Find keys that somebody took out, as in `~tuner.max_epochs`."""
    beside = [f"{key}.{name}" for key, names in schema.SECTIONS.items() for name in names]
    closed = [path for path in schema.KEYS if path.rpartition(".")[0] in schema.CLOSED]
    for path in (*beside, *closed, "training.metrics"):
        *above, name = path.split(".")
        holder: Any = tree
        for key in above:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and name not in holder:
            yield ConfigError(path, "a value", None, _MISSING)


def _objective(objective: Tree, metrics: Any) -> Iterator[ConfigError]:
    if not isinstance(metrics, dict):
        yield ConfigError("training.metrics", "a mapping of metrics by name", metrics)
        return
    for name in metrics:
        # MLflow takes them for paths, and the loss is another one.
        if not str(name).isidentifier() or name == "loss":
            expected = "a name of letters, digits and _, other than loss"
            yield ConfigError(f"training.metrics.{name}", expected, name)
    names = [f"val_{name}" for name in ("loss", *metrics)]
    name, direction = objective.get("name"), objective.get("direction")
    if not isinstance(name, str):
        return
    best = _best(name, metrics.get(name.removeprefix("val_"))) or direction
    if name not in names and "${" not in name:
        hint = nearest(name, names) or f"There are {', '.join(names)}"
        expected = "val_loss or a metric of `training.metrics`"
        yield ConfigError("objective.name", expected, name, hint)
    elif best != direction and direction in ("max", "min"):
        hint = f"Write objective.direction={best}"
        yield ConfigError("objective.direction", f"{best}, for {name}", direction, hint)


def _best(name: str, metric: Any) -> str | None:
    """Return the direction in which a score is good, None where that is not known."""
    target = metric.get("_target_") if isinstance(metric, dict) else None
    module, _, kind = str(target).rpartition(".")
    is_ours = module in ("pneumonia.evaluation.metrics", "keras.metrics")
    is_low = module == "keras.losses" or (is_ours and _LOW.search(kind))
    return "min" if is_low else _BEST.get(name)


def _endless(tuner: Tree) -> Iterator[ConfigError]:
    target = str(tuner.get("_target_"))
    is_endless = any(name in target for name in ("Random", "Bayesian", "Asha"))
    if is_endless and tuner.get("max_trials", 1) is None:
        yield ConfigError("tuner.max_trials", "a positive integer, for this tuner", None)


def _first_round(tuner: Tree) -> Iterator[ConfigError]:
    """Find a first round that would train beyond the last epoch."""
    least, most = tuner.get("min_epochs"), tuner.get("max_epochs")
    if is_integer(least) and is_integer(most) and least > most:  # type: ignore[operator]
        yield ConfigError("tuner.min_epochs", f"at most tuner.max_epochs, {most}", least)


def _halved(model: Tree) -> Iterator[ConfigError]:
    """Find a network from scratch that halves its images away."""
    sizes, blocks = (_numbers(f"model.{key}", model.get(key)) for key in ("image_size", "blocks"))
    if model.get("_target_") == f"{_BACKBONES}.cnn" and sizes and blocks:
        least = 2 ** min(max(blocks), 32)
        if min(sizes) < least:
            expected = f"at least 2 ** model.blocks, {least:g}"
            yield ConfigError("model.image_size", expected, model["image_size"])


def _layers(model: Tree, checks: Mapping[str, Check]) -> Iterator[ConfigError]:
    """Find names of layers that the network has not, where they are known without building it."""
    target, names = str(model.get("_target_")), layers(model)
    for key, others in (("layer", ("null",)), ("trainable", ("pooling", "true", "false"))):
        known = (*names, *others)
        values = _values(f"model.{key}", model.get(key)) if names else ()
        texts = [value for value in values if isinstance(value, str) and "${" not in value]
        for value in [cut for text in texts for cut in text.split("+")]:
            if value not in known:
                expected = f"the name of a layer of {target.rpartition('.')[2]}"
                expected = f"false, true or {expected}" if key == "trainable" else expected
                hint = _hint_at_layer(value, known, checks[f"model.{key}"])
                yield ConfigError(f"model.{key}", expected, value, hint)


def _last_size(winner: Tree, model: Tree, checks: Mapping[str, Check]) -> Iterator[ConfigError]:
    """Find a size of the final classifier's images that its network cannot take."""
    size, check = winner.get("image_size"), checks.get("model.image_size")
    if not is_integer(size) or not schema.KEYS["winner.image_size"].accepts(size):
        return
    if check is not None and not check.accepts(size):
        yield ConfigError("winner.image_size", f"null or {check.expected}", size)
    elif "flatten" in _values("model.pooling", model.get("pooling")):
        expected = "null, as features of model.pooling=flatten are of one size"
        yield ConfigError("winner.image_size", expected, size)


def _hint_at_layer(value: str, known: Sequence[str], check: Check) -> str:
    begun = [name for name in known if name.startswith(value)]
    near = begun[-1] if begun else value_meant(value, known, check.accepts)
    cuts = [name for name in known if name.endswith(("_add", "_pool")) or name[:-1] == "mixed"]
    return f"Did you mean {near}?" if near else f"Such as {', '.join(cuts[-3:])}"


def _views(augment: Tree, model: Tree) -> Iterator[ConfigError]:
    """Find a number of views where there is nothing to render, or no features to keep of them."""
    views = augment.get("views")
    if not (isinstance(views, int) or looks_like_range(views)):
        return
    trainable = _values("model.trainable", model.get("trainable"))
    if augment.get("_target_") == "pneumonia.training.augment.none":
        if views != 1:
            yield ConfigError("augment.views", "1, as augment=none renders nothing", views)
    elif trainable and all(value is True for value in trainable):
        expected = "online, as nothing of the model is frozen (model.trainable=true)"
        yield ConfigError("augment.views", expected, views, "Write augment.views=online")


def _optimizer(optimizer: Tree) -> Iterator[ConfigError]:
    """Find `optimizer.name=sgd`, which would call an Adam `sgd`, for `optimizer=sgd`."""
    module, _, kind = str(optimizer.get("_target_")).rpartition(".")
    name = optimizer.get("name")
    if module != "keras.optimizers" or not isinstance(name, str) or looks_like_range(name):
        return
    known = OPTIMIZER.names(name)
    if name.lower() in known and name.lower() != kind.lower() and kind not in known:
        hint = f"An optimizer is chosen by optimizer=any optimizer.name={name}"
        yield ConfigError("optimizer.name", f"{kind.lower()}, for `{module}.{kind}`", name, hint)


def _unheeded(optimizer: Tree, loss: object) -> Iterator[ConfigError]:
    """Find arguments of Keras that only its own loop heeds, or that do not fit what is given."""
    scale = optimizer.get("loss_scale_factor")
    if isinstance(scale, int | float):
        # The gradients would be divided by it, without the loss having been multiplied.
        yield ConfigError(
            "optimizer.loss_scale_factor",
            "null, as training.precision=mixed_float16 scales the loss",
            scale,
        )
    if not isinstance(loss, dict):
        return
    if str(loss.get("reduction", "sum")).lower() in ("none", "null"):
        expected = "sum_over_batch_size, sum or mean"
        yield ConfigError("training.loss.reduction", expected, loss["reduction"])
    if loss.get("from_logits"):
        yield ConfigError("training.loss.from_logits", "false, as heads give probabilities", True)


def _idle(training: Tree, model: Tree) -> Iterator[ConfigError]:
    """Find ingredients of a training that would come to nothing."""
    if model.get("trainable") is False:
        for name, nothing in (("head_epochs", 0), ("rest_learning_rate", 1)):
            if (value := training.get(name, nothing)) != nothing:
                expected = f"{nothing}, as nothing but the head trains (model.trainable=false)"
                yield ConfigError(f"training.{name}", expected, value)
    if training.get("balanced_batches") is True and isinstance(training.get("class_weight"), dict):
        expected = "balanced or null, with training.balanced_batches=true"
        yield ConfigError("training.class_weight", expected, training["class_weight"])


def _values(path: str, value: object) -> tuple[object, ...]:
    """Return the values, or the ends of the interval, that a value or a range stands for."""
    if not looks_like_range(value):
        return (value,)
    try:
        return parse(path, str(value)).extremes
    except ConfigError:  # told where the range is read
        return ()


def _numbers(path: str, value: object) -> list[float]:
    """Return the same, if all of it is numbers."""
    values = _values(path, value)
    numbers = [number for number in values if isinstance(number, int | float)]
    return numbers if len(numbers) == len(values) else []


def layers(model: Tree) -> tuple[str, ...]:
    """Return the layers that `model.layer` may name, told without the seconds of building them.

    Args:
        model: The section, in which `blocks` of a `cnn` or the `variant` may be a range.

    Returns:
        The names, in the order of the network; none where only building it would tell.
    """
    module, _, name = str(model.get("_target_")).rpartition(".")
    match name if module == _BACKBONES else "":
        case "efficientnet_lite":
            is_deep = 2 in _numbers("model.variant", model.get("variant"))
            found = _lite((1, 3, 3, 4, 4, 5, 1) if is_deep else (1, 2, 2, 3, 3, 4, 1))
        case "inception_v3":
            found = _inception()
        case "cnn":
            most = max(_numbers("model.blocks", model.get("blocks")), default=0)
            blocks = range(1, int(min(most, 32)) + 1)
            found = (f"block{n}_{part}" for n in blocks for part in ("conv", "pool"))
        case _:
            return ()
    return ("image", "scaling", *found)


def _lite(counts: Sequence[int]) -> Iterator[str]:
    def convolution(name: str) -> Iterator[str]:
        yield from (f"{name}{part}" for part in ("conv", "bn", "activation"))

    yield from convolution("stem_")
    for number, count in enumerate(counts, start=1):
        for index in range(count):
            block = f"block{number}{'abcdef'[index]}_"
            if number > 1:
                yield from convolution(f"{block}expand_")
            yield from (f"{block}{part}" for part in ("dwconv", "bn", "activation"))
            yield from (f"{block}project_conv", f"{block}project_bn")
            if index:
                yield f"{block}add"
    yield from convolution("top_")


def _inception() -> Iterator[str]:
    yield from (f"mixed{number}" for number in range(11))
    yield from ("mixed9_0", "mixed9_1")
    for kinds, count in (
        (("conv2d", "batch_normalization", "activation"), 94),
        (("average_pooling2d",), 9),
        (("max_pooling2d",), 4),
        (("concatenate",), 2),
    ):
        for kind in kinds:
            yield from (kind, *(f"{kind}_{number}" for number in range(1, count)))
