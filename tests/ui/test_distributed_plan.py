"""``synaptic distributed plan``: what it shows, what it refuses, and a plan of the real model for real workers."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from engine_support import real_files
from placement_support import GIB, MEASURED, MIB, make_offer, make_shape
from rpc_support import free_port, real_process

from synaptic import paths
from synaptic.backends.distributed.coordinator.buffer_report import check_buffers, parse_buffer_sizes
from synaptic.backends.distributed.placement.decide import place
from synaptic.backends.distributed.placement.needs import serving_needs
from synaptic.backends.distributed.placement.server_arguments import server_arguments
from synaptic.backends.distributed.placement.types import Placement, ServingNeeds
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.drafts import LONGEST
from synaptic.errors import ExitCode, UsageError
from synaptic.models.download import ModelStore
from synaptic.settings import Settings
from synaptic.ui.cli import run
from synaptic.ui.commands.distributed_plan import parse_orders, plan, with_orders
from synaptic.ui.screen.coordinator_view import ASCII
from synaptic.ui.screen.placement_view import placement_document, placement_lines

WANTED = ServingNeeds(context=4096, slots=2)
A = "10.0.0.1:50052"
B = "10.0.0.2:50052"


def two_workers(**changes: object) -> Placement:
    offers = [make_offer(1, 4, layers=10), make_offer(2, 5), make_offer(3, 0.1)]
    return place(replace(make_shape(), **changes), offers, WANTED)


# What is shown


def test_a_server_that_drafts_is_told_how_and_no_worker_gets_a_draft_model() -> None:
    placement = place(make_shape(), [make_offer(1, 8)], ServingNeeds(context=1000, slots=1, draft=LONGEST))
    arguments = server_arguments(placement, drafts=True)
    assert value(arguments, "--spec-type") == "ngram-mod"
    assert value(arguments, "--spec-ngram-mod-n-match") == "6"
    assert not [one for one in arguments if "draft-model" in one or one == "-md"]
    assert "--spec-type" not in server_arguments(placement)
    far = replace(placement, draft_cost=0.1)
    assert value(server_arguments(far, drafts=True), "--spec-ngram-mod-n-match") == "4"
    assert placement.drafted_tokens_per_second > placement.tokens_per_second
    assert f"(up to {placement.drafted_tokens_per_second:.1f} where it repeats a text, by drafts)" in "\n".join(
        placement_lines(placement, 200)
    )
    assert far.drafted_tokens_per_second > placement.drafted_tokens_per_second
    assert replace(placement, needs=WANTED).drafted_tokens_per_second is None


def test_layers_bytes_speed_load_and_reasons_are_shown():
    lines = placement_lines(two_workers(), 80)
    assert lines[0] == "big:8b: 32 layers, 4.5 GiB of Q4_K_M, for 2 calls at once of 4096 tokens"
    text = "\n".join(lines)
    bar = lines[1]
    assert len(bar) == 80
    assert bar.count("┃") == 3
    assert f"{A}, 10 layers" in bar.replace("━", "") or f"1: {A}" in bar
    assert "layers 0-9 + embeddings (as ordered)" in text
    assert "layers 10-31 + output" in text
    assert "weights, " in text and "keys and values, " in text
    assert "coordinator: " in text and "with no weights" in text
    assert " tok/s for one call, loaded in about " in text
    assert "not used  10.0.0.3:50052  too small" in text
    assert "0.25 GiB of the model, its token embeddings" in "\n".join(placement_lines(two_workers(tied=True), 80))


def test_the_bar_is_plain_where_there_is_nothing_but_ascii_and_left_out_where_there_is_no_room():
    assert all(line.isascii() for line in placement_lines(two_workers(), 80, ASCII))
    assert placement_lines(two_workers(), 80, ASCII)[1].count("|") == 3
    assert len(placement_lines(two_workers(), 5)) == len(placement_lines(two_workers(), 80)) - 1


def test_what_was_never_measured_is_not_predicted():
    placement = place(make_shape(), [replace(make_offer(1, 8), measurement=None)], WANTED)
    assert "predicted: nothing, because a worker was never measured" in "\n".join(placement_lines(placement, 80))


def test_a_worker_with_the_output_alone_and_one_layer_and_a_file():
    shape = replace(make_shape(output_bytes=4 * GIB), name="/models/big.gguf")
    placement = place(shape, [make_offer(1, 6.5, layers=31), make_offer(2, 7, layers=1)], WANTED)
    text = "\n".join(placement_lines(placement, 120))
    assert text.startswith("big.gguf: 32 layers")
    assert "layer 31 + output" in text
    assert "layer 31 and the output; as many as you asked for" in text
    alone = place(shape, [make_offer(1, 6.5, layers=32), make_offer(2, 7)], WANTED)
    assert "  output  " in "\n".join(placement_lines(alone, 120))


def test_the_document_has_all_of_it_in_numbers():
    document = json.loads(json.dumps(placement_document(two_workers())))
    first, second = document["shares"]
    assert (document["layers"], document["context"], document["slots"]) == (32, 4096, 2)
    assert (first["endpoint"], first["layers"], first["overridden"]) == (A, 10, True)
    assert first["memory_bytes"] == first["weight_bytes"] + first["kv_bytes"] + first["compute_bytes"]
    assert second["output"]
    assert not second["to_be_started"]
    assert [verdict["used"] for verdict in document["verdicts"]] == [True, True, False]
    assert document["tokens_per_second"] > 0


# The arguments that make it so


def value(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_the_arguments_say_workers_devices_and_whole_layers():
    arguments = server_arguments(two_workers())
    assert value(arguments, "--rpc") == f"{A},{B}"
    assert value(arguments, "--device") == "RPC0,RPC1"
    assert value(arguments, "--tensor-split") == "10,23"
    assert value(arguments, "--gpu-layers") == "33"
    assert value(arguments, "--ctx-size") == "8192"
    assert value(arguments, "--override-tensor") == f"^token_embd=RPC0[{A}]"
    tied = server_arguments(two_workers(tied=True))
    assert value(tied, "--override-tensor").endswith("=CPU")
    assert "token_embd" not in value(tied, "--override-tensor")


def test_an_output_that_stays_here_is_overridden_and_told():
    slow = replace(MEASURED, download=10e6)
    for tied, override in ((False, f"^token_embd=RPC0[{A}],^output=CPU"), (True, "^output=CPU,^token_embd=CPU")):
        shape = make_shape(tied=tied, input_bytes=256 * MIB, output_bytes=256 * MIB)
        offers = [replace(make_offer(number, 3.5), measurement=slow) for number in (1, 2)]
        placement = place(shape, offers, WANTED)
        assert placement.output_here
        arguments = server_arguments(placement)
        assert value(arguments, "--override-tensor") == override
        assert sum(int(count) for count in value(arguments, "--tensor-split").split(",")) == 33
        names = "token embeddings and output" if tied else "output"
        text = "\n".join(placement_lines(placement, 200))
        assert f"with 0.25 GiB of the model, its {names}; the way back is too slow for logits" in text
        assert "and the output" not in text
        assert json.loads(json.dumps(placement_document(placement)))["output_here"]


def test_devices_are_numbered_over_all_devices_of_all_workers():
    offers = [make_offer(1, 0.1), make_offer(1, 3.5, device=1), make_offer(2, 3.5), make_offer(3, 0.1)]
    placement = place(make_shape(), offers, WANTED)
    arguments = server_arguments(placement)
    names = dict(zip(value(arguments, "--rpc").split(","), [0, 1], strict=True))
    # The worker with two devices counts twice, wherever it stands.
    expected = {0: ["RPC1", "RPC2"], 1: ["RPC0", "RPC2"]}[names[A]]
    assert sorted(value(arguments, "--device").split(",")) == expected
    first = placement.shares[0]
    assert value(arguments, "--override-tensor") == f"^token_embd=RPC{first.device}[{first.endpoint}]"


def test_contexts_are_rounded_as_llama_cpp_rounds_them():
    placement = place(make_shape(), [make_offer(1, 8)], ServingNeeds(context=1000, slots=3))
    assert value(server_arguments(placement), "--ctx-size") == str(3 * 1024)
    assert placement.shares[0].kv_bytes == 32 * 4096 * 3 * 1024


def test_buffers_that_are_elsewhere_are_complained_of():
    placement = two_workers()
    sizes = [share.weight_bytes / 1024**2 for share in placement.shares]
    right = [
        f"0.00.433 I load_tensors: RPC0[{A}] model buffer size =  {sizes[0]:.2f} MiB",
        f"0.00.433 I load_tensors: RPC0[{B}] model buffer size =  {sizes[1] - 5:.2f} MiB",
        f"0.00.433 I load_tensors: RPC0[{B}] model buffer size =  5.00 MiB",
        f"0.01.000 I llama_kv_cache: RPC0[{A}] KV buffer size =    30.00 MiB",
        "0.01.000 I load_tensors:          CPU model buffer size =    28.69 MiB",
        "something else",
    ]
    assert check_buffers(placement, right) == ""
    assert parse_buffer_sizes(right, "KV") == {f"RPC0[{A}]": 30 * 1024**2}
    assert check_buffers(placement, ["nothing of that kind"]) == ""
    assert f"RPC0[{B}] holds 5.0 MiB of weights instead of {sizes[1]:.1f}" in check_buffers(
        placement, [right[0], *right[2:]]
    )
    stranger = right[2].replace(B, "10.9.9.9:1")
    assert "RPC0[10.9.9.9:1] holds 5.0 MiB of weights instead of none" in check_buffers(placement, [*right, stranger])


# What is written on the command line


def test_orders_are_read():
    assert parse_orders([f"{A}=20", "10.0.0.2=0"]) == {Endpoint("10.0.0.1", 50052): 20, Endpoint("10.0.0.2", 50052): 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([A], "is not HOST:PORT=N"),
        ([f"{A}=-1"], "is not HOST:PORT=N"),
        ([f"{A}=x"], "is not HOST:PORT=N"),
        (["=4"], "--layers '=4': ''"),
        ([f"{A}:1=4"], "--layers '10.0.0.1:50052:1=4'"),
        ([f"{A}=1", "10.0.0.1=2"], "--layers names 10.0.0.1:50052 twice"),
    ],
)
def test_what_is_no_order_is_wrong_usage(words: list[str], message: str):
    with pytest.raises(UsageError) as caught:
        parse_orders(words)
    assert message in caught.value.message


def test_an_order_takes_the_place_of_that_of_the_settings_and_is_for_the_whole_worker():
    offers = [make_offer(1, 4), make_offer(1, 4, device=1), make_offer(2, 4, layers=3)]
    changed = with_orders(offers, {Endpoint("10.0.0.1", 50052): 7, Endpoint("10.0.0.2", 50052): 0})
    assert [offer.layers for offer in changed] == [7, 0, 0]
    with pytest.raises(UsageError, match=r"the settings name no worker 10.0.0.9:50052") as caught:
        with_orders(offers, {Endpoint("10.0.0.9", 50052): 7})
    assert "did you mean '10.0.0." in str(caught.value.hint)
    with pytest.raises(UsageError, match="name it in rpc_backends first"):
        with_orders([], {Endpoint("10.0.0.9", 50052): 7})


def test_what_is_wanted_comes_from_the_settings_and_is_no_more_than_the_model_can():
    settings = Settings(distributed_context=16_384, distributed_parallel=3)
    assert serving_needs(make_shape(), settings) == ServingNeeds(context=8192, slots=3, draft=LONGEST)
    plain = Settings(distributed_context=16_384, drafts=False)
    assert serving_needs(make_shape(), plain, context=512, slots=1) == ServingNeeds(context=512, slots=1)
    assert serving_needs(replace(make_shape(), trained_context=0), settings).context == 16_384
    with pytest.raises(UsageError, match="was trained for 8192 tokens"):
        serving_needs(make_shape(), settings, context=8193)


# As a person runs it


@pytest.fixture
def model() -> Iterator[str]:
    """The path of the real model, with the real engine in place."""
    store = ModelStore()
    if not store.has_model():
        pytest.skip("the embedded model is not here (synaptic models pull)")
    file = paths.engine_choice_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"directory": str(real_files().directory)}))
    return str(store.path)


LOCAL = ("--set", "local_workers=2", "--set", "local_worker_threads=1", "--set", "rpc_backends=[]")


def test_without_a_model_it_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert run(["distributed", "plan"]) == ExitCode.USAGE
    assert "no model is named, here or in the settings" in capsys.readouterr().err
    assert run(["distributed", "plan", " "]) == ExitCode.USAGE
    assert "the model's name is empty" in capsys.readouterr().err


def test_the_help_says_how():
    result = CliRunner().invoke(plan, ["--help"])
    assert result.exit_code == 0
    assert "--layers HOST:PORT=N" in result.output
    assert "3 it does not fit" in result.output


@pytest.mark.real_model
def test_a_plan_of_local_workers_starts_nothing_and_what_does_not_fit_is_refused(
    model: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["distributed", "plan", model, "--slots", "1", "--context", "512", *LOCAL]) == 0
    shown = capsys.readouterr().out
    assert f"{Path(model).name}"[:30] in shown
    assert "1: local-1, 30 layers" in shown
    assert "not needed: local-1 holds all of it" in shown
    assert "predicted: nothing" in shown

    tight = ("--set", "local_worker_memory_gib=0.001")
    assert run(["distributed", "plan", model, *LOCAL, *tight]) == ExitCode.NO_BACKEND
    err = capsys.readouterr().err
    assert "are missing. It needs " in err
    assert "local-1 1 MiB of 1 MiB" in err
    assert "smaller quantisation" in err


@pytest.mark.real_model
def test_a_measured_plan_as_json_predicts(model: str, capsys: pytest.CaptureFixture[str]):
    """One local worker is started for the measurement and ended; the plan is for two that do not run."""
    memory = ("--set", "local_worker_memory_gib=0.08", "--context", "256", "--slots", "1")
    assert run(["distributed", "plan", model, "--measure", "--json", *LOCAL, *memory]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [share["endpoint"] for share in document["shares"]] == ["local-1", "local-2"]
    assert all(share["to_be_started"] for share in document["shares"])
    assert sum(share["layers"] for share in document["shares"]) == document["layers"] == 30
    assert document["tokens_per_second"] > 0
    assert document["load_seconds"] > 0


@pytest.mark.real_model
def test_a_plan_of_workers_of_the_settings_with_orders(model: str, capsys: pytest.CaptureFixture[str]):
    with real_process() as one, real_process() as two:
        ports = [one.port, two.port]
        entries = json.dumps([{"host": "127.0.0.1", "port": port, "memory_gib": 1} for port in [*ports, free_port()]])
        there = ("--set", f"rpc_backends={entries}", "--set", "local_workers=0")
        order = f"127.0.0.1:{ports[1]}=10"
        assert run(["distributed", "plan", "smollm2:135m", "--layers", order, *there]) == 0
        shown = capsys.readouterr().out
        assert "(as ordered)" in shown
        assert "10 layers" in shown or "layers 0-9" in shown or "layers 20-29" in shown
        assert "not used" in shown

        assert run(["distributed", "plan", model, "--layers", f"127.0.0.1:{ports[1]}=31", *there]) == ExitCode.USAGE
        assert "that is 31 layers" in capsys.readouterr().err
        wrong = run(["distributed", "plan", model, "--layers", "127.0.0.1:1=3", *there])
        assert wrong == ExitCode.USAGE
        assert "the settings name no worker 127.0.0.1:1" in capsys.readouterr().err
