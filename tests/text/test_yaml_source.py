"""YAML with positions: what is read, what is refused, and where."""

from contextlib import nullcontext, suppress

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from synaptic.errors import PipelineError
from synaptic.text.yaml_anchors import MOST_ADDED
from synaptic.text.yaml_depth import cut_where_too_deep
from synaptic.text.yaml_positions import MAX_DEPTH, parse_yaml, read_text

MERGE = (
    "merge keys (<<) are not read: which of two values holds would not be seen in the file; "
    "write the keys out, or give a whole value an alias, as in 'retry: *name'"
)
NO_ANCHOR = "there is no anchor 'x' above; put a text that begins with '*' in quotes"


def problems_of(text: str) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        parse_yaml(text, "x.yaml", PipelineError)
    return [str(problem) for problem in caught.value.problems]


def test_every_key_and_value_has_its_place():
    document = parse_yaml("a: 1\nb:\n  - x\n  - {c: true}\n", "x.yaml", PipelineError)

    assert document.value == {"a": 1, "b": ["x", {"c": True}]}
    assert document.keys[("b", 1, "c")] == (4, 6)
    assert document.values[("b", 0)] == (3, 5)


def test_the_first_line_of_a_text_inside_a_file_counts_from_there():
    document = parse_yaml("a: 1\n", "x.md", PipelineError, first_line=10)

    assert document.keys[("a",)] == (10, 1)


def test_a_problem_below_a_known_place_is_reported_there():
    document = parse_yaml("a:\n  b: 1\n", "x.yaml", PipelineError)

    assert document.problem("odd", ("a", "b", "c", 0)).location == "x.yaml:2:3"
    assert document.problem("odd", ("a", "b"), at_key=False).location == "x.yaml:2:6"
    assert document.problem("odd", ("nothing",)).location == "x.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("'1'", "1"),
        ("1", 1),
        ("-7", -7),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("12345678901234567890", "12345678901234567890"),
        ("1.2.3", "1.2.3"),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object):
    assert parse_yaml(f"a: {text}", "x", PipelineError).value == {"a": value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "x.yaml:2:1: the key 'a' stands twice; it is first on line 1; keep one"),
        ("b: *x\n", f"x.yaml:1:4: {NO_ANCHOR}"),
        ("b: *x\nc: *x\na: &x 1\n", f"x.yaml:1:4: {NO_ANCHOR}"),
        ("a: &base 1\nb: *bsae\n", "x.yaml:2:4: there is no anchor 'bsae' above; did you mean 'base'?"),
        ("*x : 1\nc: 2\n", "x.yaml:1:1: an alias is no key; write the key out, or put it in quotes"),
        (
            "&x a: 1\nb: *x\n",
            "x.yaml:1:1: an anchor stands before a value, not before a key; write 'a: &x …'",
        ),
        (
            "a: &x 1\nb: &x 2\nc: *x\n",
            "x.yaml:2:4: the anchor 'x' stands twice; it is first on line 1; give one of them another name",
        ),
        ("a: &x [1, *x]\n", "x.yaml:1:11: '*x' stands inside of the value that it stands for; write the value out"),
        (
            "a: &x {b: {c: *x}}\n",
            "x.yaml:1:15: '*x' stands inside of the value that it stands for; write the value out",
        ),
        ("a: {c: 1}\n<<: {b: 2}\n", f"x.yaml:2:1: {MERGE}"),
        ("a: {<<: *x}\n", f"x.yaml:1:5: {MERGE}"),
        ("a: &x {c: 1}\nb: {<<: *x, d: 1}\n", f"x.yaml:2:5: {MERGE}"),
        ("a: &x {c: 1}\nb: {<<: [*x, *x]}\n", f"x.yaml:2:5: {MERGE}"),
        ("a: {<<: &x {c: 1}}\nb: *x\n", f"x.yaml:1:5: {MERGE}"),
        ("a: !!python/object:os.system x\n", "x.yaml:1:4: the tag !!python/object:os.system is not read; remove it"),
        ("a: !!str 1\n", "x.yaml:1:4: the tag !!str is not read; remove it"),
        ("a: !!map {}\n", "x.yaml:1:4: the tag !!map is not read; remove it"),
        (
            "a: !thing x\n",
            "x.yaml:1:4: the tag !thing is not read; remove it, or put a text that begins with '!' in quotes",
        ),
        ("? [1, {b: 2}]\n: {c: [2]}\nd: 1\n", "x.yaml:1:3: a key must be plain text"),
        ("a: 1\n---\nb: 1\n", "x.yaml:2:1: a second document begins here; keep one"),
        ("a: 1\na: {b: {c: 1, c: 2}}\n", "x.yaml:2:1: the key 'a' stands twice; it is first on line 1; keep one"),
        ("a: {t: 0,7, m: 5}\n", "x.yaml:1:8: a number has a point and no comma; write 0.7"),
        ("a: \x07\n", "x.yaml:1:4: broken YAML: the character U+0007 is not allowed; remove it"),
        ("é: 1\nb: é\x00\n", "x.yaml:2:5: broken YAML: the character U+0000 is not allowed; remove it"),
        ("a:\n- \ud800\n", "x.yaml:2:3: broken YAML: the character U+D800 is not allowed; remove it"),
    ],
)
def test_what_is_not_plain_data_is_refused(text: str, expected: str):
    assert problems_of(text) == [expected]


def test_broken_yaml_says_where():
    (problem,) = problems_of("a: [1\nb: 2\n")

    assert problem == "x.yaml:1:4: '[' has no end; write ] behind what it holds"


def test_a_tab_is_named():
    (problem,) = problems_of("a:\n\tb: 1\n")

    assert problem.endswith("indent with spaces, not tabs")


def test_an_alias_bomb_is_refused_at_once():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]

    (problem,) = problems_of("\n".join(lines))

    assert f"the aliases stand for more than {MOST_ADDED:,} characters; use fewer" in problem


@pytest.mark.parametrize(
    "text",
    [
        f"a: &a {'x' * 200_000}\nb: [{', '.join(['*a'] * 6)}]\n",
        f"a: &a {{{', '.join(f'k{i}: 1' for i in range(20_000))}}}\nb: *a\nc: *a\n",
        "a: &a [1]\n" + "".join(f"b{i}: *a\n" for i in range(60_000)),
    ],
    ids=["long texts", "many keys", "many aliases"],
)
def test_what_aliases_add_to_a_text_is_bounded(text: str):
    (problem,) = problems_of(text)

    assert "the aliases stand for more than" in problem


def test_aliases_do_not_nest_deeper_than_brackets():
    deep = "a: &a " + "[" * 30 + "]" * 30
    text = f"{deep}\nb: " + "[" * 9 + "*a" + "]" * 9
    assert parse_yaml(text, "x", PipelineError).value["b"] != []

    assert problems_of(f"{deep}\nb: " + "[" * 10 + "*a" + "]" * 10) == [
        "x.yaml:2:14: with what '*a' stands for, this is nested more than 40 levels"
    ]
    assert problems_of(f"{deep}\nb: &b " + "[" * 9 + "*a" + "]" * 9 + "\nc: [*b]") == [
        "x.yaml:3:5: with what '*b' stands for, this is nested more than 40 levels"
    ]


SHARED = """\
first: &first
  name: one
  deep: &deep [1, {two: &text "a {{ b }}"}]
second: *first
third: {list: *deep, text: *text, quoted: "*text", plain: a *text}
"""


def test_an_alias_is_read_as_what_it_stands_for():
    value = parse_yaml(SHARED, "x", PipelineError).value

    first = {"name": "one", "deep": [1, {"two": "a {{ b }}"}]}
    third = {"list": first["deep"], "text": "a {{ b }}", "quoted": "*text", "plain": "a *text"}
    assert value == {"first": first, "second": first, "third": third}


def test_two_aliases_share_nothing_that_could_be_changed():
    value = parse_yaml(SHARED, "x", PipelineError).value

    value["second"]["deep"][1]["two"] = "changed"

    assert value["first"]["deep"][1]["two"] == value["third"]["list"][1]["two"] == "a {{ b }}"


@pytest.mark.parametrize(
    ("path", "at_key", "place"),
    [
        (("second",), True, (4, 1)),
        (("second",), False, (4, 9)),
        (("second", "name"), True, (2, 3)),
        (("second", "name"), False, (2, 9)),
        (("second", "deep", 1, "two"), False, (3, 31)),
        (("third", "list"), False, (5, 15)),
        (("third", "list", 0), False, (3, 16)),
        (("third", "text"), False, (5, 28)),
        (("second", "absent"), True, (4, 1)),
    ],
)
def test_a_place_in_what_an_alias_stands_for_is_where_that_is_written(path: tuple, at_key: object, place: tuple):
    document = parse_yaml(SHARED, "x", PipelineError)

    problem = document.problem("wrong", path, at_key=bool(at_key))

    assert (problem.line, problem.column) == place


def test_a_place_in_a_text_behind_an_alias_is_in_the_text():
    document = parse_yaml(SHARED, "x", PipelineError)

    assert [document.locate(path, 1, "b") for path in [("third", "text"), ("first", "deep", 1, "two")]] == [(3, 37)] * 2


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: &x word {{ b }}\n", (1, 15)),
        ("a: &x 'word {{ b }}'\n", (1, 16)),
        ("a: &x |\n  one\n  {{ b }}\n", (3, 6)),
        ("a: &long-name  >-\n  one\n\n  {{ b }}\n", (4, 6)),
        ("a: &x\n  word\n  {{ b }}\n", (3, 6)),
        ("a: [1, &x word b]\n", (1, 16)),
    ],
)
def test_an_anchor_does_not_move_the_places_in_its_text(text: str, place: tuple[int, int]):
    document = parse_yaml(text, "x", PipelineError)
    path = ("a", 1) if "[" in text else ("a",)

    assert document.locate(path, 1, "b") == place


def test_too_deep_a_nesting_is_refused():
    assert problems_of("[" * 100_000) == [f"x.yaml:1:{MAX_DEPTH + 1}: nested more than {MAX_DEPTH} levels deep"]
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x", PipelineError).value != []


TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: 1\nb: " + "[" * 3000, 2, 3 + MAX_DEPTH),
        ("b: " + "{a: " * 3000, 1, 4 + 4 * (MAX_DEPTH - 1)),
        ("[\n" * 3000, MAX_DEPTH + 1, 1),
        ("- " * 3000 + "x", 1, 2 * MAX_DEPTH + 1),
        ("\n".join(" " * level + "a:" for level in range(1500)), MAX_DEPTH + 1, MAX_DEPTH + 1),
        ("a: 'it''s [' # [\nb: " + "[" * 3000, 2, 3 + MAX_DEPTH),
        ("b: [é, ['" + "[" * 100 + "', " + "[" * 3000, 1, 113 + MAX_DEPTH - 3),
        ("b: " + "[" * 3000 + "\x00", 1, 3 + MAX_DEPTH),
    ],
    ids=[
        "lists",
        "mappings",
        "a line each",
        "block lists",
        "block mappings",
        "after quotes",
        "inside",
        "odd character",
    ],
)
def test_the_place_of_too_deep_a_nesting_does_not_depend_on_the_parser(text: str, line: int, column: int):
    assert problems_of(text) == [f"x.yaml:{line}:{column}: {TOO_DEEP}"]


def test_too_deep_a_nesting_below_a_refused_key_is_refused():
    assert problems_of("? [1]\n: " + "- " * 3000)[-1].endswith(TOO_DEEP)


@pytest.mark.parametrize(
    "text",
    [
        "a: |\n  " + "[{ " * 2000,
        "a:\n- - b: >-\n     " + "[{ " * 2000 + "\n    c: [1]",
        "a: '" + "[{ " * 2000 + "'",
        'a: "' + r"[{\" " * 2000 + '"',
        "a: x" + "[{ " * 2000,
        "a: b  # " + "[{ " * 2000,
        "a: [" + "[1], {b: 2}, " * 2000 + "]",
        "a: " + "{{ x }} ".join(["text "] * 2000),
    ],
    ids=["literal", "folded", "single quotes", "double quotes", "plain", "comment", "side by side", "templates"],
)
def test_a_long_text_with_many_brackets_is_not_deep(text: str):
    assert parse_yaml(text, "x", PipelineError).value


PIECES = st.sampled_from([*"[[[{{]},'\"#a\n ", ": ", "- ", "? ", "\n  ", " #", "|\n", ">\n", "é", "!t "])
IN_BRACKETS = st.recursive(
    st.sampled_from(["a", "b c", "'[{ it''s'", '"[\\"{"', "é", "'['\n    "]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(lambda items: f"{{{', '.join(f'k{i}: {v}' for i, v in enumerate(items))}}}"),
        st.lists(inner, max_size=3).map(lambda items: f"[ # {{[\n    {', '.join(items)}\n    ]"),
    ),
    max_leaves=8,
)
VALUES = st.one_of(
    IN_BRACKETS,
    st.sampled_from(["b [{ [c", "|\n    [[{ x\n\n    [", ">-\n     [{\n\n     [", "c # [[[", "'[[\n    [['", "[[]]"]),
)
TEXTS = st.lists(st.tuples(st.sampled_from(["", "- "]), VALUES), min_size=1, max_size=5).map(
    lambda entries: "".join(f"k{number}:\n  {dash}{value}\n" for number, (dash, value) in enumerate(entries))
)


@given(st.lists(PIECES, max_size=60).map(lambda pieces: "".join(pieces) + " x"), st.integers(0, 3))
@example("[]:  x", 1)
@example("[[[?  x", 3)
@example("[[a]: b, [c]: d x", 2)
def test_what_is_not_cut_is_not_deeper_to_the_parser(text: str, depth: int):
    cut = cut_where_too_deep(text, depth)

    assert text.startswith(cut)
    assert deepest(cut[:-1]) <= depth


@given(TEXTS, st.integers(0, 3))
def test_brackets_are_counted_as_the_parser_counts_them(text: str, depth: int):
    cut = cut_where_too_deep(text, depth)

    assert (cut != text) == (deepest(text, strict=True) > depth)
    assert deepest(cut) == min(deepest(text), depth + 1)


def deepest(text: str, *, strict: bool = False) -> int:
    """How many brackets are open at once by PyYAML's own events, as far as it reads; all of it, if strict.

    A mapping without brackets begins where its first key does, which may be a bracket: each place counts once.
    """
    most = 0
    opened: list[int | None] = []
    with nullcontext() if strict else suppress(yaml.YAMLError):
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                place = event.start_mark.index
                is_new = event.flow_style and text[place] in "[{" and place not in opened
                opened.append(place if is_new else None)
                most = max(most, sum(each is not None for each in opened))
            elif isinstance(event, yaml.CollectionEndEvent):
                opened.pop()
    return most


@given(st.text(max_size=200))
def test_any_text_gives_a_document_or_a_problem(text: str):
    try:
        parse_yaml(text, "x", PipelineError)
    except PipelineError as error:
        assert error.problems


SCALARS = [
    ("plain", "a: one {{ here }} two\n", (1, 11)),
    ("plain over lines", "a: one\n  two\n  {{ here }}\n", (3, 6)),
    ("single quotes", "a: 'it''s {{ here }}'\n", (1, 14)),
    ("single quotes over lines", "a: 'it''s\n\n   a {{ here }}'\n", (3, 9)),
    ("double quotes", 'a: "x\\n\\t\\"\\u00e9\\x41 {{ here }}"\n', (1, 26)),
    ("double quotes with a joined line", 'a: "x\\\n    y {{ here }}"\n', (2, 10)),
    ("literal", "a: |\n  one\n\n    two {{ here }}\n", (4, 12)),
    ("literal with a comment and a blank line", "a: |2-  # note\n\n  {{ here }}\n", (3, 6)),
    ("folded", "b: 1\na: >\n  one\n  two\n\n  three\n  {{ here }}\n", (7, 6)),
    ("with marks and Windows line ends", "\ufeffb: é😀\r\na: |\r\n  é {{ here }}\r\n", (3, 8)),
]


@pytest.mark.parametrize(("text", "place"), [row[1:] for row in SCALARS], ids=[row[0] for row in SCALARS])
def test_a_word_inside_a_text_is_found_where_it_stands(text: str, place: tuple[int, int]):
    document = parse_yaml(text, "x.yaml", PipelineError)
    line = document.value["a"].split("here")[0].count("\n") + 1

    assert document.locate(("a",), line, "here") == place
    assert document.inside(("a",), document.value["a"].index("here")) == place


def test_of_several_the_one_on_the_line_is_meant():
    document = parse_yaml("a: |\n  steps.b steps.bb\n  x.steps.b steps.b\n  y\n", "x.yaml", PipelineError)

    assert document.locate(("a",), 1, "steps.b") == (2, 3)
    assert document.locate(("a",), 1, "steps.bb") == (2, 11)
    assert document.locate(("a",), 2, "steps.b") == (3, 13)
    assert document.locate(("a",), 3, "steps.b") == (2, 3)


def test_without_a_word_the_lines_first_character_is_meant():
    document = parse_yaml("a: |\n    one\n      two\nb: 7\nc: ''\n", "x.yaml", PipelineError)

    assert document.locate(("a",), 2) == (3, 7)
    assert document.locate(("a",), 9, "nothing like it") == (3, 9)  # the end
    assert document.locate(("b",), 1, "x") == (4, 4)
    assert document.locate(("c",), 1, "x") == (5, 4)
    assert document.locate(("none",), 1, "x") == (1, 1)


@given(st.text(st.sampled_from("ab '\"\\\n\t:#é{}"), max_size=30), st.sampled_from(["'", '"', "|", ">"]))
def test_every_visible_character_is_found_again(value: str, style: str):
    import yaml

    text = yaml.dump({"a": value}, default_style=style, allow_unicode=True, width=12)
    document = parse_yaml(text, "x.yaml", PipelineError)
    lines = text.split("\n")

    assert document.value == {"a": value}
    for offset, character in enumerate(value):
        line, column = document.inside(("a",), offset)
        if not character.isspace():
            written = lines[line - 1][column - 1 :]
            assert written.startswith((character, "\\" + character))


def test_files_that_cannot_be_read_say_why(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: caf\xe9\n".encode("latin-1"))
    (tmp_path / "big.yaml").write_bytes(b"#" * 100)
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    cases = {"none.yaml": "no such file", ".": "a directory", "latin.yaml": "not UTF-8", "big.yaml": "at most 50"}

    for name, message in cases.items():
        with pytest.raises(PipelineError, match=message):
            read_text(tmp_path / name, "pipeline", PipelineError, limit=50)
    assert read_text(tmp_path / "bom.yaml", "pipeline", PipelineError) == "a: 1\n"
