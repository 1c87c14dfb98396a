"""Going on with a search: which one, whether it is still the same, and what a fork takes over.

All of it is said before TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumonia import files, process, terminal
from pneumonia.config import schema, validate
from pneumonia.config.search_space import conditions_beyond, plain
from pneumonia.config.validate import flatten
from pneumonia.errors import ConfigError, UserError, without_passwords
from pneumonia.search import changes
from pneumonia.storage import journal, search_folder, search_record
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor
from pneumonia.storage.search_folder import OUTPUTS, SearchFolder
from pneumonia.storage.search_record import SearchRecord

# What is left to send can be sent wherever the images are by now.
_UNCHECKED = ("resume", "tracking.", "dataset.", "executor.", "features.")
# What is done with the trials once they are over, and what no trial fails by.
_AFTER = ("winner.", "threshold.", "resume", "tracking.", "callbacks", "progress", "plan")
_ANEW = "Put a copy in its place, or begin the search anew."
_HINT = (
    "A copy of it goes to MLflow, as an artifact of the search's run: put that in its place, or "
    "begin the search anew."
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The search that another one was forked from.

    Attributes:
        folder: Its folder.
        search_id: Its id.
        reasons: Why none of its trials is valid any more; empty where they are.
        decides_alike: Whether its classifiers have the threshold and the calibration asked for.
        searched: The keys that it varied, and those that the fork does.
        trials: How many it has, where it has come to its end and differs only in what follows the
            trials: then a fork of it trains no others. Else None.
    """

    folder: Path
    search_id: str
    reasons: tuple[str, ...] = ()
    decides_alike: bool = True
    searched: frozenset[str] = frozenset()
    trials: int | None = None

    @property
    def source(self) -> dict[str, str]:
        """What the fork keeps of it: its id and its folder."""
        return {"search_id": self.search_id, "folder": str(self.folder)}


@dataclass(frozen=True, slots=True)
class SearchSpec:
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


def plan(
    spec: SearchSpec,
    overrides: Sequence[str],
    *,
    use_threads: Callable[[DictConfig], object] = lambda cfg: None,
) -> SearchSpec:
    """Return what a command is to run, where it may go on with a search or fork one.

    Threads that nobody has numbered are as many as this machine has processors: from here on they
    are a number, which the search keeps on other machines.

    Args:
        spec: What it would be without: the composed configuration, and a new folder.
        overrides: The command's own.
        use_threads: Called with the configuration, before images are read: that may start
            TensorFlow.

    Raises:
        ConfigError: Where there is no such search.
        UserError: Where something has changed that has to stay the same.
    """
    spec, asked = _numbered(spec), spec.cfg.resume
    if asked.search is None and not asked.fork:
        use_threads(spec.cfg)
        return spec
    name = "last" if asked.search is None else str(asked.search)
    folder = find(name, overrides)
    past = search_record.from_journal(folder)
    if past.started is None and Cursor.read(SearchFolder(folder).tracking).next:
        raise UserError(f"{folder / journal.NAME}: damaged: it is empty, and was not. {_ANEW}")
    changed = _overlay(_saved(folder, past), spec, overrides, SearchFolder(folder).choices())
    found = replace(changed, folder=folder)
    whole = replace(found, cfg=_whole(found.cfg, spec.cfg))
    if any(not _path(override).startswith(_UNCHECKED) for override in overrides):
        validate.validate(whole.cfg)
    use_threads(whole.cfg)
    if asked.fork:
        return _fork(whole, past, into=spec.folder)
    if past.started is None:  # it was killed before it began: there is nothing to differ from
        return replace(whole, origin=_origin(past, whole))
    more = _more(past, found.cfg)
    is_over = past.is_completed and not more
    changed_since = list(changes.of_search(past, found.cfg, has_data=not is_over))
    _refuse(name, changed_since, threads=past.params.get(changes.THREADS))
    return replace(found, origin=_origin(past, found), more=more, is_over=is_over)


def claim(spec: SearchSpec, *, uri: str | None) -> Journal:
    """Write a search's configuration and open its journal, which keeps other processes away.

    From here on there is something to go on with.

    Args:
        spec: The search.
        uri: That of its tracking, without a password.

    Raises:
        UserError: Where the search still runs, in another process.
    """
    found, own = Journal(spec.folder), SearchFolder(spec.folder)
    lost = Cursor.read(own.tracking).next - found.count
    if lost > 0:
        terminal.say(f"warning: {found.path} has lost its end ({lost} lines), which comes again.")
    cfg = OmegaConf.create(plain(spec.cfg))
    cfg.tracking.uri = uri
    spec.folder.mkdir(parents=True, exist_ok=True)
    if spec.origin is not None:  # it may be killed before its journal says so
        files.write_text(own.forked_from, json.dumps(spec.origin.source))
    files.write_text(own.config, without_passwords(OmegaConf.to_yaml(cfg)))
    found.claim()  # last of a new search: where there is a journal, there is a configuration
    if spec.more:
        found.append("search_extended", params=dict(spec.more))
    return found


def _numbered(spec: SearchSpec) -> SearchSpec:
    if plain(spec.cfg)["training"].get("threads", 1) is not None:
        return spec
    cfg = spec.cfg.copy()
    cfg.training.threads = process.processors()
    return replace(spec, cfg=cfg)


def _fork(other: SearchSpec, past: SearchRecord, *, into: Path) -> SearchSpec:
    made = replace(other, folder=into)
    if past.started is None:
        return made
    search_id = past.started["search_id"]
    return replace(made, origin=_compared(other.folder.resolve(), search_id, spec=made))


def _origin(past: SearchRecord, spec: SearchSpec) -> Origin | None:
    """Return the search that one to go on with was forked from."""
    given = _forked_from(past, spec.folder)
    if given is None:
        return None
    folder, search_id = Path(given["folder"]), given["search_id"]
    with contextlib.suppress(FileNotFoundError):  # the project may have been moved since
        folder = search_folder.find(search_id, OUTPUTS).resolve()
    if not (folder / journal.NAME).exists():
        return Origin(folder, search_id, (f"{folder}: a search → (none)",))
    return _compared(folder, search_id, spec=spec)


def _forked_from(past: SearchRecord, folder: Path) -> dict[str, str] | None:
    if past.started is not None:
        return past.started.get("forked_from")
    path = SearchFolder(folder).forked_from
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


def _compared(folder: Path, search_id: str, *, spec: SearchSpec) -> Origin:
    """Return a search as one to take trials over from, compared with what is to be run."""
    past, now = search_record.from_journal(folder), flatten(spec.cfg)
    is_alike = not any(line.startswith("threshold.") for line in changes.of_params(past, now))
    reasons, ranges = tuple(changes.of_results(past, spec.cfg)), changes.searched(past.params, now)
    found = Origin(folder, search_id, reasons, is_alike, ranges)
    if reasons or not past.is_completed or not _is_followed(past, now):
        return found
    return replace(found, trials=len(past.trials))


def _is_followed(past: SearchRecord, now: Mapping[str, Any]) -> bool:
    """Tell whether nothing has changed that the trials of a search, or their number, depend on."""
    is_now = json.loads(json.dumps(dict(now)))
    # What was proposed depends on the order in which trials ended, where that is free.
    is_same = bool(is_now.get("executor.in_order", True))
    changed = {key for key in {**past.params, **is_now} if past.params.get(key) != is_now.get(key)}
    return is_same and all(key.startswith(_AFTER) for key in changed)


def _refuse(name: str, lines: Sequence[str], *, threads: int | None) -> None:
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        if threads and any(line.startswith(changes.THREADS) for line in lines):
            listed += f"\nResults depend on the number of threads: {changes.THREADS}={threads}."
        raise UserError(
            "`resume`: expected a search that is still the same. "
            f"Received: {name!r}, of which this has changed:\n{listed}\n"
            "With resume.fork=true a new search begins, which takes over the finished trials that "
            f"are still valid. More budget is no such change: {', '.join(changes.BUDGET)}."
        )


def options(name: str, overrides: Sequence[str]) -> dict[str, str]:
    """Return the options that a search was made with; none where there is no such search."""
    try:
        return SearchFolder(find(name, overrides)).choices()
    except ConfigError:
        return {}  # told later, as all that is wrong with it


def find(name: str, overrides: Sequence[str]) -> Path:
    """Return the folder of a search to go on with or to fork.

    For a fork, or with more budget, any search has something left to do.

    Raises:
        ConfigError: Where there is no such search.
    """
    keys = {_path(override) for override in overrides}
    is_any = not keys.isdisjoint((*changes.BUDGET, "resume.fork"))
    try:
        return search_folder.find(name, OUTPUTS, is_any=is_any)
    except FileNotFoundError as error:
        expected = "`last`, or the id of a search under outputs"
        raise ConfigError("resume", expected, name) from error


def _saved(folder: Path, past: SearchRecord) -> DictConfig:
    """Return the configuration of a search, which is all there."""
    path = SearchFolder(folder).config
    try:
        cfg = OmegaConf.load(path)
        now = flatten(cfg) if isinstance(cfg, DictConfig) else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(files.explain(error) or error).split())
        raise UserError(f"{path}: damaged. {reason} {_HINT}") from error
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path}: damaged. It is not the configuration of a search. {_HINT}")
    for key in past.params:
        if key not in now:
            raise UserError(f"{path}: damaged. It has no `{key}`. {_HINT}")
        check = schema.KEYS.get(key) if changes.is_free(key) else None
        if check is not None and not check.accepts(now[key]):
            raise ConfigError(key, check.expected, now[key], f"It is in {path}")
    return cfg


def _path(override: str) -> str:
    """Return the dotted path of the key that an override names."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def _overlay(
    saved: DictConfig, spec: SearchSpec, overrides: Sequence[str], choices: dict[str, str]
) -> SearchSpec:
    """Return a search's own configuration and choices with the overrides of the command."""
    tree, given = plain(saved), plain(spec.cfg)
    tree["resume"] = {"search": None, "fork": False}
    choices = dict(choices)
    for override in overrides:
        path = _path(override)
        if path.startswith("resume.") or choices.get(path, "") == spec.choices.get(path):
            continue  # an option that the search has already is no change
        if path in spec.choices:
            choices[path] = spec.choices[path]
            if "when" not in map(_path, overrides):
                tree["when"] = _conditions(path, tree["when"], given["when"])
        _copy(given, tree, path.split("."))
    return replace(spec, cfg=OmegaConf.create(tree), choices=choices)


def _conditions(group: str, own: dict[str, Any] | None, others: dict[str, Any]) -> dict[str, Any]:
    """Return conditions, those of a group's keys from the others: an option may bring its own."""
    taken = {key: rules for key, rules in others.items() if key.startswith(f"{group}.")}
    return conditions_beyond(group, own) | taken


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
        elif isinstance(value, dict) and isinstance(tree[key], dict):
            beside = value if key in schema.CLOSED else schema.SECTIONS.get(key, ())
            tree[key] = {**{name: value[name] for name in beside if name in value}, **tree[key]}
    return OmegaConf.create(tree)


def _more(past: SearchRecord, cfg: DictConfig) -> dict[str, Any]:
    now, was = flatten(cfg), past.params
    known = [key for key in changes.BUDGET if key in was and key in now]
    return {key: now[key] for key in known if changes.is_more(was[key], now[key])}
