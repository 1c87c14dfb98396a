"""The inputs of what is trained: read from the feature cache, or computed as they are asked for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

from pneumonia.datasets.base import Split
from pneumonia.models.mirror import Mirrored
from pneumonia.seeding import VIEW, generator
from pneumonia.training.augment import View
from pneumonia.training.frozen_graph import Frozen

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")
Report = Callable[[str, int, int], None]

# Views of an epoch that no cached view has: online renderings count their epochs from here.
_ONLINE = 2**20
_KEPT_BYTES = 2**28
_WHOLE_BYTES = 2**30
_PART = 256


class Feed(Protocol):
    """Inputs (N, ...) of what is trained, for one split."""

    def __len__(self) -> int: ...

    def read(self, epoch: int, indices: Array) -> Array:
        """Return the inputs at `indices` as float32 (n, ...), as they are in an epoch (from 1)."""
        ...

    def whole(self) -> tf.Tensor | None:
        """Return all the inputs, float32 (N, ...), if no epoch changes them and memory holds them.

        What stays where it is trained need not be gathered and copied in every epoch.
        """
        ...


def read_all(feed: Feed) -> Array | tf.Tensor:
    """Return all the inputs of a feed as one array or tensor."""
    whole = feed.whole()
    return feed.read(1, np.arange(len(feed))) if whole is None else whole


def ahead(items: Iterator[Item]) -> Generator[Item]:
    """Yield the items of an iterator, the next of which is made in a thread meanwhile.

    What making one raises is raised where it is taken. To be closed: the thread ends with it.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(list[Item], itertools.islice(items, 1))
        while item := coming.result():
            coming = thread.submit(list[Item], itertools.islice(items, 1))
            yield item[0]


def is_computed(feed: Feed) -> bool:
    """Tell whether a feed reads or renders images in every epoch, and so is worth a thread.

    Features are not: they leave no processor idle, and TensorFlow is told to compute them in
    bfloat16 for all threads.
    """
    if isinstance(feed, JoinedFeed):
        return all(map(is_computed, feed.feeds))
    return isinstance(feed, ComputedFeed) and feed.whole() is None


def is_rendered(feed: Feed) -> bool:
    """Tell whether a feed renders all the images for an epoch, and may do so in a thread."""
    if isinstance(feed, JoinedFeed):
        return all(map(is_rendered, feed.feeds))
    return isinstance(feed, RenderedFeed) and feed.is_apart


def rendered_ahead(
    feed: Feed, epochs: range, items: Callable[[int], Iterator[Item]]
) -> Generator[Item]:
    """Yield the items of epochs; in a thread, the images of the next are rendered meanwhile.

    What that raises is raised where the next epoch begins. To be closed: the thread then ends
    after the batch that it is at.
    """
    is_closed = threading.Event()

    def report(*_: object) -> None:
        if is_closed.is_set():
            raise InterruptedError("Nobody is going to train on it.")

    with ThreadPoolExecutor(1, "renders") as thread:
        try:
            if epochs:
                _render(feed, epochs[0])
            for epoch in epochs:
                coming = None
                if epoch + 1 in epochs:
                    coming = thread.submit(_render, feed, epoch + 1, report=report)
                yield from items(epoch)
                if coming is not None:
                    coming.result()
        finally:
            is_closed.set()


def _render(feed: Feed, epoch: int, **options: Report) -> None:
    if isinstance(feed, JoinedFeed):
        for one in feed.feeds:
            _render(one, epoch, **options)
    elif isinstance(feed, RenderedFeed):
        feed.render(epoch, **options)


class StoredFeed:
    """Features on disk: in every epoch, each image is shown by one of its views.

    Args:
        views: One array (N, ...) per view.
        seed: The seed of the training.
    """

    def __init__(self, views: Sequence[Array], seed: int) -> None:
        self._views, self._seed = views, seed
        self._choice: tuple[int, Array] = (0, np.empty(0, dtype=np.int64))
        self._whole: tf.Tensor | None = None

    def __len__(self) -> int:
        return len(self._views[0])

    def read(self, epoch: int, indices: Array) -> Array:
        """Return features of the views that are drawn for an epoch."""
        if len(self._views) == 1:
            return np.asarray(self._views[0][indices], np.float32)
        choice = self._choice  # other trials may be in another epoch
        if choice[0] != epoch:
            rng = generator(self._seed, VIEW, epoch)
            choice = self._choice = epoch, rng.integers(len(self._views), size=len(self))
        chosen = choice[1][indices]
        result = np.empty((len(indices), *self._views[0].shape[1:]), dtype=np.float32)
        for number, view in enumerate(self._views):
            rows = np.flatnonzero(chosen == number)
            result[rows] = view[indices[rows]]
        return result

    def whole(self) -> tf.Tensor | None:
        """Return the features of the only view."""
        only = self._views[0]
        if self._whole is None and len(self._views) == 1 and 4 * only.size <= _WHOLE_BYTES:
            self._whole = tf.constant(np.asarray(only, np.float32))
        return self._whole


class RenderedFeed:
    """Features of a new rendering of the images in every epoch, which all trials share.

    Args:
        size: The number of images.
        view: Returns the features (N, ...) of a view, given its index and, where it is not to
            report to who trains, what to call instead.
        is_apart: Whether a thread may make them while another trains.
    """

    def __init__(self, size: int, view: Callable[..., Array], *, is_apart: bool = False) -> None:
        self._size, self._view, self.is_apart = size, view, is_apart
        self._made: dict[int, Array] = {}

    def __len__(self) -> int:
        return self._size

    def render(self, epoch: int, **options: Report) -> None:
        """Make the rendering of an epoch, unless it is there: the one that is read, or the next."""
        if epoch not in self._made:
            self._made[epoch] = self._view(_ONLINE + epoch, **options)

    def read(self, epoch: int, indices: Array) -> Array:
        """Return features of the rendering of an epoch."""
        self.render(epoch)
        for other in set(self._made) - {epoch, epoch + 1}:
            del self._made[other]
        return np.asarray(self._made[epoch][indices], np.float32)

    def whole(self) -> None:
        """Return nothing: every epoch has features of its own."""


class ComputedFeed:
    """Inputs computed whenever they are read: augmented anew in every epoch.

    Args:
        split: The N images.
        frozen: What makes inputs of them.
        pipeline: The augmentation; without one, small inputs are kept after the first reading.
        seed: The seed of the training.
        shown: Without augmentation, the view of the images that is computed.
    """

    def __init__(
        self,
        split: Split,
        frozen: Frozen,
        *,
        pipeline: keras.Sequential | None,
        seed: int,
        shown: Mirrored | None = None,
    ) -> None:
        self._split, self._frozen, self._pipeline, self._seed = split, frozen, pipeline, seed
        self._shown = shown
        self._kept: StoredFeed | None = None

    def __len__(self) -> int:
        return len(self._split)

    def read(self, epoch: int, indices: Array) -> Array:
        """Return the inputs of an epoch."""
        kept = self._keep()
        return self._compute(epoch, indices) if kept is None else kept.read(epoch, indices)

    def whole(self) -> tf.Tensor | None:
        """Return the inputs where they are not augmented and small enough to be kept."""
        kept = self._keep()
        return None if kept is None else kept.whole()

    def _keep(self) -> StoredFeed | None:
        if self._pipeline is None and self._kept is None:
            first = self._compute(1, np.arange(1))
            if first.nbytes * len(self) <= _KEPT_BYTES:
                self._kept = StoredFeed([self._compute(1, np.arange(len(self)))], self._seed)
        return self._kept

    def _compute(self, epoch: int, indices: Array) -> Array:
        pipeline = self._pipeline
        view = self._shown if pipeline is None else View(pipeline, "", _ONLINE + epoch, self._seed)
        parts = [indices[i : i + _PART] for i in range(0, len(indices), _PART)]
        return np.concatenate([self._frozen.read(self._split, part, view) for part in parts])


class JoinedFeed:
    """One feed after the other, as one feed.

    Args:
        first: The one.
        second: The other.
        is_kept: Whether it is trained on so often that it may be in memory twice.
    """

    def __init__(self, first: Feed, second: Feed, *, is_kept: bool = False) -> None:
        self.feeds = self._first, self._second = first, second
        self._is_kept = is_kept
        self._whole: tf.Tensor | None = None

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def read(self, epoch: int, indices: Array) -> Array:
        """Return the inputs of an epoch."""
        early = indices < len(self._first)
        if early.all():
            return self._first.read(epoch, indices)
        late = self._second.read(epoch, indices[~early] - len(self._first))
        if not early.any():
            return late
        result = np.empty((len(indices), *late.shape[1:]), dtype=np.float32)
        result[early] = self._first.read(epoch, indices[early])
        result[~early] = late
        return result

    def whole(self) -> tf.Tensor | None:
        """Return both as one tensor, if it is kept."""
        if self._is_kept and self._whole is None:
            parts = [self._first.whole(), self._second.whole()]
            is_held = all(part is not None for part in parts)
            self._whole = tf.concat(parts, axis=0) if is_held else None
        return self._whole


class PartFeed:
    """Some of the inputs of a feed.

    Args:
        feed: The feed.
        rows: Their places in it, (n,).
    """

    def __init__(self, feed: Feed, rows: Array) -> None:
        self._feed, self._rows = feed, rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, epoch: int, indices: Array) -> Array:
        """Return the inputs of an epoch."""
        return self._feed.read(epoch, self._rows[indices])

    def whole(self) -> None:
        """Return nothing: the feed has them."""
