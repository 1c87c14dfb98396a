"""Where trials run. An executor takes a task and gives back what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from pneumonia import files
from pneumonia.errors import UserError
from pneumonia.files import StorageError
from pneumonia.training import inputs, trial
from pneumonia.training.loop import DivergedError, TooSlowError
from pneumonia.training.trial import OnEpoch, Result, Task

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A trial that came to nothing.

    Attributes:
        reason: Why, in one line.
        traceback: Where; empty where the reason says it all.
    """

    reason: str
    traceback: str


class LocalExecutor:
    """Runs trials in this process, each in the thread that asks for it.

    Attributes:
        workers: How many threads should ask at once.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def runs_alone(self, task: Task) -> bool:
        """Tell whether no other trial may run beside one."""
        try:
            return self.workers == 1 or not inputs.is_shared(task.config)
        except Exception:  # it fails at it when it runs, and tells why
            return False

    def run(
        self,
        task: Task,
        *,
        on_epoch: OnEpoch,
        report: Report,
        between_epochs: Callable[[], None] = lambda: None,
    ) -> Result | Failure:
        """Run one trial; see `trial.run`.

        What every trial would fail at, the search has tried before the first one; so a mistake
        that shows here comes with the values of this trial, and is a failure like others.

        Raises:
            StorageError: Where a disk is full or refuses: the trial cannot help it.
        """
        try:
            return trial.run(task, on_epoch=on_epoch, report=report, between_epochs=between_epochs)
        except StorageError:
            raise
        except (UserError, DivergedError, TooSlowError) as error:
            return Failure(str(error), "")
        except Exception as error:  # whatever goes wrong in a trial is a result of the search
            fault = files.explain(error)
            if fault is not None:
                raise fault from error
            line = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {line[0] if line else ''}".rstrip(": ")
            return Failure(reason, traceback.format_exc())


def local(*, workers: int = 1) -> LocalExecutor:
    """Return the executor of this process.

    Args:
        workers: Trials at a time.
    """
    return LocalExecutor(workers)


def ray(*, workers: int = 2, address: str | None = None) -> LocalExecutor:
    """Refuse: trials as Ray tasks are not there yet, and `config.compose` says so before.

    Args:
        workers: Trials at a time.
        address: Of a Ray cluster.

    Raises:
        UserError: Always.
    """
    raise UserError(f"`executor`: expected local. Received: ray({workers=}, {address=}).")
