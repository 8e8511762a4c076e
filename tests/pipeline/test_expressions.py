"""Templates and expressions: values, references, spans, skipped steps, and what is refused at load."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic.errors import PipelineError
from synaptic.pipeline.templates.expressions import SKIPPED, Expression, Template, TemplateProblem, present
from synaptic.pipeline.templates.sandbox import Program
from synaptic.pipeline.templates.simple import parse_simple


def references(source: str) -> list[str]:
    return [str(reference) for reference in Template.compile(source).references]


def render(source: str, **variables: object) -> str:
    return Template.compile(source).render(variables, where="here")


def evaluate(source: str, **variables: object) -> object:
    return Expression.compile(source).evaluate(variables, where="here")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", []),
        ("{{ inputs.query }}", ["inputs.query"]),
        ("{{inputs.query}}{{ steps.a }}", ["inputs.query", "steps.a"]),
        ("{{ steps['plan'].questions[0] }}", ["steps.plan.questions"]),
        ("{{ steps.plan.questions | length }}", ["steps.plan.questions"]),
        ("{% for f in steps.research %}{{ f.key_facts }}{% endfor %}", ["steps.research"]),
        ("{% set x = inputs.a %}{{ x.b }}", ["inputs.a"]),
        ("{{ (previous.a if previous else steps.b).c }}", ["previous.a", "previous", "steps.b"]),
        ("{{ steps[inputs.which].x }}", ["steps", "inputs.which"]),
        ("{{ steps.a[inputs.n].x }}", ["steps.a", "inputs.n"]),
        ("{{ inputs.query.upper() }}{{ steps.items() }}", ["inputs.query", "steps"]),
        ("{{ range(inputs.n) | join(inputs.d) }}", ["inputs.n", "inputs.d"]),
        # A name is the template's own only where it is bound.
        ("{% for a in inputs.x %}{{ a }}{{ loop.index }}{% endfor %}{{ a }}{{ loop }}", ["inputs.x", "a", "loop"]),
        ("{% for a in a %}{{ a.b }}{% else %}{{ a.c }}{% endfor %}", ["a", "a.c"]),
        ("{% for a in l %}{% set b = a %}{{ b.x }}{% endfor %}{{ b.y }}", ["l", "b.y"]),
        ("{{ x.a }}{% set x = 1 %}{{ x.b }}", ["x.a"]),
        ("{% if c %}{% set x = 1 %}{% endif %}{{ x.b }}", ["c", "x.b"]),
        ("{% if c %}{% set x = 1 %}{% elif d %}{% set x = 2 %}{% else %}{% set x = 3 %}{% endif %}{{ x }}", ["c", "d"]),
        ("{% with a = b.c, d = a.e %}{{ a.f }}{{ d }}{% endwith %}{{ a }}", ["b.c", "a.e", "a"]),
        ("{% set t %}{% set u = 1 %}{{ v }}{% endset %}{{ t }}{{ u }}", ["v", "u"]),
        ("{% filter upper %}{% set u = 1 %}{{ u }}{% endfilter %}{{ u }}", ["u"]),
        ("{% for a, (b, c) in l if a != d %}{{ a ~ b ~ c }}{% endfor %}", ["l", "d"]),
        ("{% set ns = namespace(x=q) %}{% set ns.x = r %}{{ ns.x }}", ["q", "r"]),
        ("{{ [a, {'k': b}, (c,)] | map(attribute=d) | list }}", ["a", "b", "c", "d"]),
        ("{{ true }}{{ none }}{{ 1.5 }}", []),
    ],
)
def test_references_are_read_off_the_syntax(source: str, expected: list[str]):
    assert sorted(references(source)) == sorted(expected)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("hole", ["{{ inputs.x }}", "{{ inputs.x | upper }}", "{{\t\ninputs.x }}"])
def test_a_reference_knows_its_line(newline: str, hole: str):
    (reference,) = Template.compile(f"a{newline}{newline}b {hole}").references

    assert reference.line == 3 + hole.count("\n")


@pytest.mark.parametrize("source", ["\n\nsteps.a", "\n\n{{ steps.a }}", "\n\nsteps.a > 1", "\n\n{{ steps.a > 1 }}"])
def test_a_reference_of_an_expression_knows_its_line(source: str):
    assert Expression.compile(source).references[0].line == 3


def test_a_template_that_is_one_reference_says_so():
    for source in (" {{ steps.write }} ", "{{steps.write}}\n", "{{ steps['write'] }}", "{{- steps.write -}}"):
        assert str(Template.compile(source).sole_reference) == "steps.write"
    for source in (
        "{{ steps.write }}!",
        "{{ steps.write | upper }}",
        "{{ a }}{{ b }}",
        "x",
        "",
        "{{ a[0] }}",
        "{{ 1 }}",
    ):
        assert Template.compile(source).sole_reference is None


def test_an_expression_that_is_one_reference_says_so():
    for source in ("steps.write", " {{ steps.write }} ", "steps['write']"):
        assert str(Expression.compile(source).sole_reference) == "steps.write"
    for source in ("steps.write + 1", "steps.write[0]", "true", "steps.write | list", "not steps.write"):
        assert Expression.compile(source).sole_reference is None


def test_an_expression_gives_a_value_with_or_without_braces():
    for source in ("inputs.n + 1", "{{ inputs.n + 1 }}", "{{inputs.n+1}}\n", "{{- inputs.n + 1 -}}"):
        assert evaluate(source, inputs={"n": 2}) == 3
    for source in ("inputs.n", "{{ inputs.n }}", "{{inputs.n}}", "\n inputs['n'] "):
        assert evaluate(source, inputs={"n": [2]}) == [2]
    for source in ("{'a': {'b': 1}}", "{{ {'a': {'b': 1}} }}"):
        assert evaluate(source) == {"a": {"b": 1}}


def test_an_expression_gives_lists_that_can_be_counted():
    assert evaluate("range(3)") == [0, 1, 2]
    assert evaluate("[3, 1] | sort | map('string')") == ["1", "3"]
    assert evaluate("inputs.items()", inputs={"a": 1}) == [("a", 1)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("a", "a"),
        (True, "yes"),
        (False, "no"),
        (0.5, "0.5"),
        (["a", "b"], "- a\n- b"),
        ({"a": 1, "b": None, "c": [], "d": SKIPPED}, "a: 1"),
        ({"a": ["x", "y"]}, "a:\n- x\n- y"),
        ([{"k": 1, "l": 2}], "- k: 1\n  l: 2"),
        ([["a"], ["b"]], "- - a\n- - b"),
        (["a", SKIPPED], "- a"),
        (SKIPPED, ""),
    ],
)
def test_values_are_shown_as_text_that_a_small_model_reads(value: object, text: str):
    assert present(value) == text
    for source in ("{{ inputs.v }}", "{{ inputs['v'] }}", "{{ inputs.v | bullets }}", "{{ '' ~ inputs.v }}"):
        assert render(source, inputs={"v": value}) == text


def test_filters_give_json_and_bullets():
    assert render("{{ v | json }} {{ v | bullets }} {{ v | tojson }}", v=["é"]) == '["é"] - é ["é"]'
    assert render("{{ v | json(indent=1) }}", v={"a": SKIPPED}) == '{\n "a": null\n}'
    assert render("{{ v | join(', ') }}", v=["a", None, True, SKIPPED]) == "a, , yes"
    assert (
        render("{{ v | map(attribute='n') | join('+') }} {{ v | sum(attribute='n') }}", v=[{"n": 1}, {"n": 2}])
        == "1+2 3"
    )


def test_loops_conditions_and_blocks_of_jinja_work():
    source = """
{% for part in steps.parts if part.n %}
{{ loop.index }}/{{ loop.length }} {{ part.n }}{{ "," if not loop.last }}
{% else %}
nothing
{% endfor %}
{% set note %}{{ inputs.a }}!{% endset %}{% filter upper %}{{ note }}{% endfilter %}
"""
    steps = {"parts": [{"n": 1}, {"n": 0}, {"n": 2}]}

    assert render(source, steps=steps, inputs={"a": "q"}) == "1/2 1,\n2/2 2\nQ!"
    assert render(source, steps={"parts": []}, inputs={"a": "q"}) == "nothing\nQ!"


@pytest.mark.parametrize(
    ("source", "message", "suggestion"),
    [
        ("{{ a", "the expression that '{{' begins has no end", "write }} behind it"),
        ("{% if %}", "'if' has nothing to go by", "write {% if steps.a %}"),
        ("{% fro x in y %}", "there is no tag 'fro'", "did you mean 'for'?"),
        ("{% for x in y %}{% endfro %}", "'endfro' does not end 'for'", "write {% endfor %}"),
        ("{{ a | nope }}", "there is no filter 'nope'", None),
        ("{{ a | lenght }}", "there is no filter 'lenght'", "did you mean 'length'?"),
        ("{% if x %}{{ a | lenght }}{% endif %}", "there is no filter 'lenght'", "did you mean 'length'?"),
        ("{{ a | map('uper') }}", "there is no filter 'uper'", "did you mean 'upper'?"),
        ("{{ a | select('od') }}", "there is no test 'od'", "did you mean 'odd'?"),
        ("{{ a is skiped }}", "there is no test 'skiped'", "did you mean 'skipped'?"),
        ("{{ a | replace('b') }}", "the filter 'replace' needs the argument 'new'", "write new=… in its brackets"),
        (
            "{{ a | join(sep=',') }}",
            "the filter 'join' has no argument 'sep'",
            "write the value without a name before it",
        ),
        ("{{ a | safe }}", "the filter 'safe' is not for prompts", "prompts are no HTML"),
        ("{{ a | random }}", "the filter 'random' is not for prompts", "a run that is repeated must ask the same"),
        ("{% include 'x' %}", "cannot import", None),
        ("{% import 'x' as y %}", "cannot import", None),
        ("{% extends 'x' %}", "cannot import", None),
        ("{% macro f() %}{% endmacro %}", "templates have no macros", "loop over a list of what differs"),
        ("{% block a %}{% endblock %}", "templates have no blocks", "leave the block's tags out"),
        ("{% autoescape true %}{% endautoescape %}", "nothing to escape", None),
        ("{% for x in y recursive %}{{ loop(x) }}{% endfor %}", "a loop cannot be recursive", None),
        ("{% set steps = 1 %}", "'steps' has a meaning of its own and cannot be set", "take another name"),
        ("{% for loop in x %}{% endfor %}", "'loop' has a meaning of its own", "take another name"),
        ("{{ len(a) }}", "there is no function 'len'", "write x | length"),
        ("{{ rnage(3) }}", "there is no function 'rnage'", "did you mean 'range'?"),
        ("{{ a.format(1) }}", "the method 'format' cannot be called", "join the parts with ~"),
        ("{{ a.uper() }}", "the method 'uper' cannot be called", "did you mean 'upper'?"),
        ("{{ a.append(1) }}", "the method 'append' cannot be called", None),
        ("{{ ''.__class__ }}", "'__class__' is out of reach", None),
        ("{{ steps.a.__init__ }}", "'__init__' is out of reach", None),
        ("{{ steps.a._private }}", "'_private' is out of reach", None),
        ("{{ a['__class__'] }}", "'__class__' is out of reach", None),
        ("{{ a | map(attribute='b.__class__') }}", "'__class__' is out of reach", None),
        ("{{ a | attr('b') }}", "the filter 'attr' is not for prompts", "write x.name or x['name']"),
        ("{{ x.mro() }}", "the method 'mro' cannot be called", None),
        ("{{ (a or b)() }}", "only functions and methods can be called", None),
        ("{{ 1e999 }}", "the number is too large", None),
        ("{{ 0x" + "f" * 5000 + " }}", "the number is too large", None),
        ("{{ " + "9" * 5000 + " }}", "the number has too many digits", None),
        ("{{ '\\ud800' }}", "surrogate", None),
        ("{{ " + "[" * 45 + "]" * 45 + " }}", "nested too deeply", "split it with {% set %}"),
        ("{{ " + "(" * 400 + "1" + ")" * 400 + " }}", "nested too deeply", "split it with {% set %}"),
        ("{{ 1" + " + 1" * 400 + " }}", "nested too deeply", "split it with {% set %}"),
        ("{{ a" + ".b" * 400 + " }}", "nested too deeply", "split it with {% set %}"),
        ("{% for a in b %}" * 12 + "{% endfor %}" * 12, "nested too deeply", "split it with {% set %}"),
        ("a {#each x}", "the comment that '{#' begins has no end", "write {{ '{#' }} for the signs"),
    ],
)
def test_a_broken_template_says_what_on_which_line_and_what_to_write(source: str, message: str, suggestion: str | None):
    with pytest.raises(TemplateProblem, match=r"\S") as caught:
        Template.compile("one\n" + source)

    problem = caught.value
    assert message in problem.message
    # Where the parser itself runs out of stack, it does not say where.
    assert problem.line == (1 if "(" * 400 in source else 2)
    assert (problem.suggestion or "").startswith(suggestion or "")
    assert problem.token is None or problem.token in source


def test_every_refusal_in_a_template_is_reported_in_the_order_of_the_text():
    with pytest.raises(TemplateProblem) as caught:
        Template.compile("{{ a.__x__ }}{{ b | nope }}\n{% include 'c' %}\n{{ d is odder }}")

    problems = (caught.value, *caught.value.others)
    assert [(problem.line, problem.token) for problem in problems] == [
        (1, "__x__"),
        (1, "nope"),
        (2, None),
        (3, "odder"),
    ]


@pytest.mark.parametrize(
    "source", ["1 +", "x | nope", "a }} {{ b", "{{ a }}{{ b }}", "{{ a }} b {{ c }}", "", " ", "a b"]
)
def test_a_broken_expression_is_refused(source: str):
    with pytest.raises(TemplateProblem):
        Expression.compile(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("inputs.missing", "there is no field 'missing'"),
        ("inputs.qery", "there is no field 'qery'; did you mean 'query'?"),
        ("inputs.missing.deeper", "there is no field 'missing'"),
        ("[inputs.missing]", "there is no field 'missing'"),
        ("nothing.x", "'nothing' is undefined"),
        ("inputs.query.x", "a text has no 'x'"),
        ("inputs.query.upper", "did you forget the brackets"),
        ("inputs.query['upper']", "a text has no 'upper'"),
        ("inputs.list[5]", "a list has no item 5"),
        ("inputs.query if false", "write an 'else'"),
        ("inputs['__cl' ~ 'ass__']", "there is no field '__class__'"),
        ("inputs.query['__cl' ~ 'ass__']", "a text has no '__class__'"),
        ("inputs.list | map(attribute='_' ~ '_class__') | list", "a text has no '__class__'"),
        ("inputs.thing['_' ~ 'secret']", "unsafe"),
        ("inputs.thing.strip()", "'strip' cannot be called"),
        ("inputs.query() + 1", "cannot be called"),
        ("'a' + 1", "can only concatenate"),
        ("1 / 0", "division by zero"),
    ],
)
def test_what_leads_nowhere_or_is_unsafe_is_an_error_that_names_the_step(source: str, message: str):
    class Thing:
        _secret = 1

        def strip(self) -> str:
            return "called"

    if source == "inputs.query() + 1":
        with pytest.raises(TemplateProblem, match="the method 'query' cannot be called"):
            Expression.compile(source)
        return
    variables = {"inputs": {"query": "x", "list": ["a"], "thing": Thing()}}
    with pytest.raises(PipelineError, match="here: ") as caught:
        Expression.compile(source).evaluate(variables, where="here")
    assert message in str(caught.value)


def test_fields_of_objects_that_are_no_mappings_can_be_read():
    class Point:
        x = 3

    assert render("{{ p.x }} {{ p['x'] }}", p=Point()) == "3 3"


def test_a_field_may_be_called_like_a_method():
    variables = {"steps": {"a": {"items": [1], "keys": 2, "count": 3}}}

    assert Template.compile("{{ steps.a.items }} {{ steps.a['keys'] }}").render(variables, where="x") == "- 1 2"
    assert Expression.compile("steps.a.count + 1").evaluate(variables, where="x") == 4
    assert render("{% for k, v in a.items() %}{{ k }}{{ v }}{% endfor %}{{ a.get('z', 'y') }}", a={"b": 1}) == "b1y"


def test_small_powers_and_products_work():
    assert evaluate("2 ** 3 * 2") == 16


def test_a_template_that_fails_names_the_step():
    with pytest.raises(PipelineError, match=r"step: there is no field 'missing'"):
        Template.compile("{{ inputs.missing }}").render({"inputs": {}}, where="step")


# Text with plain references never meets Jinja2, and means the same.

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("ab \n{}", max_size=6)
    | st.just(SKIPPED),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "items"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PIECES = st.sampled_from(
    [
        *(
            "{{ a }}",
            "{{a.b}}",
            "{{ a.items }}",
            "{{\ta.b.a\n}}",
            "{{ none }}",
            "{{ '{{' }}",
            "{{ true.a }}",
            "{{- a }}",
        ),
        *("{{ range }}", "{{ a._b }}", "{{ not }}", "{{ b", "{{", "}}", "{", "}", "{#", "#}", "%}", "-", "a"),
        *(" ", "\n", "\r\n", "\r", "\u2028"),
    ]
)


@given(st.lists(PIECES, max_size=6), st.dictionaries(st.sampled_from(["a", "b", "range"]), VALUES, max_size=3))
def test_simple_templates_give_what_jinja_gives(pieces: list[str], variables: dict[str, object]):
    source = "".join(pieces)
    simple = parse_simple(source)
    filled = simple.fill(variables) if simple is not None else None
    if filled is not None:
        assert filled.strip() == "".join(Program(source).pieces(variables)).strip()


@given(
    st.sampled_from(["a", "a.b", "{{ a.items }}", "{{a.b.a}}", " a.a ", "none", "a.not"]),
    st.dictionaries(st.just("a"), VALUES),
)
def test_plain_expressions_give_what_jinja_gives(source: str, variables: dict[str, object]):
    def outcome(text: str) -> object:
        try:
            return Expression.compile(text).evaluate(variables, where="x")
        except PipelineError as exc:
            return str(exc)

    inner = source.strip().removeprefix("{{").removesuffix("}}")
    assert outcome(source) == outcome(f"({inner})")


def test_a_plain_template_that_meets_something_unusual_is_rendered_by_jinja():
    template = Template.compile("{{ a.b }}")

    assert template.render({"a": {"b": "x"}}, where="x") == "x"
    with pytest.raises(PipelineError, match="there is no field 'b'"):
        template.render({"a": {}}, where="x")
    with pytest.raises(PipelineError, match="'a' is undefined"):
        template.render({}, where="x")
    with pytest.raises(PipelineError, match="a text has no 'b'"):
        template.render({"a": "text"}, where="x")
    assert template.render({"a": SKIPPED}, where="x") == ""


def test_plain_templates_do_not_import_jinja():
    code = """
import sys
from synaptic.pipeline.templates.expressions import Expression, Template
from synaptic.pipeline.templates.static_types import TEXT, Record
template = Template.compile("Text: {{ steps.a }}\\n{{ inputs.b }}")
assert template.render({"steps": {"a": [1]}, "inputs": {"b": "c"}}, where="x") == "Text: - 1\\nc"
message = template.render_message({"steps": {"a": 1}, "inputs": {"b": "c"}}, where="x")
assert message == ("Text: 1\\nc", ((6, 7), (8, 9)))
assert [finding.line for finding in template.check({"steps": Record({"a": TEXT})})[1]] == [2]
assert Expression.compile("{{ steps.a }}").evaluate({"steps": {"a": 1}}, where="x") == 1
print("jinja2" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


# Spans of data.


@pytest.mark.parametrize(
    "source",
    [
        "\n Q: {{ inputs.q }}\n\n{{ steps.a }}{{ steps.b }} end \n",
        "{# c #}\n Q: {{ inputs.q }}\n\n{{ steps.a }}{{ steps.b }} end \n",
        "{% if true %}Q: {{ inputs.q }}{% endif %}\n\n{{ steps.a | upper | lower }}{{ steps.b }} end",
    ],
)
def test_the_spans_of_a_message_are_the_data(source: str):
    variables = {"inputs": {"q": "why?"}, "steps": {"a": "alpha", "b": ["x", "y"]}}

    text, spans = Template.compile(source).render_message(variables, where="x")

    assert text == Template.compile(source).render(variables, where="x")
    assert [text[start:end] for start, end in spans] == ["why?", "alpha", "- x\n- y"]


@pytest.mark.parametrize("source", ["{{ a }} mid {{ a }}", "{{ a }} mid {{ a | string }}"])
def test_spans_end_where_the_stripped_text_ends(source: str):
    text, spans = Template.compile(source).render_message({"a": "\n x \n"}, where="x")

    assert [text[start:end] for start, end in spans] == ["x \n", "\n x"]
    assert Template.compile(source).render_message({"a": "  "}, where="x") == ("mid", ())


def test_text_that_a_template_makes_of_data_is_data():
    source = "{% filter upper %}in: {{ a }}{% endfilter %} {% set b %}<{{ a }}>{% endset %}[{{ b }}]"

    text, spans = Template.compile(source).render_message({"a": "x"}, where="x")

    assert text == "IN: X [<x>]"
    assert [text[start:end] for start, end in spans] == ["IN: X", "<x>"]


# Skipped steps.


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("s", SKIPPED),
        ("s.a.b", SKIPPED),
        ("s['a'][0]", SKIPPED),
        ("s.a.upper()", SKIPPED),
        ("s | first", SKIPPED),
        ("s | length", 0),
        ("s | join(',')", ""),
        ("s | upper", ""),
        ("s | bullets", ""),
        ("s | json", "null"),
        ("[s, {'k': s}] | json", '[null, {"k": null}]'),
        ("s | list | length", 0),
        ("s | map(attribute='x') | list", []),
        ("s | chunks", []),
        ("s | items", []),
        ("s | default('d')", "d"),
        ("'a' ~ s ~ 'b'", "ab"),
        ("s is skipped", True),
        ("s.a is skipped", True),
        ("'' is skipped", False),
        ("s is none", True),
        ("s is defined", True),
        ("s == ''", False),
        ("s == none", False),
        ("s != 1", True),
        ("s == s.a", True),
        ("1 in s", False),
        ("s in [1]", False),
        ("not s", True),
        ("s or 'other'", "other"),
        ("s.a and 1", SKIPPED),
        ("'x' if s else 'y'", "y"),
    ],
)
def test_a_skipped_step_is_nothing_whatever_is_asked_of_it(source: str, value: object):
    found = evaluate(source, s=SKIPPED)

    assert found is value if value is SKIPPED else found == value


@pytest.mark.parametrize(
    "source",
    [
        *("steps.s > 1", "1 <= steps.s", "steps.s.score + 1", "'a' + steps.s", "3 - steps.s", "-steps.s"),
        *("'%d' % steps.s", "steps.s | abs", "[steps.s, 1] | sort", "[1] + steps.s", "steps.s ** 2"),
    ],
)
def test_calculating_with_a_skipped_step_says_which_was_skipped(source: str):
    with pytest.raises(PipelineError, match=r"here: 'steps.s' was skipped and has no output to calculate or compare"):
        evaluate(source, steps={"s": SKIPPED})


@pytest.mark.parametrize("source", ["{{ inputs.doc.text }}", "{{ inputs.doc | length }}", "{{ inputs.doc + 1 }}"])
def test_what_fails_because_an_input_was_not_given_names_the_input(source: str):
    with pytest.raises(PipelineError, match=r"here: 'inputs\.doc' is nothing here, .* inputs\.doc and …"):
        Template.compile(source).render({"inputs": {"doc": None, "other": None}, "steps": {}}, where="here")


def test_loops_and_conditions_take_a_skipped_step_for_nothing():
    source = "{% for a in s.b %}{{ a }}{% else %}none{% endfor %}{% if s %}x{% else %} at all{% endif %}{{ s.c }}"

    assert render(source, s=SKIPPED) == "none at all"


def test_there_is_one_skipped_value():
    assert copy.deepcopy([SKIPPED])[0] is SKIPPED
    assert pickle.loads(pickle.dumps(SKIPPED)) is SKIPPED
    assert list(SKIPPED) == []
    assert repr(SKIPPED) == "SKIPPED"
    with pytest.raises(TypeError):
        json.dumps(SKIPPED)  # nobody writes it by accident


# Anything at all.


@given(st.text(alphabet="{}%|.()[]'\"abc 01+-*~_\n#", max_size=60))
def test_any_text_compiles_or_is_a_template_problem(source: str):
    for kind in (Template, Expression):
        try:
            compiled = kind.compile(source)
        except TemplateProblem as problem:
            assert 1 <= problem.line <= source.count("\n") + 1
        else:
            compiled.check({})


TAGS = st.sampled_from(
    [
        *("{% for a in b %}", "{% endfor %}", "{% if a %}", "{% elif b %}", "{% else %}", "{% endif %}", "x"),
        *("{% set a = b %}", "{% set c %}", "{% endset %}", "{% with d = a %}", "{% endwith %}", "{% set a, b = c %}"),
        *("{% filter upper %}", "{% endfilter %}", "{% raw %}", "{% endraw %}", "{% set ns = namespace() %}"),
        *("{% set ns.a = 1 %}", "{{ loop.index }}", "{{ a.b | join(c) }}", "{{ a ~ b[0:1] }}", "{{ a < b in c }}"),
        *("{{ a if b }}", "{{ a is none }}"),
    ]
)


@given(st.lists(TAGS, max_size=10))
def test_what_compiles_has_code_and_renders_or_is_a_pipeline_error(tags: list[str]):
    source = "".join(tags)
    try:
        template = Template.compile(source)
    except TemplateProblem:
        return
    Program(source).compiled()
    template.check({})
    try:
        text = template.render({"a": "x", "b": [1, "y"], "c": {"k": 1}}, where="here")
    except PipelineError as exc:
        assert str(exc).startswith("here: ")
    else:
        assert text == text.strip()
