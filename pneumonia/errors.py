"""Errors that a user can mend: one clear message, exit status 2, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: its text is all that the user sees."""


class DataError(UserError):
    """A dataset that is missing, unreadable or not what it should be."""


class ConfigError(UserError):
    """A configuration value that does not fit.

    Args:
        key: Dotted path of the key, or another name the user typed.
        expected: What would have been right, as a noun phrase.
        received: What was there instead; shown by `repr`.
        hint: An optional sentence that says what to do, without a full stop.
    """

    def __init__(self, key: str, expected: str, received: object, hint: str = "") -> None:
        self.key = key
        message = f"`{key}`: expected {expected}. Received: {received!r}."
        end = "" if hint.endswith("?") else "."
        super().__init__(f"{message} {hint}{end}" if hint else message)
        self._given = (key, expected, received, hint)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, object, str]]:
        return type(self), self._given


class ConfigErrors(UserError):  # noqa: N818 - it is several
    """All the configuration errors found in one go, raised once."""

    def __init__(self, errors: list[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in errors))

    def __reduce__(self) -> tuple[type[ConfigErrors], tuple[list[ConfigError]]]:
        return type(self), (list(self.errors),)
