"""Errors that a user can mend: one clear message, exit status 2, no traceback."""

from __future__ import annotations

import re
import sys
import traceback

_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*)(?P<sep>\\*://)(?P<rest>\S*?)(?P<end>['\"`)\]}>.,;!?]*(?=\s|$))"
)
_HOST = re.compile(r"[\w.-]*(:\d*)?")
_NO_PORT = re.compile(r"[^/?#\[\]]*:(?!\d*([/?#]|$))")
_NO_SCHEME = re.compile(r"[\w.+%-]+:(?!/)\S*@(?=[\w\[])")
_FILES = ("file", "sqlite")
# Of files elsewhere: their paths may hold an @, the last ones have a container before it.
_OBJECTS = ("s3", "gs", "dbfs", "hdfs", "wasb", "wasbs", "abfs", "abfss")
_HARMLESS = ("sslmode", "charset", "driver")


def without_passwords(text: str) -> str:
    """Return a text without what may be secret of the addresses in it; paths of files stay.

    That is all before the last `@` of one, however a password is written, and what comes after a
    `?`, `#` or `;`, unless it is known to be harmless.
    """
    return _ADDRESS.sub(_cleaned, text)


def _cleaned(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"].lower(), found["rest"]
    if scheme in _FILES and rest.startswith("/"):
        return re.sub(r"\?\w+=[^/]*$", "", found[0]) if scheme == "sqlite" else found[0]
    host, *behind = re.split(r"[/?#]", rest, maxsplit=1)
    is_plain = _HOST.fullmatch(host.rpartition("@")[2]) and ":" not in host.rpartition("@")[0]
    if "@" in rest and not (scheme in _OBJECTS and is_plain and behind):
        rest = rest.rpartition("@")[2]
        rest = rest.partition("&")[0]  # the @ may have been in a query
    if _NO_PORT.match(rest):  # a user and the beginning of a password, cut off or never ended
        rest = ""
    place, mark, query = re.fullmatch(r"([^?#;]*)([?#;]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    names = [pair.partition("=")[0].lower() for pair in query.split("&")]
    kept = f"{mark}{query}" if all(name in _HARMLESS for name in names) else ""
    return f"{found['scheme']}{found['sep']}{place}{kept}{found['end']}"


def hide_passwords() -> None:
    """Let the traceback of a fault of the program show nothing secret."""

    def show(*raised: object) -> None:
        lines = traceback.format_exception(*raised)  # type: ignore[call-overload]
        sys.stderr.write(without_passwords("".join(lines)))

    sys.excepthook = show


def named(error: BaseException) -> str:
    """Return the kind of an error and the first line of its text."""
    line = str(error).strip().splitlines()
    return f"{type(error).__name__}: {line[0] if line else ''}".rstrip(": ")


class UserError(Exception):
    """A mistake in what the user gave: its text, without passwords, is all that the user sees."""

    def __init__(self, text: str = "") -> None:
        super().__init__(_NO_SCHEME.sub("", without_passwords(text)))


class DataError(UserError):
    """A dataset that is missing, unreadable or not what it should be."""


class ConfigError(UserError):
    """A configuration value that does not fit.

    Args:
        key: Dotted path of the key, or another name the user typed.
        expected: What would have been right, as a noun phrase.
        received: What was there instead.
        hint: A sentence that says what to do, without a full stop, or nothing.
    """

    def __init__(self, key: str, expected: str, received: object, hint: str = "") -> None:
        self.key = key
        if isinstance(received, str) and "://" in received and "@" in received:
            received = without_passwords("".join(received.split()))
        message = f"`{key}`: expected {expected}. Received: {received!r}."
        end = "" if hint.endswith("?") else "."
        super().__init__(f"{message} {hint}{end}" if hint else message)
        self.given = (key, expected, received, hint)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, object, str]]:
        return type(self), self.given


class ConfigErrors(UserError):  # noqa: N818 - it is several
    """All the configuration errors found in one go, raised once."""

    def __init__(self, errors: list[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in errors))

    def __reduce__(self) -> tuple[type[ConfigErrors], tuple[list[ConfigError]]]:
        return type(self), (list(self.errors),)
