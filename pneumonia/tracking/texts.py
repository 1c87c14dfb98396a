"""Names and values as every MLflow store takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# MLflow's own limits; older servers only refuse what is longer, they do not cut it.
PARAM_LENGTH, TAG_LENGTH, KEY_LENGTH = 6000, 8000, 250


def as_key(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and `_-./ :` only."""
    kept = "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in str(name))
    return kept[:KEY_LENGTH]


def as_texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Return params as MLflow takes them."""
    return {as_key(name): as_text(value, PARAM_LENGTH) for name, value in params.items()}


def as_text(value: object, limit: int) -> str:
    """Return a value as one would type it on the command line, cut to a length."""
    text = storable(value if isinstance(value, str) else json.dumps(value, default=str))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def storable(text: str) -> str:
    r"""Return a text with `\x00` for a NUL, which PostgreSQL refuses, and no half characters.

    A server answers both as if it could not be reached, and would be asked again for ever.
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")
