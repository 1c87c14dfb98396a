"""One search: what listens to it, and how it begins."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pneumonia import shell, startup
from pneumonia.config import search_space
from pneumonia.config.instantiate import build
from pneumonia.datasets import cache
from pneumonia.errors import ConfigError, UserError
from pneumonia.search import ray_session, resume
from pneumonia.search.callbacks import SearchCallback
from pneumonia.search.resume import SearchSpec
from pneumonia.storage import search_record
from pneumonia.tracking import tracker
from pneumonia.tracking.settings import TrackingSettings, redact


def run(spec: SearchSpec) -> None:
    """Run a search, or send what is left to send of one that is over.

    Raises:
        UserError: For what the user can mend.
    """
    settings = TrackingSettings(**spec.cfg.tracking)
    callbacks = listeners(spec.cfg, settings)
    tracker.prepare()
    if spec.is_over:
        print(f"The search in {spec.folder} is complete.\n{_more(spec)}", file=sys.stderr)
        tracker.check(settings).result()
        if not tracker.Tracker(spec.folder, settings).close():
            raise UserError("MLflow has not taken all of this search: see the warning above.")
        return
    uri = None if settings.uri is None else redact(settings.uri)
    with _saying_how_to_go_on(spec.folder), closing(resume.claim(spec, uri=uri)) as journal:
        # First what may be wrong with the data, before the seconds that the libraries take.
        cache.load_data(search_space.collapse(spec.cfg, search_space.find(spec.cfg).start()))
        ray_session.check(spec.cfg.executor.get("address"))
        checked = tracker.check(settings)
        startup.start()
        from pneumonia.search import loop  # takes a quarter of a second, as the answer does

        checked.result()
        loop.run(
            spec,
            journal,
            callbacks=callbacks,
            fetch=lambda uri: tracker.fetch_classifier(uri, settings),
        )


def listeners(cfg: DictConfig, settings: TrackingSettings) -> list[SearchCallback]:
    """Return what listens to a search: the console, the tracking, then what else is configured.

    The journal is no listener: the search itself writes it, before any of them is told.

    Raises:
        ConfigError: One cannot be built, or is no `SearchCallback`.
    """
    from pneumonia.cli.callbacks import Console, Tracking

    section: Any = OmegaConf.to_container(cfg.get("callbacks") or OmegaConf.create(), resolve=True)
    made: list[SearchCallback] = [Tracking(settings)]
    for name, one in section.items():
        if one is None:
            continue
        key = f"callbacks.{name}"
        callback = build(one, key)
        if not isinstance(callback, SearchCallback):
            expected = "a class that inherits from pneumonia.search.callbacks.SearchCallback"
            raise ConfigError(f"{key}._target_", expected, one["_target_"])
        callback.name = name
        made.append(callback)
    return sorted(made, key=lambda one: not isinstance(one, Console))


def _more(spec: SearchSpec) -> str:
    """Return what can be done with a search that is complete."""
    past = search_record.from_journal(spec.folder)
    name, tuner = str(past.first.get("search_id", "last")), spec.cfg.tuner
    keys = [key for key in ("hyperband_iterations", "max_trials") if tuner.get(key)]
    more = [shell.resume(spec.folder, name, f"tuner.{key}={2 * tuner[key]}") for key in keys[:1]]
    fork = shell.resume(spec.folder, name, "resume.fork=true")
    told = [f"With more budget it goes on: {command}" for command in more]
    if reason := past.ended.get("reason"):  # with more of another budget it would end here again
        told = [reason]
    return "\n".join([*told, f"As a new one, with other settings if you add them: {fork}"])


@contextlib.contextmanager
def _saying_how_to_go_on(folder: Path) -> Iterator[None]:
    """Let an interruption that says nothing, before a search has begun, say how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):
            raise
        raise KeyboardInterrupt(f"Interrupted. To go on: {shell.resume(folder, 'last')}") from None
