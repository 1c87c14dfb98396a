"""What a classifier's file says of it beside its weights: class names, threshold, temperature.

It is kept in the file's `metadata.json`, where Keras notes its version and the date. Keras does not
look at other keys, so the file loads anywhere.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pneumonia import files

NAME = "metadata.json"
KEY = "pneumonia"

Facts = Mapping[str, Any]


def merge(content: bytes, facts: Facts) -> str:
    """Return the text of a `metadata.json` with these facts in it."""
    return json.dumps({**json.loads(content), KEY: dict(facts)})


def write(path: Path, facts: Facts) -> None:
    """Put facts into a `.keras` file, at once or not at all.

    Args:
        path: The file.
        facts: Plain values by name.
    """
    with (
        files.atomic(path) as part,
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(part, "w") as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, merge(content, facts) if name == NAME else content)


def read(path: Path) -> dict[str, Any]:
    """Return the facts in a `.keras` file; none where there are none, or no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(NAME)).get(KEY)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, AttributeError):
        return {}
    return facts if isinstance(facts, dict) else {}
