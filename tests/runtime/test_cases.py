"""Tests that stand in a pipeline: what is answered in the place of models, tools and people, and what is compared."""

import json
from pathlib import Path
from textwrap import dedent, indent

import pytest
from run_support import AGENTS

from synaptic import paths
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.tools import Tool
from synaptic.runtime.cases import CaseOutcome, run_case

CALLS: list[str] = []


def shout(text: str) -> str:
    """Return it louder."""
    CALLS.append(text)
    return text.upper()


CONTEXT = CompileContext(agents=AGENTS, tools={"shout": Tool.of(shout)})

INNER = """\
version: 1
name: inner
inputs: {topic: {required: true}}
steps:
  facts: {agent: lister, prompt: "{{ inputs.topic }}"}
  tell: {agent: writer, prompt: "{{ steps.facts.items }}"}
result: "{{ steps.tell }}"
"""

STEPS = {
    "one": "  end: {agent: writer, prompt: '{{ inputs.query }}'}\n",
    "patient": "  end: {agent: writer, prompt: x, retry: {attempts: 3, on: [busy, timeout]}}\n",
    "skipping": "  a: {agent: writer, prompt: x, on_error: skip}\n  end: {agent: writer, prompt: '{{ steps.a }}'}\n",
    "replaced": "  end: {agent: writer, prompt: x, on_error: {use: b}}\n  b: {agent: writer, prompt: y}\n",
    "judged": "  j: {agent: judge, prompt: x}\n  end: {agent: writer, when: steps.j.score < 0.5, prompt: x}\n",
    "mapped": "  end: {agent: writer, foreach: [a, b, c], prompt: '{{ item }}'}\n",
    "left out": "  end: {agent: writer, foreach: [a, b, c], on_error: skip, prompt: '{{ item }}'}\n",
    "loop": (
        "  r:\n    repeat:\n      max: 3\n      until: steps.j.score > 0.8\n      steps:\n"
        "        d: {agent: writer, prompt: x}\n        j: {agent: judge, prompt: '{{ steps.d }}'}\n"
        "  end: {agent: writer, prompt: '{{ steps.r.d }} {{ steps.r.rounds }}'}\n"
    ),
    "itself": "  end: {agent: writer, prompt: x, repeat: {self: true, max: 2}}\n",
    "best": "  end: {agent: writer, prompt: x, samples: 2}\n",
    "merged": "  end: {agent: writer, prompt: x, samples: 2, select: merge}\n",
    "choice": (
        "  c: {choose: {prompt: x, options: {sea: {steps: [end]}, land: {steps: [b]}}}}\n"
        "  end: {agent: writer, prompt: x}\n  b: {agent: writer, prompt: x}\n"
    ),
    "tool": "  end: {tool: shout, with: {text: '{{ inputs.query }}'}, retry: {attempts: 2}}\n",
    "asked": "  end: {ask: Which?}\n",
    "proposed": "  end: {ask: Which?, default: Paris}\n",
    "asked for data": "  q: {ask: Which?, output: {city: string}}\n  end: {agent: writer, prompt: '{{ steps.q }}'}\n",
    "approved": "  end: {agent: writer, prompt: x, approve: both}\n",
    "used": "  part: {use: inner.yaml, with: {topic: x}}\n  end: {agent: writer, prompt: '{{ steps.part }}'}\n",
    "cached": (
        "  a: {agent: writer, prompt: x, cache: 1h}\n  end: {agent: writer, prompt: '{{ steps.a }}', cache: 1h}\n"
    ),
    "used in a map": (
        "  part: {use: inner.yaml, foreach: [a, b], with: {topic: '{{ item }}'}}\n  end: {ask: x, default: y}\n"
    ),
    "used again": (
        "  part: {use: inner.yaml, with: {topic: x}, repeat: {self: true, max: 2}}\n  end: {ask: x, default: y}\n"
    ),
    "deep": (
        "  r:\n    foreach: [a, b]\n    repeat:\n      max: 2\n      steps:\n"
        "        s: {repeat: {max: 2, steps: {c: {choose: {prompt: x, options: {one: '', two: ''}}}}}}\n"
        "        q: {ask: 'Is it {{ steps.s.c }}?'}\n        d: {agent: writer, approve: true, prompt: x}\n"
        "  end: {ask: x, default: y}\n"
    ),
    "elsewhere": "  end: {agent: writer, prompt: x, backend: ollama, model: big, fallback_models: [small]}\n",
}


def with_case(
    folder: Path, steps: str, case: str, result: object = "{{ steps.end }}", inputs: str = "query: {}"
) -> Pipeline:
    """Write a pipeline with the test ``one``."""
    (folder / "inner.yaml").write_text(INNER)
    file = folder / "p.yaml"
    head = f"version: 1\nname: p\ninputs: {{{inputs}}}\nsteps:\n{steps}result: {json.dumps(result)}\n"
    file.write_text(f"{head}tests:\n  one:\n{indent(dedent(case), '    ')}\n")
    return Pipeline.load(file)


async def ran(folder: Path, steps: str, case: str, **parts: object) -> CaseOutcome:
    pipeline = with_case(folder, STEPS.get(steps, steps), case, **parts)
    return await run_case(pipeline, compile_pipeline(pipeline, CONTEXT), "one")


IN_A_MAP = """\
replies: {'part[0]': whole, part.facts: {items: [a]}, 'part[1].tell': told}
expect: {that: "steps.part == ['whole', 'told']"}
"""
IN_ROUNDS = """\
replies: {part.facts: {items: [a]}, 'part[1].tell': x, 'part[2].tell': y}
expect: {that: steps.part == 'y'}
"""
DEEP = """\
replies:
  r.s.c: one
  r[1][2].s[2].c: two
  r.q: good
  r.d: x
  r[0][1].d.approve: seen
  r[0][2].d: y
expect:
  that:
    - steps.r[0].s.c == 'one' and steps.r[1].s.c == 'two'
    - steps.r[0].d == 'y'
    - run.calls == 12
"""
GOOD = [
    ("one", "replies: {end: Hello}\nexpect: {result: Hello}"),
    ("one", "replies: {end: '  Hello '}\nexpect:\n  result: |\n    Hello\n"),
    ("one", "replies: {end: 42}\nexpect: {result: 42, contains: 4}"),
    ("one", "replies: {end: grün ✓ 𝄞}\nexpect: {contains: [✓, 𝄞], that: result == 'grün ✓ 𝄞'}"),
    ("one", "replies: {end: x}"),
    ("one", "inputs: {query: q}\nreplies: {end: x}\nexpect: {that: [inputs.query == 'q', run.calls == 1]}"),
    ("one", "replies: {end: x}\nexpect: {that: run.stop_reason == 'completed' and run.pipeline == 'p'}"),
    ("one", "replies: {end: {fails: rejected}}\nexpect: {fails: 'end: The request'}"),
    ("one", "replies: {end: {fails: rejected}}\nexpect: {fails: true, that: not steps.end}"),
    ("one", "replies: {end: [{fails: output}, x]}\nexpect: {result: x, that: run.calls == 2}"),
    ("patient", "replies: {end: [{fails: busy}, {fails: timeout}, x]}\nexpect: {result: x, that: run.calls == 3}"),
    ("patient", "replies: {end: {fails: busy}}\nexpect: {fails: busy, that: run.calls == 3}"),
    ("patient", "replies: {end: {fails: crash}}\nexpect: {fails: died, that: run.calls == 1}"),
    *(
        ("skipping", f"replies: {{a: {{fails: {reason}}}, end: x}}\nexpect: {{result: x, that: steps.a is skipped}}")
        for reason in ("unavailable", "busy", "server", "stream", "timeout", "crash", "rejected", "output")
    ),
    ("replaced", "replies: {end: {fails: rejected}, b: instead}\nexpect: {result: instead}"),
    ("judged", "replies: {j: {score: 0.2}, end: x}\nexpect: {that: [steps.end, steps.j.score == 0.2]}"),
    ("judged", "replies: {j: {score: 1}}\nexpect: {fails: result is empty, that: steps.end is skipped}"),
    ("judged", "replies: {j: [{fails: output}, {score: 0.2}], end: x}\nexpect: {result: x}"),
    ("mapped", "replies: {end: x}\nexpect: {that: \"steps.end == ['x', 'x', 'x']\"}"),
    ("mapped", "replies: {end: [x, y, z]}\nexpect: {that: \"steps.end == ['x', 'y', 'z']\"}"),
    ("mapped", "replies: {end: x, 'end[1]': y}\nexpect: {that: \"steps.end == ['x', 'y', 'x']\"}"),
    ("left out", "replies: {end: x, 'end[1]': {fails: rejected}}\nexpect: {that: steps.end | length == 2}"),
    ("loop", "replies: {r.d: [x, y], r.j: [{score: 0.1}, {score: 0.9}], end: z}\nexpect: {that: steps.r.rounds == 2}"),
    (
        "loop",
        "replies: {r.d: x, 'r[2].d': y, r.j: {score: 0}, 'r[2].j': {score: 1}, end: z}\nexpect: {that: steps.r.d}",
    ),
    ("itself", "replies: {end: [x, y]}\nexpect: {result: y}"),
    ("itself", "replies: {'end[1]': x, 'end[2]': y}\nexpect: {result: y}"),
    ("best", "replies: {end: [x, y], end.judge: [{score: 0.1}, {score: 0.9}]}\nexpect: {result: y}"),
    ("merged", "replies: {end: [x, y], end.merge: z}\nexpect: {result: z}"),
    ("choice", "replies: {c: sea, end: x}\nexpect: {result: x, that: [steps.b is skipped, steps.c == 'sea']}"),
    ("tool", "inputs: {query: hey}\nexpect: {result: HEY}"),
    ("tool", "inputs: {query: hey}\nreplies: {end: quiet}\nexpect: {result: quiet, that: run.calls == 0}"),
    ("tool", "inputs: {query: hey}\nreplies: {end: [{fails: no network}, ok]}\nexpect: {result: ok}"),
    ("tool", "inputs: {query: hey}\nreplies: {end: {fails: no network}}\nexpect: {fails: no network}"),
    ("tool", "inputs: {query: hey}\nreplies: {end: [[a, b]]}\nexpect: {that: \"steps.end == ['a', 'b']\"}"),
    ("asked", "replies: {end: Rome}\nexpect: {result: Rome}"),
    ("asked", "replies: {end: {fails: no time}}\nexpect: {fails: no time}"),
    ("proposed", "expect: {result: Paris}"),
    ("asked for data", "replies: {q: {city: Rome}, end: x}\nexpect: {that: steps.q.city == 'Rome'}"),
    ("approved", "replies: {end: x}\nexpect: {result: x}"),
    ("approved", "replies: {end: x, end.approve: [true, edited]}\nexpect: {result: edited}"),
    ("approved", "replies: {end: x, end.approve: false}\nexpect: {fails: refused}"),
    ("used", "replies: {part.facts: {items: [a]}, part.tell: told, end: x}\nexpect: {that: steps.part == 'told'}"),
    ("used", "replies: {part: told, end: x}\nexpect: {that: [steps.part == 'told', run.calls == 1]}"),
    ("used", "replies: {part: {fails: gone}}\nexpect: {fails: 'part: gone'}"),
    ("used in a map", IN_A_MAP),
    ("used again", IN_ROUNDS),
    ("deep", DEEP),
    ("cached", "replies: {a: x, end: y}\nexpect: {result: y, that: run.calls == 2}"),
    ("elsewhere", "replies: {end: [{fails: rejected}, x]}\nexpect: {result: x, that: run.calls == 2}"),
]


@pytest.mark.parametrize(("steps", "case"), GOOD)
async def test_a_test_that_passes(tmp_path: Path, steps: str, case: str):
    assert (await ran(tmp_path, steps, case)).mismatches == ()


BAD = [
    ("one", "replies: {end: Hello}\nexpect: {result: Hallo}", "result", "Hello"),
    ("one", "replies: {end: Hello}\nexpect: {contains: [ello, hello]}", "contains", "Hello"),
    ("one", "replies: {end: x}\nexpect: {that: steps.end == 'y'}", "that", "{'steps.end': 'x'}"),
    ("one", "replies: {end: {fails: rejected}}", "run", "it failed: end: the request was rejected"),
    ("one", "replies: {end: x}\nexpect: {fails: busy}", "run", "it was to fail, and answered: x"),
    ("one", "replies: {end: {fails: rejected}}\nexpect: {fails: busy}", "fails", "end: the request was rejected"),
    ("judged", "replies: {j: {score: 1}}\nexpect: {fails: true, that: steps.end < 'a'}", "that", "was skipped"),
    ("one", "expect: {result: x}", "replies", "end has no reply; write one under 'replies', as in end: …"),
    ("one", "replies: {}", "replies", "end has no reply"),
    ("skipping", "replies: {end: x}", "replies", "a has no reply"),
    ("loop", "replies: {r.d: x}", "replies", "as in r.j: {score: …} (without one, too: end)"),
    ("used", "replies: {}", "replies", "(without one, too: part.tell, end)"),
    ("used", "replies: {part: x}", "replies", "as in end: …"),
    ("replaced", "replies: {b: x}", "replies", "end has no reply"),
    ("judged", "replies: {end: x}", "replies", "as in j: {score: …}"),
    ("choice", "replies: {end: x}", "replies", "as in c: sea"),
    ("asked", "expect: {result: x}", "replies", "end has no reply"),
    ("asked for data", "replies: {end: x}", "replies", "as in q: {city: …}"),
    ("loop", "replies: {r.d: x, end: x}", "replies", "as in r.j: {score: …}"),
    ("used", "replies: {end: x}", "replies", "as in part.facts: {items: …}"),
    ("mapped", "replies: {'end[7]': x}", "replies", "end[0] has no reply; write one under 'replies', as in end: …"),
    ("best", "replies: {end: x}", "replies", "as in end.judge: {score: …}"),
    (
        "mapped",
        "replies: {end: [x, y]}",
        "replies",
        "end is asked more often: after 2 calls",
    ),
    ("tool", "inputs: {query: x}\nreplies: {end: [{fails: y}]}", "replies", "after 1 call its list has no reply left"),
]


@pytest.mark.parametrize(("steps", "case", "what", "came"), BAD)
async def test_a_test_that_fails_says_of_what(tmp_path: Path, steps: str, case: str, what: str, came: str):
    (mismatch,) = (await ran(tmp_path, steps, case)).mismatches

    assert mismatch.what == what
    assert came in str(mismatch.came)


async def test_a_tool_with_a_reply_is_not_called(tmp_path: Path):
    CALLS.clear()

    await ran(tmp_path, "tool", "inputs: {query: hey}\nreplies: {end: quiet}")
    assert CALLS == []
    await ran(tmp_path, "tool", "inputs: {query: hey}")
    assert CALLS == ["hey"]


async def test_a_result_of_values_is_compared_as_data(tmp_path: Path):
    case = "replies: {end: x}\nexpect: {result: {text: x, list: [1, {a: 2}]}, that: result.list | length == 2}"
    result = {"text": "{{ steps.end }}", "list": [1, {"a": 2}]}

    assert (await ran(tmp_path, "one", case, result=result)).mismatches == ()
    (mismatch,) = (await ran(tmp_path, "one", case, result={**result, "list": [1, 3]})).mismatches
    assert (mismatch.what, mismatch.came) == ("result", {"text": "x", "list": [1, 3]})


@pytest.mark.parametrize("given", ["notes.txt", "{text: Read me.}", "{name: a.txt, text: Read me.}"])
async def test_a_file_is_beside_the_pipeline_or_written_out(
    tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "notes.txt").write_text("Read me.")
    monkeypatch.chdir("/")
    case = f"inputs: {{doc: {given}}}\nreplies: {{end: x}}\nexpect: {{that: inputs.doc.text == 'Read me.'}}"

    assert (await ran(tmp_path, "one", case, inputs="query: {}, doc: {type: file}")).mismatches == ()


async def test_a_file_that_went_is_said(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("Read me.")
    pipeline = with_case(tmp_path, STEPS["one"], "inputs: {doc: notes.txt}", inputs="query: {}, doc: {type: file}")
    compiled = compile_pipeline(pipeline, CONTEXT)
    (tmp_path / "notes.txt").unlink()

    outcome = await run_case(pipeline, compiled, "one")

    assert outcome.result is None
    assert "names notes.txt, which is not there" in outcome.mismatches[0].came


async def test_the_cache_of_the_person_is_left_alone(tmp_path: Path):
    for reply in ("first", "second"):
        case = f"replies: {{a: x, end: {reply}}}\nexpect: {{result: {reply}}}"
        assert (await ran(tmp_path, "cached", case)).mismatches == ()
    assert not list(paths.call_cache_file().parent.glob("*.sqlite"))


async def test_a_run_that_its_budget_ends_has_the_best_there_was(tmp_path: Path):
    case = "replies: {end: x}\nexpect: {result: x, that: \"run.stop_reason == 'budget: calls' and steps.end == 'x'\"}"
    steps = "  end: {agent: writer, prompt: x, repeat: {self: true, max: 3}}\nbudget: {calls: 1}\n"

    assert (await ran(tmp_path, steps, case)).mismatches == ()
