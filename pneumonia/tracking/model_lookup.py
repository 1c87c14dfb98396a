"""Which model a user means: found in MLflow or on the disk, with what is known about it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.config.suggestions import close
from pneumonia.errors import ConfigError, UserError
from pneumonia.models import classifier_file
from pneumonia.shell import first_search
from pneumonia.tracking.mlflow_store import MODEL_NAME, SEARCH_ID
from pneumonia.tracking.settings import Settings, open_store, redact, unreachable
from pneumonia.tracking.tracker import fetch_classifier

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLASS_NAMES, THRESHOLD = "class_names", "threshold"

_EXPECTED = "a model: an MLflow URI, the id of a run, or a .keras file"
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+|latest)")
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]+)")
_RUN = re.compile(rf"(runs:/)?(?P<id>[0-9a-f]{{32}})(/({MODEL_NAME})?)?")
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"})


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A classifier's file and what the store says about it.

    Args:
        uri: One that always leads to this very model, or the path of its file.
        file: The `.keras` file.
        class_names: Negative, positive.
        threshold: Strictly above it, an image is positive.
        search_id: The search that made it, where the store tells.
    """

    uri: str
    file: Path
    class_names: tuple[str, str] = ("negative", "positive")
    threshold: float = 0.5
    search_id: str = ""


def find_model(model: str, settings: Settings) -> FoundModel:
    """Find a classifier.

    The class names (a JSON list) and the threshold are the tags `class_names` and `threshold` of
    the model version, the logged model, its run or that run's parent, whichever has them first;
    otherwise those in the classifier's file.

    Args:
        model: A model's URI in MLflow, the id of a search's or a trial's run, or a `.keras` file.
        settings: Where the store is.

    Raises:
        ConfigError: There is no such model, or no store.
        UserError: The tags are not what they should be.
    """
    if model.endswith(".keras") and ":/" not in model:
        file = Path(model).expanduser()
        if not file.is_file():
            raise ConfigError("model", _EXPECTED, model, f"There is no file {file}")
        return FoundModel(model, file, *_facts(model, _stated(file)))
    client = open_store(settings)
    from mlflow.exceptions import MlflowException

    uri = settings.store_uri
    try:
        found, tags = _resolve(client, model)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise unreachable(uri, error) from error
        raise ConfigError("model", _EXPECTED, model, _advice(client, model)) from error
    file = fetch_classifier(found, settings)
    if not file.is_file():
        raise ConfigError("model", _EXPECTED, model, "That is no classifier of this program")
    facts = _facts(found, _stated(file) | tags)
    return FoundModel(found, file, *facts, search_id=tags.get(SEARCH_ID, ""))


def _resolve(client: MlflowClient, model: str) -> tuple[str, dict[str, str]]:
    """Return a URI that cannot change its meaning, and the tags of all it belongs to."""
    if match := _ALIAS.fullmatch(model):
        version = client.get_model_version_by_alias(match["name"], match["alias"])
    elif match := _VERSION.fullmatch(model):
        number = match["version"]
        if number == "latest":
            number = _latest(client, match["name"])
        version = client.get_model_version(match["name"], number)
    elif match := _LOGGED.fullmatch(model):
        logged = client.get_logged_model(match["id"])
        return model, _run_tags(client, logged.source_run_id) | dict(logged.tags)
    elif match := _RUN.fullmatch(model):
        return _model_of_run(client, match["id"], model)
    else:
        return model, {}
    tags = _run_tags(client, version.run_id) | dict(version.tags)
    return f"models:/{version.name}/{version.version}", tags


def _model_of_run(client: MlflowClient, run_id: str, model: str) -> tuple[str, dict[str, str]]:
    from mlflow.exceptions import MlflowException

    outputs = client.get_run(run_id).outputs
    models = []
    for row in outputs.model_outputs if outputs else []:
        try:
            models.append(client.get_logged_model(row.model_id))
        except MlflowException as error:
            if error.error_code not in _MISSING:  # missing: a later one has taken its place
                raise
    if not models:
        hint = "That run has kept no classifier (`tracking.log_models`)"
        raise ConfigError("model", _EXPECTED, model, hint)
    newest = max(models, key=lambda row: int(row.creation_timestamp))
    return f"models:/{newest.model_id}", _run_tags(client, run_id) | dict(newest.tags)


def _run_tags(client: MlflowClient, run_id: str | None) -> dict[str, str]:
    """Return the tags of a run over those of its parent; none where the run is gone."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return {}
    try:
        tags = dict(client.get_run(run_id).data.tags)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return {}
    return _run_tags(client, tags.get("mlflow.parentRunId")) | tags


def _latest(client: MlflowClient, name: str) -> str:
    numbers = [int(row.version) for row in client.search_model_versions(f"name = '{name}'")]
    return str(max(numbers, default=1))


def _advice(client: MlflowClient, model: str) -> str:
    """Return what to do about a model that is not there."""
    known = []
    for registered in client.search_registered_models():
        known += [f"models:/{registered.name}@{alias}" for alias in registered.aliases]
        versions = client.search_model_versions(f"name = '{registered.name}'")
        known += [f"models:/{registered.name}/{row.version}" for row in versions]
    store = redact(client.tracking_uri)
    if not known:
        return (
            f"There is no champion yet in {store}: a search that completes makes one, such as "
            f"`{first_search()}`"
        )
    near = close(model, known, most=3) or known[:3]
    return f"It is not in {store}. There is {', '.join(near)}"


def _stated(file: Path) -> dict[str, str]:
    """Return what a classifier's file says of itself, as tags would."""
    return {name: json.dumps(value) for name, value in classifier_file.read_facts(file).items()}


def _facts(uri: str, tags: Mapping[str, str]) -> tuple[tuple[str, str], float]:
    """Return the class names and the threshold that the tags give, or the usual ones."""
    names: Any = _parse(tags.get(CLASS_NAMES), ["negative", "positive"])
    if not isinstance(names, list) or len(names) != 2 or not all(isinstance(n, str) for n in names):
        raise UserError(
            f"{uri}: the tag `{CLASS_NAMES}` should be a JSON list of two names. "
            f"Received: {tags[CLASS_NAMES]!r}."
        )
    threshold: Any = _parse(tags.get(THRESHOLD), 0.5)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise UserError(
            f"{uri}: the tag `{THRESHOLD}` should be a number from 0 to 1. "
            f"Received: {tags[THRESHOLD]!r}."
        )
    return (names[0], names[1]), float(threshold)


def _parse(text: str | None, usual: object) -> object:
    if text is None:
        return usual
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
