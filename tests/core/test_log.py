"""The append-only record: nothing is overwritten, two writers never both win, unreadable is never "nothing"."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.errors import InputError, LogError, ServiceError
from airflow_vertex_batch.core.purchase.entries import Part
from airflow_vertex_batch.core.purchase.log import BatchLog, JobLog
from tests.builders import JOB_NAME, LOG, a_log, an_identity
from tests.fakes import MemoryStore

FOLDER = LOG


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def log(store) -> JobLog:
    return a_log(store, "attempt-1")


def test_an_empty_log_has_no_entries(log):
    assert log.entries() == ()


def test_entries_come_back_in_order_as_they_were(log, store):
    entries = (
        log.intent("f1"),
        log.refusal("f1", "QUOTA"),
        log.intent("f1"),
        log.submission("f1", JOB_NAME, "old"),
    )
    assert all(map(log.append, entries))
    assert a_log(store, "attempt-2").entries() == entries
    assert {entry.attempt for entry in log.entries()} == {"attempt-1"}
    assert all(entry.at.tzinfo is not None for entry in log.entries())


def test_a_number_is_written_once(log, store):
    mine, other = log.intent("f1"), a_log(store, "attempt-2")
    assert log.append(mine)
    assert not other.append(other.intent("f1"))
    assert log.entries() == (mine,)


def test_it_works_over_local_files(local, folder):
    mine, other = (BatchLog(local, an_identity(staging=str(folder)), "a").of_job(Part()) for _ in range(2))
    entry = mine.intent("f1")
    assert mine.append(entry)
    assert not other.append(other.intent("f2"))
    assert other.entries() == (entry,)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("000000.json", b"not json"),
        ("000000.json", b""),
        ("000000.json", b'{"version": 1, "kind": "promise"}'),
        ("000000.json", b'{"version": 1, "kind": "submission", "fingerprint": "f"}'),
        ("000001.json", b'{"version": 1, "kind": "intent", "fingerprint": "f", "at": "2026-11-22T00:00:00Z"}'),
        ("readme.txt", b"hello"),
    ],
    ids=["not JSON", "empty", "a kind we never wrote", "a member missing", "a gap", "a stranger's object"],
)
def test_a_damaged_log_is_an_error_never_nothing(log, store, name, data):
    store.objects[f"{FOLDER}/{name}"] = data
    with pytest.raises(
        LogError,
        match=r"The log gs://b/staging/nightly/.*/me/log is damaged.*Nothing was sent.*console shows no job",
    ):
        log.entries()


def test_an_unreadable_log_is_a_retryable_error_with_its_cause():
    class Closed(MemoryStore):
        def list(self, folder):
            raise ServiceError(f"Cloud Storage refused {folder}", status=403)

    with pytest.raises(
        LogError, match=r"cannot be read.*Cloud Storage refused.*Nothing was sent.*Restore access"
    ) as caught:
        a_log(Closed(), "a").entries()
    assert caught.value.retryable


def test_what_to_do_about_the_cause_comes_first():
    class NoBucket(MemoryStore):
        def list(self, folder):
            raise InputError("The bucket gs://b does not exist", todo="Check its name")

    with pytest.raises(LogError, match=r"gs://b does not exist.*Check its name; then retry") as caught:
        a_log(NoBucket(), "a").entries()
    assert caught.value.why == "The bucket gs://b does not exist"
    assert caught.value.todo == "Check its name; then retry: a job that exists will be found"


def test_an_object_that_vanishes_between_list_and_read_is_damage(store, log):
    class Vanishing(MemoryStore):
        def read(self, uri):
            return None

    log.append(log.intent("f"))
    with pytest.raises(LogError, match="is damaged"):
        a_log(Vanishing(**store.objects)).entries()
