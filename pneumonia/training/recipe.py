"""The ingredients of a training beside model, loss and optimizer; its plan from step to step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pneumonia.seeding import MIX, SHUFFLE, generator
from pneumonia.training.compiled_layers import leaves

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the section `training` says of them; what an older one does not say has its default.

    Attributes:
        schedule: `constant` or `cosine` (Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983).
        schedule_epochs: Its length, which is that of a training never stopped: a trial that is
            promoted has had the rates of one that is trained straight.
        warmup: Epochs in which the rate rises from 0 (Goyal et al., 2017,
            https://arxiv.org/abs/1706.02677).
        average: Which averages of the weights are measured and kept: `ema` (exponential, of every
            step), `swa` (equal, of the ends of epochs; Izmailov et al., 2018,
            https://arxiv.org/abs/1803.05407) or None.
        ema_decay: How much of the average is kept from step to step.
        swa_start: The share of `schedule_epochs` after which weights are averaged.
        mixup: Alpha of MixUp (Zhang et al., 2018, https://arxiv.org/abs/1710.09412), 0 for none.
        balanced_batches: Whether both classes are drawn equally often.
        head_epochs: Epochs in which only the head trains, if more than the head is to train. The
            optimizer and its schedule begin after them.
        rest_learning_rate: Factor on the rate of all that is not the head.
    """

    schedule: str = "constant"
    schedule_epochs: int = 1
    warmup: float = 0.0
    average: str | None = None
    ema_decay: float = 0.99
    swa_start: float = 0.75
    mixup: float = 0.0
    balanced_batches: bool = False
    head_epochs: int = 0
    rest_learning_rate: float = 1.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Recipe:
        """Return that of a trial's configuration."""
        section = config["training"]
        names = (field.name for field in fields(cls) if field.name in section)
        return cls(**{name: section[name] for name in names})

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate changes from step to step."""
        return self.schedule != "constant" or self.warmup > 0

    def order(self, labels: Array, seed: int, epoch: int) -> Array:
        """Return the rows (n,) that an epoch goes through, for labels (n,), 0 or 1."""
        rng = generator(seed, SHUFFLE, epoch)
        if not self.balanced_batches:
            return rng.permutation(len(labels))
        # No image comes again before all of its class have come.
        classes = [rng.permutation(np.flatnonzero(labels == label)) for label in (0, 1)]
        sizes = (len(labels) // 2, -(-len(labels) // 2))
        drawn = [np.resize(rows, size) for rows, size in zip(classes, sizes, strict=True)]
        return rng.permutation(np.concatenate(drawn))

    def plan(
        self, weights: Array, *, rate: float | None, begun: int, epoch: int, seed: int
    ) -> dict[str, Array]:
        """Return the plan of an epoch (`compiled_step`), an array (steps, ...) for each name.

        Args:
            weights: Of the samples, (steps, batch); 0 where a batch is padded.
            rate: The learning rate at its highest.
            begun: The epoch after which the optimizer began.
            epoch: From 1.
            seed: Of the training.
        """
        steps, found = len(weights), {}
        ones = np.ones(steps, np.float32)
        taken = (epoch - 1 - begun) * steps + np.arange(steps)
        if self.has_schedule and rate is not None:
            found["rate"] = np.float32(rate) * self._rates(steps, begun, taken)
        if self.rest_learning_rate != 1:
            found["rest"] = ones * np.float32(self.rest_learning_rate)
        if self.average is not None:
            found["kept"] = self._kept(steps, begun, epoch, taken)
        if self.mixup > 0:
            rng = generator(seed, MIX, epoch)
            found["share"] = rng.beta(self.mixup, self.mixup, steps).astype(np.float32)
            # What pads a batch, with weight 0, is mixed with its own kind.
            keys = rng.random(weights.shape) + 2 * (weights == 0)
            found["partner"] = np.argsort(keys, axis=1).astype(np.int32)
        return found

    def _rates(self, steps: int, begun: int, taken: Array) -> Array:
        """Return the rates of steps as shares of the highest."""
        warmup = round(self.warmup * steps)
        decay = max(1, (self.schedule_epochs - begun) * steps - warmup)
        if self.schedule == "cosine":
            return _cosine(warmup, decay)[np.minimum(taken, warmup + decay)]
        return np.minimum(taken / max(1, warmup), 1).astype(np.float32)

    def _kept(self, steps: int, begun: int, epoch: int, taken: Array) -> Array:
        """Return how much of the averages each step keeps; nothing where they begin anew."""
        if self.average == "ema":
            kept = np.full(steps, self.ema_decay)
            kept[taken == 0] = 0
        else:
            start = max(begun, int(self.swa_start * self.schedule_epochs))
            kept = np.full(steps, 1.0 if epoch > start + 1 else 0.0)
            if epoch > start + 1:
                kept[-1] = 1 - 1 / (epoch - start)
        return kept.astype(np.float32)


@functools.lru_cache(maxsize=32)
def _cosine(warmup: int, decay: int) -> Array:
    """Return Keras' schedule with a highest rate of 1, by step."""
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay, warmup_target=1.0, warmup_steps=warmup
    )
    steps = tf.range(warmup + decay + 1)
    every = tf.function(lambda: tf.map_fn(schedule, steps, fn_output_signature=tf.float32))
    return np.asarray(every())


def has_rest(model: keras.Model) -> bool:
    """Tell whether more than the head of a model trains."""
    return len(model.trainable_variables) > len(model.get_layer("head").trainable_variables)


@contextmanager
def head_only(model: keras.Model) -> Iterator[None]:
    """Let only the head of a model train, in the meantime."""
    head = model.get_layer("head")
    kept = {id(layer) for layer in (head, *leaves(head))}
    rest = [layer for layer in leaves(model) if id(layer) not in kept]
    flags = [layer.trainable for layer in rest]
    try:
        for layer in rest:
            layer.trainable = False
        yield
    finally:
        for layer, flag in zip(rest, flags, strict=True):  # what holds others comes before them
            layer.trainable = flag
