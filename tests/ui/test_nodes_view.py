"""How nodes and decisions are shown: pure text over plain data."""

from dataclasses import replace
from typing import Any

import pytest

from synaptic.backends.pool.node.inspection import Inspection
from synaptic.backends.pool.node.status import Candidate, Decision, ModelStatus, NodeStatus
from synaptic.errors import BackendUnavailable
from synaptic.settings import NodeSettings
from synaptic.ui.screen.explain_view import MOST_CANDIDATES, candidate_rows, headline
from synaptic.ui.screen.nodes_view import NODE_HEADERS, check_lines, status_table
from synaptic.ui.screen.output import table_lines


def model(name: str = "m:latest", **values: Any) -> ModelStatus:
    usual: dict[str, Any] = {
        "loaded": True,
        "size_bytes": 4_700_000_000,
        "vram_share": 1.0,
        "context_length": 8192,
        "first_token": 0.42,
        "output_rate": 41.26,
        "samples": 7,
    }
    return ModelStatus(name=name, **{**usual, **values})


def node(name: str = "desk", *models: ModelStatus, **values: Any) -> NodeStatus:
    usual: dict[str, Any] = {
        "url": "http://desk:11434",
        "condition": "up",
        "version": "0.12.6",
        "limit": 2,
        "cap": 2,
        "in_flight": 1,
        "queued": 3,
        "served": 10,
        "errors": 0,
        "last_error": "",
        "reason": "",
    }
    return NodeStatus(name=name, models=models, **{**usual, **values})


def cells(*statuses: NodeStatus, width: int | None = None) -> list[dict[str, str]]:
    headers, rows = status_table(statuses, width)
    return [dict(zip(headers, row, strict=True)) for row in rows]


def test_a_node_that_is_well():
    (row,) = cells(node("desk", model()))
    assert row == {
        "node": "desk",
        "state": "up",
        "version": "0.12.6",
        "busy": "1/2",
        "queue": "3",
        "errors": "0",
        "model": "m:latest",
        "vram": "100 %",
        "ttft": "420 ms",
        "tok/s": "41.3",
        "about": "",
    }


def test_calls_of_other_programs_stand_beside_ours():
    (row,) = cells(node("desk", model(), elsewhere=3))
    assert row["busy"] == "1/2 +3"


def test_every_further_model_has_a_row_of_its_own_and_what_is_not_loaded_is_in_brackets():
    idle = model("b", loaded=False, vram_share=None)
    never = model("c", loaded=False, vram_share=None, samples=0, first_token=None, output_rate=None)
    first, second = cells(node("desk", idle, never, model("a")))
    assert (first["node"], first["model"]) == ("desk", "a")
    assert (second["node"], second["state"], second["model"], second["vram"]) == ("", "", "(b)", "")


@pytest.mark.parametrize(("share", "shown"), [(0.62, "62 %"), (0.0, "0 % (CPU)"), (None, "?")])
def test_how_much_is_in_video_memory(share: float | None, shown: str):
    assert cells(node("desk", model(vram_share=share)))[0]["vram"] == shown


def test_a_node_with_nothing_loaded_and_one_with_nothing_at_all():
    idle = model(loaded=False, samples=0)
    assert cells(node("desk", idle, idle))[0]["model"] == "none of 2 loaded"
    assert cells(node("desk"))[0]["model"] == "–"


def test_a_cap_below_the_limit_shows_both():
    assert cells(node(cap=1))[0]["busy"] == "1/1 (2)"


def test_why_a_node_is_down_and_when_it_is_looked_at_again():
    down = node(condition="down", reason="connection refused", probe_in=4.0, last_error="older", version=None)
    (row,) = cells(down)
    assert row["about"] == "connection refused (next look in 4.0 s)"
    assert row["version"] == "–"


def test_the_last_error_of_a_node_that_is_up_and_what_is_wrong_with_a_model():
    (row,) = cells(node("desk", model(note="on the CPU"), errors=2, last_error="503"))
    assert row["about"] == "last error: 503; m:latest: on the CPU"


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40])
def test_a_narrow_terminal_does_without_some_columns_and_keeps_why(width: int):
    status = node("a-rather-long-name", model("llama3.1:8b"), condition="down", reason="connection refused " * 5)
    headers, rows = status_table([status], width)
    assert {"node", "state", "busy", "about"} <= set(headers)
    assert (headers == NODE_HEADERS) == (width >= 120)
    lines = table_lines(headers, rows, width)
    assert all(len(line) <= max(width, 80) for line in lines)


def test_what_a_server_says_cannot_command_the_terminal():
    status = node("de\x1b[2Jsk", model("m\x1b[0m"), reason="bad\nthing\x07", condition="down", last_error="\x1b")
    text = "".join("".join(row) for row in status_table([status])[1])
    assert text.isprintable()


def test_a_check_of_a_node_that_is_well():
    look = Inspection(
        node=NodeSettings(url="http://desk:11434", name="desk"),
        seconds=0.012,
        version="0.12.6",
        models=(model("a", vram_share=0.5), model("b", loaded=False, vram_share=None, context_length=None)),
    )
    asked = replace(look.models[1], asked_context=4096, asked_why="num_ctx of the settings")
    none = replace(asked, name="c", asked_context=None, asked_why="the server decides")
    look = replace(look, models=(look.models[0], asked, none))
    assert list(check_lines(look)) == [
        "ok      desk (http://desk:11434): Ollama 0.12.6, 3 models, answers in 12 ms",
        "          a: 4.7 GB, loaded, 50 % in video memory, context 8192",
        "          b: 4.7 GB, calls ask for 4096 context (num_ctx of the settings)",
        "          c: 4.7 GB, calls ask for no context (the server decides)",
    ]


def test_a_check_of_a_node_that_is_not():
    error = BackendUnavailable("nothing answers", hint="start it")
    down = Inspection(node=NodeSettings(url="http://desk:11434"), error=error)
    assert list(check_lines(down)) == ["down    http://desk:11434: nothing answers", "        fix: start it"]
    bare = Inspection(node=NodeSettings(url="http://desk:11434"), version="1", seconds=0.001)
    assert next(check_lines(bare)).startswith("problem http://desk:11434: it answers, but has no model")


# -- decisions ---------------------------------------------------------------------------------------------------------


def candidate(name: str, expected: float | None = 1.0, **values: Any) -> Candidate:
    usual: dict[str, Any] = {"wait": 0.1, "load": 0.2, "run": 0.7, "cached_tokens": 0, "why": "slower"}
    return Candidate(node=name, seconds=expected, **{**usual, **values})


DECISION = Decision(
    tag="review",
    model="m:latest",
    attempt=1,
    node="desk",
    waited=0.42,
    at=0.0,
    candidates=(
        candidate("old", None, why="down: connection refused"),
        candidate("gpu", 9.8),
        candidate("desk", 10.0, cached_tokens=512, why="taken"),
        candidate("lab", 3.0),
    ),
    shortlisted=4,
)


def test_a_decision_in_a_line():
    assert headline(DECISION).endswith("  review: m:latest to desk after 420 ms in the queue")
    again = replace(DECISION, attempt=2, waited=0.0, tag="")
    assert headline(again).endswith("  a call, attempt 2: m:latest to desk at once")
    assert headline(replace(DECISION, node=None)).endswith("  review: m:latest left waiting, 420 ms so far")


def test_the_one_that_was_taken_comes_first_then_by_what_was_expected_then_those_out_of_question():
    rows = candidate_rows(DECISION)
    assert [(row[0], row[1]) for row in rows] == [("*", "desk"), ("", "lab"), ("", "gpu"), ("", "old")]
    assert rows[0] == ("*", "desk", "10.0 s", "100 ms", "200 ms", "700 ms", "512 tokens", "taken")
    assert rows[3] == ("", "old", "–", "", "", "", "", "down: connection refused")


def test_a_large_pool_is_cut():
    many = replace(DECISION, candidates=tuple(candidate(f"n{number}", float(number)) for number in range(100)))
    rows = candidate_rows(many)
    assert len(rows) == MOST_CANDIDATES + 1
    assert rows[-1][1] == "… and 88 nodes more"
    assert {len(row) for row in rows} == {8}
