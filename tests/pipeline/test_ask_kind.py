"""A question to the person, as the language knows it: what may be written, and how it is planned and drawn."""

import json

import jsonschema
import pytest

from synaptic.agents.definition import Agent
from synaptic.errors import PipelineError
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.drawing import draw
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.plan import overview
from synaptic.pipeline.spec.schema import pipeline_schema
from synaptic.pipeline.width import width
from synaptic.text.yaml_positions import parse_yaml

HEAD = "version: 1\nname: p\ninputs: {query: {}}\nsteps:\n"
TAIL = "  b: {agent: editor, prompt: '{{ steps.a%s }}'}\nresult: '{{ steps.b }}'\n"
CONTEXT = CompileContext(agents={"editor": Agent(name="editor", prompt="Edit.")})
VALIDATOR = jsonschema.Draft202012Validator(pipeline_schema())


def compiled(step: str, use: str = ""):
    return compile_pipeline(Pipeline.parse(f"{HEAD}  a: {{{step}}}\n{TAIL % use}", "p.yaml"), CONTEXT)


def is_valid(step: str) -> bool:
    data = parse_yaml(f"{HEAD}  a: {{{step}}}\n{TAIL % ''}", "p.yaml", PipelineError).value
    return not list(VALIDATOR.iter_errors(data))


@pytest.mark.parametrize(
    "step",
    [
        "ask: Which?",
        "ask: 'Of {{ inputs.query }}?', default: yes it is",
        "ask: Which?, default: '{{ inputs.query }}'",
        "ask: Which?, default: null",
        "ask: Which?, output: {city: string}, default: {city: Bern}",
        "ask: Which?, foreach: \"['a']\", when: inputs.query, timeout: 60, on_error: skip, priority: 3",
        "ask: Which?, repeat: {self: true, max: 2, until: steps.a}",
    ],
)
def test_what_may_be_written(step: str):
    assert is_valid(step)
    assert compiled(step).graph.steps["a"].worker.kind == "ask"


@pytest.mark.parametrize(
    ("step", "column", "message"),
    [
        ("ask: ' '", 12, "the question is empty; write what the person is asked"),
        ("ask: 7", 12, "'ask' must be text, not a number (7); put it in quotes: '7'"),
        ("ask: 'Which {{ inputs.cty }}?'", 22, "there is no input 'cty'; known: query"),
        ("ask: Which?, default: 7", 29, "the default is not an answer: it must be text, not 7; write one that fits"),
        ("ask: Which?, model: big", 20, "a step with 'ask' has no 'model'; a question calls no model: remove it"),
        (
            "ask: Which?, prompt: x",
            20,
            "a step with 'ask' has no 'prompt'; write what the person is asked behind 'ask'",
        ),
        (
            "ask: Which?, with: {a: 1}",
            20,
            "a step with 'ask' has no 'with'; write the values into the question, as in {{ inputs.NAME }}",
        ),
        ("ask: Which?, samples: 3", 20, "a step with 'ask' has no 'samples'; a question calls no model: remove it"),
        ("ask: Which?, approve: prompt", 29, "a step with 'ask' has no prompt to approve; write 'approve: output'"),
        (
            "ask: Which?, timeout: {idle: 3}",
            30,
            "a step with 'ask' has no 'idle' timeout; write 'total', which bounds the whole step",
        ),
        ("agent: editor, prompt: x, default: y", 33, "a step with 'agent' has no 'default'; remove it"),
        ("ask: Which?, tool: x", 3, "the step 'a' has both 'tool' and 'ask'; write exactly one of them"),
        ("human_input: Which?", 7, "unknown key 'human_input'; write 'ask'"),
    ],
)
def test_each_mistake_is_located(step: str, column: int, message: str):
    with pytest.raises(PipelineError) as raised:
        compiled(step)

    problem = raised.value.problems[0]
    assert f"{problem.message}; {problem.suggestion}" == message
    assert (problem.source, problem.line, problem.column) == ("p.yaml", 5, column)


def test_a_default_that_does_not_fit_its_shape_is_located():
    with pytest.raises(PipelineError) as raised:
        compiled("ask: Which?, output: {n: integer(1..3)}, default: {n: 9}")

    (problem,) = raised.value.problems
    expected = (
        "the default is not an answer: it does not have the right shape: n: expected a whole number from 1 to 3, got 9"
    )
    assert (problem.message, problem.suggestion, problem.column) == (expected, "write one that fits", 57)


def test_the_type_of_the_answer_is_known():
    compiled("ask: Which?, output: {city: string}", ".city")
    with pytest.raises(PipelineError, match="town"):
        compiled("ask: Which?, output: {city: string}", ".town")
    with pytest.raises(PipelineError, match="city"):
        compiled("ask: Which?", ".city")


@pytest.mark.parametrize("step", ["ask: ' '", "ask: 7", "ask: Which?, model: big", "prompt: x, default: y, agent: z"])
def test_the_schema_refuses_it_too(step: str):
    assert not is_valid(step)


def test_it_is_planned_and_drawn_as_a_question():
    pipeline = compiled("ask: Which?, description: Ask first.")
    row = overview(pipeline)["steps"][0]

    assert (row["kind"], row["work"], row["what"], row["agent"], row["model"]) == ("ask", "ask", "", None, None)
    assert row["description"] == "Ask first."
    assert width(pipeline) == 1
    assert "a  asks a person" in draw(pipeline, "text")
    assert '[/"a<br/>asks a person"/]' in draw(pipeline, "mermaid")
    assert "shape=parallelogram" in draw(pipeline, "dot")
    assert 'class="step ask"' in draw(pipeline, "svg")
    assert json.loads(json.dumps(overview(pipeline)))
