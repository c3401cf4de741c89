"""How does one of our values go through XCom and files, and come back? As a plain dict."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records that cross XCom, the log or a file: plain dicts outside, one type inside."""

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON-safe builtins."""
        return msgspec.json.decode(msgspec.json.encode(self))  # type: ignore[no-any-return]  # lists, not tuples, as XCom gives back

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Read `as_dict()` back; unknown members are ignored, so that an older task reads a newer record.

        :raises InputError: when a member is missing or of the wrong type.
        """
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise InputError(
                f"This is not a {cls.__name__.lower()} of airflow-vertex-batch",
                why=str(error),
                todo="Pass the output of the task before this one",
            ) from error
