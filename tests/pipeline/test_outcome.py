"""What fails where something is not there is what fails in the run: every answer is compared with the sandbox's."""

import pytest

from synaptic.errors import PipelineError
from synaptic.pipeline.templates.expressions import Expression, Template, TemplateProblem
from synaptic.pipeline.templates.identifiers import JINJA_TESTS
from synaptic.pipeline.templates.sandbox import environment
from synaptic.pipeline.templates.scenarios import ANYTHING, Fails, Fields, Known, OneOf, Scenario, Truth
from synaptic.pipeline.templates.values import SKIPPED

THERE = {"n": 3, "text": "abc", "list": ["a", "b"], "yes": True}


def scenario(value: object) -> Scenario:
    return Scenario({"s": Known(value, "steps.s")})


def fails(source: str, value: object) -> bool:
    try:
        Expression.compile(source).outcome(scenario(value))
    except Fails as exc:
        assert exc.origin == "steps.s"
        return True
    return False


def fails_in_the_run(source: str, value: object) -> bool:
    try:
        Expression.compile(source).evaluate({"s": value, **THERE}, where="here")
    except PipelineError:
        return True
    return False


EXPRESSIONS = """\
s
not s
s > 3
3 > s
s >= n
n <= s
s == 3
s != 3
s == s
s + 1
1 + s
s - n
n * s
s / 2
2 // s
s % 2
s ** 2
-s
s ~ 'x'
s and s > 3
s or 3
not s or s > 3
s is none
s is not none and s > 3
s is defined
s is defined and s > 3
s is skipped
s is skipped or s > 3
s > 3 if s else 0
0 if not s else s > 3
s > 3 if s is defined else 0
(s if s else 3) > 2
(s or 3) > 2
s | default(3)
(s | default(3)) > 2
s | default(3, true)
(s | default(3, true)) > 2
s | length
s | length > 3
s | length > 3 and s > 3
s | first
s | first > 3
s | list
s | list | length == 0
s in [1, 2]
s not in [1, 2]
3 in s
3 not in s
s in list
[s, 3]
[s, 3] | length
[1, s] | sum
range(s)
range(s | default(3)) | list
list[:s]
s == none
s == none or s > 3
s != none and s > 3
s > 3 and s
yes and s > 3
yes or s > 3
0 < s < 1
n < 9 < s
s | round > 0
s | int > 0
s | float > 0
s | string > ''
s | upper ~ 'x'
s | join(', ')
s | map('upper') | list
s | json
s | trim | length > 0
""".splitlines()

OF_A_FIELD = """\
s.score
s.score > 3
s.score + 1
s and s.score > 3
s.score and s.score > 3
s.score is defined
s.a.b.c
s['score']
s['score'] > 3
s[0]
s[1:]
s.upper()
s.upper() > ''
s.issues | length > 3
s.issues | join(', ')
s.score | default(0) > 0.5
(s.score | default(0)) > 0.5
""".splitlines()


@pytest.mark.parametrize("value", [SKIPPED, None], ids=["skipped", "none"])
@pytest.mark.parametrize("source", [*EXPRESSIONS, *OF_A_FIELD])
def test_an_expression_fails_where_it_fails_in_the_run(source: str, value: object):
    if source in {"yes or s > 3", "yes and s > 3", "n < 9 < s"}:
        assert fails(source, value)  # what 'yes' is, is known in the run alone
    else:
        assert fails(source, value) == fails_in_the_run(source, value)


@pytest.mark.parametrize("value", [SKIPPED, None], ids=["skipped", "none"])
@pytest.mark.parametrize("name", sorted(name for name in environment().filters if not name.endswith("!")))
def test_a_filter_fails_where_it_fails_in_the_run(name: str, value: object):
    for source in (f"s | {name}", f"s | {name} > 3", f"s.x | {name}"):
        try:
            Expression.compile(source)
        except TemplateProblem:  # it needs arguments
            continue
        assert fails(source, value) == fails_in_the_run(source, value), source


@pytest.mark.parametrize("value", [SKIPPED, None], ids=["skipped", "none"])
@pytest.mark.parametrize("name", sorted({*JINJA_TESTS, "none", "skipped"}))
def test_a_test_fails_where_it_fails_in_the_run(name: str, value: object):
    for source in (f"s is {name}", f"s is {name}(3)", f"s.x is {name}"):
        try:
            Expression.compile(source)
        except TemplateProblem:
            continue
        assert fails(source, value) == fails_in_the_run(source, value), source


@pytest.mark.parametrize(
    ("source", "failing"),
    [
        ("{{ s }}{{ s.a.b }}", False),
        ("{% if s %}{{ s.x > 3 }}{% endif %}", False),
        ("{% if not s %}{{ s.x > 3 }}{% endif %}", True),
        ("{% if s %}{% else %}{{ s.x > 3 }}{% endif %}", True),
        ("{% if n %}{% elif s %}{{ s > 3 }}{% endif %}", False),
        ("{% if n %}{{ s > 3 }}{% endif %}", True),
        ("{% for part in s %}{{ part > 3 }}{{ s > 3 }}{% endfor %}", False),
        ("{% for part in s %}{% else %}{{ s > 3 }}{% endfor %}", True),
        ("{% for part in list %}{{ s > 3 }}{% endfor %}", True),
        ("{% for part in list if s %}{{ s > 3 }}{% endfor %}", False),
        ("{% set x = s %}{{ x > 3 }}", True),
        ("{% set x = s or 3 %}{{ x > 2 }}", False),
        ("{% set x = s %}{% if n %}{% set x = 3 %}{% endif %}{{ x > 2 }}", False),
        ("{% with x = s.score %}{{ x + 1 }}{% endwith %}", True),
        ("{% with x = s.score %}{% if x %}{{ x + 1 }}{% endif %}{% endwith %}", False),
        ("{% filter upper %}{{ s + 1 }}{% endfilter %}", True),
        ("{% set x %}{{ s + 1 }}{% endset %}", True),
        ("{% set s = 3 %}{{ s > 2 }}", False),
        ("{% if s.x is none %}{% else %}{{ s.x > 3 }}{% endif %}", False),
        ("{{ 'good' if s and s > 3 else 'bad' }}", False),
        ("{{ 'good' if s > 3 else 'bad' }}", True),
    ],
)
def test_a_template_fails_where_a_branch_that_may_be_taken_does(source: str, failing: object):
    template, found = Template.compile(source), False
    try:
        template.outcome(scenario(SKIPPED))
    except Fails:
        found = True

    assert found is failing


@pytest.mark.parametrize(
    ("condition", "holds", "source", "value"),
    [
        ("a.x > 0.5", True, "a.x > 0.5", Truth(True)),
        ("a.x > 0.5", False, "a.x <= 0.5", Truth(True)),
        ("a.x > 0.5", False, "0.5 >= a.x", Truth(True)),
        ("a.x > 0.5", True, "0.5 < a.x", Truth(True)),
        ("a.x == 1", False, "a.x != 1", Truth(True)),
        ("a.x in [1]", True, "a.x not in [1]", Truth(False)),
        ("a and b", True, "b", Truth(True)),
        ("a and b", False, "b", ANYTHING),
        ("a and b", False, "a and b and c", Truth(False)),
        ("a or b", False, "a", Truth(False)),
        ("not a", True, "a", Truth(False)),
        ("a", False, "not a", Truth(True)),
        ("a.x", True, "a.x", Truth(True)),
        ("a", False, "a == true", Truth(False)),
        ("a", False, "a != true", Truth(True)),
        ("a", True, "a == false", Truth(False)),
        ("a", True, "a == none", Truth(False)),
        ("a", True, "a == true", ANYTHING),
        ("a", True, "a == 1", ANYTHING),
        ("a", True, "a == 0", ANYTHING),
        ("a == true", True, "a", Truth(True)),
        ("a == false", True, "a", Truth(False)),
        ("a == 1", True, "a", ANYTHING),
        ("a.x > 0.5", True, "a.x > 0.6", ANYTHING),
    ],
)
def test_a_condition_that_is_known_decides_others(condition: str, holds: object, source: str, value: object):
    known = Scenario(facts=Expression.compile(condition).assumed(holds=holds is True))

    assert Expression.compile(source).outcome(known) == value


def test_a_choice_is_one_of_its_labels():
    known = Scenario({"steps": Fields({"route": OneOf(("b", "c"))})})

    assert Expression.compile("steps.route == 'a'").outcome(known) == Truth(False)
    assert Expression.compile("steps.route != 'a'").outcome(known) == Truth(True)
    assert Expression.compile("steps.route in ['a', 'd']").outcome(known) == Truth(False)
    assert Expression.compile("steps.route == 'b'").outcome(known) is ANYTHING
