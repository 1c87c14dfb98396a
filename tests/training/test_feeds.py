"""Feeds give every image what it is shown as in an epoch, whoever asks and in what order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from pneumonia.datasets.chest_phantom import phantom
from pneumonia.training import feeds
from pneumonia.training.augment import geometric
from pneumonia.training.feeds import (
    ComputedFeed,
    Feed,
    JoinedFeed,
    RenderedFeed,
    StoredFeed,
    ahead,
    is_computed,
    is_rendered,
    read_all,
    rendered_ahead,
)
from pneumonia.training.frozen_graph import Frozen

Array = np.ndarray[Any, Any]
DATA = phantom(train=60, val=20, test=20, image_size=32, seed=1)
SIZE = 16


def views(count: int, width: int = 3, dtype: str = "float32") -> list[Array]:
    """Give each view's features its number in the hundreds, each image's its own below."""
    return [
        np.tile(np.arange(50)[:, None] + 100 * view, (1, width)).astype(dtype)
        for view in range(count)
    ]


def frozen() -> Frozen:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(
        keras.layers.Conv2D(4, 3, name="conv")(inputs)
    )
    return Frozen(keras.Model(inputs, x, name="backbone"), SIZE, "digest")


def online(seed: int = 1, part: Frozen | None = None) -> ComputedFeed:
    pipeline = geometric(flip=True, rotation=10, zoom=0.1)
    whole = part or Frozen(None, SIZE, "digest")
    return ComputedFeed(DATA.train, whole, pipeline=pipeline, seed=seed)


def plain(part: Frozen | None = None) -> ComputedFeed:
    return ComputedFeed(DATA.train, part or Frozen(None, SIZE, "digest"), pipeline=None, seed=1)


FEEDS: dict[str, Callable[[], Feed]] = {
    "one view": lambda: StoredFeed(views(1), 1),
    "views": lambda: StoredFeed(views(4), 1),
    "images": plain,
    "computed": lambda: plain(frozen()),
    "online": online,
    "online computed": lambda: online(part=frozen()),
    "joined": lambda: JoinedFeed(StoredFeed(views(2), 1), StoredFeed(views(1), 1)),
}


@pytest.mark.parametrize("name", FEEDS)
def test_contract(name: str) -> None:
    feed, other = FEEDS[name](), FEEDS[name]()
    indices = np.array([7, 0, 31, 7])
    first = feed.read(1, indices)
    assert first.dtype == np.float32
    assert first.shape[0] == 4
    assert read_all(feed).shape == (len(feed), *first.shape[1:])
    later = feed.read(2, indices)
    # Another feed of the same seed, asked in another order, gives the same.
    np.testing.assert_array_equal(other.read(2, indices), later)
    np.testing.assert_array_equal(other.read(1, indices), first)
    is_constant = name in ("one view", "images", "computed")
    assert np.array_equal(first, later) == is_constant
    # What stays the same may be had as a whole, and is the same as what is read.
    whole = feed.whole()
    assert (whole is not None) == is_constant
    if whole is not None:
        np.testing.assert_array_equal(whole.numpy()[indices], first)


@pytest.mark.parametrize("name", ["online", "online computed", "images"])
def test_joined_feeds_may_be_read_from_one_of_them_only(name: str) -> None:
    joined = JoinedFeed(FEEDS[name](), FEEDS[name]())
    first = joined.read(1, np.array([3]))
    np.testing.assert_array_equal(joined.read(1, np.array([63])), first)


def test_stored_views_take_turns() -> None:
    feed = StoredFeed(views(4, dtype="float16"), 1)
    shown = np.stack([feed.read(epoch, np.arange(50))[:, 0] for epoch in range(1, 41)])
    np.testing.assert_array_equal(shown % 100, np.tile(np.arange(50), (40, 1)))
    counts = np.stack([(shown // 100 == view).sum(axis=0) for view in range(4)])
    assert counts.min() >= 1  # every view of every image, within 40 epochs
    assert counts.mean() == 10
    # A part of the images is shown as it is among all of them.
    np.testing.assert_array_equal(feed.read(3, np.array([9, 2]))[:, 0], shown[2][[9, 2]])


def test_another_seed_shows_other_views_and_renderings() -> None:
    one, other = StoredFeed(views(4), 1), StoredFeed(views(4), 2)
    assert not np.array_equal(read_all(one), read_all(other))
    assert not np.allclose(online(1).read(1, np.arange(4)), online(2).read(1, np.arange(4)))


def test_computed_inputs_are_what_the_frozen_part_makes_of_the_images() -> None:
    part = frozen()
    images = read_all(plain())
    assert images.shape == (60, SIZE, SIZE, 3)
    assert part.model is not None
    expected = part.model.predict(images, verbose=0)
    np.testing.assert_allclose(read_all(plain(part)), expected, atol=1e-3)


def test_what_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plain().read(1, np.array([5, 40]))
    monkeypatch.setattr(feeds, "_KEPT_BYTES", 1000)
    feed = plain()
    np.testing.assert_array_equal(feed.read(1, np.array([5, 40])), expected)
    assert feed._kept is None
    assert feed.whole() is None
    monkeypatch.setattr(feeds, "_WHOLE_BYTES", 100)
    assert StoredFeed(views(1), 1).whole() is None


def test_joined_feeds_follow_each_other() -> None:
    joined = JoinedFeed(StoredFeed(views(1), 1), StoredFeed(views(2)[1:], 1))
    assert len(joined) == 100
    np.testing.assert_array_equal(
        joined.read(1, np.array([99, 0, 50, 49]))[:, 0], [149, 0, 100, 49]
    )


def test_the_next_item_is_made_in_a_thread_and_no_more() -> None:
    made: list[int] = []
    second, third = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number:
                [second, third, threading.Event()][number - 1].set()
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    assert second.wait(10)
    assert made == [0, 1]
    assert next(coming) == 1
    assert third.wait(10)
    coming.close()
    assert made == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    assert list(ahead(items())) == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_making_an_item_raises_reaches_who_takes_it(error: type[BaseException]) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise error("an image is gone")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(error, match="an image is gone"):
        next(coming)


def rendered(view: Callable[..., Any]) -> RenderedFeed:
    return RenderedFeed(len(DATA.train), view, is_apart=True)


def test_the_next_epoch_is_rendered_in_a_thread_and_no_more() -> None:
    made: list[int] = []
    second, third = threading.Event(), threading.Event()

    def view(index: int, report: Any = None) -> Any:
        made.append(index % 2**20)
        [threading.Event(), second, third][len(made) - 1].set()
        while report and third.is_set():
            report("", 1, 2)
        return np.full((len(DATA.train), 1), index % 2**20)

    feed = rendered(view)
    assert is_rendered(feed)
    assert is_rendered(JoinedFeed(feed, feed))
    coming = rendered_ahead(feed, range(4, 9), lambda epoch: iter([feed.read(epoch, np.arange(1))]))
    assert next(coming) == 4
    assert second.wait(10)
    assert made == [4, 5]
    assert next(coming) == 5
    assert third.wait(10)
    coming.close()
    assert made == [4, 5, 6]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("renders")]


def test_what_rendering_raises_reaches_who_takes_the_next_epoch() -> None:
    def view(index: int, report: Any = None) -> Any:
        if report:
            raise OSError("the disk is full")
        return np.zeros((len(DATA.train), 1))

    coming = rendered_ahead(rendered(view), range(1, 3), lambda epoch: iter([epoch]))
    assert next(coming) == 1
    with pytest.raises(OSError, match="full"):
        next(coming)


def test_a_thread_is_for_images_only() -> None:
    worth = {name for name in FEEDS if is_computed(FEEDS[name]())}
    assert worth == {"online", "online computed"}
    assert is_computed(JoinedFeed(online(), online()))
