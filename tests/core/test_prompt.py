"""How a row becomes a prompt: what a template may do, what it may not, and what its errors say."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import traceback
from collections import deque
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID

import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.prompt import (
    MAX_PROMPT_CHARACTERS,
    PromptError,
    compile_prompt,
    refuse_single_braces,
)
from airflow_vertex_batch.core.requests.request import RequestBuilder, RequestTemplate, RowProblem
from airflow_vertex_batch.core.requests.values import OnNull, is_missing, stable_text
from tests.each_case import compare_each, each_case

NOTHING = "{% if false %}{% endif %}"
BOTH_PATHS = pytest.mark.parametrize("more", ["", NOTHING], ids=["fast path", "jinja"])


class NAType:
    """As pandas has it: every comparison gives itself, and it has no truth value."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None


def _parts(row, **template):
    return json.loads(RequestBuilder(RequestTemplate(**template))(row))["contents"][0]["parts"]


class TestTemplates:
    @pytest.mark.parametrize(
        ("template", "text"),
        [
            ("{{ name }} says {{ text }}", "Ann says hi"),
            ("{{ name|upper }}: {{ row['odd name'] }}", "ANN: odd"),
            ("{% for item in items %}- {{ item }}\n{% endfor %}", "- a\n- b\n"),
            ("{% if count > 2 %}many{% else %}few{% endif %}", "many"),
            ("{# a remark #}x", "x"),
            ("{{ count }} {{ price }} {{ day }} {{ flag }} {{ items }}", "3 1.50 2026-11-22 True ['a', 'b']"),
            ("no placeholder\n", "no placeholder\n"),
            ("<b>{{ html }}</b>", "<b><i>&amp;</i></b>"),
            ("{{ lang }}: {{ name }}", "it: Ann"),
            ("{{ '{{ name }}' }}", "{{ name }}"),
            ("{% for i in range(3) %}{{ i }}{% endfor %}", "012"),
            ("{{ row | tojson }}", None),
        ],
        ids=[
            "columns", "filter and odd column", "loop", "condition", "remark", "types",
            "constant", "no escaping", "variable", "literal braces", "range", "the whole row",
        ],
    )  # fmt: skip
    def test_a_template_speaks_jinja_over_columns_and_variables(self, template, text):
        row = {
            "name": "Ann", "text": "hi", "odd name": "odd", "items": ["a", "b"], "count": 3, "price": Decimal("1.50"),
            "day": date(2026, 11, 22), "flag": True, "html": "<i>&amp;</i>",
        }  # fmt: skip
        made = compile_prompt(template, {"lang": "it"})(row)
        assert made == text if text is not None else json.loads(made)["price"] == "1.50"

    @BOTH_PATHS
    @pytest.mark.parametrize(
        "text", ["{{ secret }}", "{% for x in y %}", "{# gone #}", "{{ 7 * 7 }}", "\\ \" ' \x00 \n é 😀"]
    )
    def test_row_data_is_never_rendered(self, more, text):
        """A ticket that contains template syntax is a text like any other."""
        assert _parts({"text": text, "secret": "s"}, prompt="{{ text }}" + more) == [{"text": text}]

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("Hi\n{{ name", "mistake in line 2"),
            ("{% for %}", "mistake in line 1"),
            ("{{ x|nosuchfilter }}", "No filter named 'nosuchfilter'"),
            ("\n{% if x %}{{ x|nosuchfilter }}{% endif %}", "line 2. No filter named 'nosuchfilter'"),
            ("{% if x is nosuchtest %}{% endif %}", "No test named 'nosuchtest'"),
            ("{% include 'other' %}", "line 1. A prompt is one text"),
            ("\n{% extends x %}", "line 2. A prompt is one text"),
            ("{% from 'other' import x %}", "line 1. A prompt is one text"),
        ],
    )
    def test_a_mistake_in_the_template_is_found_before_any_row(self, template, message):
        with pytest.raises(InputError, match=rf"(?s){message}.*Correct `prompt`"):
            RequestBuilder(RequestTemplate(prompt=template))

    @pytest.mark.parametrize("template", ["Translate {text}", "Translate { text }", 'As {"a": {text}}', "{0}"])
    def test_places_in_single_braces_are_refused_where_nothing_else_names_a_column(self, template):
        with pytest.raises(
            InputError, match=r"\{ ?\w+ ?\} in single braces.*Each row would ask the same.*\{\{ \w+ \}\}"
        ):
            refuse_single_braces(template)

    @pytest.mark.parametrize("template", ["{{ text }} as {text}", 'Write {"mood": 1}', "{ }", "x", "{{ '{text}' }}"])
    def test_other_braces_are_a_text(self, template):
        refuse_single_braces(template)

    @pytest.mark.parametrize(
        ("template", "kind"),
        [
            ("{{ " + "(" * 5_000 + "a" + ")" * 5_000 + " }}", "RecursionError"),
            ("{{ " + "1" * 5_000 + " }}", "ValueError"),
        ],
        ids=["nested", "digits"],
    )
    def test_one_that_no_reader_follows_is_refused_in_words(self, template, kind):
        with pytest.raises(InputError, match=f"The prompt template cannot be read. {kind}. Nest it less"):
            compile_prompt(template)

    def test_one_that_is_another_text_each_time_is_refused(self):
        """Each attempt would have other requests, and buy them."""
        with pytest.raises(InputError, match=r"line 1. The filter random gives another prompt in each attempt"):
            compile_prompt("{% if a %}{{ ['Hello', 'Hi']|random }}{% endif %} {{ a }}")

    @pytest.mark.parametrize(
        ("row", "code"),
        [({"text": " \n"}, "empty-prompt"), ({"text": "\ud800"}, "not-unicode")],
        ids=["blank", "lone surrogate"],
    )
    def test_a_text_that_cannot_be_sent_is_a_problem_of_that_row(self, row, code):
        with pytest.raises(RowProblem, match=code) as caught:
            _parts(row, prompt="{{ text }}")
        assert caught.value.code == code


class TestNames:
    @BOTH_PATHS
    @pytest.mark.parametrize("name", ["range", "dict", "namespace", "cycler", "joiner", "lipsum", "self", "loop"])
    def test_a_missing_column_is_never_replaced_by_a_thing_of_jinja_s(self, name, more):
        with pytest.raises(PromptError, match=r"is not there|code, not a value"):
            compile_prompt("{{ " + name + " }}" + more)({"other": 1})

    @BOTH_PATHS
    @pytest.mark.parametrize("name", ["range", "dict", "namespace", "lipsum", "loop"])
    def test_a_column_may_have_a_name_of_jinja_s(self, name, more):
        assert compile_prompt("{{ " + name + " }}" + more)({name: "column"}) == "column"

    @BOTH_PATHS
    def test_a_variable_wins_over_a_column_of_the_same_name(self, more):
        """What the author wrote cannot be changed by a column that appears in the source one day."""
        prompt = compile_prompt("{{ tone }} {{ row.tone }}" + more, {"tone": "polite"})
        assert prompt({"tone": "rude"}) == "polite rude"

    @BOTH_PATHS
    def test_a_missing_column_is_named_with_the_columns_there_are(self, more):
        with pytest.raises(RowProblem, match=r"column 'name' is not there; the row has 'other', 'more'\W+$") as caught:
            _parts({"other": "hunter2", "more": 1}, prompt="{{ name }}" + more)
        assert caught.value.code == "prompt-template"

    def test_of_very_many_columns_some_are_named(self):
        with pytest.raises(PromptError, match="'c19' and 480 more"):
            compile_prompt("{{ name }}")({f"c{number}": 1 for number in range(500)})


MISSING = (None, float("nan"), Decimal("NaN"), Decimal("sNaN"), NAType())


class TestMissingValues:
    @each_case(
        itertools.product(MISSING, ["{{ a }}", "{{ a|upper }}", "{{ a ~ 'x' }}", "{{ a|trim }}", "{{ row.a }} {{ a }}"])
    )
    def test_it_is_never_sent_as_a_word(self, value, place):
        wanted = "column 'a' is without a value; write {{ a or '…' }}, or set on_null='empty'"
        with pytest.raises(PromptError, match=re.escape(wanted)):
            compile_prompt(place)({"a": value, "b": "x"})

    @each_case(itertools.product(MISSING, ["{{ a }}", "{{ a|upper }}", "{{ a ~ '' }}", "{{ a|trim }}", "{{ row.a }}"]))
    def test_it_is_an_empty_text_where_that_is_wanted(self, value, place):
        assert compile_prompt(f"[{place}]", on_null=OnNull.EMPTY)({"a": value}) == "[]"

    def test_a_template_can_ask_for_it(self):
        asked = [
            ("{{ a or '?' }}", "?"),
            ("{{ a|default('?', true) }}", "?"),
            ("{% if a is none %}?{% endif %}", "?"),
            ("{% if a == none %}?{% endif %}", "?"),
            ("{% if not a %}?{% endif %}", "?"),
            ("{{ row|tojson }}", '{"a": null}'),
        ]
        cases = [(template, value, text) for (template, text), value in itertools.product(asked, MISSING)]
        compare_each(cases, lambda template, value: compile_prompt(template)({"a": value}))

    @each_case(
        itertools.product(
            MISSING, ["{{ a.b }}", "{{ a.c|join }}", "{% for x in a.c %}{{ x }}{% endfor %}", "{{ a.c[0] ~ 'x' }}"]
        )
    )
    def test_one_inside_a_value_is_no_word_either(self, value, place):
        row = {"a": {"b": value, "c": (value,)}}
        with pytest.raises(PromptError, match=r"^a part of column 'a' is without a value; set on_null='empty', or"):
            compile_prompt(place)(row)
        assert compile_prompt(f"[{place}]", on_null=OnNull.EMPTY)(row).replace("x", "") == "[]"

    @each_case(MISSING)
    def test_a_template_can_ask_for_one_inside_a_value(self, value):
        asked = "{{ a.b or '?' }}{% for x in a.c if x is not none %}{{ x }}{% endfor %}{{ a.c|tojson }}"
        assert compile_prompt(asked)({"a": {"b": value, "c": [1, value]}}) == "?1[1, null]"

    def test_a_variable_without_a_value_is_named(self):
        with pytest.raises(PromptError, match="variable 'tone' is without a value; give it one in prompt_variables"):
            compile_prompt("{{ tone }}: {{ a }}", {"tone": None})({"a": "x"})

    def test_zero_and_false_and_an_empty_text_are_values(self):
        assert compile_prompt("{{ a }}{{ b }}{{ c }}")({"a": 0, "b": False, "c": ""}) == "0False"

    @pytest.mark.parametrize(
        "value", ["", 0, False, 0.0, [], "nan", "None", float("inf"), Decimal("Infinity")], ids=repr
    )
    def test_what_only_looks_missing_is_there(self, value):
        assert not is_missing(value)


class TestTexts:
    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ({"b", "a"}, "of type set .* its order changes from process to process"),
            ([{"a"}], "of type set"),
            ({"k": frozenset("ab")}, "of type frozenset"),
            (deque([{"a"}]), "of type set"),
            (object(), "of type object .* an address in memory"),
            ([object()], "of type list .* an address in memory"),
            (lambda: 1, "of type function .* code, not a value"),
            (dict, "of type type .* code, not a value"),
            (b"abc", "of type bytes .* bytes are no text"),
            (10**5000, "of type int .* too many digits"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    @BOTH_PATHS
    def test_a_value_without_a_stable_text_is_refused_by_its_column(self, value, why, more):
        with pytest.raises(PromptError, match=f"'col': a value {why}"):
            compile_prompt("{{ col }}" + more)({"col": value, "fine": "x"})

    @each_case(
        itertools.product(
            [{"b", "a"}, object(), [object()], {"k": {"a"}}],
            [
                "{{ a ~ '' }}",
                "{{ a|string }}",
                "{{ '%s' % a }}",
                "{{ '{}'.format(a) }}",
                "{{ a|pprint }}",
                "{{ a|lower }}",
            ],
        )
    )
    def test_and_whatever_it_passes_through(self, value, place):
        with pytest.raises(PromptError, match=r"'a': a value of type .* has no text to send"):
            compile_prompt(place)({"a": value, "fine": "x"})

    @pytest.mark.parametrize(
        "place", ["{{ a|join }}", "{{ a|list }}", "{{ a|first }}", "{% for x in a %}{{ x }}{% endfor %}"]
    )
    def test_a_set_is_gone_through_in_no_order(self, place):
        with pytest.raises(PromptError, match=r"'a': a value of type set .* order changes from process to process"):
            compile_prompt(place)({"a": {"x", "y"}})

    def test_a_set_can_be_sorted_counted_and_asked(self):
        template = "{{ a|sort|join }} {{ a|length }} {{ 'x' in a }} {{ b.c|sort(case_sensitive=false)|join }}"
        assert compile_prompt(template)({"a": {"y", "x"}, "b": {"c": {"a", "A"}}}) == "xy 2 True Aa"

    def test_what_a_template_made_and_has_no_text_is_refused(self):
        with pytest.raises(PromptError, match="its text holds an address in memory"):
            compile_prompt("{{ a|map('upper') ~ '' }}")({"a": "x"})

    def test_an_address_that_somebody_wrote_is_a_text(self):
        text = "<Thing object at 0x7f3b04a32350> crashed"
        assert compile_prompt("{{ a|lower }}{{ b[0] ~ '' }}")({"a": text.upper(), "b": [text]}) == text.lower() + text

    def test_a_set_among_the_variables_is_named_too(self):
        with pytest.raises(PromptError, match="'tags': a value of type set"):
            compile_prompt("{{ tags|join }} {{ a }}", {"tags": {"x", "y"}})({"a": "x"})

    @pytest.mark.parametrize(
        "value",
        [
            "x",
            1,
            True,
            1.5,
            Decimal("1.50"),
            date(2026, 1, 2),
            datetime(2026, 1, 2, tzinfo=UTC),
            UUID(int=1),
            ["a", {"b": 1}],
        ],
        ids=lambda value: type(value).__name__,
    )
    @BOTH_PATHS
    def test_every_other_value_is_its_text(self, value, more):
        assert stable_text(value) == str(value) == compile_prompt("{{ col }}" + more)({"col": value})

    def test_a_text_that_only_looks_like_an_address_is_a_text(self):
        assert stable_text("<object at 0x7f3b04a32350>") == "<object at 0x7f3b04a32350>"


class TestAColumnThatIsNotThere:
    @pytest.mark.parametrize("source", ["{{ gone }}", "{{ row['gone'] }}", "{{ row.gone }}", "{{ row.gone|upper }}"])
    def test_is_named_with_those_that_are_however_it_is_asked_for(self, source):
        with pytest.raises(PromptError, match=r"^column 'gone' is not there; the row has 'here', 'too'$"):
            compile_prompt(source)({"here": "secret", "too": 1})

    def test_what_a_dict_has_of_its_own_is_no_column(self):
        assert compile_prompt("{{ row.keys()|list }}")({"here": "secret"}) == "['here']"

    def test_of_very_many_the_first_are_named(self):
        row = {f"c{number}": 1 for number in range(100)}
        with pytest.raises(PromptError, match=r"'c19' and 80 more$"):
            compile_prompt("{{ gone }}")(row)


class TestErrors:
    @pytest.mark.parametrize(
        "template",
        [
            "{{ secret }}{{ 1 / n }}",
            "{{ row[secret] }}",
            "{{ secret.nothing }}",
            "{{ secret.nothing.below }}",
            "{{ {}[secret] }}",
            "{{ secret|int + none }}",
            "{{ secret() }}",
            "{{ secret|attr('x') ~ '' }}",
            "{% for a, b in secret %}{% endfor %}",
            "{{ [secret] * n * 1000000000000 }}{{ row[secret] }}",
            "{{ row[secret].x }}",
            "{% set x = row[secret] %}{{ x }}",
        ],
    )
    def test_what_a_row_holds_is_in_no_error(self, template):
        row = {"secret": "hunter2", "n": 0}
        with pytest.raises(PromptError, match=r"template|column") as caught:
            compile_prompt(template)(row)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("a\n{{ text + 1 }}", "TypeError in line 2 of the template"),
            ("{{ text.nope }}", "'nope' is not there in a value that the template asks for it"),
            ("{{ a.b.c }}", "one of 'b', 'c' is not there in a value that the template asks for it"),
            ("{{ text['__class__'] }}", "it asks for an attribute that is unsafe in line 1 of the template"),
            ("{{ text|attr('__len__' ~ end) }}", "it asks for an attribute that is unsafe in line 1 of the template"),
        ],
    )
    def test_the_template_s_own_words_say_where_to_look(self, template, message):
        row = {"text": "hunter2", "a": {"b": {}}, "end": ""}
        with pytest.raises(PromptError, match=rf"^{message}$"):
            compile_prompt(template)(row)


class TestTheSandbox:
    @pytest.mark.parametrize(
        "template",
        [
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ row.__class__ }}",
            "{{ row.clear() }}",
            "{{ items.append(1) }}",
            "{{ joiner.__init__.__globals__ }}",
            "{{ thing.run() }}{{ thing.__dict__ }}",
        ],
    )
    def test_a_template_reaches_nothing_but_its_row(self, template):
        row = {"items": [], "thing": SimpleNamespace(run=lambda: "ran")}
        with pytest.raises(PromptError, match=r"SecurityError|unsafe|UndefinedError|attribute|no text"):
            compile_prompt(template)(row)
        assert row["items"] == []

    #: Each would take gigabytes, or minutes, of whoever reads the DAG file or renders a row.
    BOMBS = (
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [0] * 10**9 }}",
        "{{ 9**999999999 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'a'|center(1000000000) }}",
        "{{ 'a\nb'|indent(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ body * 1000000000 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = [n.x, n.x]|join %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = ''.join([n.x, n.x]) %}{% endfor %}",
        "{{ body.replace('', 'a' * 10**7) }}",
        "{{ body|replace('x', 'a' * 10**7) }}",
        "{{ body.translate({120: 'a' * 10**7}) }}",
        "{{ body|wordwrap(1, wrapstring='a' * 10**7) }}",
        "{{ body|batch(10**9, 'x')|list|length }}",
        "{{ body|slice(10**9)|list|length }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ body }}{% endfor %}{% endfor %}",
    )

    def test_no_template_takes_more_memory_than_a_prompt_may_have(self):
        """In a process of its own: it would be killed, not slow."""
        limit = 4 * MAX_PROMPT_CHARACTERS + 200_000_000
        program = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
from airflow_vertex_batch.core.requests.prompt import PromptError, compile_prompt
for bomb in {self.BOMBS!r}:
    prompt = compile_prompt(bomb)
    try:
        prompt({{"body": "x" * 1000}})
    except PromptError as error:
        assert "MemoryError" not in str(error), (bomb, error)
    else:
        raise SystemExit(bomb)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
