"""Real nodes with the three kinds of template, killed in the middle of a text: whole in the end, and never garbled."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from chat_turns import TEMPLATES, Turn
from ollama_nodes import MODEL, real_nodes
from pool_support import Answer, ask, question

from synaptic import Settings
from synaptic.backends.pool.backend import PoolBackend
from synaptic.messages import Continued, Delta, Restarted

pytestmark = pytest.mark.real_model

REQUEST = question("Tell me about rivers.", tokens=40, model=MODEL, temperature=0.0, seed=1)
CONTINUED = {"open": True, "closed": False, "jinja": True}
BREAKS = (1, 12)


async def answered(nodes, *, kill_after: int) -> Answer:
    """Make a call and kill the node that serves it after so many chunks."""
    answer, chunks = Answer(), 0
    settings = Settings(nodes=[node.url for node in nodes], model=MODEL)
    async with PoolBackend(settings) as pool, aclosing(pool.stream(REQUEST)) as stream:
        async for chunk in stream:
            if isinstance(chunk, Restarted):
                answer.restarts.append(chunk)
                answer.text = ""
            elif isinstance(chunk, Continued):
                answer.continued.append(chunk)
            elif isinstance(chunk, Delta):
                answer.text += chunk.text
                chunks += 1
            if chunks == kill_after:
                chunks += 1
                (busy,) = [nodes[key] for key, member in pool.members.items() if member.state.in_flight]
                busy.kill()
    return answer


@pytest.mark.timeout(300)
@pytest.mark.parametrize("turn", TEMPLATES)
async def test_a_text_whose_node_is_killed(turn: Turn):
    async with real_nodes(2, turn=turn) as nodes:
        async with PoolBackend(Settings(nodes=[nodes[0].url], model=MODEL)) as pool:
            whole = await ask(pool, REQUEST)
        assert (whole.error, bool(whole.text.strip())) == (None, True)
        for kill_after in BREAKS:
            answer = await answered(nodes, kill_after=kill_after)
            assert answer.text == whole.text
            assert (len(answer.continued), len(answer.restarts)) == ((1, 0) if CONTINUED[turn] else (0, 1))
            for node in nodes:
                if not node.running:
                    await node.restart()
