"""Templates and expressions: values, references, and what the sandbox refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic.errors import PipelineError
from synaptic.pipeline.expressions import Expression, Template, TemplateProblem, present


def references(source: str) -> list[str]:
    return [str(reference) for reference in Template.compile(source).references]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", []),
        ("{{ inputs.query }}", ["inputs.query"]),
        ("{{ steps['plan'].questions[0] }}", ["steps.plan.questions"]),
        ("{{ steps.plan.questions | length }}", ["steps.plan.questions"]),
        ("{% for f in steps.research %}{{ f.key_facts }}{% endfor %}", ["steps.research"]),
        ("{% set x = inputs.a %}{{ x.b }}", ["inputs.a"]),
        ("{{ (previous.a if previous else steps.b).c }}", ["previous.a", "previous", "steps.b"]),
        ("{{ steps[inputs.which].x }}", ["steps", "inputs.which"]),
    ],
)
def test_references_are_read_off_the_syntax(source: str, expected: list[str]):
    assert sorted(references(source)) == sorted(expected)


def test_a_reference_knows_its_line():
    assert Template.compile("a\nb {{ inputs.x }}").references[0].line == 2


def test_a_template_that_is_one_reference_says_so():
    assert str(Template.compile(" {{ steps.write }} ").sole_reference) == "steps.write"
    assert Template.compile("{{ steps.write }}!").sole_reference is None
    assert Template.compile("{{ steps.write | upper }}").sole_reference is None


def test_an_expression_gives_a_value_with_or_without_braces():
    for source in ("inputs.n + 1", "{{ inputs.n + 1 }}"):
        assert Expression.compile(source).evaluate({"inputs": {"n": 2}}, where="x") == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("a", "a"),
        (True, "yes"),
        (False, "no"),
        (0.5, "0.5"),
        (["a", "b"], "- a\n- b"),
        ({"a": 1, "b": None, "c": []}, "a: 1"),
        ({"a": ["x", "y"]}, "a:\n- x\n- y"),
        ([{"k": 1, "l": 2}], "- k: 1\n  l: 2"),
        ([["a"], ["b"]], "- - a\n- - b"),
    ],
)
def test_values_are_shown_as_text_that_a_small_model_reads(value: object, text: str):
    assert present(value) == text
    assert Template.compile("{{ inputs.v }}").render({"inputs": {"v": value}}, where="x") == text


def test_filters_give_json_and_bullets():
    template = Template.compile("{{ inputs.v | json }} {{ inputs.v | bullets }}")

    assert template.render({"inputs": {"v": ["é"]}}, where="x") == '["é"] - é'


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ a", "unexpected end"),
        ("{% if %}", "Expected an expression"),
        ("\n{{ a | nope }}", "No filter named 'nope'"),
        ("{% include 'x' %}", "cannot import"),
        ("{% import 'x' as y %}", "cannot import"),
    ],
)
def test_a_broken_template_says_what_and_on_which_line(source: str, message: str):
    with pytest.raises(TemplateProblem, match=message) as caught:
        Template.compile(source)

    assert caught.value.line == source.count("\n") + 1


@pytest.mark.parametrize("source", ["1 +", "x | nope", "a }} {{ b"])
def test_a_broken_expression_is_refused(source: str):
    with pytest.raises(TemplateProblem):
        Expression.compile(source)


@pytest.mark.parametrize(
    "source",
    [
        "inputs.missing",
        "inputs.missing.deeper",
        "''.__class__.__mro__",
        "inputs.__class__.__init__.__globals__",
        "'a' * 1000000000",
        "[0] * 10",
        "9 ** 999999",
        "'a' + 1",
        "1 / 0",
        "range(100000000) | list",
        "inputs.update({'a': 1})",
    ],
)
def test_what_leads_nowhere_or_is_unsafe_is_an_error_that_names_the_step(source: str):
    with pytest.raises(PipelineError, match="here: "):
        Expression.compile(source).evaluate({"inputs": {"a": "x"}}, where="here")


def test_a_field_may_be_called_like_a_method():
    variables = {"steps": {"a": {"items": [1], "keys": 2, "count": 3}}}

    assert Template.compile("{{ steps.a.items }} {{ steps.a.keys }}").render(variables, where="x") == "- 1 2"
    assert Expression.compile("steps.a.count + 1").evaluate(variables, where="x") == 4


def test_small_powers_and_products_work():
    assert Expression.compile("2 ** 3 * 2").evaluate({}, where="x") == 16


def test_a_template_that_fails_names_the_step():
    with pytest.raises(PipelineError, match=r"step: .*missing"):
        Template.compile("{{ inputs.missing }}").render({"inputs": {}}, where="step")


@given(st.text(alphabet="{}%|.()[]'\"abc 01+-*", max_size=60))
def test_any_text_compiles_or_is_a_template_problem(source: str):
    for kind in (Template, Expression):
        try:
            kind.compile(source)
        except TemplateProblem as problem:
            assert problem.line >= 1
