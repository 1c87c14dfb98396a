"""The program's own callbacks of a search: what `conf/callbacks` names, and the tracking."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia import shell, tables
from pneumonia.config import presets
from pneumonia.console import summary
from pneumonia.console.progress import Form, Progress
from pneumonia.errors import without_passwords
from pneumonia.evaluation import thresholds
from pneumonia.evaluation.objective import Fit, Metrics
from pneumonia.formatting import printable
from pneumonia.search.callbacks import SearchCallback, SearchEnd, SearchInfo
from pneumonia.search.trials import Proposal
from pneumonia.shell import commands, shown
from pneumonia.storage import members
from pneumonia.storage.search_folder import SearchFolder
from pneumonia.tracking.settings import TrackingSettings
from pneumonia.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pneumonia.datasets.base import ImageData
    from pneumonia.search.plan import Plan
    from pneumonia.search.winner import Won
    from pneumonia.tracking.tensorboard import Logs
    from pneumonia.training.trial import Outcome

Config = dict[str, Any]


class Console(SearchCallback):
    """Shows a search in the terminal, and its tables at the end.

    Args:
        form: `live`, `plain`, or false for warnings and failures only; `auto`: live on a terminal.
    """

    def __init__(self, form: Form = "auto") -> None:
        self._form = form
        self._shown: tuple[tables.Table | str, ...] = ()
        self._trials = 0

    def search_opened(self, search: SearchInfo) -> None:
        """Begin to show it."""
        self._search, objective = search, search.objective
        self._progress = Progress(objective.name, objective.direction, form=self._form)

    def search_started(self, data: ImageData, plan: Plan, notes: Sequence[str]) -> None:
        """Tell what is about to happen."""
        self._trials = plan.trials
        text = prospect(data, self._search.choices, plan, folder=self._search.folder)
        for lines in (text, *notes):
            self._progress.message(lines)
        self._progress.start(plan.trials, plan.likely)

    def phase(self, text: str) -> None:
        """Show what goes on."""
        self._progress.phase(text)

    def message(self, text: str) -> None:
        """Show lines that stay."""
        self._progress.message(text)

    def trial_started(self, proposal: Proposal, config: Config) -> None:
        """Show that a trial begins, of as many as are expected."""
        self._progress.trial(
            proposal.number,
            max(self._trials, proposal.number),
            proposal.values,
            epochs=proposal.epochs,
            fits=self._fits(config),
        )

    def _fits(self, config: Config) -> int:
        return len(self._search.objective.fits(config["training"]["executions_per_trial"]))

    def epoch_ended(self, proposal: Proposal, fit: Fit, epoch: int, metrics: Metrics) -> None:
        """Show what was measured."""
        self._progress.epoch(epoch, proposal.epochs, metrics, number=proposal.number)

    def trial_ended(self, proposal: Proposal, outcome: Outcome) -> None:
        """Show what it came to."""
        reason = without_passwords(outcome.reason)
        self._progress.trial_end(
            outcome.score, spread=outcome.spread, number=proposal.number, failure=reason
        )

    def trial_replayed(self, proposal: Proposal, config: Config, outcome: Outcome) -> None:
        """Count a trial that needs no time."""
        name = self._search.objective.name
        self._progress.replayed(
            proposal.number,
            proposal.values,
            outcome.score,
            epochs=proposal.epochs,
            fits=self._fits(config),
            spread=outcome.spread,
            curve=[metrics[name] for metrics in outcome.history],
            seconds=math.nan if outcome.score is None else outcome.seconds,
        )

    def search_ended(self, end: SearchEnd) -> None:
        """Keep what is to be shown last."""
        if (won := end.won) is None:
            return
        search, (prefix, ui), draws = self._search, commands(), won.best.draws
        options, page = presets.options(search.choices), SearchFolder(search.folder).report
        # The file: another classifier may be the champion.
        model = shlex.quote(shown(search.folder / (end.classifier or "")))
        self._shown = (
            summary.best_table(_rows(won), objective=search.objective.name, failed=won.failed),
            *((members.table(draws, objective=search.objective.name),) if draws else ()),
            *_scores(won, search.folder),
            summary.next_commands(
                shown(won.preset), model=model, prefix=prefix, ui=ui, options=options
            ),
            *([f"The report, for a browser: {shown(page)}\n"] if page.exists() else ()),
            *([f"{end.reason}\n"] if end.reason else ()),
        )

    def close(self) -> None:
        """Take the live picture away, and show the tables."""
        self._progress.stop()
        if self._shown:
            tables.show(*self._shown)


class Tracking(SearchCallback):
    """Has another process mirror the journal to MLflow; with a note on the search for it."""

    name = "tracking"

    def __init__(self, settings: TrackingSettings) -> None:
        self._settings = settings
        self._tracker: Tracker | None = None

    def search_opened(self, search: SearchInfo) -> None:
        """Begin to follow the journal."""
        self._search = search
        self._tracker = Tracker(search.folder, self._settings)
        self._tracker.__enter__()

    def search_ending(self, end: SearchEnd) -> None:
        """Write the note on the search."""
        if (won := end.won) is not None:
            objective, folder = self._search.objective.name, self._search.folder
            about = facts(won.data, folder)
            if won.best.draws:
                about["Final classifier"] = members.told(won.best.draws)
            end.description = summary.description(
                _rows(won), scores_table(won), objective=objective, facts=about
            )

    def close(self) -> None:
        """Wait until all is sent, but no longer than some seconds."""
        if self._tracker is not None:
            self._tracker.close()


class TensorBoard(SearchCallback):
    """Writes logs for TensorBoard beside the journal: a folder per trial."""

    def __init__(self) -> None:
        self._logs: dict[str, Logs] = {}

    def search_opened(self, search: SearchInfo) -> None:
        """Note where they go."""
        self._folder = search.folder

    def epoch_ended(self, proposal: Proposal, fit: Fit, epoch: int, metrics: Metrics) -> None:
        """Write the metrics of an epoch; the file of an earlier process is written anew."""
        from pneumonia.tracking.tensorboard import Logs

        trial_id = proposal.trial_id
        logs = self._logs.setdefault(trial_id, Logs(self._folder, trial_id))
        logs.write(fit, epoch, metrics)

    epoch_replayed = epoch_ended

    def trial_ended(self, proposal: Proposal, outcome: Outcome) -> None:
        """Close the file of a trial."""
        if logs := self._logs.pop(proposal.trial_id, None):
            logs.close()

    def close(self) -> None:
        """Close the files of trials that have come to no end."""
        for logs in self._logs.values():
            logs.close()


class Report(SearchCallback):
    """Writes `report.html` into the folder of the search."""

    def search_opened(self, search: SearchInfo) -> None:
        """Note where it goes."""
        self._search = search

    def search_ending(self, end: SearchEnd) -> None:
        """Write it, as an artifact of the search."""
        from pneumonia.reporting import report

        load = end.won.load if end.won else None
        search = self._search
        end.artifacts += report.attempt(search.folder, end.fields(), load=load, say=search.say)


def prospect(data: ImageData, choices: Mapping[str, str], plan: Plan, *, folder: Path) -> str:
    """Return the lines that say, before the first trial, what is about to happen."""
    from pneumonia.cli.plan import footprint, headline

    sizes = ", ".join(f"{len(one):,} {one.name}" for one in (data.train, data.val, data.test))
    source = without_passwords(data.source)
    found = f"{sizes} images from {source}; positive: {printable(data.class_names[1])}"
    lines = [headline(plan), f"{choices.get('dataset', '')}: {found}"]
    for what, counts in (("images", data.duplicates), ("patients", data.shared_patients)):
        for pair, count in counts.items():
            first, second = pair.split("/")
            if count:
                lines.append(f"warning: {count} {what} of {second} are also in {first}")
    lines += [f"warning: {note}" for note in data.notes]
    return "\n".join([*lines, footprint(plan), f"results go to {shown(folder)}"])


def facts(data: ImageData, folder: Path) -> dict[str, object]:
    """Return what the note on a search tells beside winner and scores."""
    shared = {"Images": data.duplicates, "Patients": data.shared_patients}
    return {
        "Dataset": f"{data.name}, {without_passwords(data.source)}",
        **{
            f"{what} in two splits": ", ".join(f"{n} in {pair}" for pair, n in counts.items())
            for what, counts in shared.items()
            if counts
        },
        **({"Images to look at": "; ".join(data.notes)} if data.notes else {}),
        "Folder": shown(folder),
    }


def _scores(won: Won, folder: Path) -> list[tables.Table | str]:
    """Return what to show of a winner's scores on the test split."""
    if won.evaluation and (table := scores_table(won)):
        readings = str(won.evaluation.readings)
        return [table, *([f"{readings}\n"] if readings else ())]
    search_id = str(SearchFolder(folder).first_event().get("search_id", "last"))
    how = shell.resume(folder, search_id, "resume.fork=true", "winner.test=true")
    return [f"The test split was not read. To score this classifier on it: {how}\n"]


def scores_table(won: Won) -> tables.Table | None:
    """Return the table of a winner's scores on test, at 0.5 and at its own threshold, if any."""
    if won.evaluation is None:
        return None
    scores, chosen = won.evaluation.scores, won.evaluation.chosen
    config = won.best.config
    how = thresholds.decided(
        won.best.decision, chosen, prevalence=config["threshold"]["prevalence"]
    )
    if folds := config["objective"].get("folds"):
        what = "was trained on all" if config["training"]["retrain"] else f"is {won.best.told}"
        how.append(
            "Threshold and temperature were found on what the trainings gave for the fold that "
            f"each was held out of, {folds} of train and val; this classifier {what}."
        )
    elif config["training"]["retrain"]:
        how.append("Threshold and temperature are those of the trial before it was trained on val.")
    return summary.scores_table(scores, chosen=chosen, decision=how)


def _rows(won: Won) -> list[summary.Row]:
    return [
        summary.Row(
            one.number,
            outcome.score or 0.0,
            one.values,
            outcome.best_epoch,
            outcome.seconds,
            outcome.spread,
        )
        for one, outcome in won.ranked
    ]
