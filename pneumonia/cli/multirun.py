"""The jobs of a Hydra multirun: what came of each, and the page that compares their searches."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

import pneumonia.config.compose  # noqa: F401 - for its resolvers, in a launcher's processes too
from pneumonia import shell, terminal
from pneumonia.cli.common import USER_ERROR
from pneumonia.errors import UserError, without_passwords

FAULT = 1


def attempt(run: Callable[[], float]) -> float:
    """Run a job, which returns its objective; let the others go on, whatever comes of it.

    What failed is told at once and noted in the folder of the multirun, for jobs may run in other
    processes, on other machines. A sweeper that learns takes nan for a failure.
    """
    status, reason, score = 0, "", math.nan
    try:
        score = run()
    except UserError as error:
        status, reason = USER_ERROR, str(error)
    except (Exception, SystemExit) as error:  # a user's function may call `sys.exit`
        status, reason = FAULT, without_passwords(f"{type(error).__name__}: {error}")
        terminal.write(without_passwords(traceback.format_exc()), sys.stderr)
    from pneumonia.storage import jobs

    hydra = HydraConfig.get()
    text = without_passwords(" ".join(hydra.overrides.task))
    job = jobs.JobRecord(int(hydra.job.num), text, str(hydra.sweep.subdir), status, reason)
    if status:
        terminal.write(f"{job.name} failed: {reason}\n", sys.stderr)
    jobs.note(job, Path(hydra.sweep.dir))
    return score


class Compare(Callback):
    """Writes the page into the multirun's folder, and tells what failed.

    `conf/config.yaml` names it. It must not import anything heavy before there is something to
    compare: Hydra makes one for every search.
    """

    status: ClassVar[int] = 0  # the exit status that the last multirun of this process comes to

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the searches that have left a journal."""
        from pneumonia.reporting import report
        from pneumonia.storage import jobs, search_folder

        folder = Path(config.hydra.sweep.dir)
        ran = jobs.read(folder)
        failed = [job for job in ran if job.status]
        Compare.status = min((job.status for job in failed), default=0)  # a fault before a mistake
        try:
            if search_folder.find_all(folder):
                path = report.write_overview([folder], folder / report.NAME)
                terminal.write(f"\nThe searches compared: {shell.shown(path)}\n", sys.stdout)
        except UserError as error:
            terminal.say(f"warning: the searches are not compared. {error}")
        if failed:
            lines = [f"{len(failed)} of {len(ran)} failed:"]
            lines += [f"  {job.name}: {job.reason.splitlines()[0]}" for job in failed]
            terminal.write("\n".join(lines) + "\n", sys.stderr)
