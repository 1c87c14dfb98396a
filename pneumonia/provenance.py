"""Where a result comes from: the code's commit, the versions of the libraries, the machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

LIBRARIES = (
    "pneumonia",
    "tensorflow",
    "keras",
    "keras-tuner",
    "tensorflow-datasets",
    "hydra-core",
    "mlflow",
    "numpy",
    "scikit-learn",
)


def provenance() -> dict[str, str]:
    """Return tags for what ran: `git_commit`, `python`, `version.<library>`, `machine`, `command`.

    A checkout with changes has `+changes` behind its commit; outside a checkout there is none.
    """
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "command": shlex.join(["pneumonia", *sys.argv[1:]]),
    }
    for library in LIBRARIES:
        try:
            found[f"version.{library}"] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["git_commit"] = commit + ("+changes" if _git("status", "--porcelain") else "")
    return found


def _git(*arguments: str) -> str:
    """Return what git says of the folder that holds this package, or nothing."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
