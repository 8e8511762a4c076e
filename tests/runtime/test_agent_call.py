"""One agent's call: text, structured output, its repair, and what is known when it breaks off."""

import pytest

from synaptic.agents.shape import Shape
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import OutputEmpty, OutputInvalid, OutputTruncated, StreamTruncated
from synaptic.messages import ChatRequest, Delta, Finished, Message, ThoughtSoFar
from synaptic.runtime.agent_call import CallRecord, call_agent
from synaptic.runtime.events import StepRepaired, StepRetried, StepThought, TokenDelta
from synaptic.runtime.policies import Retrying
from synaptic.waiting import Backoff

SHAPE = Shape.parse({"title": "string", "score": "number(0..1)"})
GOOD = '{"title": "a", "score": 0.5}'


class Call:
    """A call of a scripted backend, with everything that it reports."""

    def __init__(self, *replies: object, retries: int = 0) -> None:
        self.backend = ScriptedBackend(list(replies))
        self.wrapped = Retrying(self.backend, retries, Backoff((0.0,)))
        self.record = CallRecord()
        self.events: list[object] = []

    async def run(
        self, shape: Shape | None = None, max_tokens: int | None = 100, *, think: bool | None = None, repairs: int = 1
    ) -> object:
        messages = (Message("system", "be good"), Message("user", "question"))
        request = ChatRequest(messages=messages, max_tokens=max_tokens, think=think, tag="a.b")
        return await call_agent(self.wrapped, request, shape, self.record, self.events.append, repairs=repairs)


async def test_text_is_returned_and_every_token_reported():
    call = Call("  some words ")

    assert await call.run() == "some words"
    assert "".join(event.text for event in call.events if isinstance(event, TokenDelta)) == "  some words "
    assert {event.path for event in call.events} == {"a.b"}
    assert call.record.usage.completion_tokens == 3
    assert call.record.attempts == 1
    assert call.record.model == "scripted"
    assert call.record.first_token_seconds is not None


async def test_text_that_reaches_its_limit_is_returned_and_says_so():
    call = Call(Reply(text="cut", finish_reason="length"))

    assert await call.run() == "cut"
    assert call.record.finish_reason == "length"


async def test_structured_output_is_validated():
    assert await Call(GOOD).run(SHAPE) == {"title": "a", "score": 0.5}


async def test_json_that_is_complete_at_the_limit_is_good():
    assert await Call(Reply(text=GOOD, finish_reason="length")).run(SHAPE)


async def test_a_wrong_shape_is_repaired_once_and_the_model_is_told():
    call = Call('{"title": 3}', GOOD)

    assert await call.run(SHAPE) == {"title": "a", "score": 0.5}
    (repaired,) = [event for event in call.events if isinstance(event, StepRepaired)]
    assert "title" in repaired.reason
    assert "title" in call.backend.requests[1].messages[-1].content
    assert call.backend.requests[1].messages[0].content == "be good"
    assert call.record.attempts == 2


async def test_cut_json_is_repaired_with_twice_the_limit():
    call = Call(Reply(text='{"title": "a', finish_reason="length"), GOOD)

    assert await call.run(SHAPE) == {"title": "a", "score": 0.5}
    assert call.backend.requests[1].max_tokens == 200
    assert "cut off" in call.backend.requests[1].messages[-1].content


async def test_without_a_limit_the_repair_has_none_either():
    call = Call(Reply(text="{", finish_reason="length"), GOOD)

    await call.run(SHAPE, max_tokens=None)

    assert call.backend.requests[1].max_tokens is None


async def test_the_second_wrong_answer_is_an_error_that_holds_the_text():
    with pytest.raises(OutputInvalid) as caught:
        await Call("nonsense", "nonsense again").run(SHAPE)

    assert caught.value.text == "nonsense again"


async def test_json_cut_twice_is_a_failure_of_its_own_kind():
    cut = Reply(text='{"title": "', finish_reason="length")

    with pytest.raises(OutputTruncated, match="200"):
        await Call(cut, cut).run(SHAPE)


EMPTY = {
    "nothing": (Reply(text=""), "the model's reply is empty", "say in the prompt what to answer"),
    "white space": (Reply(text=" \n"), "the model's reply is empty", "say in the prompt what to answer"),
    "the limit, unseen": (Reply(text="", finish_reason="length"), "token limit \\(200\\), and no text", "max_tokens"),
    "the limit, thinking": (
        Reply(text="", thinking="Hm.", finish_reason="length"),
        "token limit \\(200\\) by thinking, although it was told not to",
        "max_tokens",
    ),
    "thinking alone": (Reply(text="", thinking="Hm."), "after about 1 token of thinking", "use another model"),
}


@pytest.mark.parametrize("shape", [None, SHAPE])
@pytest.mark.parametrize("name", EMPTY)
async def test_an_empty_reply_is_asked_for_once_more_and_then_a_failure(name, shape):
    reply, message, hint = EMPTY[name]
    call = Call(reply, reply, "never asked for")

    with pytest.raises(OutputEmpty, match=message) as caught:
        await call.run(shape)
    assert hint in caught.value.hint
    assert len(call.backend.requests) == 2
    assert len([event for event in call.events if isinstance(event, StepRepaired)]) == 1


@pytest.mark.parametrize(("think", "then", "limit"), [(None, False, 200), (False, False, 200), (True, True, 400)])
async def test_a_model_that_thought_instead_is_asked_not_to_or_gets_room(think, then, limit):
    call = Call(Reply(text="", thinking="Hm.", finish_reason="length"), "Paris.")

    assert await call.run(think=think) == "Paris."
    again = call.backend.requests[1]
    assert (again.think, again.max_tokens) == (then, limit)
    assert again.messages == call.backend.requests[0].messages


async def test_a_model_that_said_nothing_is_told_so():
    call = Call("", GOOD)

    assert await call.run(SHAPE)
    assert "Your last reply was empty" in call.backend.requests[1].messages[-1].content
    assert call.backend.requests[1].think is None


async def test_an_empty_reply_does_not_use_up_the_repair_of_a_wrong_one():
    assert await Call("", '{"title": 3}', GOOD).run(SHAPE)


async def test_a_step_without_repairs_is_not_asked_again():
    call = Call("", "never asked for")

    with pytest.raises(OutputEmpty):
        await call.run(repairs=0)
    assert len(call.backend.requests) == 1


async def test_a_tool_that_is_called_instead_of_an_answer_is_named():
    class Calls(ScriptedBackend):
        async def stream(self, request):
            yield Finished("stop", tool="get_weather")

    call = Call("")
    call.wrapped = Calls([])
    with pytest.raises(OutputEmpty, match="called a tool \\(get_weather\\)"):
        await call.run()


async def test_text_that_turns_out_to_be_thinking_is_void():
    class Thinks(ScriptedBackend):
        async def stream(self, request):
            yield Delta("Okay.")
            yield ThoughtSoFar()
            yield Delta("Paris.")
            yield Finished("stop")

    call = Call("")
    call.wrapped = Thinks([])
    assert await call.run() == "Paris."
    assert call.record.attempts == 1
    assert call.events == [TokenDelta("a.b", "Okay."), StepThought("a.b"), TokenDelta("a.b", "Paris.")]


async def test_json_that_a_limit_cut_names_the_thinking_before_it():
    cut = Reply(text='{"title": "', thinking="Hm.", finish_reason="length")

    with pytest.raises(OutputTruncated, match="about 1 token") as caught:
        await Call(cut, cut).run(SHAPE)
    assert "think to false" in caught.value.hint


async def test_a_retry_is_reported_and_the_text_begins_anew():
    call = Call(Failure("crash", after_tokens=2), "fine", retries=1)

    assert await call.run() == "fine"
    (retried,) = [event for event in call.events if isinstance(event, StepRetried)]
    assert (retried.attempt, retried.path) == (2, "a.b")
    assert call.record.attempts == 2


async def test_what_was_said_before_a_failure_is_kept_in_the_record():
    call = Call(Failure("stream_failed", after_tokens=2, text="one two three"))

    with pytest.raises(Exception, match="mid-stream"):
        await call.run()

    assert call.record.partial == "one two"


async def test_a_stream_that_just_ends_is_no_success():
    class Ends(ScriptedBackend):
        async def stream(self, request):
            yield Delta("half an answ")

    with pytest.raises(StreamTruncated):
        await call_agent(Ends(), ChatRequest(messages=(Message("user", "q"),)), None, CallRecord(), lambda _: None)


async def test_thinking_counts_as_the_first_token_and_is_no_part_of_the_answer():
    call = Call(Reply(text="answer", thinking="hm"))

    assert await call.run() == "answer"
    assert call.record.first_token_seconds is not None
