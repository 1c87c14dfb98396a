"""Which model a user means: found in MLflow or on the disk, with what is known about it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.config.suggestions import close
from pneumonia.errors import ConfigError, UserError
from pneumonia.models import classifier_file
from pneumonia.shell import as_path, command, first_search
from pneumonia.storage import journal
from pneumonia.tracking.faults import MISSING, MayBeMissing
from pneumonia.tracking.mlflow_store import MODEL_NAME
from pneumonia.tracking.registry import (
    SEARCH_ID,
    champions,
    every,
    find_version,
    is_generated,
    origin_tags,
    score_of,
    uri,
    versions_of,
)
from pneumonia.tracking.settings import CHAMPION, TrackingSettings, open_store, redact, unreachable
from pneumonia.tracking.tracker import fetch_classifier

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CLASS_NAMES, THRESHOLD = "class_names", "threshold"

_EXPECTED = "a model: `last`, an MLflow URI, the id of a search or a run, or a .keras file"
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]+)")
_RUN = re.compile(rf"(runs:/)?(?P<id>[0-9a-f]{{32}})(/({MODEL_NAME})?)?")


@dataclass(frozen=True, slots=True)
class Lineage:
    """How a classifier came about, as far as that is known; as a text, half a sentence.

    Attributes:
        dataset: The option of the config group.
        is_generated: Whether its images were generated phantoms.
        objective: The name of the score.
        score: Of the trial, on val.
        search: The id of the search.
        date: When the search registered it or began it, as `2026-11-27`.
    """

    dataset: str = ""
    is_generated: bool = False
    objective: str = ""
    score: float | None = None
    search: str = ""
    date: str = ""

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Lineage:
        """Return what the tags of a version, a model or a run tell."""
        seconds = int(tags.get("time") or 0) / 1000
        return cls(
            tags.get("dataset", ""),
            is_generated(tags),
            tags.get("objective", ""),
            score_of(tags),
            tags.get(SEARCH_ID, ""),
            time.strftime("%Y-%m-%d", time.localtime(seconds)) if seconds else "",
        )

    def __str__(self) -> str:
        on = "generated phantoms" if self.is_generated else self.dataset
        parts = (
            f"trained on {on}" if on else "not known what it was trained on",
            "" if self.score is None else f"{self.objective or 'score'} {self.score:.4f}",
            f"search {self.search}" if self.search else "",
            self.date,
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A classifier's file and what the store says about it.

    Args:
        uri: One that always leads to this very model, or the path of its file.
        file: The `.keras` file.
        class_names: Negative, positive.
        threshold: Strictly above it, an image is positive.
        origin: How it came about.
    """

    uri: str
    file: Path
    class_names: tuple[str, str] = ("negative", "positive")
    threshold: float = 0.5
    origin: Lineage = Lineage()


def find_model(model: str | None, settings: TrackingSettings) -> FoundModel:
    """Find a classifier.

    The class names (a JSON list) and the threshold are the tags `class_names` and `threshold` of
    the model version, the logged model, its run or that run's parent, whichever has them first;
    otherwise those in the classifier's file.

    Args:
        model: A model's URI in MLflow, the id of a search, of its run or a trial's, a `.keras`
            file, or `last`, of the search whose classifier was registered last. None: the only
            champion that was not trained on phantoms.
        settings: Where the store is.

    Raises:
        ConfigError: There is no such model, or no store.
        UserError: The tags are not what they should be.
    """
    if model is not None and model.endswith(".keras") and ":/" not in model:
        file = as_path(model)
        if not file.is_file():
            raise ConfigError("model", _EXPECTED, model, f"There is no file {file}")
        origin = Lineage.of(_tags_beside(file))
        return FoundModel(model, file, *_facts(model, _stated(file)), origin=origin)
    client = open_store(settings)
    from mlflow.exceptions import MlflowException

    try:
        if model is None:
            found, tags = _of_version(client, _champion(client))
        else:
            found, tags = _resolve(client, model)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise unreachable(settings.store_uri, error) from error
        raise ConfigError("model", _EXPECTED, model, _advice(client, str(model))) from error
    file = fetch_classifier(found, settings)
    if not file.is_file():
        raise ConfigError("model", _EXPECTED, model, "That is no classifier of this program")
    return FoundModel(found, file, *_facts(found, _stated(file) | tags), origin=Lineage.of(tags))


def _champion(client: MlflowClient) -> ModelVersion:
    """Return the champion to take where none is named.

    Raises:
        ConfigError: There is none but of phantoms, or more than one.
    """
    found = champions(client)
    real = [one for one in found if not is_generated(one.tags)]
    if len(real) == 1:
        return real[0]
    named = [f"model=models:/{one.name}@{CHAMPION}" for one in found]
    if not found:
        raise ConfigError("model", _EXPECTED, None, _advice(client, CHAMPION))
    if real:
        listed = "; ".join(
            f"`{name}`, {Lineage.of(one.tags)}" for name, one in zip(named, found, strict=True)
        )
        raise ConfigError("model", "one of several champions", None, f"There is {listed}")
    what = "The only champion was" if len(found) == 1 else "All champions were"
    hint = f"{what} trained on generated phantoms. To take it all the same: `{named[0]}`"
    raise ConfigError("model", "a champion of real images, or one that is named", None, hint)


def _resolve(client: MlflowClient, model: str) -> tuple[str, dict[str, str]]:
    """Return a URI that cannot change its meaning, and the tags of all it belongs to."""
    if version := find_version(client, model):
        return _of_version(client, version)
    if match := _LOGGED.fullmatch(model):
        logged = client.get_logged_model(match["id"])
        return model, _run_tags(client, logged.source_run_id) | dict(logged.tags)
    if match := _RUN.fullmatch(model):
        return _model_of_run(client, match["id"], model)
    if registered := versions_of(client, model):
        return _of_version(client, registered[0])
    if "/" not in model and not as_path(model).exists():
        raise ConfigError("model", _EXPECTED, model, _advice(client, f"models:/{model}"))
    return model, {}


def _of_version(client: MlflowClient, version: ModelVersion) -> tuple[str, dict[str, str]]:
    tags = _run_tags(client, version.run_id) | {"time": str(version.creation_timestamp)}
    return uri(version), tags | dict(version.tags)


def _model_of_run(client: MlflowClient, run_id: str, model: str) -> tuple[str, dict[str, str]]:
    outputs = client.get_run(run_id).outputs
    models = []
    for row in outputs.model_outputs if outputs else []:
        with MayBeMissing():  # a later one has taken its place
            models.append(client.get_logged_model(row.model_id))
    if not models:
        hint = "That run has kept no classifier (`tracking.log_models`, `objective.folds`)"
        raise ConfigError("model", _EXPECTED, model, hint)
    newest = max(models, key=lambda row: int(row.creation_timestamp))
    return f"models:/{newest.model_id}", _run_tags(client, run_id) | dict(newest.tags)


def _run_tags(client: MlflowClient, run_id: str | None) -> dict[str, str]:
    """Return the tags of a run over those of its parent, with its score; none where it is gone."""
    run = None
    with MayBeMissing():
        run = client.get_run(run_id) if run_id else None
    if run is None:
        return {}
    tags = _run_tags(client, run.data.tags.get("mlflow.parentRunId")) | dict(run.data.tags)
    objective = run.data.params.get("objective.name", "")  # a search has it, a trial a score
    score = run.data.metrics.get("score", run.data.metrics.get(objective))
    named = {"objective": objective} if objective else {}
    return {**tags, **named, "time": str(run.info.start_time), "score": json.dumps(score)}


def _tags_beside(file: Path) -> dict[str, str]:
    """Return what the journal of a classifier's search, if it lies there, tells, as tags would."""
    file = file.resolve()
    tags: dict[str, str] = {}
    folder = next((one for one in file.parents[:2] if (one / journal.NAME).exists()), None)
    with suppress(UserError):  # a journal that is damaged
        for event in journal.read(folder) if folder else ():
            if event["kind"] == "search_started":
                tags = {**event["tags"], **origin_tags(event), SEARCH_ID: event["search_id"]}
                tags["objective"] = event["params"].get("objective.name", "")
                tags["time"] = str(event["time"])
            elif event.get("classifier") == file.relative_to(folder or "/").as_posix():
                score = event.get("score", event["metrics"].get(tags.get("objective")))
                tags["score"] = json.dumps(score)
    return tags


def _advice(client: MlflowClient, model: str) -> str:
    """Return what to do about a model that is not there."""
    known = []
    for registered in every(client.search_registered_models):
        known += [f"models:/{registered.name}@{alias}" for alias in registered.aliases]
        versions = every(client.search_model_versions, filter_string=f"name = '{registered.name}'")
        known += [f"models:/{registered.name}/{row.version}" for row in versions]
    store = redact(client.tracking_uri)
    if not known:
        return (
            f"There is no champion yet in {store}: a search that completes makes one, such as "
            f"`{first_search()}`"
        )
    near = ", ".join(close(model, known, most=3) or known[:3])
    if model == CHAMPION:
        how = command("pneumonia", "promote", "last")
        return f"No model in {store} is the champion. `{how}` makes one; or name one: {near}"
    return f"It is not in {store}. There is {near}"


def _stated(file: Path) -> dict[str, str]:
    """Return what a classifier's file says of itself, as tags would."""
    return {name: json.dumps(value) for name, value in classifier_file.read_facts(file).items()}


def _facts(uri: str, tags: Mapping[str, str]) -> tuple[tuple[str, str], float]:
    """Return the class names and the threshold that the tags give, or the usual ones."""
    names = _parse(tags.get(CLASS_NAMES, '["negative", "positive"]'))
    if not isinstance(names, list) or len(names) != 2 or not all(isinstance(n, str) for n in names):
        raise UserError(
            f"{uri}: the tag `{CLASS_NAMES}` should be a JSON list of two names. "
            f"Received: {tags[CLASS_NAMES]!r}."
        )
    threshold = _parse(tags.get(THRESHOLD, "0.5"))
    is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:
        raise UserError(
            f"{uri}: the tag `{THRESHOLD}` should be a number from 0 to 1. "
            f"Received: {tags[THRESHOLD]!r}."
        )
    return (names[0], names[1]), float(threshold)


def _parse(text: str) -> Any:
    with suppress(json.JSONDecodeError):
        return json.loads(text)
    return None
