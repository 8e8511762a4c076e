"""The progress of several nodes as that of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from synaptic.server.ollama_api.merged_progress import MOST_TOLD, MergedProgress

if TYPE_CHECKING:
    from synaptic.server.ollama_api.replies import Json

LAYER = {"status": "pulling a", "digest": "sha256:a", "total": 100}


def test_the_first_line_is_told_at_once_and_others_when_all_have_told_them() -> None:
    merged = MergedProgress(range(2))
    assert merged.take(0, {"status": "pulling manifest"}) == [{"status": "pulling manifest"}]
    assert merged.take(1, {"status": "pulling manifest"}) == []
    assert merged.take(0, {"status": "writing manifest"}) == []
    assert merged.take(0, {"status": "success"}) == []
    assert merged.done(0) == []
    assert merged.take(1, {"status": "writing manifest"}) == [{"status": "writing manifest"}]


def test_what_a_node_that_gave_up_would_have_told_is_not_waited_for() -> None:
    merged = MergedProgress(range(2))
    merged.take(0, {"status": "pulling manifest"})
    assert merged.take(0, {"status": "writing manifest"}) == []
    assert merged.failed(1) == [{"status": "writing manifest"}]


def test_bytes_are_those_of_all_nodes_that_have_not_given_up() -> None:
    merged = MergedProgress(range(3))
    assert merged.take(0, LAYER) == [{**LAYER, "total": 300}]
    assert merged.take(1, {**LAYER, "completed": 60}) == [{**LAYER, "total": 300, "completed": 60}]
    merged.done(2)  # it had all of it, and told nothing of this layer
    assert merged.take(0, {**LAYER, "completed": 50}) == [{**LAYER, "total": 300, "completed": 210}]
    merged.failed(1)
    assert merged.take(0, {**LAYER, "completed": 70}) == [{**LAYER, "total": 200, "completed": 170}]
    assert merged.take(0, {"status": "pulling b", "digest": "b"}) == [{"status": "pulling b", "digest": "b"}]
    assert merged.take(0, {**LAYER, "completed": "?"})[0]["completed"] == 100


LINES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100)), max_size=40)


@given(LINES)
def test_more_than_there_is_is_never_told(lines: list[tuple[int, int]]) -> None:
    merged = MergedProgress(range(3))
    told: list[Json] = []
    for node, completed in lines:
        told += merged.take(node, {**LAYER, "completed": completed})
    assert all(0 <= line.get("completed", 0) <= line["total"] == 300 for line in told)


def test_a_node_that_makes_up_layers_and_words_takes_no_memory() -> None:
    progress = MergedProgress([0, 1])
    told = [line for number in range(3000) for line in progress.take(0, {"status": f"word {number}"})]
    told += [line for number in range(3000) for line in progress.take(0, {"digest": f"sha256:{number}", "total": 1})]
    assert len(told) == 1 + MOST_TOLD
    assert progress.take(1, {"status": "word 5"}) == [{"status": "word 5"}]
    assert progress.take(1, {"status": "", "digest": "sha256:5", "total": 1, "completed": 1})[0]["completed"] == 1
