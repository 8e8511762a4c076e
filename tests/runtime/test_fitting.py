"""Prompts that do not fit: refused or shortened, never silently cut; counted by a real tokenizer, too."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from chunk_support import collected, finished
from fault_server import FaultServer, json_reply, ollama_reply, sse_reply
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.base import Backend, Capabilities
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.scripted import Failure, ScriptedBackend
from synaptic.errors import BudgetExceeded, ContextOverflow, EngineCrashed
from synaptic.messages import ChatRequest, Chunk, Delta, Finished, Message, Restarted, Shortened, Usage
from synaptic.pipeline.spec.parts import BudgetSpec
from synaptic.runtime.policies import Retrying
from synaptic.runtime.policies.budget import BudgetMeter, Metered
from synaptic.runtime.policies.fitting import Fitting
from synaptic.runtime.policies.overflowing import OverflowRule
from synaptic.runtime.policies.prompt_size import (
    ContextLengths,
    TokenCounter,
    estimated_tokens,
    least_tokens,
    room_for_prompt,
    surely_fits,
)
from synaptic.runtime.policies.prompt_values import TakenApart, cut_after
from synaptic.settings import Settings
from synaptic.waiting import Backoff

HEAD, TAIL = "Here is a text:\n", "\n\nWhat does it say?\n"


def asking(*values: str, **fields: object) -> ChatRequest:
    """Return a request with these values in its prompt."""
    content, spans = HEAD, []
    for value in values:
        spans.append((len(content), len(content) + len(value)))
        content += value + TAIL
    fields = {"max_tokens": 20, **fields}
    return ChatRequest(messages=(Message("system", "Be brief."), Message("user", content, tuple(spans))), **fields)


def words(count: int, name: str = "w") -> str:
    return " ".join(f"{name}{number}" for number in range(count))


async def chunks_of(backend: Backend, request: ChatRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(request)]


def prompt_of(backend: ScriptedBackend, number: int = -1) -> str:
    return backend.requests[number].messages[-1].content


async def test_a_prompt_that_fits_passes_as_it_is():
    inner = ScriptedBackend(["fine"], context=200)
    request = asking(words(50))

    chunks = await chunks_of(Fitting(inner, OverflowRule("truncate_oldest")), request)

    assert collected(chunks) == "fine"
    assert inner.requests == [request]


async def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_sent():
    inner = ScriptedBackend(context=200)

    with pytest.raises(ContextOverflow) as caught:
        await chunks_of(Fitting(inner), asking(words(200)))

    assert inner.requests == []
    assert caught.value.message == (
        "the prompt is 210 tokens; there is room for 158: the context is 200 tokens, of which 20 are kept for the reply"
    )
    assert caught.value.hint == (
        "write overflow: truncate_oldest or overflow: summarise in the step, raise num_ctx or lower max_tokens"
    )


async def test_the_oldest_words_of_the_data_are_left_out_and_that_is_said():
    inner = ScriptedBackend(["fine"], context=200)

    chunks = await chunks_of(Fitting(inner, OverflowRule("truncate_oldest")), asking(words(1000)))

    prompt = prompt_of(inner)
    left_out = 1000 - len([word for word in prompt.split() if word.startswith("w")])
    assert chunks[0] == Shortened("truncate_oldest", 1010, len(("Be brief.\n" + prompt).split()))
    assert prompt.startswith(f"{HEAD}[... {left_out} tokens left out ...]\nw{left_out} ")
    assert prompt.endswith(" w999" + TAIL)
    assert 145 <= chunks[0].tokens_after <= 158
    assert chunks[1] == Delta("fine")


async def test_the_longest_values_lose_most_and_short_ones_nothing():
    inner = ScriptedBackend(context=300)
    long, longer, short = words(300, "a"), words(600, "b"), words(20, "c")

    await chunks_of(Fitting(inner, OverflowRule("truncate_oldest")), asking(long, short, longer))

    prompt = prompt_of(inner)
    kept = {name: sum(word.startswith(name) and word[1:].isdigit() for word in prompt.split()) for name in "abc"}
    assert kept["c"] == 20
    assert abs(kept["a"] - kept["b"]) <= 3
    assert prompt.count("tokens left out") == 2


async def test_only_data_is_cut_and_never_the_steps_own_words():
    inner = ScriptedBackend(context=100)
    request = ChatRequest(messages=(Message("user", words(500)),), max_tokens=10)

    with pytest.raises(ContextOverflow, match="500 tokens and does not fit even without the data in it") as caught:
        await chunks_of(Fitting(inner, OverflowRule("truncate_oldest")), request)

    assert "overflow" not in str(caught.value.hint)


async def test_a_budget_for_the_reply_is_no_more_than_half_the_context():
    inner = ScriptedBackend(["fine"], context=200)

    await chunks_of(Fitting(inner), asking(words(50), max_tokens=10_000))

    assert len(inner.requests) == 1


class Summarising(ScriptedBackend):
    """Answers a request for a summary with every tenth word of its text."""

    def __init__(self, context: int) -> None:
        super().__init__(self.answer, context=context)
        self.summaries = 0

    def answer(self, request: ChatRequest) -> str:
        text = request.messages[-1].content
        if not text.startswith("Summarise"):
            return "answer"
        self.summaries += 1
        return " ".join(text.partition("\n\n")[2].split()[::10])


async def test_a_value_is_summarised_in_pieces_that_fit():
    inner = Summarising(context=300)

    *_, last = chunks = await chunks_of(Fitting(inner, OverflowRule("summarise")), asking(words(800)))

    prompt = prompt_of(inner)
    assert isinstance(chunks[0], Shortened)
    assert (chunks[0].how, chunks[0].tokens_before) == ("summarise", 810)
    assert prompt.startswith(HEAD + "[... 800 tokens summarised ...]\nw0 w10 ")
    assert inner.summaries >= 3
    assert collected(chunks) == "answer"
    sent = [len(f"{r.messages[0].content} {r.messages[1].content}".split()) for r in inner.requests]
    assert max(sent) <= 300
    assert last.usage is not None
    assert last.usage.prompt_tokens == sum(sent)


async def test_a_summary_that_is_still_too_long_is_summarised_again():
    inner = Summarising(context=200)

    chunks = await chunks_of(Fitting(inner, OverflowRule("summarise")), asking(words(3000)))

    assert "tokens summarised ...]" in prompt_of(inner)
    assert isinstance(chunks[0], Shortened)
    assert chunks[0].tokens_after <= 158


async def test_summaries_that_do_not_shorten_end_in_an_overflow():
    inner = ScriptedBackend(context=200)  # it echoes

    with pytest.raises(ContextOverflow, match="does not fit after the data in it was summarised"):
        await chunks_of(Fitting(inner, OverflowRule("summarise")), asking(words(400)))

    assert inner.requests


async def test_a_prompt_with_no_data_cannot_be_summarised():
    inner = Summarising(context=100)
    request = ChatRequest(messages=(Message("user", words(500)),))

    with pytest.raises(ContextOverflow, match="summarised"):
        await chunks_of(Fitting(inner, OverflowRule("summarise")), request)

    assert inner.requests == []


async def test_summaries_have_the_retries_of_every_call():
    summarising = Summarising(context=300)
    answers = iter([Failure("crash")])
    inner = ScriptedBackend(lambda request: next(answers, None) or summarising.answer(request), context=300)

    chunks = await chunks_of(
        Fitting(Retrying(inner, 1, Backoff((0.0,))), OverflowRule("summarise")), asking(words(800))
    )

    assert chunks[-2] == Delta("answer")


@pytest.mark.parametrize(
    ("failure", "error"), [(Failure("crash"), EngineCrashed), (Failure("crash", 2), EngineCrashed)]
)
async def test_a_summary_that_fails_fails_the_call(failure: Failure, error: type[Exception]):
    inner = ScriptedBackend(lambda _: failure, context=300)

    with pytest.raises(error):
        await chunks_of(Fitting(inner, OverflowRule("summarise")), asking(words(800)))

    assert inner.active == 0


async def test_summaries_use_the_budget():
    inner = Summarising(context=300)
    metered = Metered(inner, BudgetMeter(BudgetSpec(calls=2)))

    with pytest.raises(BudgetExceeded, match="2 calls"):
        await chunks_of(Fitting(metered, OverflowRule("summarise")), asking(words(800)))

    assert inner.active == 0


class NoTokenizer:
    """A backend that knows its context and nothing else."""

    name = "plain"

    def __init__(self, context: int | None) -> None:
        self.context = context
        self.asked = 0
        self.requests: list[ChatRequest] = []
        self.capabilities = Capabilities(context_length=self.context_length)

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        self.requests.append(request)
        yield Finished("stop")

    async def context_length(self, request: ChatRequest) -> int | None:
        self.asked += 1
        return self.context


async def test_without_a_tokenizer_what_is_clearly_too_long_is_refused():
    backend = NoTokenizer(1000)

    with pytest.raises(ContextOverflow, match="the prompt is about"):
        await chunks_of(Fitting(backend), asking(words(2500)))

    assert backend.requests == []


@pytest.mark.parametrize(
    ("ratio", "count", "said"),
    [(None, 6000, "about 6"), (0.3, 800, "about 12"), (0.4, 1250, "about 25"), (0.12, 1250, "")],
)
async def test_without_a_tokenizer_what_calls_have_shown_counts(ratio: float | None, count: int, said: str):
    backend = NoTokenizer(1000)
    if ratio is not None:
        backend.capabilities = replace(backend.capabilities, tokens_a_character=lambda _: ratio)
    asked = asking("word " * count)
    if not said:
        await chunks_of(Fitting(backend), asked)
        assert backend.requests == [asked], "it fits, as far as is known"
        return
    with pytest.raises(ContextOverflow, match=said):
        await chunks_of(Fitting(backend), asked)
    assert backend.requests == []


async def test_what_is_cut_is_cut_by_what_calls_have_shown():
    backend = NoTokenizer(1000)
    backend.capabilities = replace(backend.capabilities, tokens_a_character=lambda _: 0.2)
    text = "word " * 2500
    request = ChatRequest(messages=(Message("user", text, ((0, len(text)),)),), max_tokens=20)
    await chunks_of(Fitting(backend, OverflowRule("truncate_oldest")), request)
    (sent,) = backend.requests
    assert 0.7 * 1000 < len(sent.messages[0].content) * 0.2 < 1000


async def test_without_a_tokenizer_what_may_fit_is_left_to_the_server():
    backend = NoTokenizer(1000)
    request = asking("some English words " * 150)

    assert not surely_fits(request, 1000)
    await chunks_of(Fitting(backend), request)

    assert backend.requests == [request]


async def test_without_a_tokenizer_data_is_cut_by_a_careful_estimate():
    backend = NoTokenizer(1000)
    await chunks_of(Fitting(backend, OverflowRule("truncate_oldest")), asking("some English words " * 1000))

    (request,) = backend.requests
    assert estimated_tokens("\n".join(message.content for message in request.messages)) <= 1000 - 20


async def test_without_a_known_context_nothing_is_done():
    backend = NoTokenizer(None)
    fitting = Fitting(backend)
    request = asking(words(100_000))

    for _ in range(3):
        await chunks_of(fitting, request)

    assert backend.requests == [request] * 3
    assert backend.asked == 1


async def test_the_context_is_asked_for_once_and_anew_after_an_overflow():
    class Refusing(NoTokenizer):
        async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
            raise ContextOverflow("too long")
            yield Delta()

    backend = Refusing(1000)
    fitting = Fitting(backend, OverflowRule(), contexts := ContextLengths(backend.capabilities))
    request = asking("short")
    await contexts.of(request)
    for _ in range(2):
        await contexts.of(request)
    assert backend.asked == 1

    with pytest.raises(ContextOverflow):
        await chunks_of(fitting, request)
    with pytest.raises(ContextOverflow):
        await chunks_of(fitting, request)

    assert backend.asked <= 2


@given(st.text(), st.integers(300, 5000))
def test_what_surely_fits_is_shorter_in_bytes_than_the_room(text: str, context: int):
    request = asking(text)
    size = sum(len(message.content.encode(errors="surrogatepass")) for message in request.messages)

    assert surely_fits(request, context) == (size <= room_for_prompt(request, context))


@given(st.text())
def test_the_least_is_never_more_than_the_estimate(text: str):
    assert least_tokens(text) <= estimated_tokens(text)


@given(st.text(), st.lists(st.tuples(st.integers(-5, 50), st.integers(-5, 50))))
def test_a_message_taken_apart_is_put_together_again(text: str, spans: list[tuple[int, int]]):
    request = ChatRequest(messages=(Message("user", text, tuple(spans)),))

    assert TakenApart.of(request).put_together().messages[0].content == text


@given(st.text(alphabet="ab \n", max_size=300), st.integers(0, 300))
def test_a_cut_loses_a_quarter_of_the_rest_at_most(text: str, position: int):
    position = min(position, len(text))
    cut = cut_after(text, position)

    assert position <= cut <= position + max(2, (len(text) - position) // 4 + 2)


def test_a_cut_is_made_before_a_paragraph_else_a_line_else_a_word():
    rest = "x" * 400
    assert cut_after("a b\nc\n\n" + rest, 0) == 7
    assert cut_after("a b\nc" + rest, 0) == 4
    assert cut_after("a b" + rest, 0) == 2
    assert cut_after(rest, 3) == 3


# What backends say.


def test_which_backends_can_say_what():
    scripted, llama, ollama = ScriptedBackend(), LlamaServerBackend("http://x"), OllamaBackend("http://x")
    embedded = EmbeddedBackend(Settings())

    everyone = [backend.capabilities for backend in (scripted, llama, embedded, ollama)]
    assert all(can.context_length is not None for can in everyone)
    assert [can.count_tokens is not None for can in everyone] == [True, True, True, False]


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (json_reply({"default_generation_settings": {"n_ctx": 2048}, "total_slots": 2}), 2048),
        (json_reply({"default_generation_settings": None}), None),
        (json_reply({}), None),
        (json_reply({"error": "not here"}, 404), None),
    ],
)
async def test_a_llama_server_says_its_context(answer: object, length: int | None):
    async with FaultServer({"/props": answer}) as server:
        backend = LlamaServerBackend(server.url)
        assert await backend.context_length(asking("x")) == length
        await backend.aclose()


async def test_a_server_that_counts_wrongly_is_not_asked_again():
    async with FaultServer({"/tokenize": json_reply({"error": "no"}, 404)}) as server:
        backend = LlamaServerBackend(server.url)
        counter = TokenCounter(backend.capabilities)
        assert [await counter.count("three short words") for _ in range(2)] == [
            estimated_tokens("three short words")
        ] * 2
        assert not counter.exact
        assert len(server.requests) == 1
        await backend.aclose()


@pytest.mark.parametrize(
    ("request_num_ctx", "own_num_ctx", "loaded", "trained", "length"),
    [
        (4096, None, None, 131072, 4096),
        (None, 8192, None, 131072, 8192),
        (8192, 4096, None, 2048, 2048),
        (8192, None, None, None, 8192),
        (None, None, 16384, 131072, 16384),
        (None, None, None, 131072, None),
    ],
)
async def test_the_context_of_an_ollama_model(
    request_num_ctx: int | None, own_num_ctx: int | None, loaded: int | None, trained: int | None, length: int | None
):
    show = {"model_info": {"general.architecture": "llama", **({"llama.context_length": trained} if trained else {})}}
    running = [{"name": "m:latest", "context_length": loaded}] if loaded else []
    answers = {
        "/api/tags": json_reply({"models": [{"name": "m:latest"}]}),
        "/api/ps": json_reply({"models": running}),
        "/api/show": json_reply(show),
    }
    async with FaultServer(answers) as server, OllamaBackend(server.url, num_ctx=own_num_ctx) as backend:
        for _ in range(2):
            assert await backend.context_length(asking("x", model="m", num_ctx=request_num_ctx)) == length
        assert [request.path for request in server.requests].count("/api/show") <= 1


async def test_an_older_ollama_that_shows_nothing_has_the_context_that_is_asked_for():
    async with FaultServer({}) as server, OllamaBackend(server.url) as backend:
        assert await backend.context_length(asking("x", model="m", num_ctx=512)) == 512


async def test_a_long_prompt_for_ollama_is_refused_here_and_not_cut_there():
    answers = {"/api/show": json_reply({}), "/api/chat": ollama_reply(["fine"])}
    async with FaultServer(answers) as server, OllamaBackend(server.url) as backend:
        fitting = Fitting(backend)
        with pytest.raises(ContextOverflow, match="512 tokens"):
            await chunks_of(fitting, asking("word " * 5000, model="m", num_ctx=512))
        assert [request.path for request in server.requests] == ["/api/show"]
        await chunks_of(fitting, asking("short", model="m", num_ctx=512))
        assert json.loads(json.dumps(server.requests[-1].json))["truncate"] is False


async def test_a_llama_server_counts_what_is_sent_to_it():
    """The fast way needs no count; else the server's own tokenizer decides."""
    event = {"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}]}
    answers = {
        "/props": json_reply({"default_generation_settings": {"n_ctx": 300}}),
        "/tokenize": json_reply({"tokens": [1] * 100}),
        "/v1/chat/completions": sse_reply([event]),
    }
    async with FaultServer(answers) as server:
        backend = LlamaServerBackend(server.url)
        fitting = Fitting(backend)
        await chunks_of(fitting, asking("short"))
        await chunks_of(fitting, asking(words(80)))
        await backend.aclose()
        paths = [request.path for request in server.requests]
    assert paths == ["/props", "/v1/chat/completions", "/tokenize", "/v1/chat/completions"]


# The real model.

PARAGRAPHS = [f"The bridge number {n} was built in {1800 + n} and is {n * 3} metres long." for n in range(40)]


@pytest.fixture
async def small() -> AsyncIterator[EmbeddedBackend]:
    """The embedded model with a context that a page of text fills."""
    backend = EmbeddedBackend(Settings(embedded_context=512, embedded_parallel=1, embedded_threads=1))
    await backend.start()
    yield backend
    await backend.aclose()


@pytest.mark.real_model
async def test_the_real_model_a_long_prompt_is_refused_with_its_real_length(small: EmbeddedBackend):
    request = asking("\n\n".join(PARAGRAPHS), max_tokens=24)
    tokens = await small.count_tokens("\n".join(message.content for message in request.messages))

    with pytest.raises(ContextOverflow, match=f"the prompt is {tokens} tokens") as caught:
        await chunks_of(Fitting(small), request)

    assert tokens > 512
    assert "raise embedded_context" in str(caught.value.hint)


@pytest.mark.real_model
async def test_the_real_model_answers_from_the_end_of_a_text_that_was_too_long(small: EmbeddedBackend):
    request = asking("\n\n".join(PARAGRAPHS), max_tokens=24, temperature=0.0)

    *_, last = chunks = await chunks_of(Fitting(small, OverflowRule("truncate_oldest")), request)

    shortened = chunks[0]
    assert isinstance(shortened, Shortened)
    assert shortened.tokens_before > 512 > shortened.tokens_after > 380
    assert last.usage is not None
    assert 0 <= last.usage.prompt_tokens - shortened.tokens_after <= 32  # what the chat template adds
    assert last.usage.prompt_tokens + 24 <= 512


@pytest.mark.real_model
async def test_the_real_model_summarises_a_text_that_is_too_long(small: EmbeddedBackend):
    request = asking("\n\n".join(PARAGRAPHS[:24]), max_tokens=24, temperature=0.0, seed=1)

    *_, last = chunks = await chunks_of(Fitting(small, OverflowRule("summarise")), request)

    shortened = chunks[0]
    assert isinstance(shortened, Shortened)
    assert shortened.tokens_before > 512 > shortened.tokens_after
    assert last is finished(chunks)
    assert last.usage is not None
    assert last.usage.prompt_tokens > 512  # the summaries' prompts are part of the call's usage
    assert last.usage.completion_tokens > Usage().completion_tokens + 24


class CutsPrompts(ScriptedBackend):
    """A server that keeps the end of a prompt of so many words, and says so by its counts alone."""

    def __init__(self, *answers: str, cuts_at: int, says: int | None = None, always: bool = False) -> None:
        super().__init__(list(answers), context=says)
        self._cuts_at = cuts_at
        self._always = always

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        async for chunk in super().stream(request):
            if isinstance(chunk, Finished) and (self._always or len(prompt_of(self).split()) >= self._cuts_at):
                raise ContextOverflow("the server cut the prompt", context=self._cuts_at, end=chunk)
            yield chunk


async def test_a_prompt_that_the_server_cut_is_refused_where_the_step_does_not_allow_that():
    with pytest.raises(ContextOverflow, match="the server cut"):
        await chunks_of(Fitting(CutsPrompts("of the end", cuts_at=100), OverflowRule("error")), asking(words(400)))


async def test_where_it_does_the_prompt_is_shortened_to_what_the_server_has():
    inner = CutsPrompts("of the end", "of the rest", cuts_at=300, says=100_000)
    chunks = await chunks_of(Fitting(inner, OverflowRule("truncate_oldest")), asking(words(400)))

    assert collected(chunks) == "of the rest"
    assert [type(chunk) for chunk in chunks if not isinstance(chunk, Delta)] == [Restarted, Shortened, Finished]
    assert prompt_of(inner).startswith(HEAD + "[... ")


async def test_a_cut_that_cannot_be_helped_is_said():
    inner = CutsPrompts("of the end", cuts_at=4096, says=100_000, always=True)
    *_, said, end = await chunks_of(Fitting(inner, OverflowRule("truncate_oldest")), asking("x", max_tokens=1))

    assert (said.how, said.tokens_after, end.finish_reason) == ("server", 4096, "stop")
