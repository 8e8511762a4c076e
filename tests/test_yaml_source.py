"""YAML with positions: what is read, what is refused, and where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic.errors import PipelineError
from synaptic.yaml_source import MAX_DEPTH, parse_yaml, read_text


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
        ("a: &x [1]\nb: *x\n", "x.yaml:1:4: aliases (*name) are not read; write the value out"),
        ("a: {c: 1}\n<<: {b: 2}\n", "x.yaml:2:1: merge keys (<<) are not read; write the keys out"),
        ("a: !!python/object:os.system x\n", None),
        ("a: !thing x\n", "x.yaml:1:4: the tag !thing is not read; remove it"),
        ("? [1]\n: 2\n", "x.yaml:1:3: a key must be plain text"),
        ("a: [1\n", None),
    ],
)
def test_what_is_not_plain_data_is_refused(text: str, expected: str | None):
    found = problems_of(text) if expected else []

    assert found == [expected] if expected else True


def test_a_tag_of_python_is_text_and_nothing_is_made_of_it():
    assert parse_yaml("a: !!python/name:os.system x\n", "x", PipelineError).value == {"a": "x"}


def test_broken_yaml_says_where():
    (problem,) = problems_of("a: [1\nb: 2\n")

    assert problem.startswith("x.yaml:2:")
    assert "broken YAML" in problem


def test_a_tab_is_named():
    (problem,) = problems_of("a:\n\tb: 1\n")

    assert problem.endswith("indent with spaces, not tabs")


def test_an_alias_bomb_is_refused_at_once():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]

    assert all("aliases" in problem for problem in problems_of("\n".join(lines)))


def test_too_deep_a_nesting_is_refused():
    assert any("levels deep" in problem for problem in problems_of("[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5)))


@given(st.text(max_size=200))
def test_any_text_gives_a_document_or_a_problem(text: str):
    try:
        parse_yaml(text, "x", PipelineError)
    except PipelineError as error:
        assert error.problems


def test_files_that_cannot_be_read_say_why(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: caf\xe9\n".encode("latin-1"))
    (tmp_path / "big.yaml").write_bytes(b"#" * 100)
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    cases = {"none.yaml": "no such file", ".": "a directory", "latin.yaml": "not UTF-8", "big.yaml": "at most 50"}

    for name, message in cases.items():
        with pytest.raises(PipelineError, match=message):
            read_text(tmp_path / name, "pipeline", PipelineError, limit=50)
    assert read_text(tmp_path / "bom.yaml", "pipeline", PipelineError) == "a: 1\n"
