"""Where a result comes from: the code's commit, the versions of the libraries, the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

import pneumonia
from pneumonia import files
from pneumonia.config.sources import MATTERING
from pneumonia.errors import without_passwords

PACKAGE = Path(pneumonia.__file__).parent
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
    "scipy",
)
DECIDING = ("config", "datasets", "evaluation", "models", "search", "seeding.py", "training")
"""The parts of this package that do."""


def provenance() -> dict[str, str]:
    """Return tags for what ran.

    They are `git_commit`, `code`, `python`, `version.<library>`, `command` and those of `machine`.
    A checkout with changes has `+changes` behind its commit; outside a checkout there is none. What
    may be secret in an address is left out of the command.
    """
    found = (
        versions(LIBRARIES)
        | machine()
        | {
            "code": code(),
            "python": platform.python_version(),
            "command": shlex.join(["pneumonia", *map(without_passwords, sys.argv[1:])]),
        }
    )
    # An installed package may lie in the virtual environment of another project's checkout.
    is_ours = _git("ls-files", "__init__.py")
    if is_ours and (commit := _git("rev-parse", "HEAD")):
        found["git_commit"] = commit + ("+changes" if _git("status", "--porcelain") else "")
    return found


def machine() -> dict[str, str]:
    """Return tags for the machine: where all are the same, training again gives the same bits.

    How many threads compute is no part of it: TensorFlow's are `training.threads`, and on those of
    NumPy (OMP_NUM_THREADS, which launchers set), no training depends.
    """
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "cpu": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "gpu": _line("/proc/driver/nvidia/gpus/*/information", "Model"),
    }


def other_machine(tags: Mapping[str, str]) -> str:
    """Say that tags are those of another machine than this one, or nothing."""
    now = machine()
    changed = [key for key, value in now.items() if tags.get(key, "") != value]
    one, other = (", ".join(t.get(key) or "none" for key in changed) for t in (tags, now))
    if not changed:
        return ""
    return f"this machine is another one ({', '.join(changed)}: {one} → {other})"


def _line(files: str, name: str) -> str:
    """Return what the first line of a name says, in files of the system that may not be there."""
    for file in sorted(Path("/").glob(files[1:])):
        for line in file.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of the libraries that are installed, by `version.<library>`."""
    found = {}
    for library in libraries:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[f"version.{library}"] = metadata.version(library)
    return found


def deciding() -> dict[str, str]:
    """Return the tags of code and libraries that decide results."""
    return versions(MATTERING) | {"code": code()}


def code() -> str:
    """Return a digest of the sources that decide results, 12 hexadecimal digits.

    A commit says less: one that changes a text changes no result, and what is not committed may.
    """
    return files.digest([PACKAGE / name for name in DECIDING], PACKAGE)


def _git(*arguments: str) -> str:
    """Return what git says of the folder that holds this package, or nothing."""
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
