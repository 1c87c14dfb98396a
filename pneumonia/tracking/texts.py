"""Names and values as every MLflow store takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pneumonia.formatting import cut

# MLflow's own limits; older servers only refuse what is longer, they do not cut it.
PARAM_LENGTH, TAG_LENGTH, KEY_LENGTH = 6000, 8000, 250


def as_key(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and `_-./ :` only."""
    kept = "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in str(name))
    return kept[:KEY_LENGTH]


def as_texts(values: Mapping[str, Any], limit: int = PARAM_LENGTH) -> dict[str, str]:
    """Return params, or tags with their limit, as one would type them on the command line."""
    return {as_key(name): _as_text(value, limit) for name, value in values.items()}


def _as_text(value: object, limit: int) -> str:
    text = storable(value if isinstance(value, str) else json.dumps(value, default=str))
    return cut(text, limit)


def storable(text: str) -> str:
    r"""Return a text with `\x00` for a NUL, which PostgreSQL refuses, and no half characters.

    A server answers both as if it could not be reached, and would be asked again for ever.
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")
