"""Every mistake in a pipeline file is found before a model is called: one problem, at its place, and no crash."""

from pathlib import Path

import pytest
from absent_mistakes import ABSENT, ASKED
from doubtful_pipelines import DOUBTFUL, FINE
from foreign_mistakes import BEHIND, FOREIGN_MISTAKES
from language_mistakes import LANGUAGE_MISTAKES
from pipeline_mistakes import CONTEXT, MISTAKES, Mistake

from synaptic.errors import PipelineError, Problem
from synaptic.pipeline.compiler import compile_pipeline, examine
from synaptic.pipeline.loader import MAX_PIPELINE_BYTES, Pipeline

ALL = [*MISTAKES, *LANGUAGE_MISTAKES, *FOREIGN_MISTAKES, *ABSENT]

RAW_WORDS = (
    "expected token",
    "unexpected",
    "Unexpected",
    "Encountered",
    "end of template",
    "print statement",
    "Jinja",
    "while parsing",
    "while scanning",
    "did not find",
    "block mapping",
    "flow mapping",
    "scalar",
    "not allowed in this context",
)
"""What the template engine and the YAML parser say, and no person understands."""


def problems_of(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(PipelineError) as caught:
        compile_pipeline(Pipeline.load(path), CONTEXT)
    assert "Traceback" not in str(caught.value)
    return caught.value.problems


@pytest.mark.parametrize("mistake", ALL, ids=[mistake.name for mistake in ALL])
def test_each_mistake_is_one_located_problem(mistake: Mistake, tmp_path: Path):
    """The same one whether the first is looked for or every one."""
    path = mistake.write(tmp_path)

    problems = problems_of(path)

    assert examine(path, CONTEXT) == (None, problems)
    (problem,) = problems
    assert problem.source == str(tmp_path / mistake.where)
    assert (problem.line, problem.column) == mistake.place
    assert mistake.says in f"{problem.message}; {problem.suggestion}"
    assert "\n" not in str(problem)
    assert not [words for words in RAW_WORDS if words in problem.message]


@pytest.mark.parametrize("mistake", BEHIND, ids=[mistake.name for mistake in BEHIND])
def test_no_mistake_hides_another(mistake: Mistake, tmp_path: Path):
    _, problems = examine(mistake.write(tmp_path), CONTEXT)

    assert [(problem.line, problem.column) for problem in problems] == mistake.places
    assert {problem.source for problem in problems} == {str(tmp_path / mistake.where)}


@pytest.mark.parametrize("doubtful", DOUBTFUL, ids=[row.name for row in DOUBTFUL])
def test_what_is_probably_not_meant_is_one_located_warning(doubtful: Mistake, tmp_path: Path):
    path = doubtful.write(tmp_path)

    compiled = compile_pipeline(Pipeline.load(path), CONTEXT)

    (warning,) = compiled.warnings
    assert warning.source == str(path)
    assert (warning.line, warning.column) == doubtful.place
    assert doubtful.says in warning.clause


@pytest.mark.parametrize("row", FINE, ids=[row.name for row in FINE])
def test_of_what_may_be_meant_nothing_is_said(row: Mistake, tmp_path: Path):
    assert compile_pipeline(Pipeline.load(row.write(tmp_path)), CONTEXT).warnings == ()


@pytest.mark.parametrize("row", ASKED, ids=[row.name for row in ASKED])
def test_what_asks_first_is_no_mistake(row: Mistake, tmp_path: Path):
    assert compile_pipeline(Pipeline.load(row.write(tmp_path)), CONTEXT).graph.steps


def test_a_used_file_is_warned_of_once(tmp_path: Path):
    part = "version: 1\nname: p\ninputs: {x: {}}\nsteps: {a: {agent: editor, prompt: y}}\nresult: '{{ steps.a }}'\n"
    (tmp_path / "part.yaml").write_text(part)
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\nname: p\nsteps: {a: {use: part.yaml}, b: {use: part.yaml}}\nresult: '{{ steps.a }}{{ steps.b }}'\n"
    )

    (warning,) = compile_pipeline(Pipeline.load(path), CONTEXT).warnings

    assert warning.location == f"{tmp_path / 'part.yaml'}:3:10"


def test_a_mistake_is_not_followed_by_warnings_of_what_it_leaves_unread(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\nname: p\ninputs: {query: {}}\n"
        "steps: {a: {agent: editor, prompt: '{{ inputs.qery }}'}}\nresult: x\n"
    )

    (problem,) = problems_of(path)

    assert problem.suggestion == "did you mean 'query'?"


def test_the_names_of_the_rows_are_different():
    assert len(MISTAKES) >= 60
    assert len({mistake.name for mistake in [*ALL, *DOUBTFUL, *FINE, *ASKED]}) == len([*ALL, *DOUBTFUL, *FINE, *ASKED])


@pytest.mark.parametrize("case", ["expect: LONG", "replies: {c: LONG}", "replies: {LONG: x}", "expect: {that: LONG}"])
def test_a_long_value_is_cut_where_a_message_shows_it(case: str, tmp_path: Path):
    path = tmp_path / "p.yaml"
    steps = "steps: {c: {agent: critic, prompt: x}}\nresult: r\n"
    path.write_text(f"version: 1\nname: p\n{steps}tests: {{one: {{{case.replace('LONG', 'long ' * 900)}}}}}\n")

    (problem,) = examine(path, CONTEXT)[1]

    assert len(str(problem)) < len(str(path)) + 300


def test_a_file_of_ten_megabytes_is_refused(tmp_path: Path):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"version: 1\n" + b"# padding\n" * (1 << 20))

    (problem,) = problems_of(path)

    assert problem.location == f"{path}:1:1"
    assert f"at most {MAX_PIPELINE_BYTES:,}" in problem.message


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("version: 1\nname: café\n".encode("latin-1"))

    (problem,) = problems_of(path)

    assert problem.location == f"{path}:2:10"
    assert "not UTF-8" in problem.message


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path):
    outside, folder = tmp_path / "outside.yaml", tmp_path / "folder"
    folder.mkdir()
    outside.write_text("version: 1\nname: o\nsteps: {a: {agent: editor, prompt: x}}\nresult: r\n")
    (folder / "link.yaml").symlink_to(outside)
    path = folder / "p.yaml"
    path.write_text("version: 1\nname: p\nsteps:\n  a: {use: link.yaml}\nresult: r\n")

    (problem,) = problems_of(path)

    assert problem.location == f"{path}:4:12"
    assert "leads out of the folder" in problem.message


@pytest.mark.parametrize("name", [r'"a\0b.yaml"', "x" * 300 + ".yaml", "~/x.yaml", r"C:\x.yaml", "'  /x.yaml'"])
def test_what_is_no_path_inside_the_folder_is_refused(name: str, tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text(f"version: 1\nname: p\nsteps:\n  a: {{use: {name}}}\nresult: r\n")

    (problem,) = problems_of(path)

    assert (problem.line, problem.column) == (4, 12)


def test_a_long_chain_of_pipelines_is_refused(tmp_path: Path):
    for number in range(30):
        text = f"version: 1\nname: p\nsteps:\n  a: {{use: p{number + 1}.yaml}}\nresult: r\n"
        (tmp_path / f"p{number}.yaml").write_text(text)

    (problem,) = problems_of(tmp_path / "p0.yaml")

    assert "use each other in a chain" in problem.message


def test_all_mistakes_are_found_at_once_those_of_form_and_those_of_meaning(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("""\
version: 1
nam: p
inputs: {query: {}, size: {tpye: integer}}
steps:
  a: {agent: edtor, prompt: "{{ steps.c }}"}
  b: {agent: editor, prompt: "{{ steps.bad }} {{ inputs.size }} {{ inputs.qery }}", when: steps.x > 1}
  bad: {agent: editor, promt: x}
  r: {repeat: {steps: {d: {agnt: editor}, e: {agent: critic, prompt: "{{ steps.d.x }} {{ steps.f }}"}}}}
result: "{{ steps.bad }} {{ steps.r.d }}"
""")

    _, problems = examine(path, CONTEXT)

    assert [(problem.line, problem.column) for problem in problems] == [
        (2, 1),
        (3, 28),
        (5, 14),
        (5, 33),
        (6, 68),
        (6, 91),
        (7, 24),
        (8, 24),
        (8, 28),
        (8, 74),
        (8, 90),
    ]


def test_a_used_file_is_reported_once_however_often_it_is_used(tmp_path: Path):
    (tmp_path / "part.yaml").write_text("version: 1\nname: p\nsteps: {a: {agent: edtor, prompt: x}}\nresult: r\n")
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: p\nsteps: {a: {use: part.yaml}, b: {use: part.yaml}}\nresult: '{{ steps.c }}'\n")

    first, second = problems_of(path)

    assert (first.location, second.location) == (f"{path}:4:13", f"{tmp_path / 'part.yaml'}:3:20")


@pytest.mark.parametrize(
    ("line", "hides"),
    [
        ("output: text", ()),
        ("output: [a, b]", ()),
        ("output: 3", ()),
        ("output: {score: numbr}", ()),
        ("samples: {a: 1}", ()),
        ("foreach: 3", ("qury",)),
        ("repeat: yes", ("qury",)),
        ("prompt: [Say]", ("qury",)),
        ("agent: [editor]", ("qury", "editr")),
    ],
)
@pytest.mark.parametrize("within", ["", "  in: {repeat: {max: 2, steps: {", "  other: {agent: editor, prompt: Hi}\n"])
def test_what_is_wrong_with_the_form_of_a_step_hides_nothing_else(
    line: str, hides: tuple[str, ...], within: str, tmp_path: Path
):
    """Also where it is the only one: without steps there would be nothing left to check."""
    written = {"agent": "agent: editr", "prompt": "prompt: '{{ inputs.qury }}'"} | {line.partition(":")[0]: line}
    step = "{" + ", ".join(written.values()) + "}"
    steps = f"{within}a: {step}}}}}}}\n" if within.endswith("{") else f"{within}  a: {step}\n"
    path = tmp_path / "p.yaml"
    path.write_text(f"version: 1\nname: p\ninputs: {{query: {{}}}}\nsteps:\n{steps}result: '{{{{ steps.zz }}}}'\n")

    _, problems = examine(path, CONTEXT)

    said = " ".join(map(str, problems))
    assert len(problems) == 4 - len(hides)
    assert all((name in said) is (name not in hides) for name in ("editr", "qury", "zz"))


@pytest.mark.parametrize(
    "steps",
    [
        "  - name: plan\n    agent: planer\n    prompt: x\n  - {id: write, {rest}}\n",
        "  - plan: {agent: planer, prompt: x}\n  - write: {{rest}}\n",
    ],
)
def test_what_stands_in_lists_of_named_parts_is_checked(steps: str, tmp_path: Path):
    rest = "agent: editor, promt: '{{ steps.plan }} {{ inputs.zz }}'"
    steps = steps.replace("{rest}", rest)
    path = tmp_path / "p.yaml"
    path.write_text(
        f"version: 1\nname: p\ninputs: [query]\nsteps:\n{steps}result: '{{{{ steps.wrte }}}} {{{{ inputs.query }}}}'\n"
    )

    _, problems = examine(path, CONTEXT)

    said = [f"{problem.message}; {problem.suggestion}" for problem in problems]
    assert all(problem.line for problem in problems)
    for words in ("'inputs' must be", "'steps' must be", "'planner'", "'prompt'", "no input 'zz'", "'write'"):
        assert sum(words in each for each in said) == 1, (words, said)
    assert len(said) == 6
