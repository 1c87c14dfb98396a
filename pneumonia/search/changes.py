"""What has changed since a search began, and which changes matter to what."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from omegaconf import DictConfig

from pneumonia.config import sources
from pneumonia.config.ranges import looks_like_range
from pneumonia.config.search_space import GROUPS, collapse, find
from pneumonia.config.validate import flatten
from pneumonia.datasets.base import ImageData
from pneumonia.datasets.cache import load_data
from pneumonia.errors import UserError
from pneumonia.storage import provenance
from pneumonia.storage.search_record import SearchRecord

BUDGET = (
    *("tuner.max_trials", "tuner.hyperband_iterations"),
    *("budget.seconds", "budget.trials", "budget.epochs"),
)
"""What may grow while all else of a search stays the same."""
NONE = "(none)"
THREADS = "training.threads"
_FREE = (
    *("resume", "tracking.", "executor.", "budget.", "plan", "progress", "callbacks"),
    *("features.folder", "features.max_gb", "features.cache"),
    # Where the images lie does not matter as long as they are the same.
    *("dataset.path", "dataset.data_dir", "dataset.manual_dir"),
    *("tuner.max_consecutive_failures", "training.max_seconds"),
)
# Beside the arguments of a trial, what its result depends on.
_COMMON = ("seed", "objective.", "features.", THREADS)


def of_search(past: SearchRecord, cfg: DictConfig, *, has_data: bool = True) -> Iterator[str]:
    """Yield what has changed since a search began, as `key: was → is`.

    Args:
        past: The search.
        cfg: The configuration of what is to be run now.
        has_data: Whether the images, the code and the libraries count.
    """
    own = list(of_params(past, flatten(cfg)))
    yield from own
    if has_data:
        yield from _changed_code(past, cfg)
        if not any(line.startswith("dataset.") for line in own):
            yield from _changed_data(past, cfg)


def is_free(path: str) -> bool:
    """Tell whether no result depends on a key, unless it is searched."""
    return path.startswith(_FREE) and path != "executor.in_order"


def searched(*params: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys that are a range in any of some flat configs."""
    items = (item for one in params for item in one.items())
    return frozenset(
        path for path, value in items if path.split(".")[0] in GROUPS and looks_like_range(value)
    )


def needs(arguments: Mapping[str, Any], ranges: Set[str]) -> dict[str, Any]:
    """Return those of a trial's arguments that its result depends on, as JSON has them.

    Args:
        arguments: All of them.
        ranges: The keys that are searched. One that is free otherwise tells trials apart there:
            the images at two places are not the same.
    """
    kept = {k: v for k, v in arguments.items() if k in ranges or not is_free(k)}
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]


def of_results(past: SearchRecord, cfg: DictConfig) -> Iterator[str]:
    """Yield why no trial of a search is valid for another: what all its results depend on."""
    lines = of_params(past, flatten(cfg), budget=())
    yield from (line for line in lines if line.startswith(_COMMON))
    yield from _changed_code(past, cfg)
    yield from _changed_data(past, cfg, is_fork=True)


def of_params(
    past: SearchRecord, now: Mapping[str, Any], *, budget: Sequence[str] = BUDGET
) -> Iterator[str]:
    """Yield the keys that have changed.

    A budget may grow, and what is free may change, unless it is searched, before or now.
    """
    is_now = json.loads(json.dumps(dict(now)))
    ranges = searched(past.params, is_now)
    for key in {**past.params, **is_now}:
        was, is_ = past.params.get(key, NONE), is_now.get(key, NONE)
        grows = key in budget and is_more(was, is_)
        if was != is_ and not grows and (key in ranges or not is_free(key)):
            yield f"{key}: {_shown(was)} → {_shown(is_)}"


def is_more(was: object, now: object) -> bool:
    """Tell whether a budget has grown; null is all there is."""
    if was is None or now == NONE:
        return False
    return now is None or (
        isinstance(was, int | float) and isinstance(now, int | float) and now > was
    )


def code_of(params: Mapping[str, Any]) -> dict[str, str]:
    """Return tags for the code of the plug-ins that a flat configuration names, `code.<module>`."""
    named = sources.targets({key: value for key, value in params.items() if not is_free(key)})
    return {f"code.{name}": digest for name, digest in sources.plugins(named).items()}


def _changed_code(past: SearchRecord, cfg: DictConfig) -> Iterator[str]:
    now = provenance.deciding() | code_of(flatten(cfg))
    own = sorted(key for key in {**past.tags, **now} if key.startswith("code."))
    for key in ("code", *own, *(f"version.{name}" for name in sources.MATTERING)):
        was, is_ = past.tags.get(key, NONE), now.get(key, NONE)
        if was != is_:
            yield f"{key}: {was} → {is_}"


def further_images(cfg: DictConfig) -> list[dict[str, Any]]:
    """Return what the splits are at each further place where a search finds images.

    It has several where `dataset.path`, say, is a range; what cannot be read there is left out.
    """
    space, rows = find(cfg), []
    start = space.start()
    for item in space:
        is_place = item.path.startswith("dataset.") and is_free(item.path) and item.path in start
        for value in item.values if is_place else ():
            # A trial that cannot read them fails alone.
            with contextlib.suppress(UserError, OSError):
                if value != item.start:
                    data = load_data(collapse(cfg, {**start, item.path: value}))
                    rows += _rows(data, place=f"{item.path}={value}")
    return rows


def _changed_data(past: SearchRecord, cfg: DictConfig, *, is_fork: bool = False) -> Iterator[str]:
    data = load_data(collapse(cfg, find(cfg).start()))
    now = _by_name([*_rows(data), *further_images(cfg)])
    was = _by_name([*past.first["datasets"], *past.first.get("further_images", ())])
    for name in {**was, **now}:
        one, other = was.get(name), now.get(name)
        # No trial reads test, and none is taken over at a place that only one search looks at.
        is_unread = is_fork and (name.startswith("test") or None in (one, other))
        if one != other and not is_unread:
            yield f"images of {name}: {_summary(one)} → {_summary(other)}"


def _rows(data: ImageData, place: str = "") -> list[dict[str, Any]]:
    splits = (data.train, data.val, data.test)
    return [
        {"split": split.name, "place": place, "size": len(split), "digest": split.digest}
        for split in splits
    ]


def _by_name(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    found = {}
    for row in rows:
        at = f" at {row['place']}" if row.get("place") else ""
        found[row["split"] + at] = (row["size"], row["digest"])
    return found


def _summary(split: tuple[int, str] | None) -> str:
    return f"{split[0]} with digest {split[1][:12]}" if split else NONE


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
