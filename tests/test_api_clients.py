"""Our tables of the API against Google's clients: how they are read, what differs, what makes `make api` fail."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import msgspec
import pytest

from tools.api import KNOWN, Difference, Known, differences, explain, main
from tools.clients import Client, Member, aiplatform, discovery, genai
from tools.known import idle

ROOT = Path(__file__).resolve().parents[1]
#: Where the clients of our own environment are unpacked: older than the newest, of the same form.
INSTALLED = Path(importlib.metadata.distribution("google-genai").locate_file(""))

# Cut from google-genai 3.6.1.
GENAI = '''
class ThinkingLevel(_common.CaseInSensitiveEnum):
  """The number of thoughts tokens that the model should generate."""

  LOW = 'LOW'
  """Low thinking level."""
  XHIGH = 'XHIGH'
  """XHIGH thinking level.
     This enum value is not supported in
     Vertex AI."""

class ThinkingConfig(_common.BaseModel):
  """The thinking features configuration."""

  thinking_level: Optional[ThinkingLevel] = Field(default=None, description="""Optional.""")
  model_config: Optional[dict[str, 'ThinkingConfig']] = Field(
      default=None, description="""This field is not supported in Gemini Enterprise Agent Platform.""")
  json_schema: Optional[Any] = Field(default=None, alias='schema', description="""Optional.""")
  contents: Union[list['ContentUnion'], str] = Field(default=None)
  _initial: Optional[int] = PrivateAttr(default=None)

class ThinkingConfigDict(TypedDict, total=False):
  thinking_budget: Optional[int]
'''
# Cut from google-cloud-aiplatform 2.7.0.
PROTOS = '''
class Part(proto.Message):
    r"""A datatype containing media."""

    class MediaResolution(proto.Message):
        class Level(proto.Enum):
            MEDIA_RESOLUTION_UNSPECIFIED = 0
            MEDIA_RESOLUTION_LOW = 1

        level: "Part.MediaResolution.Level" = proto.Field(proto.ENUM, number=1, enum="Part.MediaResolution.Level")

    text: str = proto.Field(proto.STRING, number=1)
    type_: openapi.Type = proto.Field(proto.ENUM, number=2, enum=openapi.Type)
    media_resolution: MediaResolution = proto.Field(proto.MESSAGE, number=12, message=MediaResolution)
    function: gca_tool.Tool.Function = proto.Field(proto.MESSAGE, number=3, message=gca_tool.Tool.Function)
'''
# Cut from the discovery document aiplatform.v1, revision 20261106.
DOCUMENT = {
    "revision": "20261106",
    "schemas": {
        "GoogleCloudAiplatformV1Tool": {
            "properties": {
                "googleMaps": {"$ref": "GoogleCloudAiplatformV1GoogleMaps"},
                "names": {"type": "array", "items": {"type": "string", "enum": ["ONE", "TWO"]}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }
        },
        "GoogleTypeLatLng": {},
    },
}


def _written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return tmp_path


class TestAClientIsRead:
    def test_google_genai(self, tmp_path):
        read = genai(_written(tmp_path, "google/genai/types.py", GENAI), "3.6.1")
        assert read.name == "google-genai 3.6.1"
        assert read.words == {"ThinkingLevel": {"LOW": Member(), "XHIGH": Member(is_elsewhere=True)}}
        assert read.messages == {
            "ThinkingConfig": {
                "thinkingLevel": Member("ThinkingLevel"),
                "modelConfig": Member("ThinkingConfig", is_elsewhere=True),
                "schema": Member(),
                "contents": Member("Content"),
            }
        }

    def test_the_protos(self, tmp_path):
        read = aiplatform(_written(tmp_path, "google/cloud/aiplatform_v1/types/content.py", PROTOS), "v1", "2.7.0")
        assert read.words == {
            "PartMediaResolutionLevel": {"MEDIA_RESOLUTION_UNSPECIFIED": Member(), "MEDIA_RESOLUTION_LOW": Member()}
        }
        assert read.messages == {
            "PartMediaResolution": {"level": Member("PartMediaResolutionLevel")},
            "Part": {
                "text": Member(),
                "type": Member("Type"),
                "mediaResolution": Member("PartMediaResolution"),
                "function": Member("ToolFunction"),
            },
        }

    def test_the_discovery_document(self, tmp_path):
        name = "googleapiclient/discovery_cache/documents/aiplatform.v1.json"
        read = discovery(_written(tmp_path, name, json.dumps(DOCUMENT)), "v1")
        assert read.name == "discovery document v1 20261106"
        assert read.words == {"Tool.names": {"ONE": Member(), "TWO": Member()}}
        assert read.messages == {
            "Tool": {"googleMaps": Member("GoogleMaps"), "names": Member("Tool.names"), "labels": Member()},
            "GoogleTypeLatLng": {},
        }


@pytest.fixture(scope="module")
def document() -> Client:
    """The document that our table was read from."""
    return discovery(INSTALLED, "v1")


class TestADifference:
    def test_is_none_in_the_request_beside_the_document_of_the_table(self, document):
        assert not [each for each in differences(document) if each.place[0].isupper()]

    @pytest.mark.parametrize(
        ("message", "place"),
        [("GenerateContentRequest",) * 2, ("Schema",) * 2, ("Part", "Part"), ("Part", "answer part")],
        ids=["the request", "far below it", "a part", "a part of an answer"],
    )
    def test_is_found_in_members_of_either(self, document, message, place):
        members = {name: what for name, what in document.messages[message].items() if name not in {"labels", "format"}}
        changed = Client(document.name, document.messages | {message: members | {"brandNew": Member()}}, document.words)
        found = differences(changed)
        assert Difference(place, "brandNew", "theirs", document.name) in found
        gone = document.messages[message].keys() - members.keys()
        assert {each.name for each in found if each.place == message and each.side == "ours"} == gone

    @pytest.mark.parametrize(
        ("words", "place"),
        [
            ("GenerationConfigThinkingConfig.thinkingLevel", "GenerationConfigThinkingConfig.thinkingLevel"),
            ("Schema.type", "Schema.type"),
            ("Candidate.finishReason", "finish reason"),
            ("BatchPredictionJob.state", "job state"),
        ],
    )
    def test_is_found_in_words_of_either(self, document, words, place):
        first = next(iter(document.words[words]))
        theirs = {word: Member() for word in document.words[words] if word != first} | {"BRAND_NEW": Member()}
        found = differences(Client(document.name, document.messages, document.words | {words: theirs}))
        assert Difference(place, "BRAND_NEW", "theirs", document.name) in found
        assert Difference(place, first, "ours", document.name) in found

    def test_is_none_where_our_table_says_that_a_client_is_newer(self, document):
        members = document.messages["GenerationConfig"] | {"modelConfig": Member()}
        messages = document.messages | {"GenerationConfig": members}
        beta, same = (
            Client(name, messages, document.words) for name in ("discovery document v1beta1 x", document.name)
        )
        assert "modelConfig" not in {each.name for each in differences(beta)}
        assert "modelConfig" in {each.name for each in differences(same)}

    def test_is_not_guessed_where_a_vocabulary_is_gone(self, document):
        with pytest.raises(LookupError, match=r"none of FinishReason.*renamed"):
            differences(Client(document.name, document.messages, {}))


class TestAnExplanation:
    FOUND = Difference("Part", "newer", "theirs", "google-genai 3.6.1")

    @pytest.mark.parametrize(
        ("known", "explains"),
        [
            (("Part", "newer", "theirs", "google-genai *"), True),
            (("*", "new*", "theirs", "*"), True),
            (("Part", "newer", "ours", "*"), False),
            (("Part", "older", "theirs", "*"), False),
            (("Blob", "newer", "theirs", "*"), False),
            (("Part", "newer", "theirs", "google-genai 3.6.0"), False),
        ],
        ids=["a client", "globs", "the other side", "another name", "another place", "another version"],
    )
    def test_holds_for_one_difference(self, known, explains):
        one = Known(*known, "because", "2026-11-29")
        assert explain(self.FOUND, [one]) == ("because (2026-11-29)" if explains else "")
        assert idle([self.FOUND], [one]) == ([] if explains else [one])

    def test_is_the_client_s_own_where_it_says_so(self):
        assert "says itself" in explain(msgspec.structs.replace(self.FOUND, is_elsewhere=True), [])

    def test_each_that_is_kept_has_a_reason_and_a_date(self):
        for known in msgspec.json.decode(KNOWN.read_bytes(), type=list[Known]):
            assert len(known.reason) > 15
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", known.date)


class TestTheProgram:
    def test_fails_when_a_difference_is_not_explained(self, tmp_path, capsys):
        known = tmp_path / "known.json"
        known.write_text(json.dumps([dict.fromkeys(("place", "name", "side", "client", "reason", "date"), "nothing")]))
        assert main(["--folder", str(INSTALLED), "--known", str(known)]) == 1
        printed = capsys.readouterr().out
        assert "NOT EXPLAINED" in printed
        assert "No longer needed in known.json: nothing, nothing, nothing" in printed

    def test_says_that_it_could_not_have_the_clients(self, tmp_path, capsys):
        assert main(["--folder", str(tmp_path)]) == 2
        assert "The clients could not be had: no google-cloud-aiplatform in" in capsys.readouterr().err

    def test_names_no_host(self):
        for file in ("api.py", "clients.py"):
            assert "://" not in (ROOT / "tools" / file).read_text()
