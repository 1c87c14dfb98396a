"""Going on with a search: which one, whether it is still the same, and what a fork takes over.

All of it is said before TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia import files, terminal
from pneumonia.config import schema, validate
from pneumonia.config.search_space import collapse, find, plain
from pneumonia.config.validate import flatten
from pneumonia.datasets.base import ImageData
from pneumonia.datasets.cache import load_data
from pneumonia.errors import ConfigError, UserError, without_passwords
from pneumonia.storage import history, journal, offset, provenance
from pneumonia.storage.history import BUDGET, History
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor

OUTPUTS = Path("outputs")
_FREE = (
    *("resume", "tracking.", "executor.", "budget.", "plan", "progress"),
    *("features.folder", "features.max_gb", "features.cache", "training.tensorboard"),
    # Where the images lie does not matter as long as they are the same.
    *("dataset.path", "dataset.data_dir", "dataset.manual_dir"),
    *("tuner.max_consecutive_failures", "training.max_seconds"),
)
# What is left to send can be sent wherever the images are by now.
_UNCHECKED = ("resume", "tracking.", "dataset.", "executor.", "features.")
# Beside the arguments of a trial, what its result depends on.
_COMMON = ("seed", "objective.", "features.")
_NONE = "(none)"
_ANEW = "Put a copy in its place, or begin the search anew."
_HINT = (
    "A copy of it goes to MLflow, as an artifact of the search's run: put that in its place, or "
    "begin the search anew."
)
_Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """The search that another one was forked from.

    Attributes:
        folder: Its folder.
        search_id: Its id.
        reasons: Why none of its trials is valid any more; empty where they are.
        decides_alike: Whether its classifiers have the threshold and the calibration asked for.
    """

    folder: Path
    search_id: str
    reasons: tuple[str, ...] = ()
    decides_alike: bool = True

    @property
    def source(self) -> dict[str, str]:
        """What the fork keeps of it: its id and its folder."""
        return {"search_id": self.search_id, "folder": str(self.folder)}


@dataclass(frozen=True, slots=True)
class Job:
    """What a command is to run.

    Attributes:
        cfg: The configuration, with its ranges.
        folder: The folder of the search.
        choices: The option of each config group.
        origin: The search it is forked from, or None.
        more: The budget that it has beyond the one it had, by key.
        is_over: Whether there is nothing left to run: only to send, if anything.
    """

    cfg: DictConfig
    folder: Path
    choices: Mapping[str, str]
    origin: Origin | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    is_over: bool = False


def plan(job: Job, overrides: Sequence[str]) -> Job:
    """Return what a command is to run, where it may go on with a search or fork one.

    Args:
        job: What it would be without: the composed configuration, and a new folder.
        overrides: The command's own.

    Raises:
        ConfigError: Where there is no such search.
        UserError: Where something has changed that has to stay the same.
    """
    asked = job.cfg.resume
    if asked.search is None and not asked.fork:
        return job
    name = "last" if asked.search is None else str(asked.search)
    folder = _find(name, overrides)
    past = history.read(folder)
    if past.started is None and Cursor.read(folder / offset.NAME).next:
        raise UserError(f"{folder / journal.NAME}: damaged: it is empty, and was not. {_ANEW}")
    changed = _overlay(_saved(folder, past), job, overrides, history.choices(folder))
    found = replace(changed, folder=folder)
    if any(not _path(override).startswith(_UNCHECKED) for override in overrides):
        validate.validate(_whole(found.cfg, job.cfg))
    if asked.fork:
        return _fork(found, past, into=job)
    if past.started is None:  # it was killed before it began: there is nothing to differ from
        whole = replace(found, cfg=_whole(found.cfg, job.cfg))
        return replace(whole, origin=_origin(past, whole))
    more = dict(_more(past, found.cfg))
    is_over = past.is_completed and not more
    _refuse(name, list(changes(past, found, has_data=not is_over)))
    return replace(found, origin=_origin(past, found), more=more, is_over=is_over)


def claim(job: Job, *, uri: str | None) -> Journal:
    """Write a search's configuration and open its journal, which keeps other processes away.

    From here on there is something to go on with.

    Args:
        job: The search.
        uri: That of its tracking, without a password.

    Raises:
        UserError: Where the search still runs, in another process.
    """
    found = Journal(job.folder)
    lost = Cursor.read(job.folder / offset.NAME).next - found.count
    if lost > 0:
        terminal.say(f"warning: {found.path} has lost its end ({lost} lines), which comes again.")
    cfg = OmegaConf.create(plain(job.cfg))
    cfg.tracking.uri = uri
    job.folder.mkdir(parents=True, exist_ok=True)
    if job.origin is not None:  # it may be killed before its journal says so
        _write(job.folder / history.FORKED, json.dumps(job.origin.source))
    _write(job.folder / history.CONFIG, without_passwords(OmegaConf.to_yaml(cfg)))
    found.claim()  # last of a new search: where there is a journal, there is a configuration
    if job.more:
        found.append("search_extended", params=dict(job.more))
    return found


def changes(past: History, job: Job, *, has_data: bool = True) -> Iterator[str]:
    """Yield what has changed since a search began, as `key: was → is`.

    Args:
        past: The search.
        job: What is to be run now.
        has_data: Whether the images, the code and the libraries count.
    """
    own = list(_changed_params(past, flatten(job.cfg)))
    yield from own
    if has_data:
        yield from _changed_libraries(past)
        if not any(line.startswith("dataset.") for line in own):
            yield from _changed_data(past, job.cfg)


def is_free(path: str) -> bool:
    """Tell whether no result depends on a key."""
    return path.startswith(_FREE)


def needs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a trial's arguments that its result depends on, as JSON has them."""
    kept: dict[str, Any] = {k: v for k, v in arguments.items() if not is_free(k)}
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]


def _fork(found: Job, past: History, *, into: Job) -> Job:
    made = replace(found, cfg=_whole(found.cfg, into.cfg), folder=into.folder)
    if past.started is None:
        return made
    search_id = past.started["search_id"]
    return replace(made, origin=_compared(found.folder.resolve(), search_id, job=made))


def _origin(past: History, job: Job) -> Origin | None:
    """Return the search that one to go on with was forked from."""
    given = _forked_from(past, job.folder)
    if given is None:
        return None
    folder, search_id = Path(given["folder"]), given["search_id"]
    with contextlib.suppress(FileNotFoundError):  # the project may have been moved since
        folder = history.find(search_id, OUTPUTS).resolve()
    if not (folder / journal.NAME).exists():
        return Origin(folder, search_id, (f"{folder}: a search → (none)",))
    return _compared(folder, search_id, job=job)


def _forked_from(past: History, folder: Path) -> dict[str, str] | None:
    if past.started is not None:
        return past.started.get("forked_from")
    path = folder / history.FORKED
    if not path.exists():
        return None
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(given[name]) for name in ("search_id", "folder")}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path}: damaged. The search in {folder} had not begun: nothing is lost by typing its "
            "command again."
        ) from error


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _compared(folder: Path, search_id: str, *, job: Job) -> Origin:
    """Return a search as one to take trials over from, compared with what is to be run."""
    past = history.read(folder)
    lines = _changed_params(past, flatten(job.cfg))
    is_alike = not any(line.startswith("threshold.") for line in lines)
    return Origin(folder, search_id, tuple(_reasons(past, job)), is_alike)


def _reasons(past: History, job: Job) -> Iterator[str]:
    """Yield why no trial of a search is valid for another: what all its results depend on."""
    lines = _changed_params(past, flatten(job.cfg), budget=())
    yield from (line for line in lines if line.startswith(_COMMON))
    yield from _changed_libraries(past)
    yield from _changed_data(past, job.cfg)


def _refuse(name: str, lines: Sequence[str]) -> None:
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise UserError(
            "`resume`: expected a search that is still the same. "
            f"Received: {name!r}, of which this has changed:\n{listed}\n"
            "With resume.fork=true a new search begins, which takes over the finished trials that "
            f"are still valid. More budget is no such change: {', '.join(BUDGET)}."
        )


def options(name: str, overrides: Sequence[str]) -> dict[str, str]:
    """Return the options that a search was made with; none where there is no such search."""
    try:
        return history.choices(history.find(name, OUTPUTS, overrides=overrides))
    except FileNotFoundError:
        return {}  # told later, as all that is wrong with it


def _find(name: str, overrides: Sequence[str]) -> Path:
    try:
        return history.find(name, OUTPUTS, overrides=overrides)
    except FileNotFoundError as error:
        expected = "`last`, or the id of a search under outputs"
        raise ConfigError("resume", expected, name) from error


def _saved(folder: Path, past: History) -> DictConfig:
    """Return the configuration of a search, which is all there."""
    path = folder / history.CONFIG
    try:
        cfg = OmegaConf.load(path)
        now = flatten(cfg) if isinstance(cfg, DictConfig) else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(files.explain(error) or error).split())
        raise UserError(f"{path}: damaged. {reason} {_HINT}") from error
    if now is None or not isinstance(cfg, DictConfig):
        raise UserError(f"{path}: damaged. It is not the configuration of a search. {_HINT}")
    for key in past.params:
        if key not in now:
            raise UserError(f"{path}: damaged. It has no `{key}`. {_HINT}")
        check = schema.KEYS.get(key) if is_free(key) else None
        if check is not None and not check.accepts(now[key]):
            raise ConfigError(key, check.expected, now[key], f"It is in {path}")
    return cfg


def _path(override: str) -> str:
    """Return the dotted path of the key that an override names."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def _overlay(saved: DictConfig, job: Job, overrides: Sequence[str], choices: dict[str, str]) -> Job:
    """Return a search's own configuration and choices with the overrides of the command."""
    tree, given = plain(saved), plain(job.cfg)
    tree["resume"] = {"search": None, "fork": False}
    choices = dict(choices)
    for override in overrides:
        path = _path(override)
        if path.startswith("resume.") or choices.get(path, "") == job.choices.get(path):
            continue  # an option that the search has already is no change
        if path in job.choices:
            choices[path] = job.choices[path]
        _copy(given, tree, path.split("."))
    return replace(job, cfg=OmegaConf.create(tree), choices=choices)


def _copy(source: Any, target: Any, path: Sequence[str]) -> None:
    """Give the target's key what the source has there, if only that it is not there."""
    *above, last = path
    for key in above:
        source = source.get(key, {}) if isinstance(source, dict) else {}
        if not isinstance(target.get(key), dict):
            target[key] = {}
        target = target[key]
    if last in source:
        target[last] = source[last]
    else:
        target.pop(last, None)


def _whole(own: DictConfig, defaults: DictConfig) -> DictConfig:
    """Return a configuration with the keys that came to the program since it was written."""
    tree = plain(own)
    for key, value in plain(defaults).items():
        if key not in tree:
            tree[key] = value
        elif key in schema.CLOSED and isinstance(value, dict) and isinstance(tree[key], dict):
            tree[key] = {**value, **tree[key]}
    return OmegaConf.create(tree)


def _changed_params(
    past: History, now: Mapping[str, Any], *, budget: Sequence[str] = BUDGET
) -> Iterator[str]:
    is_now = json.loads(json.dumps(dict(now)))
    for key in {**past.params, **is_now}:
        was, is_ = past.params.get(key, _NONE), is_now.get(key, _NONE)
        grows = key in budget and _is_more(was, is_)
        if was != is_ and not grows and not is_free(key):
            yield f"{key}: {_shown(was)} → {_shown(is_)}"


def _more(past: History, cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    now = flatten(cfg)
    for key in BUDGET:
        if key in past.params and _is_more(past.params[key], now.get(key, _NONE)):
            yield key, now[key]


def _is_more(was: object, now: object) -> bool:
    """Tell whether a budget has grown; null is all there is."""
    if was is None or now == _NONE:
        return False
    return now is None or (
        isinstance(was, int | float) and isinstance(now, int | float) and now > was
    )


def _changed_libraries(past: History) -> Iterator[str]:
    tags = (past.started or {}).get("tags", {})
    now = provenance.versions(provenance.MATTERING) | {"code": provenance.code()}
    for key in ("code", *(f"version.{name}" for name in provenance.MATTERING)):
        was, is_ = tags.get(key, _NONE), now.get(key, _NONE)
        if was != is_:
            yield f"{key}: {was} → {is_}"


def _changed_data(past: History, cfg: DictConfig) -> Iterator[str]:
    data = load_data(collapse(cfg, find(cfg).start()))
    now = _digests(data)
    was = {row["split"]: (row["size"], row["digest"]) for row in (past.started or {})["datasets"]}
    for split in {**was, **now}:
        one, other = was.get(split), now.get(split)
        if one != other:
            yield f"images of {split}: {_summary(one)} → {_summary(other)}"


def _digests(data: ImageData) -> dict[str, tuple[int, str]]:
    splits = (data.train, data.val, data.test)
    return {split.name: (len(split), split.digest) for split in splits}


def _summary(split: tuple[int, str] | None) -> str:
    return f"{split[0]} with digest {split[1][:12]}" if split else _NONE


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
