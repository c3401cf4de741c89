"""Random nights over the emulator: one paid job, each row once, no wait for ever; and a planted mistake is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import Phase
from hypothesis.stateful import run_state_machine_as_test

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import AmbiguousError
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
from airflow_vertex_batch.gcp.vertex import VertexClient
from tests.fakes import MemoryStore
from tests.properties.machine import Nights, bounded
from tests.properties.nights import Client, Night, is_log


def test_ten_thousand_nights_in_small():
    """`make stateful` plays ten thousand."""
    run_state_machine_as_test(Nights, settings=bounded(150))


# Mistakes that must not go unnoticed ----------------------------------------------------------------------------------


class DoesNotWait(Night):
    """Nobody waits for a create call that may still be under way."""

    settle_seconds = 0.0


class SendsAgain(Client):
    """A create call without a clear answer is sent again."""

    def create(self, spec: JobSpec) -> BatchJob:
        try:
            return super().create(spec)
        except AmbiguousError:
            return super().create(spec)


class IgnoresLabels(Client):
    """The service is never asked whose jobs it has."""

    def list(self, labels: Mapping[str, str]) -> Iterator[BatchJob]:
        return iter(())


class OverwritesLog(MemoryStore):
    """Two writers may both have a number of the log."""

    def write_new(self, uri: Uri, data: bytes) -> bool:
        if is_log(str(uri)):
            self.objects[str(uri)] = data
            return True
        return super().write_new(uri, data)


class WritesNoLog(MemoryStore):
    """The log is not written."""

    def write_new(self, uri: Uri, data: bytes) -> bool:
        return is_log(str(uri)) or super().write_new(uri, data)


class CancelsNothing(Client):
    """What was replaced is not cancelled."""

    def cancel(self, name: Any) -> bool:
        return True


def _asking(kind: type[VertexClient]) -> type[Night]:
    return type(kind.__name__, (Night,), {"client_kind": kind})


def _keeping(kind: type[Any]) -> type[Night]:
    return type(kind.__name__, (Night,), {"store_kind": kind})


class TestMistakes:
    """The nights find what they are there to find."""

    @pytest.mark.parametrize(
        ("night", "complaint"),
        [
            (DoesNotWait, "paid twice|two at once"),
            (_asking(SendsAgain), "paid twice"),
            (_asking(IgnoresLabels), "paid twice|two at once"),
            (_asking(CancelsNothing), "two at once"),
            (_keeping(OverwritesLog), "paid twice|two at once"),
            (_keeping(WritesNoLog), "never landed"),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else "",
    )
    def test_each_is_found(self, night, complaint):
        class Mistaken(Nights):
            seen: ClassVar[Counter[str]] = Counter()
            night_kind = night

        with pytest.raises(AssertionError, match=complaint):
            run_state_machine_as_test(Mistaken, settings=bounded(1_000, phases=[Phase.generate], derandomize=True))
