"""The runs of an experiment, read from an MLflow store: searches, their trials, their files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.errors import ConfigError, UserError
from pneumonia.shell import first_search
from pneumonia.tracking.experiment import find_experiment
from pneumonia.tracking.mlflow_dataset import CONTEXTS
from pneumonia.tracking.registry import REGISTERED, SEARCH_ID, every, find_version
from pneumonia.tracking.settings import TrackingSettings, open_store, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

_SHORTEST = 4  # of the beginning of an id
_HEX = re.compile(r"[0-9a-f]+")
_EXPECTED = (
    "`last`, the id of a search's run or its beginning, a name that one search has, or a "
    "registered model such as models:/NAME@champion"
)


@dataclass(frozen=True, slots=True)
class Run:
    """A search or a trial, as the store has it.

    Attributes:
        status: MLflow's: `FINISHED`, `FAILED`, `KILLED` or `RUNNING`.
        started: When, in milliseconds since 1970.
        seconds: How long it ran; None while it runs.
        params: Texts by dotted name.
        metrics: The latest value of each.
        digests: The digest of each split that it read, by split.
    """

    run_id: str
    name: str
    status: str
    started: int
    seconds: float | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    digests: Mapping[str, str]

    @property
    def parent(self) -> str:
        """The run of its search; its own where it is one."""
        return self.tags.get("mlflow.parentRunId", self.run_id)

    @property
    def number(self) -> int:
        """A trial's number within its search, from 1; 0 of a search."""
        found = re.fullmatch(r"trial (\d+)", self.name)
        return int(found[1]) if found else 0


class Runs:
    """Owns the connection to one experiment of an MLflow store; it only reads.

    Raises:
        ConfigError: There is no such store or experiment.
    """

    def __init__(self, settings: TrackingSettings) -> None:
        self._client: MlflowClient = open_store(settings)
        from mlflow.exceptions import MlflowException

        try:
            self._experiment = find_experiment(self._client, settings)
        except MlflowException as error:
            raise unreachable(settings.store_uri, error) from error

    def searches(self) -> list[Run]:
        """Return all searches, the latest first."""
        return self._search("tags.kind = 'search'")

    def trials(self, searches: Sequence[Run]) -> list[Run]:
        """Return the trials of some searches, the earliest first."""
        found = []
        for search in searches:
            found += self._search(f"tags.`mlflow.parentRunId` = '{search.run_id}'")[::-1]
        return found

    def search(self, name: str, *, key: str) -> Run:
        """Return a search by what a user calls it for a key: `_EXPECTED` says what there is.

        Raises:
            ConfigError: There is none, or more than one.
        """
        searches = self.searches()
        if REGISTERED.fullmatch(name):
            run_id = self._run_of(key, name)
            found = [run for run in searches if run.run_id == run_id]
        elif name == "last":
            found = searches[:1]
        else:
            found = [run for run in searches if name in (run.run_id, run.tags.get(SEARCH_ID))]
            found = found or [run for run in searches if _begins(run, name) or run.name == name]
        if len(found) == 1:
            return found[0]
        hint = _advice(found or searches, is_many=bool(found))
        raise ConfigError(key, _EXPECTED, name, hint)

    def trial(self, name: str, *, key: str) -> Run:
        """Return a trial by its run's id or its beginning, or as `SEARCH/NUMBER`.

        A search's name alone means its winner.

        Raises:
            ConfigError: There is none, or more than one.
        """
        prefix, slash, number = name.rpartition("/")
        is_model = name.startswith("models:/") and not number.isdigit()
        if slash and not is_model and not REGISTERED.fullmatch(name):
            search = self.search(prefix, key=key)
            found = [run for run in self.trials([search]) if str(run.number) == number]
            expected = f"the number of a trial of {search.name}"
        elif len(name) >= _SHORTEST and _HEX.fullmatch(name) and (found := self._by_id(name)):
            expected = "the beginning of one trial's run"
        else:
            search = self.search(name, key=key)
            winner = search.tags.get("winner")
            trials = self.trials([search]) if winner else []
            found = [run for run in trials if run.tags.get("trial_id") == winner]
            expected = "a search that has a winner, or SEARCH/NUMBER for another of its trials"
        if len(found) != 1:
            raise ConfigError(key, expected, name)
        return found[0]

    def of_trial(self, trial: Run) -> Run:
        """Return the search that a trial belongs to.

        Raises:
            UserError: It was deleted in MLflow for good.
        """
        from mlflow.exceptions import MlflowException

        try:
            return _run(self._client.get_run(trial.parent))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise unreachable(self._client.tracking_uri, error) from error
            text = f"The search of {trial.name}, run {trial.run_id[:8]}, is gone from MLflow."
            raise UserError(text) from error

    def text(self, run: Run, name: str) -> str | None:
        """Return the text of a file that a run has logged, or None where it has not."""
        from mlflow.exceptions import MlflowException

        try:
            if all(item.path != name for item in self._client.list_artifacts(run.run_id)):
                return None
            with tempfile.TemporaryDirectory() as folder:
                path = Path(self._client.download_artifacts(run.run_id, name, folder))
                # As it is: a line may end within a quoted name of CSV.
                return path.read_bytes().decode("utf-8", "surrogateescape")
        except (MlflowException, OSError) as error:
            raise unreachable(self._client.tracking_uri, error) from error

    def _search(self, words: str) -> list[Run]:
        from mlflow.exceptions import MlflowException

        given = {"experiment_ids": [self._experiment], "filter_string": words}
        try:
            found = [_run(run) for run in every(self._client.search_runs, **given)]
            return sorted(found, key=lambda run: (-run.started, -run.number))
        except MlflowException as error:
            raise unreachable(self._client.tracking_uri, error) from error

    def _by_id(self, beginning: str) -> list[Run]:
        """Return the trials whose run's id begins so."""
        return [run for run in self._search("tags.kind = 'trial'") if _begins(run, beginning)]

    def _run_of(self, key: str, name: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            version = find_version(self._client, name)
        except MlflowException as error:
            raise ConfigError(key, _EXPECTED, name, "There is no such model") from error
        return version.run_id if version else None


def _run(run: MlflowRun) -> Run:
    info: Any = run.info
    inputs = run.inputs.dataset_inputs if run.inputs else []
    names = {context: split for split, context in CONTEXTS.items()}
    digests = {}
    for item in inputs:
        context = next((tag.value for tag in item.tags if tag.key == "mlflow.data.context"), "")
        digests[names.get(context, context)] = str(item.dataset.digest)
    return Run(
        run_id=str(info.run_id),
        name=str(info.run_name or ""),
        status=str(info.status),
        started=int(info.start_time or 0),
        seconds=(info.end_time - info.start_time) / 1000 if info.end_time else None,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
        digests=digests,
    )


def _begins(run: Run, beginning: str) -> bool:
    ids = (run.run_id, run.tags.get(SEARCH_ID, "") if run.tags.get("kind") == "search" else "")
    return len(beginning) >= _SHORTEST and any(one.startswith(beginning) for one in ids)


def _advice(runs: Sequence[Run], *, is_many: bool) -> str:
    if not runs:
        return f"There is no search yet: `{first_search()}` makes one"
    named = ", ".join(f"{run.run_id[:8]} ({run.name})" for run in runs[:3])
    return f"{'It may be one of' if is_many else 'The latest are'} {named}"
