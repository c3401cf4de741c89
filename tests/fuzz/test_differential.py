"""A quick slice of `make fuzz`: lint and the emulator's importer read the same documentation, and agree."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.differential import disagreements
from tests.fuzz.generate import request_file

#: A fault that one reading of the documentation sees and the other leaves alone: the importer of the emulator is the
#: milder one here, and each entry says why.
MILDER = {
    "bytes: bom": "at the beginning of a file it may do no harm",
    "bytes: bom before a later line, as in joined files": "",
}


class TestTheTwoReadings:
    @settings(max_examples=1_500, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**64))
    def test_what_the_importer_refuses_lint_reports_at_that_line(self, seed: int) -> None:
        data = request_file(random.Random(seed))
        assert disagreements(data) == []
