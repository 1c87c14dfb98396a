"""The steps of the epochs of a training: which images, with what weights, in chunks."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pneumonia.training.compiled_loop import Chunk
from pneumonia.training.feeds import ahead, is_computed, is_rendered, rendered_ahead
from pneumonia.training.inputs import Inputs
from pneumonia.training.recipe import Recipe

Array = np.ndarray[Any, Any]

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Steps:
    """What an optimizer goes through from its beginning.

    Attributes:
        inputs: What is trained on.
        recipe: How.
        batch: The images of a step.
        size: The numbers of one input.
        seed: Of the training.
        begun: The epoch after which the optimizer began.
        rate: The learning rate at its highest; None where the optimizer has a schedule.
    """

    inputs: Inputs
    recipe: Recipe
    batch: int
    size: int
    seed: int
    begun: int
    rate: float | None

    def order(self, epoch: int) -> Array:
        """Return the rows (n,) of the inputs that an epoch goes through."""
        rows, labels = self.inputs.rows, self.inputs.train_labels
        if rows is None:
            return self.recipe.order(labels, self.seed, epoch)
        return rows[self.recipe.order(labels[rows], self.seed, epoch)]

    def chunks(self, epochs: range) -> Generator[Chunk]:
        """Yield the chunks of epochs; where images are rendered, the next are made meanwhile."""
        if is_rendered(self.inputs.train):
            return rendered_ahead(self.inputs.train, epochs, self._chunks)
        every = (chunk for epoch in epochs for chunk in self._chunks(epoch))
        return ahead(every) if is_computed(self.inputs.train) else every

    def take(self, chunks: Iterator[Chunk], order: Array) -> Iterator[Chunk]:
        """Yield the chunks of one epoch, without asking for the next epoch's first."""
        left = -(-len(order) // self.batch)
        while left > 0:
            chunk = next(chunks)
            left -= chunk.steps
            yield chunk

    def _chunks(self, epoch: int) -> Iterator[Chunk]:
        """Yield the steps of an epoch in chunks of equal shape."""
        inputs, batch = self.inputs, self.batch
        indices, weights = batches(self.order(epoch), inputs.train_weights, batch)
        plan = self.recipe.plan(
            weights, rate=self.rate, begun=self.begun, epoch=epoch, seed=self.seed
        )
        steps, labels = len(indices), inputs.train_labels[indices].astype(np.float32)
        if (whole := inputs.train.whole()) is not None:
            yield Chunk(whole, indices.astype(np.int32), labels, weights, steps, plan)
            return
        most = max(1, _CHUNK_BYTES // (4 * batch * self.size))
        per_chunk = -(-steps // -(-steps // most))
        places = np.arange(per_chunk * batch, dtype=np.int32).reshape(per_chunk, batch)
        for start in range(0, steps, per_chunk):
            count = min(per_chunk, steps - start)
            rows = np.resize(np.arange(start, start + count), per_chunk)
            x = inputs.train.read(epoch, indices[rows].reshape(-1))
            now = {name: values[rows] for name, values in plan.items()}
            yield Chunk(x, places, labels[rows], weights[rows], count, now)


def batches(order: Array, weights: Array, batch: int) -> tuple[Array, Array]:
    """Return the rows of the steps of an epoch and their weights, (steps, batch) both.

    The last batch is padded with weight 0.
    """
    steps = -(-len(order) // batch)
    real = len(order) - (steps - 1) * batch
    indices = np.resize(order, steps * batch).reshape(steps, batch)
    found = weights[indices].astype(np.float32)
    # Keras divides by the size of the batch, so the samples of a short one count for more here.
    found[-1] *= batch / real
    found[-1, real:] = 0.0
    return indices, found
