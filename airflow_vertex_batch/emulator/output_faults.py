"""When can the output of an ended job be seen? At once, unless a scenario holds it back, cuts it short or loses it.

Invariant: hidden output is complete in the job's own folder until it is shown, so that a restart loses no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.emulator.faults import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_vertex_batch.core.domain.ports import ObjectStore

_INDEX = "held.json"


class OutputFault(Fault, frozen=True, kw_only=True):
    """Base of the faults that decide what can be seen of an ended job's output. One of each kind is taken at its end.

    :param seconds: of service time after the end; None for ever.
    """

    seconds: float | None = None


class LateInfo(OutputFault, frozen=True, kw_only=True, tag="late_info"):
    """Name the output (``outputInfo``) only so many seconds after the end."""


class LateOutput(OutputFault, frozen=True, kw_only=True, tag="late_output"):
    """Show the files of the output only so many seconds after the end; until then a share of each one's lines.

    :param share: 0 leaves the folder empty; 0.5 is a file that still grows.
    """

    share: float = 0.0


class LostOutput(OutputFault, frozen=True, kw_only=True, tag="lost_output"):
    """Delete the files of the output so many seconds after the end."""

    seconds: float | None = 0.0


def hold_back(store: ObjectStore, output: Uri, folder: Path, share: float) -> None:
    """Remove the objects of an output, except for a share of the lines of each.

    :param folder: where they are kept meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = [str(info.uri) for info in store.list(output / "")]
    for number, uri in enumerate(map(Uri.parse, held)):
        with store.open_read(uri) as stream:
            lines = stream.readlines()
        (folder / f"held-{number}").write_bytes(b"".join(lines))
    (folder / _INDEX).write_bytes(msgspec.json.encode(held))
    for number, uri in enumerate(map(Uri.parse, held)):
        lines = (folder / f"held-{number}").read_bytes().splitlines(keepends=True)
        if shown := lines[: int(len(lines) * share)]:
            with store.open_write(uri) as stream:
                stream.writelines(shown)
        else:
            store.delete(uri)


def show(store: ObjectStore, folder: Path) -> None:
    """Write the hidden output."""
    index = folder / _INDEX
    for number, uri in enumerate(msgspec.json.decode(index.read_bytes(), type=list[str])):
        with store.open_write(Uri.parse(uri)) as stream:
            stream.write((folder / f"held-{number}").read_bytes())
    index.unlink()


def lose(store: ObjectStore, output: Uri) -> None:
    """Delete the objects of an output."""
    for info in list(store.list(output / "")):
        store.delete(info.uri)
