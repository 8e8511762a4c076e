"""The form of what ``/v1/completions`` answers."""

import pytest

from synaptic.messages import Delta, TokenLogprob
from synaptic.server.openai_api.openai_replies import CompletionForm

LIKELY, RARE = TokenLogprob(" a", -0.1), TokenLogprob(" zebra", -7.0)


@pytest.mark.parametrize(
    ("drawn", "top", "told"),
    [
        (RARE, (LIKELY,), {" a": -0.1, " zebra": -7.0}),
        (LIKELY, (LIKELY,), {" a": -0.1}),
        (RARE, (), {" zebra": -7.0}),
    ],
)
def test_the_token_that_was_drawn_is_among_the_likeliest_ones(drawn, top, told):
    entry = TokenLogprob(drawn.token, drawn.logprob, None, top)
    chunk = CompletionForm("m").delta(0, Delta(drawn.token, logprobs=(entry,)), [])
    assert chunk["choices"][0]["logprobs"]["top_logprobs"] == [told]
