"""Registered classifiers: one name for each dataset, and which version of it is the champion.

A search decides once for each time that it completes; what it decided is a tag of its version. So
a search that is sent again takes no alias from a later champion, or from one that a user chose.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from pneumonia.errors import ConfigError
from pneumonia.evaluation.objective import Objective
from pneumonia.tracking.faults import MayBeMissing
from pneumonia.tracking.settings import CHAMPION, TrackingSettings, open_store, unreachable
from pneumonia.tracking.sqlite_store import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SEARCH_ID, GENERATED, DECISION = "pneumonia.search_id", "pneumonia.generated", "pneumonia.decision"
REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+|latest))")
PAGE = 1000  # the most that a store answers with at once
_NAME, _NAME_LENGTH = "pneumonia", 256
_GENERATED = "generated chest phantoms"  # so begins the source of such images


class Promotion(NamedTuple):
    """Whether a version took the alias, and a sentence that says why."""

    takes: bool
    text: str


def model_name(dataset: str) -> str:
    """Return the name for classifiers of a dataset, an option of that config group."""
    words = re.sub(r"[^\w.-]+", "-", dataset).strip("-")
    return f"{_NAME}-{words}"[:_NAME_LENGTH] if words else _NAME


def is_generated(facts: Mapping[str, Any]) -> bool:
    """Tell from the tags of a run or a version whether it was trained on generated phantoms."""
    known = facts.get(GENERATED)
    return facts.get("dataset") == "phantom" if known is None else known == "true"


def origin_tags(started: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that tell a run or a version of phantoms, from `search_started`."""
    sources = [str(row.get("source", "")) for row in started.get("datasets", [])]
    return {GENERATED: "true"} if any(one.startswith(_GENERATED) for one in sources) else {}


def comparison_tags(started: Mapping[str, Any], ended: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tags of a version by which champions are compared, from a search's events."""
    params = started.get("params", {})
    objective = params.get("objective.name")
    digests = {row.get("split"): row.get("digest") for row in started.get("datasets", [])}
    count, seed = params.get("objective.folds"), params.get("seed")
    folds = f"{count} by seed {seed} with train {digests.get('train')}" if count else None
    return {
        "objective": objective,
        "direction": started.get("direction"),
        "score": ended.get("metrics", {}).get(objective),
        "val_digest": digests.get("val"),
        "folds": folds,
        **origin_tags(started),
    }


def uri(version: ModelVersion) -> str:
    """Return the URI that always leads to a version."""
    return f"models:/{version.name}/{version.version}"


def find_version(client: MlflowClient, model: str) -> ModelVersion | None:
    """Return the version that a URI names, None where it is no URI of a registered model.

    Raises:
        mlflow.exceptions.MlflowException: There is no such version.
    """
    match = REGISTERED.fullmatch(model)
    if match is None:
        return None
    name, number = match["name"], match["version"]
    if number is None:
        return client.get_model_version_by_alias(name, match["alias"])
    if number == "latest":
        found = every(client.search_model_versions, filter_string=f"name = '{name}'")
        number = str(max((int(row.version) for row in found), default=1))
    return client.get_model_version(name, number)


def every(search: Callable[..., Any], **given: Any) -> Iterator[Any]:
    """Yield all that a search of a store finds, in however many answers."""
    token: str | None = None
    while token != "":
        page = search(max_results=PAGE, page_token=token, **given)
        yield from page
        token = page.token or ""


def champions(client: MlflowClient) -> list[ModelVersion]:
    """Return the champions of all registered models that are of this program."""
    models = every(client.search_registered_models)
    names = [one.name for one in models if CHAMPION in one.aliases]
    found = [client.get_model_version_by_alias(name, CHAMPION) for name in names]
    return [version for version in found if SEARCH_ID in version.tags]


def versions_of(client: MlflowClient, search: str) -> list[ModelVersion]:
    """Return the versions of a search, by its id or its run's, or `last`; the newest first."""
    if search == "last":
        newest = every(client.search_model_versions, order_by=["creation_timestamp DESC"])
        return list(islice((one for one in newest if SEARCH_ID in one.tags), 1))
    if not re.fullmatch(r"[\w.-]+", search):
        return []
    found = client.search_model_versions(f"tags.`{SEARCH_ID}` = '{search}'")
    found = list(found) or list(client.search_model_versions(f"run_id = '{search}'"))
    return sorted(found, key=lambda one: (-one.creation_timestamp, -int(one.version)))


def promote(search: str, settings: TrackingSettings) -> tuple[ModelVersion, ModelVersion | None]:
    """Give the alias to the newest version of a search.

    Args:
        search: The id of the search or of its run, or `last`.
        settings: Where the store is, and the alias.

    Returns:
        That version, and the one that had the alias before, if any.

    Raises:
        ConfigError: No classifier of it is registered, or there is no store.
    """
    client = open_store(settings)
    from mlflow.exceptions import MlflowException

    try:
        with locked(settings.store_uri):
            found = versions_of(client, search)
            if not found:
                last = [str(one.tags[SEARCH_ID]) for one in versions_of(client, "last")]
                hint = f"The last one is {last[0]}" if last else "There is none yet"
                expected = "a search whose classifier is registered: one that has completed"
                raise ConfigError("search", expected, search, hint)
            version, alias = found[0], settings.alias
            before = holder(client, version.name, alias)
            client.set_registered_model_alias(version.name, alias, str(version.version))
            return version, before
    except MlflowException as error:
        raise unreachable(settings.store_uri, error) from error


def holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version of a registered model that has an alias."""
    with MayBeMissing():
        return client.get_model_version_by_alias(name, alias)
    return None


def decide(
    client: MlflowClient, version: ModelVersion, *, alias: str, promote: str, completion: int
) -> Promotion:
    """Let what a search ended with take the alias if it should, or return what was decided of it.

    No other process may decide meanwhile. `completion` says how often the search had been completed
    before; the rest is as in `TrackingSettings`.
    """
    name, number = str(version.name), str(version.version)
    version = client.get_model_version(name, number)
    if before := _decided(version, completion):
        return before
    decision = _judge(version, holder(client, name, alias), promote)
    word = "takes" if decision.takes else "does not take"
    decision = decision._replace(text=f"{uri(version)} {word} the alias {alias}: {decision.text}.")
    if decision.takes:
        client.set_registered_model_alias(name, alias, number)
    saved = {"completion": completion, **decision._asdict()}
    client.set_model_version_tag(name, number, DECISION, json.dumps(saved))
    return decision


def _decided(version: ModelVersion, completion: int) -> Promotion | None:
    """Return what was decided of a version for this completion of its search, or a later one."""
    try:
        saved = json.loads(version.tags.get(DECISION, "{}"))
        if saved.get("completion", -1) >= completion:
            return Promotion(bool(saved["takes"]), str(saved["text"]))
    except (ValueError, LookupError, TypeError, AttributeError):  # a user has edited it
        pass
    return None


def _judge(own: ModelVersion, other: ModelVersion | None, promote: str) -> Promotion:
    """Return whether a version takes the alias from another, and why."""
    if other is not None and other.tags.get(SEARCH_ID) == own.tags.get(SEARCH_ID):
        # The file of its search's earlier version may be gone.
        return Promotion(True, "its search has it already")
    if promote != "better":
        return Promotion(promote == "always", f"tracking.promote={promote}")
    if other is None:
        return Promotion(True, "no version had it")
    champion, mine, theirs = uri(other), _facts(own), _facts(other)
    if None in mine.values() or None in theirs.values():
        return Promotion(False, f"what {champion} was scored on cannot be compared")
    if mine["val_digest"] != theirs["val_digest"]:
        return Promotion(False, f"{champion} was scored on another val split")
    if own.tags.get("folds") != other.tags.get("folds"):
        what = "other folds" if "folds" in own.tags else "folds"
        what = what if "folds" in other.tags else "val alone"
        return Promotion(False, f"{champion} was scored on {what}")
    if any(mine[key] != theirs[key] for key in ("objective", "direction")):
        return Promotion(
            False, f"{champion} was chosen by another objective, {theirs['objective']}"
        )
    objective = Objective(mine["objective"], mine["direction"])
    is_better = objective.better(mine["score"], theirs["score"])
    scores = f"{objective.name} {mine['score']:.6g}, {theirs['score']:.6g} of {champion}"
    where = "folds" if "folds" in own.tags else "val split"
    return Promotion(is_better, f"{scores}, on the same {where}")


def _facts(version: ModelVersion) -> dict[str, Any]:
    """Return what versions are compared by; None where it is not known."""
    keys = ("objective", "direction", "val_digest")
    return {**{key: version.tags.get(key) for key in keys}, "score": score_of(version.tags)}


def score_of(tags: Mapping[str, str]) -> float | None:
    """Return the score that tags tell, None where it is none or no number."""
    try:
        value = float(tags.get("score", "nan"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
