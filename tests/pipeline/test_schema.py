"""The JSON Schema of pipelines: what the loader accepts it accepts, and what it can say it says."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synaptic.agents.notation import parse_notation
from synaptic.errors import PipelineError
from synaptic.paths import builtin_pipelines_dir
from synaptic.pipeline.compiler.step_kind import key_problems, kind_of
from synaptic.pipeline.spec.schema import DIALECT, documented, pipeline_schema
from synaptic.pipeline.spec.spec import PipelineSpec, StepSpec
from synaptic.text.yaml_positions import parse_yaml

ROOT = Path(__file__).parents[2]
FILES = sorted([*builtin_pipelines_dir().glob("*.yaml"), *(ROOT / "examples").rglob("*.yaml")])

SCHEMA = pipeline_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def read(file: Path) -> Any:
    return parse_yaml(file.read_text(encoding="utf-8"), file.name, PipelineError).value


def pipeline(steps: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "demo",
        "steps": {"a": {"agent": "editor", "prompt": "x"}} if steps is None else steps,
        "result": "{{ steps.a }}",
        **more,
    }


def step(**keys: Any) -> dict[str, Any]:
    return pipeline({"a": {"agent": "editor", "prompt": "x", **keys}})


def loop(**keys: Any) -> dict[str, Any]:
    return pipeline({"a": {"repeat": {"steps": {"b": {"agent": "editor", "prompt": "x"}}, **keys}}})


def objects(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping of keys in the schema with the name of its definition."""
    yield "pipeline", schema
    yield from schema["$defs"].items()


def test_it_is_a_schema_of_the_draft_that_it_names():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    assert SCHEMA["$schema"] == DIALECT
    assert SCHEMA["$id"].startswith("urn:")
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_every_key_is_described():
    found = [(name, key, value) for name, part in objects(SCHEMA) for key, value in part.get("properties", {}).items()]

    assert len(found) > 60
    assert [(name, key) for name, key, value in found if len(value.get("description", "")) < 10] == []
    assert [part for _, part in objects(SCHEMA) if not part.get("description")] == []


def test_keys_are_written_as_in_the_file():
    step_keys = set(SCHEMA["$defs"]["step"]["properties"])

    assert {"as", "with"} <= step_keys
    assert not {"item_name", "inputs", "itself"} & step_keys
    assert "self" in SCHEMA["$defs"]["repeat"]["properties"]
    assert SCHEMA["$defs"]["repeat"]["properties"]["max"]["default"] == 3


def test_descriptions_come_from_the_docstrings():
    about, keys = documented(StepSpec)

    assert about.startswith("One step")
    assert keys["foreach"].startswith("Expression that gives a list, or the list itself; the step runs once per item")
    assert SCHEMA["$defs"]["step"]["properties"]["foreach"]["description"] == keys["foreach"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_pipeline_of_ours_is_valid(file: Path):
    assert [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(read(file))] == []


VALID = {
    "plain": pipeline(),
    "empty keys": step(use=None, tool=None, choose=None, repeat=None, model=None, when=None, output=None),
    "short timeout": step(timeout=30),
    "long timeout": step(timeout={"total": 30, "idle": 0.5, "first_token": None}),
    "on_error": step(on_error={"use": "b"}),
    "on_error skip": step(on_error="skip"),
    "cache": step(cache=True),
    "cache for seconds": step(cache=0.5),
    "cache for a week": step(cache="7d"),
    "approve": step(approve=True),
    "approve both": step(approve="both"),
    "output": step(output={"a": "string(..80)", "b?": {"c": "list[string](1..3)"}, "d": "enum(yes, no)"}),
    "output with space": step(output={"a": " number ( 0 .. 1 ) ", "b": "{x: string}", "c": "boolean "}),
    "self": step(repeat={"self": True, "until": "steps.a"}),
    "self, and no steps": step(repeat={"self": True, "steps": None}),
    "loop": loop(max="inputs.rounds", keep="best", score="steps.b", plateau=2),
    "tool": pipeline({"a": {"tool": "fetch", "with": {"url": "x", "n": [1, None]}}}),
    "a list to map over": step(foreach=["a", 1, {"b": [2]}], when="item"),
    "no list to map over": step(foreach=None),
    "result of values": pipeline(result={"a": "{{ steps.a }}", "b": [1, {"c": True}]}),
    "attempts of a tool": pipeline({"a": {"tool": "fetch", "retry": {"attempts": 3}}}),
    "use": pipeline({"a": {"use": "answer"}}),
    "choose": pipeline({"a": {"choose": {"prompt": "x", "options": {"b": "why", "c": {"steps": ["d"]}}}}}),
    "inputs": pipeline(inputs={"a": {}, "b": {"type": "files", "required": True}, "c": {"default": [1]}}),
    "agents": pipeline(agents={"own-1": {"prompt": "x", "output": {"a": "string"}}}),
    "tests": pipeline(
        tests={
            "bare": {},
            "one": {
                "inputs": {"q": 1, "f": {"text": "x"}},
                "replies": {"a": "x", "a.b": {"c": 1}, "a[1]": ["x", {"fails": "busy"}]},
                "expect": {"result": "x", "contains": ["a", 2], "that": "steps.a", "fails": True},
            },
            "two": {"expect": {"result": {"a": 1}, "contains": "x", "that": ["steps.a"], "fails": "busy"}},
            "three": {"expect": {"result": 3}},
        }
    ),
    "bounds": pipeline(budget={"tokens": 5, "calls": 1, "seconds": 0.5}, concurrency=4, defaults={"num_ctx": 9}),
}


@pytest.mark.parametrize("data", VALID.values(), ids=VALID)
def test_what_is_right_is_valid(data: dict[str, Any]):
    PipelineSpec.model_validate(data)

    assert [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(data)] == []


WRONG = {
    "not a mapping": [],
    "empty": {},
    "version": pipeline(version=2),
    "version as text": pipeline(version="1"),
    "no result": {key: value for key, value in pipeline().items() if key != "result"},
    "name": pipeline(name="Demo"),
    "long name": pipeline(name="a" * 65),
    "unknown key": pipeline(step={}),
    "no steps": pipeline({}),
    "step's name": pipeline({"A": {"agent": "editor", "prompt": "x"}}),
    "long step's name": pipeline({"a" * 65: {"agent": "editor", "prompt": "x"}}),
    "step is text": pipeline({"a": "editor"}),
    "misspelt key": step(promt="x"),
    "field names instead of keys": step(item_name="x"),
    "no work": pipeline({"a": {"prompt": "x"}}),
    "two works": step(tool="fetch"),
    "agent and loop": step(repeat={"steps": {"b": {"agent": "editor", "prompt": "x"}}}),
    "agent without prompt": pipeline({"a": {"agent": "editor"}}),
    "with for an agent": step(**{"with": {"a": 1}}),
    "agent is a number": pipeline({"a": {"agent": 5, "prompt": "x"}}),
    "needs is text": step(needs="b"),
    "join": step(join="some"),
    "as": step(foreach="inputs.x", **{"as": "Item"}),
    "concurrency": step(concurrency=0),
    "temperature": step(temperature=2.5),
    "max_tokens": step(max_tokens=1.5),
    "timeout": step(timeout=0),
    "timeout's key": step(timeout={"totl": 3}),
    "timeout as text": step(timeout="30s"),
    "retry": step(retry={"attempts": 0}),
    "retry cause": step(retry={"on": ["weather"]}),
    "retry is a number": step(retry=3),
    "overflow": step(overflow="cut"),
    "samples": step(samples=1),
    "select": step(samples=3, select="worst"),
    "cache": step(cache="1w"),
    "cache for no time": step(cache="0s"),
    "cache below zero": step(cache=-1),
    "cache zero": step(cache=0),
    "approve": step(approve="yes"),
    "priority": step(priority=101),
    "on_error": step(on_error="ignore"),
    "on_error without a step": step(on_error={}),
    "on_error with more": step(on_error={"use": "b", "action": "use"}),
    "on_error name": step(on_error={"use": "B"}),
    "no fields": step(output={}),
    "field name": step(output={"1a": "string"}),
    "field type": step(output={"a": "strng"}),
    "bounds of a boolean": step(output={"a": "boolean(1)"}),
    "type is a list": step(output={"a": ["string"]}),
    "nested type": step(output={"a": {"b": 5}}),
    "loop without steps": pipeline({"a": {"repeat": {"max": 3}}}),
    "empty loop": pipeline({"a": {"repeat": {"steps": {}}}}),
    "loop over both": loop(self=True),
    "loop's key": loop(untill="x"),
    "inside the loop": pipeline({"a": {"repeat": {"steps": {"b": {"agent": "editor", "prompt": 5}}}}}),
    "max": loop(max=2.5),
    "keep": loop(keep="first"),
    "keep the best of no score": loop(keep="best"),
    "plateau of no score": loop(plateau=2),
    "no round": loop(max=0),
    "choose repeats itself": pipeline(
        {"a": {"choose": {"prompt": "x", "options": {"b": "", "c": ""}}, "repeat": {"self": True}}}
    ),
    "model of a tool": pipeline({"a": {"tool": "fetch", "model": "big"}}),
    "causes of a tool": pipeline({"a": {"tool": "fetch", "retry": {"on": ["busy"]}}}),
    "repairs of a tool": pipeline({"a": {"tool": "fetch", "retry": {"repairs": 1}}}),
    "idle timeout of a tool": pipeline({"a": {"tool": "fetch", "timeout": {"idle": 3}}}),
    "approved prompt of a tool": pipeline({"a": {"tool": "fetch", "approve": "both"}}),
    "output of a pipeline": pipeline({"a": {"use": "answer", "output": {"a": "string"}}}),
    "foreach of a mapping": step(foreach={"a": 1}),
    "foreach of a number": step(foreach=3),
    "as without a map": step(**{"as": "part"}),
    "as of a root": step(foreach="inputs.x", **{"as": "steps"}),
    "judge without samples": step(judge="critic"),
    "judge of a vote": step(samples=3, select="vote", judge="critic"),
    "retry on nothing": step(retry={"on": []}),
    "blank prompt": step(prompt=" "),
    "blank model": step(model=""),
    "plateau": loop(plateau=0),
    "one option": pipeline({"a": {"choose": {"prompt": "x", "options": {"b": "why"}}}}),
    "option's key": pipeline({"a": {"choose": {"prompt": "x", "options": {"b": {"step": []}, "c": ""}}}}),
    "option's name": pipeline({"a": {"choose": {"prompt": "x", "options": {"B": "", "c": ""}}}}),
    "choose without options": pipeline({"a": {"choose": {"prompt": "x"}}}),
    "input type": pipeline(inputs={"a": {"type": "text"}}),
    "input's choices": pipeline(inputs={"a": {"choices": []}}),
    "input is text": pipeline(inputs={"a": "string"}),
    "agent's key": pipeline(agents={"own": {"prompt": "x", "system": "y"}}),
    "agent's name": pipeline(agents={"Own": {"prompt": "x"}}),
    "agent without a prompt": pipeline(agents={"own": {}}),
    "budget": pipeline(budget={"token": 5}),
    "budget below one": pipeline(budget={"calls": 0}),
    "defaults": pipeline(defaults={"prompt": "x"}),
    "list of tests": pipeline(tests=[{}]),
    "test is text": pipeline(tests={"one": "x"}),
    "test's name": pipeline(tests={"One": {}}),
    "test's key": pipeline(tests={"one": {"mocks": {}}}),
    "replies in a list": pipeline(tests={"one": {"replies": ["x"]}}),
    "expected text": pipeline(tests={"one": {"expect": "x"}}),
    "expected key": pipeline(tests={"one": {"expect": {"equals": "x"}}}),
    "expected nothing": pipeline(tests={"one": {"expect": {"result": None}}}),
    "expected list": pipeline(tests={"one": {"expect": {"result": ["x"]}}}),
    "contains nothing": pipeline(tests={"one": {"expect": {"contains": []}}}),
    "contains a mapping": pipeline(tests={"one": {"expect": {"contains": {"a": 1}}}}),
    "condition is true": pipeline(tests={"one": {"expect": {"that": True}}}),
    "fails is false": pipeline(tests={"one": {"expect": {"fails": False}}}),
    "fails with nothing": pipeline(tests={"one": {"expect": {"fails": " "}}}),
    "result is a number": pipeline(result=3),
    "result is a list": pipeline(result=["x"]),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_invalid(data: Any):
    assert not VALIDATOR.is_valid(data)


# -- the schema against the loader, over mutations of every pipeline of ours ------------------------------------------

KEYS = sorted({key for _, part in objects(SCHEMA) for key in part.get("properties", {})} | {"promt", "Upper", "x"})
# Whole numbers with a point are left out: to JSON Schema 1.0 is an integer, to the loader it is not.
VALUES = st.recursive(
    st.sampled_from(
        [
            *(None, True, False, 0, 1, 2, 3, 64, 65, 101, -1, 0.5, 2.5, 1_000_001, "30s", "0s", "7d", "", "x"),
            *("Bad Name", "a_name", "fail", "skip", "best", "any", "first", "file", "output", "both", "error", "busy"),
            *("string", "list[string](..3)", "number(0..1)", "boolean(1)", "enum(yes, no)"),
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = [read(file) for file in FILES] + list(VALID.values())


def places(data: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of the data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in items for place in [(data, key), *places(value)]]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    data = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(data)))
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "add" and isinstance(container, dict):
            container[draw(st.sampled_from(KEYS))] = draw(VALUES)
        elif what == "remove":
            del container[key]
        else:
            container[key] = draw(VALUES)
    return data


def steps_of(steps: Mapping[str, StepSpec]) -> Iterator[StepSpec]:
    for one in steps.values():
        yield one
        if one.repeat is not None and one.repeat.steps is not None:
            yield from steps_of(one.repeat.steps)


def the_loader_accepts(data: Any) -> bool:
    """Whether the form is right: the models, the notation of outputs, the keys of a step that go together."""
    try:
        spec = PipelineSpec.model_validate(data)
    except pydantic.ValidationError:
        return False
    if data["version"] is True:  # to Python that is 1
        return False
    outputs = [agent.output for agent in spec.agents.values()]
    for one in steps_of(spec.steps):
        outputs.append(one.output)
        kind, _ = kind_of("step", one)
        if kind is None or key_problems(one, kind):
            return False
    return all(not parse_notation(output)[1] for output in outputs if output is not None)


@given(mutated())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_schema_and_the_loader_agree(data: Any):
    errors = [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(data)]

    assert (errors == []) == the_loader_accepts(data), (errors, data)


TYPES = st.text(alphabet="string nubeaolif()[]{}.,:?0123-\n", max_size=24) | st.sampled_from(
    [
        "string (1..5)",
        "integer(..9)",
        "list[list[string]]",
        "{a: string, b?: number}",
        'enum("a b", c)',
        "list [string]",
    ]
)


@given(TYPES)
@settings(max_examples=300, deadline=None)
def test_no_type_that_the_notation_accepts_is_refused(text: str):
    _, mistakes = parse_notation({"a": text})

    if not mistakes:
        assert VALIDATOR.is_valid(step(output={"a": text}))


def test_patterns_are_plain_enough_for_editors():
    """ECMAScript has no \\A, no inline flags and no possessive quantifiers."""
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(SCHEMA))

    assert patterns
    assert [pattern for pattern in patterns if re.search(r"\\\\[AZ]|\(\?[aiLmsux]|\+\+", pattern)] == []
