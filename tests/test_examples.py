"""Every example names the same model, one that is served: a reader copies what stands there.

No test here looks at today: the day is that on which the example was last chosen (`core.domain.catalog.EXAMPLE_MODEL`).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_vertex_batch.core.domain.catalog import EXAMPLE_LOCATION, EXAMPLE_MODEL, life_of, misspelt

ROOT = Path(__file__).resolve().parents[1]
CHOSEN = "2026-11-28"
_NAME = re.compile(r"gemini-\d[\w.-]*\w")
#: Files whose text a reader follows. The records of measurements say what was measured, and are none.
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/adr/*.md")),
    *sorted(ROOT.glob("dags/*.py")),
    *sorted(ROOT.glob("stack/**/*.py")),
    *sorted(ROOT.glob("airflow_vertex_batch/**/*.py")),
    *sorted(ROOT.glob("airflow_vertex_batch/**/*.md")),
]
#: Where an older model is the point: what tuned ones are made from, what it refuses, and batches of tests, whose price
#: never changes.
ABOUT_OLDER = {
    "airflow_vertex_batch/emulator/scenario.py": {"gemini-2.5-flash"},
    "docs/guide.md": {"gemini-2.5-flash"},
    "airflow_vertex_batch/core/requests/lint/models.py": {
        "gemini-2.5-flash",
        "gemini-2.5-flash-lite",
        "gemini-2.5-pro",
    },
    "airflow_vertex_batch/emulator/rowmodels.py": {"gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro"},
    "stack/chaos/second_airflow.py": {"gemini-2.5-flash"},
    "stack/faults/batch.py": {"gemini-2.5-flash"},
}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_document_names_a_model_that_has_retired(file):
    allowed = ABOUT_OLDER.get(str(file.relative_to(ROOT)), set())
    named = {name for name in _NAME.findall(file.read_text()) if life_of(name) is not None} - allowed
    retired = {name for name in named if (last := life_of(name).retires) and last < CHOSEN}
    assert retired == set()


@pytest.mark.parametrize("file", sorted(ROOT.glob("dags/*.py")), ids=lambda file: file.name)
def test_every_dag_asks_the_example_where_its_batches_run(file):
    text = file.read_text()
    asked = re.findall(r"""model"?\s*[=:]\s*(?:Param\()?["'](gemini-[^"']+)""", text)
    places = re.findall(r"""["']?location["']?\s*[=:]\s*["']([^"']+)""", text)
    assert set(asked) <= {EXAMPLE_MODEL}
    assert not asked or set(places) == {EXAMPLE_LOCATION}
    assert bool(asked) is (file.name != "sweep_orphans.py")


def test_a_misspelt_model_in_the_guide_is_the_one_that_explains_it():
    names = set(_NAME.findall((ROOT / "docs" / "guide.md").read_text()))
    assert {name for name in names if misspelt(name)} == {"gemini-3.8-flahs"}
