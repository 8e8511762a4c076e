"""Small parts of the pool: estimates, context lengths, the budget of retries."""

from __future__ import annotations

import asyncio

import pytest

from synaptic.backends.pool.calls.retry_budget import RetryBudget
from synaptic.backends.pool.learned.contexts import DEFAULT_CONTEXT, ContextBook
from synaptic.backends.pool.learned.sizes import KEPT, OutputSizes, prompt_tokens
from synaptic.backends.pool.node.state import ModelState
from synaptic.messages import ChatRequest, Message


def ask(tag="", max_tokens=100):
    return ChatRequest(messages=(Message("user", "x" * 400),), max_tokens=max_tokens, tag=tag)


def test_a_prompt_is_about_a_token_for_four_characters():
    assert 100 <= prompt_tokens(ask()) <= 120


def test_outputs_are_expected_to_fill_their_limit_until_something_is_learned():
    sizes = OutputSizes()
    assert sizes.expected("m", ask()) == 100
    sizes.learn("m", ask("write[0]"), 20)
    assert sizes.expected("m", ask("write[7]")) == 20  # instances of a map are alike
    assert sizes.expected("m", ask("write", max_tokens=50)) == 10
    assert sizes.expected("m", ask("plan")) == 20  # what the model does elsewhere is the best guess
    assert sizes.expected("other", ask("write")) == 100
    sizes.learn("m", ask("write"), 100)
    assert sizes.expected("m", ask("write")) == 40


def test_no_more_is_kept_than_that():
    sizes = OutputSizes()
    for n in range(KEPT + 10):
        sizes.learn("m", ask(f"step{n}"), 10 if n < KEPT else 90)
    assert sizes.expected("m", ask("step0")) != 10
    assert sizes.expected("m", ask(f"step{KEPT}")) == 90


def test_a_context_length_only_ever_grows():
    book = ContextBook()
    assert book.length("m", 2048, []) == 2048
    assert book.length("m", 1024, []) == 2048
    assert book.length("m", None, []) == 2048
    assert book.length("m", 4096, []) == 4096
    assert book.length("m", 2048, []) == 4096


def test_without_any_wish_a_loaded_model_stays_as_it_is_loaded():
    loaded = ModelState("m", resident=True, loaded_context=16384, context_length=32768)
    assert ContextBook().length("m", None, [loaded]) == 16384
    assert ContextBook().length("m", None, []) == DEFAULT_CONTEXT
    assert ContextBook(4096).length("m", None, [loaded]) == 4096


def test_never_more_than_the_model_was_trained_with():
    assert ContextBook().length("m", 100_000, [ModelState("m", context_length=2048)]) == 2048


async def test_what_is_over_the_budget_waits_its_turn():
    budget = RetryBudget(at_least=2)
    budget.active = 5
    await budget.enter()
    await budget.enter()
    third = asyncio.create_task(budget.enter())
    gone = asyncio.create_task(budget.enter())
    await asyncio.sleep(0)
    assert not third.done()
    gone.cancel()
    budget.leave()
    await third
    assert budget.retrying == 2
    with pytest.raises(asyncio.CancelledError):
        await gone
    budget.leave()
    budget.leave()
    assert budget.retrying == 0


async def test_a_fifth_of_many_calls_may_be_sent_again_at_once():
    budget = RetryBudget()
    budget.active = 100
    for _ in range(20):
        await asyncio.wait_for(budget.enter(), 20)
    late = asyncio.create_task(budget.enter())
    await asyncio.sleep(0)
    assert not late.done()
    late.cancel()


async def test_a_turn_that_is_cancelled_as_it_comes_is_passed_on():
    budget = RetryBudget(at_least=1)
    await budget.enter()
    first, second = asyncio.create_task(budget.enter()), asyncio.create_task(budget.enter())
    await asyncio.sleep(0)
    budget.leave()
    first.cancel()
    await asyncio.wait_for(second, 20)
    assert budget.retrying == 1
