"""How coordinators are shown: the bar, the legend, the words, the tables."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from distributed_support import FAR, LOADING, NEAR, READY, lost, with_shares
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.distributed.coordinator.states import CoordinatorState
from synaptic.backends.distributed.workers.probe import Device, WorkerFacts
from synaptic.backends.distributed.workers.protocol import ProtocolVersion
from synaptic.backends.distributed.workers.registry import Holder
from synaptic.backends.distributed.workers.worker_facts import remember
from synaptic.ui.screen.coordinator_view import (
    ASCII,
    SHARE_HEADERS,
    Segment,
    free_worker_row,
    headline,
    layer_bar,
    picture,
    segments,
    share_rows,
    shared_out,
    status_document,
)

PLACED = "8 layers, 0.10 GiB, on 2 workers; 7 MiB in the coordinator"
HOLDER = Holder(
    host="far.example",
    port=50053,
    addresses=("10.0.0.4",),
    by="the coordinator of big:latest",
    machine="elsewhere",
    pid=9,
    mark="",
    since=0.0,
    claim="x",
)


# -- the bar -----------------------------------------------------------------------------------------------------------


def test_segments_are_as_wide_as_their_layers():
    bar = layer_bar(segments(READY), 67)
    first, second = bar.strip("┃").split("┃")
    assert len(bar) == 67
    assert len(first) == 3 * len(second)
    assert " 1: 127.0.0.1:50052, 6 layers " in first
    assert second.strip("━") == " 2 "


def test_a_load_fills_the_bar_from_its_first_layer_on():
    bar = layer_bar([replace_label(part) for part in segments(LOADING)], 67)
    first, second = bar.strip("┃").split("┃")
    assert first == "━" * 24 + "─" * 24  # 0.375 of 8 layers are 3 of the 6 that are here
    assert set(second) == {"─"}


def replace_label(part: Segment) -> Segment:
    return part._replace(labels=())


def test_a_lost_worker_is_crossed_out():
    bar = layer_bar(segments(lost(READY, FAR)), 67)
    first, second = bar.strip("┃").split("┃")
    assert "✗" not in first
    assert second.strip("✗") == " 2 "


@pytest.mark.parametrize("state", [CoordinatorState.SLEEPING, CoordinatorState.PREFLIGHT, CoordinatorState.FAILED])
def test_a_bar_without_weights_is_light(state: CoordinatorState):
    assert "━" not in layer_bar(segments(replace(READY, state=state)), 67)


def test_a_terminal_of_ascii_gets_ascii():
    assert layer_bar(segments(lost(LOADING, FAR)), 40, ASCII).isascii()
    assert "\n".join(picture(READY, 80, 1060.0, ASCII)).isascii()


def test_labels_become_shorter_until_they_fit():
    assert layer_bar(segments(READY), 20) == "┃━━━━ 1 ━━━━━┃━ 2 ━┃"
    assert layer_bar(segments(READY), 8) == "┃━━━┃━━┃"
    assert layer_bar(segments(READY), 5) == "┃━┃━┃"


def test_where_not_even_a_cell_each_fits_there_is_no_bar():
    assert layer_bar(segments(READY), 4) == ""
    assert layer_bar([], 80) == ""
    assert segments(replace(READY, placement=None)) == []


@given(weights=st.lists(st.integers(1, 200), min_size=1, max_size=16), extra=st.integers(0, 300))
def test_all_cells_are_shared_out_and_each_gets_one(weights: list[int], extra: int):
    cells = len(weights) + extra
    counts = shared_out(weights, cells)
    assert sum(counts) == cells
    assert min(counts) >= 1
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - 1 - weight * extra / sum(weights)) < 1


@given(
    weights=st.lists(st.integers(1, 90), min_size=1, max_size=16),
    filled=st.floats(0, 1),
    width=st.integers(0, 140),
)
def test_a_bar_is_never_wider_than_the_terminal(weights: list[int], filled: float, width: int):
    parts = [Segment(weight, filled, weight % 5 == 0, (f"{weight} layers", "1")) for weight in weights]
    bar = layer_bar(parts, width)
    assert len(bar) <= width
    assert bool(bar) == (width >= 2 * len(weights) + 1)


# -- words -------------------------------------------------------------------------------------------------------------


def test_the_whole_picture():
    assert picture(READY, 70, 1065.0, api_key=True) == [
        "big:latest: ready for 1 min 5 s, 12.3 tok/s, 2 calls and 1 waiting, restarted once",
        "  at http://127.0.0.1:4321 (with an API key)",
        f"  {PLACED}",
        "  4 calls at once of 4096 tokens; 12.2 tok/s predicted for one",
        "  ┃━━━━━━━━━ 1: 127.0.0.1:50052, 6 layers ━━━━━━━━━┃━━━━━━━ 2 ━━━━━━━┃",
        "  1  127.0.0.1:50052          0-5 + embeddings  57 MiB  alive, 67 MiB resident, restarted 2 times",
        "  2  10.0.0.4:50053 device 1  6-7 + output      43 MiB  external",
    ]


def test_a_load_says_how_far_it_is():
    lines = picture(LOADING, 70, 1002.0)
    assert lines[0] == "big:latest: loading for 2 s"
    assert lines[1] == "  38 % (43 MiB of 0.11 GiB), about 40 s left"


def test_a_failure_is_quoted_in_full():
    failed = replace(READY, state=CoordinatorState.FAILED, reason="the worker is gone:\nGGML_ASSERT(false)", url=None)
    assert picture(failed, 70, 1000.0)[1:3] == ["  the worker is gone:", "  GGML_ASSERT(false)"]


def test_before_the_first_preflight_there_is_a_headline_and_no_more():
    nothing = replace(LOADING, placement=None, progress=None, state=CoordinatorState.PREFLIGHT)
    assert picture(nothing, 70, 1000.0) == ["big:latest: preflight for 0 s"]


def test_headline_of_many_restarts():
    assert headline(replace(LOADING, restarts=3), 900.0).endswith("loading for 0 s, restarted 3 times")


def test_single_layers_outputs_alone_and_workers_that_nobody_knows():
    status = with_shares(
        {"layers": 1, "embeddings": False},
        {"layers": 0, "output": True, "embeddings": False, "endpoint": FAR},
    )
    lines = picture(replace(status, workers=()), 60, 1000.0)
    assert lines[-2].split() == ["1", "127.0.0.1:50052", "0", "57", "MiB", "–"]
    assert lines[-1].split() == ["2", "10.0.0.4:50053", "output", "57", "MiB", "–"]


# -- tables and JSON ---------------------------------------------------------------------------------------------------


def test_the_table_of_workers():
    rows = share_rows([READY, replace(READY, placement=None)], [HOLDER])
    assert [len(row) for row in rows] == [len(SHARE_HEADERS)] * 2
    assert rows[0][:6] == ("1", "127.0.0.1:50052", "0-5 + embeddings", "57 MiB", "3 MiB", "77")
    assert rows[0][6:] == ("alive, 67 MiB resident, restarted 2 times", "–")
    assert rows[1][7] == "the coordinator of big:latest (process 9 on elsewhere)"
    file = replace(HOLDER, by="the coordinator of /a dir/b/m 1.gguf")
    assert share_rows([READY], [file])[1][7] == "the coordinator of m 1.gguf (process 9 on elsewhere)"


def test_a_worker_without_layers():
    assert free_worker_row(FAR, [HOLDER])[-2:] == ("never checked: /rpc check", HOLDER.shown)
    device = Device(index=0, memory_free=4_000_000_000, memory_total=8_000_000_000, alignment=1, max_size=1)
    remember(NEAR, WorkerFacts(version=ProtocolVersion(7, 0, 0), devices=(device,), round_trip=0.001))
    assert free_worker_row(NEAR, [])[-2:] == ("has 7.5 GiB (synaptic workers check)", "–")


def test_json_is_json_and_has_no_key():
    document = json.loads(json.dumps(status_document(READY)))
    assert document["placement"]["layers"] == 8
    assert document["placement"]["shares"][1]["endpoint"] == "10.0.0.4:50053"
    assert document["workers"][0]["log_file"] == "/logs/w.log"
    assert document["log_file"] == "/logs/llama.log"
    assert json.loads(json.dumps(status_document(LOADING)))["progress"]["fraction"] == 0.375
    empty = status_document(replace(READY, placement=None, log_file=None))
    assert (empty["placement"], empty["log_file"], empty["progress"]) == (None, None, None)
