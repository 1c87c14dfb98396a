"""What the command line of `pneumonia-compare` asks for; nothing but the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumonia.cli.common import output_format, split, threshold
from pneumonia.errors import ConfigError, without_passwords

LIMIT = 20

_KEYS = (
    *("test", "export", "columns", "filter", "sort", "limit", "format", "output", "threshold"),
    *("tracking.uri", "tracking.experiment"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    Args:
        searches: Whose trials to list; none lists the searches.
        test: Two searches to compare on the test split, or none.
        export: A trial to write as a preset, or nothing.
        columns: As the user wrote them.
        filter: As the user wrote it.
        sort: As the user wrote it.
        limit: The most rows of a table; 0 for all.
        format: One of `arguments.FORMATS`.
        output: The file to write, or None to print.
        threshold: From 0 to 1, or None for each classifier's own.
        tracking_uri: The MLflow store, or None for the usual one.
        experiment: Name of the experiment.
    """

    searches: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    export: str = ""
    columns: str = ""
    filter: str = ""
    sort: str = ""
    limit: int = LIMIT
    format: str = "table"
    output: Path | None = None
    threshold: float | None = None
    tracking_uri: str | None = None
    experiment: str = "pneumonia"

    @property
    def store(self) -> tuple[str, ...]:
        """What another command of ours is to be given for the same store, without a password."""
        uri = (
            ()
            if self.tracking_uri is None
            else (f"tracking.uri={without_passwords(self.tracking_uri)}",)
        )
        named = self.experiment != "pneumonia"
        return (*uri, *([f"tracking.experiment={self.experiment}"] if named else []))


def parse(arguments: Sequence[str]) -> Options:
    """Tell searches and `key=value` pairs apart, and check the values.

    Raises:
        ConfigError: For an unknown key or a value that does not fit.
    """
    names, given = split(arguments, _KEYS)
    _check_together(names, given)
    output = Path(given["output"]).expanduser() if "output" in given else None
    return Options(
        searches=tuple(names),
        test=_pair(given.get("test")),
        export=given.get("export", ""),
        columns=given.get("columns", ""),
        filter=given.get("filter", ""),
        sort=given.get("sort", ""),
        limit=_limit(given.get("limit")),
        format=output_format(given.get("format"), output),
        output=output,
        threshold=threshold(given.get("threshold")),
        tracking_uri=given.get("tracking.uri"),
        experiment=given.get("tracking.experiment", "pneumonia"),
    )


def _check_together(names: Sequence[str], given: dict[str, str]) -> None:
    """Refuse keys that mean nothing together."""
    listing = ("columns", "filter", "sort", "limit")
    for key, others in (
        ("export", (*listing, "test", "format", "threshold")),
        ("test", listing),
    ):
        if key in given:
            for other in others:
                if other in given:
                    raise ConfigError(other, f"nothing of it together with {key}", given[other])
            if names:
                raise ConfigError(key, "no search beside it", " ".join(names))
    if "threshold" in given and "test" not in given:
        raise ConfigError("threshold", "nothing of it without test", given["threshold"])


def _pair(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(names) != 2:
        raise ConfigError("test", "two searches with a comma between them", text)
    return names


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT
    if not text.isdecimal():
        raise ConfigError("limit", "a whole number, or 0 for all", text)
    return int(text)
