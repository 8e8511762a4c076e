"""Templates that would run for ever or fill the memory end in an error, soon, and ordinary ones are let through."""

import pytest

from synaptic.errors import PipelineError
from synaptic.pipeline.templates.expressions import Expression, Template
from synaptic.pipeline.templates.limits import MAX_TEXT, Meter, TooMuch, measure

BIG = "x\n" * 1_500_000
VARIABLES = {"big": BIG, "word": "x" * 3_000_000, "n": 10**9, "small": "abc", "items": [{"n": 1}, {"n": 2}]}
ORDINARY = "numbers of ordinary size"
VARIABLES |= {"gap": " " * 300_000 + "x", "hard_gaps": "x\xa0" * 150_000, "hex": "f" * 900_000, "huge": 2**1025}
VARIABLES |= {"path": "n." * 200, "short": "n." * 60}
TOO_LONG = "make a text of more than 4,194,304 characters"
TOO_SLOW = "the template would take too long"


def failure(source: str, *, template: bool = False) -> str:
    kind = Template.compile(source).render if template else Expression.compile(source).evaluate
    with pytest.raises(PipelineError, match="here: ") as caught:
        kind(VARIABLES, where="here")
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("range(n)", "Range too big"),
        ("'x' * n", "'*' works on numbers only"),
        ("[0] * n", "'*' works on numbers only"),
        ("9 ** 999999", "exponents up to 64"),
        ("(2 ** 64) ** 64 ** 64", "numbers of ordinary size"),
        ("'%1000000000d' % 1", TOO_LONG),
        ("'%.1000000000f' % 1", TOO_LONG),
        ("'%*d' % (n, 1)", "a width of '*' is not possible"),
        ("'%(a)1000000000s' % {'a': 1}", TOO_LONG),
        ("'%1000000000d' | format(1)", TOO_LONG),
        ("'%((a))1000000000d' % {'(a)': 1}", "one pair of brackets, as in %(name)s"),
        ("'%((a))1000000000d' | format(**{'(a)': 1})", "one pair of brackets, as in %(name)s"),
        ("'%(a)s%(a)s' % {'a': big}", TOO_LONG),
        ("'x' | center(n)", TOO_LONG),
        ("'x' | indent(n)", TOO_LONG),
        ("big | indent(9)", TOO_LONG),
        ("big | indent(small)", TOO_LONG),
        ("big | replace('x', small)", TOO_LONG),
        ("big.replace('x', small)", TOO_LONG),
        ("small | replace('', big)", TOO_LONG),
        ("[1] | batch(n, 'x') | list", "lists of more than 100,000 items"),
        ("[1] | slice(slices=n) | list", "lists of more than 100,000 items"),
        ("1.5 | round(n, 'ceil')", "rounded to at most 300 digits"),
        ("word | wordwrap(1)", TOO_SLOW),
        ("big | wordwrap(1, wrapstring=small)", TOO_SLOW),
        ("word | trim(word)", TOO_SLOW),
        ("word.strip(word)", TOO_SLOW),
        ("[small, small] | join(big)", TOO_LONG),
        ("big.join(['a', 'b', 'c'])", TOO_LONG),
        ("big ~ big", TOO_LONG),
        ("big + big", TOO_LONG),
        ("[big, big] | string", TOO_LONG),
        ("[big, big] | json", TOO_LONG),
        ("range(100000) | list | json(indent=16)", TOO_LONG),
        ("[[1], 2] | sum(start=[])", "'sum' from a list adds lists, not int"),
        ("big.split()", "works on more data than one rendering may"),
        ("big | list", TOO_SLOW),
        ("gap | wordwrap(1)", TOO_SLOW),
        ("hard_gaps | wordwrap(1)", TOO_SLOW),
        ("hex | int(0, 16)", ORDINARY),
        ("-huge", ORDINARY),
        ("huge | abs", ORDINARY),
        ("[huge, 1] | sum", ORDINARY),
        ("huge is odd", ORDINARY),
        ("huge is even", ORDINARY),
        ("huge is divisibleby(3)", ORDINARY),
        ("7 is divisibleby(huge)", ORDINARY),
        ("items | sort(attribute=path)", "at most 256 characters"),
        ("items | map(attribute=path) | list", "at most 256 characters"),
        ("items | selectattr(path) | list", "at most 256 characters"),
        ("items | groupby(path)", "at most 256 characters"),
        ("items | join(attribute=path)", "at most 256 characters"),
        ("items | sum(path)", "at most 256 characters"),
        ("range(90000) | map(attribute=short) | list", TOO_SLOW),
    ],
)
def test_an_expression_that_would_be_enormous_is_refused(source: str, message: str):
    assert message in failure(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(99999) %}{{ big }}{% endfor %}", TOO_LONG),
        ("{% for i in range(99999) %}" + "text" * 2000 + "{% endfor %}", TOO_LONG),
        ("{% set t %}{% for i in range(99999) %}" + "text" * 2000 + "{% endfor %}{% endset %}", TOO_SLOW),
        ("{% set t %}{% for i in range(99999) %}{{ big }}{% endfor %}{% endset %}", TOO_LONG),
        ("{% filter upper %}{% for i in range(99999) %}{{ big }}{% endfor %}{% endfilter %}", TOO_LONG),
        ("{% for i in range(99999) %}{% if big | upper %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(99999) %}{% if big[1:] %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(99999) %}{% if big.upper() %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(99999) %}{% if small in big %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(99999) %}{% if 'y' is in big %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% set l = range(9999) | list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% set l = range(9999) | list %}{% for i in l %}{% if l.count(i) %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% set l = range(9999) | list %}{% for i in l %}{% if l | sort %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(99999) %}{% if big is upper %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{% for i in range(9999) %}{% if [1] | batch(100000, 'x') %}{% endif %}{% endfor %}", TOO_SLOW),
        ("{{ range(99999) | select('in', range(99999) | list) | list }}", TOO_SLOW),
        ("{{ '%s' * 3 }}", "'*' works on numbers only"),
        ("{{ big }}{{ big }}", TOO_LONG),
        ("{{ big }}{{ big | string }}", TOO_LONG),
    ],
)
def test_a_template_that_would_not_end_soon_is_refused(source: str, message: str):
    assert message in failure(source, template=True)


@pytest.mark.parametrize(
    ("start", "grow", "message"),
    [
        ("'ab'", "ns.x ~ ns.x", TOO_LONG),
        ("'ab'", "ns.x + ns.x", TOO_LONG),
        ("'ab'", "'%s%s' % (ns.x, ns.x)", TOO_LONG),
        ("'ab'", "[ns.x, ns.x] | join", TOO_LONG),
        ("'ab'", "ns.x.replace('a', ns.x)", TOO_LONG),
        ("[1]", "ns.x + ns.x", TOO_SLOW),
        ("3", "ns.x * ns.x", "numbers of ordinary size"),
        ("3", "ns.x - -ns.x", "numbers of ordinary size"),
    ],
)
def test_what_doubles_in_every_round_is_stopped(start: str, grow: str, message: str):
    source = f"{{% set ns = namespace(x={start}) %}}{{% for i in range(2000) %}}{{% set ns.x = {grow} %}}{{% endfor %}}"

    assert message in failure(source, template=True)


def test_a_value_that_is_nested_too_deeply_is_not_shown():
    source = "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}"

    assert "nested more than 50 levels deep" in failure(source, template=True)


def test_a_value_that_holds_itself_many_times_is_not_shown():
    source = (
        "{% set ns = namespace(x='a') %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"
    )

    assert TOO_LONG in failure(source, template=True)


NO_KEY = "what is looked up is a name or a number, not a list"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("items[ns.x]", NO_KEY),
        ("{ns.x: 1}", NO_KEY),
        ("{'a': 1}.get(ns.x)", "nested more than 1000 levels deep"),
        ("ns.x in {'a': 1}", "nested more than 1000 levels deep"),
        ("ns.x is in {'a': 1}", "nested more than 1000 levels deep"),
        ("namespace([(ns.x, 1)])", "nested more than 1000 levels deep"),
        ("[ns.x] | unique", "nested more than 1000 levels deep"),
    ],
)
@pytest.mark.parametrize("grow", ["(ns.x,)", "(ns.x, 1)"])
def test_a_value_that_is_nested_too_deeply_is_not_hashed(use: str, message: str, grow: str):
    grown = f"{{% set ns = namespace(x=()) %}}{{% for i in range(2000) %}}{{% set ns.x = {grow} %}}{{% endfor %}}"

    assert message in failure(f"{grown}{{{{ {use} }}}}", template=True)


@pytest.mark.parametrize("shown", ["{{ ns }}", "{{ ns ~ '' }}", "{{ [ns] }}", "{{ ns | upper }}", "{{ '%s' % ns }}"])
def test_a_namespace_is_not_shown(shown: str):
    source = "{% set ns = namespace() %}{% for i in range(9) %}{% set ns = namespace(a=ns, b=ns) %}{% endfor %}"

    assert "a namespace is not text" in failure(source + shown, template=True)


def test_a_plain_template_is_bounded_too():
    assert TOO_LONG in failure("{{ big }}{{ big }}", template=True)
    deep: object = "a"
    for _ in range(60):
        deep = [deep]
    with pytest.raises(PipelineError, match="nested more than 50 levels deep"):
        Template.compile("{{ deep }}").render({"deep": deep}, where="x")


def test_ordinary_large_work_is_let_through():
    document = "A sentence of some words. " * 20_000
    variables = {"files": [{"name": str(i), "text": document} for i in range(4)], "rows": list(range(5_000))}

    parts = Expression.compile("files | chunks(characters=4000)").evaluate(variables, where="x")
    rows = Template.compile("{% for row in rows %}{{ loop.index }}: {{ row * 2 }}\n{% endfor %}").render(
        variables, where="x"
    )
    text = Template.compile("{% for file in files %}{{ file.text | trim | upper }}{% endfor %}").render(
        variables, where="x"
    )

    assert len(parts) > 500
    assert rows.endswith("5000: 9998")
    assert len(text) > 2_000_000


def test_sizes_are_what_showing_a_value_takes():
    assert measure("abc").characters == 3
    assert measure(["ab", "c"]).items == 3
    assert measure({"k": ["ab\ncd"]}).depth == 2
    assert measure([["a\nb"]]).characters >= len("- - a\n    b")


def test_a_meter_runs_out():
    meter = Meter()
    meter.allow_text(MAX_TEXT)

    with pytest.raises(TooMuch):
        meter.allow_text(MAX_TEXT + 1)
    with pytest.raises(TooMuch):
        meter.spend(meter.left + 1)


def test_a_list_that_is_doubled_again_and_again_is_refused():
    double = "{% set ns.a = [ns.a, ns.a] | sum(start=[]) %}"
    doubled = f"{{% set ns = namespace(a=[1]) %}}{{% for i in range(60) %}}{double}{{% endfor %}}"
    assert TOO_SLOW in failure(doubled, template=True)


@pytest.mark.parametrize(
    "source",
    [
        "{{ range }}",
        "{{ [range] }}",
        "{{ {'a': [range]} }}",
        "{{ {range: 1} }}",
        "{{ [small.upper] | string }}",
        "{{ '%s' | format(range) }}",
        "{{ '%s' % range }}",
        "{{ [range] | join }}",
        "{{ [range] | tojson }}",
        "{{ range | upper }}",
        "{{ [range] | upper }}",
        "{{ small | replace('a', range) }}",
        "{{ [range] ~ 'a' }}",
        "{{ self }}",
        "{{ [self] }}",
        "{% for each in items %}{{ [loop] }}{% endfor %}",
    ],
)
def test_no_prompt_shows_where_a_function_lies_in_memory(source: str):
    assert "a function is not text" in failure(source, template=True)


def test_an_enormous_number_that_is_data_is_shown_as_it_is():
    shown = Template.compile("{{ huge }} {{ [huge] | first }} {{ huge | default(1) }}").render(VARIABLES, where="here")
    assert shown == f"{2**1025} {2**1025} {2**1025}"
