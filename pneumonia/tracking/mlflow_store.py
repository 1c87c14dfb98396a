"""What a search needs of an MLflow store, each operation safe to repeat."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.tracking.experiment import ensure_experiment
from pneumonia.tracking.faults import MayBeMissing
from pneumonia.tracking.mlflow_dataset import dataset_input
from pneumonia.tracking.mlflow_model import write_model
from pneumonia.tracking.ownership import OF_THIS_HOST, is_alive, last_time, owner_tags, source_tags
from pneumonia.tracking.registry import Promotion, decide, every
from pneumonia.tracking.settings import (
    CONTACT_SECONDS,
    TrackingSettings,
    prepare_environment,
    unreachable,
    within,
)
from pneumonia.tracking.sqlite_store import (
    ensure_sqlite,
    local_path,
    locked,
    sqlite_path,
)
from pneumonia.tracking.texts import TAG_LENGTH, as_key, as_texts, storable
from pneumonia.tracking.ui_view import MODEL_NOTE, arrange

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

MODEL_NAME = "classifier"


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric: its name, value, time (ms since 1970), step and logged model."""

    name: str
    value: float
    time: int
    step: int = 0
    model_id: str | None = None


class Store:
    """Owns the connection to one MLflow store and one experiment in it.

    It knows runs, models and versions, not what a search or a journal is.

    Raises:
        ConfigError: The experiment was deleted.
        mlflow.exceptions.MlflowException: The store cannot be reached.
    """

    def __init__(self, settings: TrackingSettings) -> None:
        prepare_environment()
        from mlflow import MlflowClient

        self._settings = settings
        self._uri = settings.store_uri
        ensure_sqlite(self._uri)
        self._client: MlflowClient = MlflowClient(self._uri, registry_uri=self._uri)
        self.experiment_id = ensure_experiment(self._client, settings)

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        """Return the id of the newest run with these tags, restored if it was deleted, or None."""
        from mlflow.entities import ViewType

        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            found = self._client.search_runs(
                [self.experiment_id], _tag_words(tags), view, max_results=1
            )
            if found:
                run_id = str(found[0].info.run_id)
                if view == ViewType.DELETED_ONLY:
                    self._client.restore_run(run_id)
                return run_id
        return None

    def restore_runs(self, tags: Mapping[str, str]) -> tuple[set[str], int]:
        """Restore deleted runs; return the ids of all that have these tags, and how many were."""
        from mlflow.entities import ViewType

        known, restored = set(), 0
        found = every(
            self._client.search_runs,
            experiment_ids=[self.experiment_id],
            filter_string=_tag_words(tags),
            run_view_type=ViewType.ALL,
        )
        for run in found:
            known.add(str(run.info.run_id))
            if run.info.lifecycle_stage == "deleted":
                self._client.restore_run(run.info.run_id)
                restored += 1
        return known, restored

    def has_model(self, model_id: str) -> bool:
        """Tell whether the store still has a logged model."""
        with MayBeMissing():
            self._client.get_logged_model(model_id)
            return True
        return False

    def create_run(self, name: str, tags: Mapping[str, Any], *, time: int) -> str:
        """Start a run that belongs to this process; return its id."""
        texts = as_texts({**source_tags(), **owner_tags(), **tags}, TAG_LENGTH)
        run = self._client.create_run(self.experiment_id, time, texts, storable(name))
        return str(run.info.run_id)

    def reopen_run(self, run_id: str) -> None:
        """Mark a run as running in this process."""
        self._client.update_run(run_id, "RUNNING")
        self.log(run_id, tags=owner_tags())

    def end_run(self, run_id: str, status: str, *, time: int) -> None:
        """Mark a run as `FINISHED`, `FAILED` or `KILLED` at a time."""
        self._client.set_terminated(run_id, status, time)

    def log(
        self,
        run_id: str,
        *,
        points: Iterable[Point] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Log metrics, params and tags in one request.

        A point that is logged again writes nothing; a param that has another value raises.
        """
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(as_key(p.name), p.value, p.time, p.step, model_id=p.model_id) for p in points
        ]
        pairs = [Param(*pair) for pair in as_texts(params or {}).items()]
        labels = [RunTag(*pair) for pair in as_texts(tags or {}, TAG_LENGTH).items()]
        self._client.log_batch(run_id, metrics, pairs, labels)

    def known_params(self, run_id: str) -> set[str]:
        """Return the names of the params a run has."""
        return set(self._client.get_run(run_id).data.params)

    def log_files(self, run_id: str, folder: Path, names: Iterable[str]) -> None:
        """Log files of a folder under their names; those that are missing are left out."""
        for name in names:
            path = folder / name
            if path.exists():
                inside = Path(name).parent.as_posix()
                self._client.log_artifact(run_id, str(path), None if inside == "." else inside)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Log a text as a file."""
        self._client.log_text(run_id, storable(text), name)

    def log_datasets(self, run_id: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Log the splits of a dataset as the inputs of a run."""
        self._client.log_inputs(run_id, [dataset_input(row) for row in datasets])

    def log_model(
        self,
        run_id: str,
        classifier: Path,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
        look_up: bool,
    ) -> str | None:
        """Log a `.keras` file as a model of a run.

        The file stays where it is, and shares its disk blocks with a local artifact store.

        Args:
            run_id: The run that trained it.
            classifier: The file.
            tags: Tell this model from others, whichever run it was first logged by.
            params: What the model shows; the run's own where they are not given.
            look_up: Whether an earlier attempt may have left it, to be completed.

        Returns:
            The model's id, or None if the file is gone and no earlier attempt sent it.
        """
        model = None
        if look_up:
            found = self._client.search_logged_models([self.experiment_id], _tag_words(tags))
            model = found[0] if found else None
        ready = model is not None and str(model.status) == "READY"
        if not ready and not classifier.exists():
            return None
        if model is None:
            shown = self._client.get_run(run_id).data.params if params is None else as_texts(params)
            model = self._client.create_logged_model(
                self.experiment_id, MODEL_NAME, run_id, dict(tags), shown
            )
        model_id = str(model.model_id)
        self.link_model(run_id, model_id, look_up=look_up)
        if not ready:
            self._put_model(model, classifier, run_id)
            self._client.finalize_logged_model(model_id, "READY")
        return model_id

    def link_model(self, run_id: str, model_id: str, *, look_up: bool) -> None:
        """Show a model as an output of a run."""
        from mlflow.entities import LoggedModelOutput

        if look_up:
            outputs = self._client.get_run(run_id).outputs
            if outputs and any(row.model_id == model_id for row in outputs.model_outputs):
                return
        self._client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])

    def delete_model(self, model_id: str) -> None:
        """Delete a model and its files: MLflow itself leaves them on the disk."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        location = ""
        with MayBeMissing():
            location = str(self._client.get_logged_model(model_id).artifact_location)
        if not location:
            return
        get_artifact_repository(location, tracking_uri=self._uri).delete_artifacts()
        local = local_path(location)
        if local is not None and local.parent.name == model_id:
            shutil.rmtree(local.parent, ignore_errors=True)
        self._client.delete_logged_model(model_id)

    def register(
        self,
        name: str,
        model_id: str,
        run_id: str,
        *,
        description: str,
        tags: Mapping[str, Any],
        completion: int,
    ) -> Promotion:
        """Register a model as a version, once for its search's run; decide on the champion.

        Description and tags are the version's; `completion` says how often the search had been
        completed before.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, description=MODEL_NOTE)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = self._client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        # Not `models:/<id>`: MLflow would look that up in the global tracking URI.
        source = self._client.get_logged_model(model_id).artifact_location
        version = next((one for one in found if one.source == source), None)
        if version is None:
            texts = as_texts(tags, TAG_LENGTH)
            version = self._client.create_model_version(
                name, source, run_id, texts, None, storable(description), 0, model_id
            )
        alias, promote = self._settings.alias, self._settings.promote
        with locked(self._uri):
            return decide(
                self._client, version, alias=alias, promote=promote, completion=completion
            )

    def arrange_view(self) -> str:
        """Prepare the runs table of MLflow's UI; return its place there."""
        return arrange(self._client, self.experiment_id)

    def end_orphans(self) -> int:
        """Mark as killed the running runs of this host whose process is gone; return how many."""
        words = f"attributes.status = 'RUNNING' and {OF_THIS_HOST}"
        runs = self._client.search_runs([self.experiment_id], words, max_results=1000)
        gone = [run for run in runs if not is_alive(run.data.tags)]
        for run in gone:
            if run.data.tags.get("kind") == "search":
                self.log(run.info.run_id, tags={"status": "interrupted"})
            self.end_run(run.info.run_id, "KILLED", time=last_time(run))
        return len(gone)

    def _put_model(self, model: LoggedModel, classifier: Path, run_id: str) -> None:
        model_id = str(model.model_id)
        local = local_path(str(model.artifact_location))
        if local is not None:
            write_model(local, classifier, model_id=model_id, run_id=run_id)
            return
        # Staged beside the file, where it can be hard-linked rather than copied.
        with tempfile.TemporaryDirectory(dir=classifier.parent, prefix=".model-") as staged:
            write_model(Path(staged), classifier, model_id=model_id, run_id=run_id)
            self._client.log_model_artifacts(model_id, staged)


def make_ready(settings: TrackingSettings) -> None:
    """Build a store and its experiment where they are missing, and end what dead processes left.

    Raises:
        ConfigError: The store cannot be used.
    """
    prepare_environment()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if sqlite_path(settings.store_uri) is None:
            within(CONTACT_SECONDS, lambda: Store(settings).end_orphans())
        else:
            Store(settings).end_orphans()  # the tables may take longer
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise unreachable(settings.store_uri, error) from error


def _tag_words(tags: Mapping[str, str]) -> str:
    """Return the condition, in MLflow's search syntax, that all tags have these values."""
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
