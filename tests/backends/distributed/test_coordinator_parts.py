"""The pure parts of a coordinator: what it may become, what lines say, when it hangs, how often it is tried again."""

import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.distributed.coordinator.diagnosis import Cause, diagnose
from synaptic.backends.distributed.coordinator.llama_process import LoadStalled, ServerEnded, environment
from synaptic.backends.distributed.coordinator.load_channel import LoadClock, read_channel
from synaptic.backends.distributed.coordinator.lost_links import closed_by_peer
from synaptic.backends.distributed.coordinator.start_failure import given_up, may_pass
from synaptic.backends.distributed.coordinator.states import FOLLOWERS, CoordinatorState, Life, Transition
from synaptic.backends.distributed.coordinator.watchdog import SHORTEST, TIMES_PREDICTED, SlotWatch, Watchdog
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.errors import BackendUnavailable, CoordinatorFailed, EngineUnavailable, UsageError

S = CoordinatorState


# States


def test_a_coordinator_becomes_only_what_may_follow():
    for before, followers in FOLLOWERS.items():
        for after in S:
            life = Life("m", lambda _: None)
            life.state = before
            if after in followers:
                life.move(after, "why")
                assert (life.state, life.reason) == (after, "why")
            else:
                with pytest.raises(ValueError, match=f"{before} cannot become {after}"):
                    life.move(after)
                assert life.state is before


def test_every_state_can_be_reached_and_left():
    reached = {S.STOPPED}
    while (more := reached.union(*(FOLLOWERS[state] for state in reached))) != reached:
        reached = more
    assert reached == set(S)
    assert all(S.STOPPED in followers for state, followers in FOLLOWERS.items() if state is not S.STOPPED)


def test_every_transition_is_told_at_once():
    heard: list[Transition] = []
    life = Life("m", heard.append)
    life.move(S.PREFLIGHT)
    life.move(S.FAILED, "no engine")
    assert heard == [Transition("m", S.STOPPED, S.PREFLIGHT, ""), Transition("m", S.PREFLIGHT, S.FAILED, "no engine")]


# The channel


def channel(state: str, **payload: object) -> str:
    return "cmd_child_to_router:state:" + json.dumps({"state": state, "payload": payload})


@pytest.mark.parametrize(
    ("line", "state", "fraction"),
    [
        (channel("loading", stages=["text_model"], current="text_model", value=0.41), "loading", 0.41),
        (channel("loading", stages=["text_model", "mmproj"], current="mmproj", value=0.5), "loading", 0.75),
        (channel("loading", stages=["a"], current="a", value=7), "loading", 1.0),
        (channel("loading", stages=["a"], current="b", value=0.2), "loading", None),
        (channel("loading", stages=[], current="b", value=0.2), "loading", None),
        (channel("loading", stages=["a"], current="a", value="NaN"), "loading", None),
        (channel("loading", stages=["a"], current="a", value=None), "loading", None),
        (channel("ready", id="m"), "ready", None),
        ('cmd_child_to_router:state:{"state":"sleeping"}', "sleeping", None),
    ],
)
def test_lines_of_the_channel_are_read(line: str, state: str, fraction: float | None):
    news = read_channel(line)
    assert news is not None
    assert (news.state, news.fraction) == (state, fraction)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "main: loading model",
        "cmd_child_to_router:state:",
        "cmd_child_to_router:state:{",
        "cmd_child_to_router:state:[]",
        'cmd_child_to_router:state:{"state":3}',
        "cmd_child_to_router:state:" + "[" * 100_000,
    ],
)
def test_what_is_no_news_is_passed_over(line: str):
    assert read_channel(line) is None


@given(st.text())
def test_no_line_breaks_the_channel(text: str):
    read_channel("cmd_child_to_router:state:" + text)


def test_a_load_never_goes_backwards_and_estimates_its_end():
    clock = LoadClock(1000, began=10.0)
    assert clock.at(0.01, now=11.0).seconds_left is None
    half = clock.at(0.5, now=20.0)
    assert (half.fraction, half.bytes_done, half.bytes_total, half.seconds_left) == (0.5, 500, 1000, 10.0)
    assert clock.at(0.2, now=21.0).bytes_done == 500
    assert clock.at(1.0, now=22.0).seconds_left == 0


# Hanging


def test_nothing_hangs_while_nobody_asks():
    dog = Watchdog(0.1)
    assert dog.overdue(1e9) is None
    dog.begin("a", 0.0)
    dog.end("a", 1.0)
    assert dog.overdue(1e9) is None
    assert dog.calls == 0


def test_a_call_without_a_step_hangs_after_the_shortest_time():
    dog = Watchdog(0.1)
    dog.begin("a", 100.0)
    assert dog.overdue(100.0 + SHORTEST) is None
    assert dog.overdue(100.1 + SHORTEST) == pytest.approx(SHORTEST + 0.1)


def test_any_call_that_moves_shows_that_the_server_works():
    dog = Watchdog(0.1)
    dog.begin("waits in the queue", 0.0)
    dog.begin("is served", 0.0)
    for second in range(1, 60):
        dog.beat("is served", float(second), generates=True)
        assert dog.overdue(second + 0.5) is None


def test_slow_tokens_are_no_hang_once_they_are_usual():
    dog = Watchdog(0.1)
    dog.begin("a", 0.0)
    dog.beat("a", 1.0, generates=True)
    for step in range(1, 9):
        dog.beat("a", 1.0 + 4.0 * step, generates=True)
    assert dog.limit() == pytest.approx(80.0)
    assert dog.overdue(33.0 + 79.0) is None
    assert dog.overdue(33.0 + 81.0) is not None


def test_a_prompt_may_take_as_long_as_predicted():
    dog = Watchdog(30.0)
    dog.begin("a", 0.0)
    assert dog.overdue(TIMES_PREDICTED * 30.0 - 1) is None
    dog.beat("a", 50.0, generates=True)
    assert dog.limit() == SHORTEST


def slot(number: int, *, busy: bool = True, read: int = 0, decoded: object = 0) -> dict[str, object]:
    return {"id": number, "is_processing": busy, "n_prompt_tokens_processed": read, "next_token": decoded}


def test_calls_of_others_are_watched_by_their_slots():
    watch = SlotWatch(10.0)
    assert watch.look([slot(0, busy=False)], 0.0) is None
    assert watch.look([slot(0, busy=False)], 100.0) is None
    assert watch.look([slot(0, read=5)], 101.0) is None
    assert watch.look([slot(0, read=9)], 120.0) is None
    assert watch.look([slot(0, read=9), slot(1, busy=False)], 130.0) is None
    assert watch.look([slot(0, read=9)], 131.0) == pytest.approx(11.0)
    assert watch.look([slot(0, read=9, decoded=[{"n_decoded": 1}])], 132.0) is None
    assert watch.look([slot(0, read=9, decoded={"n_decoded": 1})], 150.0) == pytest.approx(18.0)
    assert watch.look([slot(0, read=9, decoded=[])], 151.0) is None
    assert watch.look([], 200.0) is None


# Diagnosis: the lines are what this llama.cpp says.


@pytest.mark.parametrize(
    ("returncode", "tail", "cause", "worker"),
    [
        (
            -6,
            ["0.01 E RPC server version mismatch: 6.0.0", "0.01 E RPC handshake failed for 127.0.0.1:50101"],
            Cause.VERSION,
            "",
        ),
        (-6, ["ggml-rpc.cpp:550: RPC handshake failed for 10.0.0.4:50052"], Cause.WORKER, "10.0.0.4:50052"),
        (-6, ["0.0 E Failed to connect to 127.0.0.1:9"], Cause.WORKER, "127.0.0.1:9"),
        (-6, ["./source/ggml/src/ggml-rpc/ggml-rpc.cpp:566: Remote RPC server crashed or"], Cause.WORKER, ""),
        (-6, ["x.cpp:566: Remote RPC server crashed or returned malformed response", "end"], Cause.WORKER, ""),
        (1, ["0.02 E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1"], Cause.PORT, ""),
        (1, ["alloc_tensor_range: failed to allocate RPC0[h:1] buffer of size 9"], Cause.MEMORY, ""),
        (1, ["error: invalid argument: --no-mmap"], Cause.ARGUMENTS, ""),
        (1, ["llama_model_load: error loading model: unknown model architecture: 'x'"], Cause.MODEL, ""),
        (-4, ["anything"], Cause.INSTRUCTION, ""),
        (-9, ["anything"], Cause.KILLED, ""),
        (1, ["something", ""], Cause.OTHER, ""),
        (0, [], Cause.OTHER, ""),
    ],
)
def test_the_end_of_a_server_is_diagnosed(returncode: int, tail: list[str], cause: Cause, worker: str):
    found = diagnose(returncode, tail)
    assert (found.cause, found.worker) == (cause, worker)
    assert str(found).startswith("llama-server ")
    assert "/source/" not in str(found)


def test_what_may_pass_is_tried_again_and_nothing_else():
    assert may_pass(ServerEnded(diagnose(-6, ["Remote RPC server crashed"])))
    assert may_pass(LoadStalled("no progress"))
    assert may_pass(BackendUnavailable("a worker was lost"))
    assert not may_pass(ServerEnded(diagnose(1, ["failed to load model"])))
    assert not may_pass(EngineUnavailable("no engine"))
    assert not may_pass(UsageError("a wrong setting"))


def test_what_is_raised_in_the_end_names_the_worker_and_the_line(tmp_path):
    log = tmp_path / "log"
    error = given_up(ServerEnded(diagnose(-6, ["RPC handshake failed for 10.0.0.4:50052"])), "m", (), log)
    assert isinstance(error, CoordinatorFailed)
    assert (error.worker, error.log_line) == ("10.0.0.4:50052", "RPC handshake failed for 10.0.0.4:50052")
    assert "10.0.0.4:50052" in error.message
    assert str(log) in str(error)
    lost = CoordinatorFailed("the worker h:1 was lost", worker="h:1", log_line="gone")
    assert given_up(lost, "m", (), log).worker == "h:1"  # type: ignore[attr-defined]
    plain = EngineUnavailable("there is no engine")
    assert given_up(plain, "m", (), log) is plain


def test_where_llama_cpp_does_not_name_the_worker_the_only_one_is_blamed_and_of_several_all_are_named(tmp_path):
    lost = ServerEnded(diagnose(-6, ["Remote RPC server crashed or returned malformed response"]))
    one, other = Endpoint("10.0.0.4", 50052), Endpoint("10.0.0.5", 50052)
    error = given_up(lost, "m", [one], tmp_path)
    assert isinstance(error, CoordinatorFailed)
    assert error.worker == "10.0.0.4:50052"
    assert "(10.0.0.4:50052)" in error.message
    error = given_up(lost, "m", [one, other], tmp_path)
    assert isinstance(error, CoordinatorFailed)
    assert error.worker == ""
    assert "(10.0.0.4:50052, 10.0.0.5:50052)" in error.message
    of_model = given_up(ServerEnded(diagnose(1, ["failed to load model"])), "m", [one], tmp_path)
    assert isinstance(of_model, CoordinatorFailed)
    assert of_model.worker == ""


def test_a_server_gets_no_settings_of_other_programs_and_its_key_in_the_environment(monkeypatch):
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    given_to = environment("secret")
    assert given_to["PATH"] == "/bin"
    assert given_to["LLAMA_API_KEY"] == "secret"
    assert given_to["GGML_NO_BACKTRACE"] == "1"
    assert "LLAMA_ARG_CTX_SIZE" not in given_to


# Links


def test_connections_that_the_peer_has_closed_are_found_in_the_table():
    address = f"{struct.unpack('=I', socket.inet_aton('127.0.0.2'))[0]:08X}:C384"
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    row = f"   0: 0100007F:9999 {address} 08 00000000:00000001 00:00000000 00000000     0        0 4711 1"
    other = row.replace(" 08 ", " 01 ").replace("4711", "4712")
    assert list(closed_by_peer(f"{header}\n{row}\n{other}\nbroken")) == [(("127.0.0.2", 50052), "4711")]
