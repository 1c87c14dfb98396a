"""Where a result comes from: the code's commit, the versions of the libraries, the machine."""

from __future__ import annotations

import os
import platform
import re
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

    A checkout with changes has `+changes` behind its commit; outside a checkout there is none. User
    and password of a URI are left out of the command.
    """
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "command": _without_passwords(shlex.join(["pneumonia", *sys.argv[1:]])),
    }
    for library in LIBRARIES:
        try:
            found[f"version.{library}"] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    # An installed package may lie in the virtual environment of another project's checkout.
    is_ours = _git("ls-files", Path(__file__).name)
    if is_ours and (commit := _git("rev-parse", "HEAD")):
        found["git_commit"] = commit + ("+changes" if _git("status", "--porcelain") else "")
    return found


def _without_passwords(text: str) -> str:
    return re.sub(r"://[^/\s]*@", "://", text)


def _git(*arguments: str) -> str:
    """Return what git says of the folder that holds this package, or nothing."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
