"""Static types of templates: what cannot be meant is found before anything runs, and nothing else is."""

import pytest

from synaptic.agents.shape import Shape
from synaptic.pipeline.templates.expressions import Expression, Template, TemplateProblem
from synaptic.pipeline.templates.static_types import (
    BOOLEAN,
    NUMBER,
    TEXT,
    UNKNOWN,
    ListOf,
    Number,
    Record,
    StaticType,
    Text,
    of_field,
)

CRITIC = Record(
    {"score": NUMBER, "issues": ListOf(TEXT), "passed": BOOLEAN, "note": UNKNOWN},
    "the output of 'critic' has no {name}",
)
SECTION = Record({"title": TEXT, "words": Number(whole=True)}, "an item of 'sections' has no {name}")
STEPS = Record(
    {
        "critic": CRITIC,
        "write": TEXT,
        "research": ListOf(Record({"key_facts": ListOf(TEXT)}, "the output of 'research' has no {name}")),
        "outline": Record({"sections": ListOf(SECTION)}, "the output of 'outline' has no {name}"),
        "route": Text(("billing", "support")),
        "tool": UNKNOWN,
    },
    "there is no step {name}",
    whole="'steps' needs the name of one step, so that it is known what to wait for",
)
INPUTS = Record({"query": TEXT, "threshold": NUMBER, "topics": ListOf(TEXT)}, "there is no input {name}")
SCOPE: dict[str, StaticType] = {"inputs": INPUTS, "steps": STEPS, "run": Record({"id": TEXT}, "'run' has no {name}")}


def findings(source: str) -> list[tuple[int, str, str]]:
    _, found = Template.compile(source).check(SCOPE)
    return [(f.line, f.token, f.message + (f"; {f.suggestion}" if f.suggestion else "")) for f in found]


def type_of(source: str) -> StaticType:
    kind, found = Expression.compile(source).check(SCOPE)
    assert found == []
    return kind


@pytest.mark.parametrize("form", ["{{ %s }}", "{%% if %s %%}{%% endif %%}", "{{ %s | json }}", "{{- %s -}}"])
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("steps.critic.scroe", "the output of 'critic' has no 'scroe'; did you mean 'score'?"),
        ("steps.wirte", "there is no step 'wirte'; did you mean 'write'?"),
        ("inputs.qery", "there is no input 'qery'; did you mean 'query'?"),
        ("run.idd", "'run' has no 'idd'; did you mean 'id'?"),
        ("foo", "'foo' is not defined here; known: inputs, run, steps"),
        ("step.write", "'step' is not defined here; did you mean 'steps'?"),
        ("previous.a", "'previous' is the round before, and there is no loop here; move it into a 'repeat'"),
        ("steps.write.text", "'steps.write' is text and has no 'text'; write steps.write"),
        ("steps.write.upper", "'steps.write' is text and has no 'upper'; write steps.write.upper()"),
        ("steps.critic.score.value", "'steps.critic.score' is a number and has no 'value'; write steps.critic.score"),
        (
            "steps.critic.passed.x",
            "'steps.critic.passed' is true or false and has no 'x'; write steps.critic.passed",
        ),
        (
            "steps.research.key_facts",
            "'steps.research' is a list, one output per item; loop over it: {% for part in steps.research %}",
        ),
        (
            "inputs.topics.x",
            "'inputs.topics' is a list and has no 'x'; loop over it: {% for part in inputs.topics %}",
        ),
        ("steps", "'steps' needs the name of one step, so that it is known what to wait for; write steps.NAME"),
    ],
)
def test_a_reference_that_leads_nowhere_is_found_with_and_without_jinja(form: str, reference: str, message: str):
    token = reference.partition(".")[0] if "not defined" in message or "previous" in message else reference

    assert findings("first line\n" + form % reference) == [(2, token, message)]


@pytest.mark.parametrize(
    ("source", "token", "message"),
    [
        ("{{ steps['critic'].scroe }}", "scroe", "the output of 'critic' has no 'scroe'; did you mean 'score'?"),
        ("{{ steps.critic['scroe'] }}", "scroe", "the output of 'critic' has no 'scroe'; did you mean 'score'?"),
        (
            "{% for r in steps.research %}{{ r.facts }}{% endfor %}",
            "r.facts",
            "the output of 'research' has no 'facts'; did you mean 'key_facts'?",
        ),
        (
            "{% set c = steps.critic %}{{ c.scroe }}",
            "c.scroe",
            "the output of 'critic' has no 'scroe'; did you mean 'score'?",
        ),
        (
            "{{ steps.outline.sections[0].titel }}",
            "titel",
            "an item of 'sections' has no 'titel'; did you mean 'title'?",
        ),
        (
            "{{ (steps.outline.sections | first).titel }}",
            "titel",
            "an item of 'sections' has no 'titel'; did you mean 'title'?",
        ),
        (
            "{{ steps.outline.sections | map(attribute='titel') | join }}",
            "steps.outline.sections",
            "an item of 'sections' has no 'titel'; did you mean 'title'?",
        ),
        (
            "{% for part in inputs.query | chunks %}{{ part.name }}{{ part.number }}{% endfor %}",
            "part.number",
            "a chunk has no 'number'; known: ",
        ),
        (
            "{% for x in inputs.topics %}{{ loop.idx }}{% endfor %}",
            "loop.idx",
            "'loop' has no 'idx'; did you mean 'index'?",
        ),
        (
            "{{ loop.index }}{% if true %}{% endif %}",
            "loop",
            "'loop' is only there inside a loop; write it between {% for … %} and {% endfor %}",
        ),
        ("{% for s in steps %}{{ s }}{% endfor %}", "steps", "'steps' needs the name of one step"),
        ("{{ steps[inputs.query] }}", "steps", "'steps' needs the name of one step"),
        (
            "{% for x in inputs.topics %}{% endfor %}{{ x }}",
            "x",
            "'x' is not defined here; known: inputs, run, steps",
        ),
        ("{{ steps.critic.score.upper() }}", "steps.critic.score.upper", "is a number and has no 'upper'"),
        ("{{ {'a': 1}.b }}", "b", "there is no field 'b'; known: a"),
        (
            "{% for c in steps.write %}{% endfor %}",
            "steps.write",
            "'steps.write' is text, and a loop needs a list; write steps.write.splitlines()",
        ),
        ("{% for c in inputs.threshold %}{% endfor %}", "inputs.threshold", "is a number, and a loop needs a list"),
        (
            "{% for c in steps.critic %}{% endfor %}",
            "steps.critic",
            "'steps.critic' is a record, and a loop needs a list; write steps.critic | items",
        ),
        ("{{ steps.write | join(', ') }}", "steps.write", "'steps.write' is text, and 'join' needs a list"),
        ("{{ inputs.threshold | length }}", "inputs.threshold", "is a number, and 'length' needs a list or a text"),
        ("{{ steps.write | round }}", "steps.write", "is text, and 'round' needs a number; write | float before it"),
        ("{{ inputs.topics | items }}", "inputs.topics", "is a list, and 'items' needs a record"),
        ("{{ inputs.threshold | chunks }}", "inputs.threshold", "is a number, and 'chunks' needs a text"),
        ("{% set ns.a = 1 %}", "ns", "'ns' is not defined here"),
        ("{% if inputs.query %}{% elif inputs.b %}{% endif %}", "inputs.b", "there is no input 'b'"),
        ("{{ steps.critic[0] }}", "steps.critic", "the output of 'critic' has no '0'"),
        ("{{ steps.critic.get.x }}", "steps.critic.get", "the output of 'critic' has no 'get'"),
        ("{{ steps.get('write') }}", "steps", "'steps' needs the name of one step"),
        ("{{ {'items': 1}.items() }}", "items", "'items' is a field, not a method; leave the brackets out"),
        ("{{ range(*inputs.x) | list }}", "inputs.x", "there is no input 'x'"),
        ("{{ inputs.topics | join(*inputs.x) }}", "inputs.x", "there is no input 'x'"),
        ("{{ steps.write is divisibleby(inputs.x) }}", "inputs.x", "there is no input 'x'"),
        ("{{ inputs.topics[inputs.x:] }}", "inputs.x", "there is no input 'x'"),
        ("{{ {inputs.x: 1}.a }}", "inputs.x", "there is no input 'x'"),
        ("{{ steps.critic + 1 }}", "steps.critic", "is a record, and '+' adds numbers, texts or lists"),
        ("{{ 'a' < inputs.topics }}", "inputs.topics", "'a' is text and cannot be compared with a list"),
    ],
)
def test_what_a_template_binds_has_a_type_too(source: str, token: str, message: str):
    ((line, found, text),) = findings(source)

    assert (line, found) == (1, token)
    assert message in text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("steps.write > 3", "'steps.write' is text and cannot be compared with a number; write steps.write | float"),
        ("3 > steps.write", "'steps.write' is text and cannot be compared with a number; write steps.write | float"),
        ("inputs.threshold < '0.5'", "'0.5' is text and cannot be compared with a number; write the number without"),
        ("steps.research > 3", "is a list and cannot be compared with a number; write steps.research | length"),
        ("steps.critic < 1", "'steps.critic' is a record and has no order; compare a field of it"),
        ("steps.route == 'biling'", "'steps.route' is never 'biling'; did you mean 'billing'?"),
        ("'sales' != steps.route", "'steps.route' is never 'sales'; known: billing, support"),
        ("steps.route in ['support', 'biling']", "'steps.route' is never 'biling'; did you mean 'billing'?"),
        ("steps.critic.score == '1'", "never equal to the text '1'; write 1 without quotes"),
        ("inputs.query == 5", "'inputs.query' is text and never equal to 5; write '5' in quotes"),
        ("steps.critic.passed == 'yes'", "is true or false and never equal to the text 'yes'"),
        ("inputs.topics == 0", "is a list and never equal to 0; write inputs.topics | length"),
        ("'a' in inputs.threshold", "'inputs.threshold' is a number, and nothing is in it"),
        ("steps.write - 1", "'steps.write' is text, and '-' needs numbers; write steps.write | float"),
        ("1 / steps.write", "'steps.write' is text, and '/' needs numbers"),
        ("inputs.topics * 2", "'inputs.topics' is a list, and '*' needs numbers"),
        ("steps.write + 1", "is text, and '+' cannot add a number to it; write ~ to join them as text"),
        (
            "inputs.topics + inputs.query",
            "'inputs.topics' is a list, and '+' cannot add text to it; put it in brackets: [x]",
        ),
        ("-steps.write", "'steps.write' is text, and '-' needs a number"),
        ("0 < steps.critic.score < steps.write", "'steps.write' is text and cannot be compared with a number"),
    ],
)
def test_operators_are_checked_where_the_types_are_known(source: str, message: str):
    _, (found,) = Expression.compile(source).check(SCOPE)

    assert message in f"{found.message}; {found.suggestion}"


@pytest.mark.parametrize(
    "source",
    [
        "{% if steps.tool %}{{ steps.tool.any.thing[3] }}{{ steps.tool > 3 }}{{ steps.tool - 1 }}{% endif %}",
        "{{ steps.critic.note.anything }}{{ steps.critic.note | join }}",
        "{{ steps.research[0].key_facts[0] }}{{ steps.research[-1].key_facts | length + 1 }}{{ inputs.topics[1:][0] }}",
        "{% for r in steps.research %}{% for f in r.key_facts %}{{ f.upper() ~ loop.last }}{% endfor %}{% endfor %}",
        "{% for k, v in steps.critic | items %}{{ k }}{{ v.x }}{% endfor %}",
        "{% for k, v in steps.critic.items() %}{{ k }}{{ v.x }}{% endfor %}",
        "{% set ns = namespace(b=none) %}{% for r in steps.research %}{% set ns.b = r %}{% endfor %}{{ ns.b.x }}",
        "{% if inputs.query %}{% set x = steps.critic %}{% else %}{% set x = steps.write %}{% endif %}{{ x.score }}",
        "{% if inputs.query %}{% set x = 1 %}{% endif %}{{ x }}",
        "{{ (steps.tool if inputs.query else steps.critic).x }}",
        "{{ steps.critic.score | default('none') }}{{ (steps.tool | default({})).x }}",
        "{% with a = steps.critic, b = 1 %}{{ a.score + b }}{% endwith %}",
        "{{ inputs.topics | map('upper') | join(', ') }}{{ inputs.topics | sort | first }}{{ inputs.query | last }}",
        "{{ steps.critic.score * 100 | round }}{{ '%d' % steps.critic.score }}{{ steps.write % 3 }}",
        "{{ steps.write ~ steps.critic.score ~ steps.critic }}{{ steps.write + inputs.query }}",
        "{{ steps.route == 'billing' or steps.route in ['support'] or inputs.query == 'x' or inputs.query == none }}",
        "{{ steps.critic.passed == true and not steps.critic.passed and steps.critic.score == 1 }}",
        "{{ range(3) | map('string') | list }}{% for i in range(inputs.topics | length) %}{{ i + 1 }}{% endfor %}",
        "{{ steps.outline.sections | selectattr('words', '>', 3) | map(attribute='title') | join }}",
        "{{ steps.outline.sections | sum(attribute='words') / 2 }}",
        "{{ steps.outline.sections | sort(attribute='words,title') | map(attribute='title') | join }}",
        "{% filter upper %}{{ steps.write }}{% endfilter %}{% set t %}{{ steps.write }}{% endset %}{{ t.strip() }}",
        "{{ 'x' in inputs.query and 'x' in inputs.topics and 'score' in steps.critic }}",
        "{{ steps.critic.get('score') + 1 }}{{ inputs.query.split()[0].upper() }}",
        "{{ steps.write is defined and steps.tool is skipped }}{{ inputs.query[0] }}",
        "{% for item in inputs.topics if item != 'x' %}{{ item }}{% else %}{{ inputs.query }}{% endfor %}",
    ],
)
def test_what_may_be_meant_is_not_complained_about(source: str):
    assert findings(source) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("steps.critic.score", NUMBER),
        ("{{ steps.research }}", STEPS.fields["research"]),
        ("steps.research | length", NUMBER),
        ("steps.research | length > 2", BOOLEAN),
        ("inputs.topics | first", TEXT),
        ("inputs.query | chunks | map(attribute='part')", ListOf(Number(whole=True))),
        ("steps.outline.sections | map(attribute='title') | list", ListOf(TEXT)),
        ("inputs.topics | batch(2)", ListOf(ListOf(TEXT))),
        ("steps.tool", UNKNOWN),
        ("steps.write or inputs.query", TEXT),
        ("steps.write if steps.tool else 3", UNKNOWN),
        ("1 + inputs.threshold", NUMBER),
        ("[1, 2]", ListOf(Number(whole=True))),
        ("['a'] + inputs.topics", ListOf(TEXT)),
        ("'a' ~ 1", TEXT),
        ("inputs.query.split()", ListOf(TEXT)),
        ("steps.route", Text(("billing", "support"))),
        ("inputs.query | int", Number(whole=True)),
        ("not steps.tool", BOOLEAN),
        ("inputs.topics[1:]", ListOf(TEXT)),
        ("inputs.query | reverse", TEXT),
    ],
)
def test_an_expression_has_a_type(source: str, kind: StaticType):
    assert type_of(source) == kind


def test_an_output_shape_becomes_a_type():
    shape = Shape.parse({"kind": "enum(a, b)", "n": "integer", "ok": "boolean", "x?": "number", "l": "list[string]"})

    kind = of_field(shape.root, "the output of 'c'")

    assert kind == Record(
        {"kind": Text(("a", "b")), "n": Number(whole=True), "ok": BOOLEAN, "x": UNKNOWN, "l": ListOf(TEXT)},
        "the output of 'c' has no {name}",
    )


def test_a_templates_type_is_that_of_its_sole_reference():
    assert Template.compile(" {{ steps.research }} ").check(SCOPE)[0] == STEPS.fields["research"]
    assert Template.compile("{{ steps['critic']['score'] }}").check(SCOPE)[0] == NUMBER
    assert Template.compile("{{ steps.critic.score }}!").check(SCOPE)[0] == TEXT
    assert Template.compile("{{ steps.critic.score | round }}").check(SCOPE)[0] == TEXT


def test_each_mistake_is_found_once_a_place():
    assert [(line, token) for line, token, _ in findings("{{ inputs.a }}{{ inputs.a }}\n{{ inputs.a | upper }}")] == [
        (1, "inputs.a"),
        (2, "inputs.a"),
    ]
    assert len(findings("{{ inputs.a }}{{ inputs.a }}")) == 1


def test_findings_come_in_the_order_of_the_lines():
    source = "{% for a in inputs.topics %}\n{{ a.x }}\n{% endfor %}{% if inputs.b == 3 %}\n{{ steps.c - 1 }}{% endif %}"

    assert [line for line, _, _ in findings(source)] == [2, 3, 4]


def test_a_type_that_doubles_in_every_line_is_not_followed():
    source = "".join(
        f"{{% set {name} = {{'a': 1}} %}}" + f"{{% set {name} = {{'a': {name}, 'b': {name}}} %}}" * 100 for name in "xy"
    )

    assert findings(source + "{{ x.a.a if inputs.query else y.a.b }}{{ x == y }}{{ [x, y] | first }}") == []


def test_a_type_that_grows_by_a_level_in_every_line_is_not_followed():
    grown = "{% set x = [x] %}{% set y = [y] %}" * 490

    assert findings("{% set x = [1] %}{% set y = [2] %}" + grown + "{{ x if inputs.query else y }}") == []


def test_a_template_has_a_bound_on_its_tags():
    source = "one\n" + "{% if inputs.query %}{% set a = 1 %}{% endif %}" * 501

    with pytest.raises(TemplateProblem, match="more than 1000 tags"):
        Template.compile(source)


def test_one_mistake_does_not_lead_to_others():
    assert len(findings("{{ (steps.wirte.a.b | first) - 1 > 'x' }}")) == 1


def test_a_misspelt_item_of_a_map_is_compared_with_the_names_there():
    scope = {**SCOPE, "item": TEXT, "question": TEXT}

    _, (found,) = Template.compile("{{ queston }}").check(scope)

    assert found.suggestion == "did you mean 'question'?"


def test_a_sum_that_begins_with_a_list_is_a_list():
    """The usual way to make one list of several."""
    lists = {"rows": ListOf(ListOf(TEXT))}
    assert Expression.compile("rows | sum(start=[]) | length > 1").check(lists)[1] == []
    assert Template.compile("{{ rows | sum(start=[]) | join(', ') }}").check(lists)[1] == []
    assert (
        Template.compile("{{ rows | sum(start=[]) | join(', ') }}").render({"rows": [["a"], ["b"]]}, where="x")
        == "a, b"
    )
