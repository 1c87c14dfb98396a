"""What the errors of an MLflow store mean: whether to try again, to go on without, or to tell."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"})
_FINAL = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
# What MLflow calls a bad request though the database has failed, has lost its connection, is only
# to be read meanwhile, or has none left: https://github.com/mlflow/mlflow, store/db/utils.py.
_OF_THE_DATABASE = re.compile(
    r"\([\w.]+\.(InterfaceError|DatabaseError|InternalError|ReadOnlySqlTransaction)\)"
    r"|QueuePool limit|Can't reconnect|Connection is closed"
)


class MayBeMissing(AbstractContextManager[None, bool]):
    """Passes over the error that says that there is no such thing in the store."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        from mlflow.exceptions import MlflowException

        return isinstance(error, MlflowException) and error.error_code in MISSING


class RefusedError(ValueError):
    """The store has refused parts of some events, all else of which was sent.

    Attributes:
        parts: The number of the event, what the part is, and the reason, of each.
    """

    def __init__(self, parts: Sequence[tuple[int, str, Exception]]) -> None:
        self.parts = tuple(parts)
        super().__init__("; ".join(f"{what}: {error}" for _, what, error in parts))


def is_final(error: Exception) -> bool:
    """Tell an error that trying again cannot mend from one of the network, disk or store."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        # Not MLflow but a proxy before it answers so, such as 404 while the server restarts.
        is_away = str(error).startswith("API request to") or _OF_THE_DATABASE.search(str(error))
        return error.error_code in _FINAL and not is_away
    if isinstance(error, (OSError, json.JSONDecodeError)):
        return False
    return isinstance(error, (LookupError, TypeError, ValueError))


def is_unwanted(error: Exception) -> bool:
    """Tell whether a store has answered that it will not do what was asked of it.

    Not of a disk that is full, a database that is locked or a server that cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return is_final(error)
    is_away = re.search(r"failed with (timeout )?exception|error code (429|50[234])\b", str(error))
    return not is_away and error.error_code != "TEMPORARILY_UNAVAILABLE"
