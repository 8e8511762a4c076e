"""Ten concurrent chats over the Ollama nodes that are named.

    python examples/pool.py http://desk:11434 http://attic:11434

Without an address: the nodes of the settings, else the one that OLLAMA_HOST names, else this machine's.
"""

import sys

import synaptic

THINGS = ["rain", "snow", "wind", "ice", "fog", "hail", "dew", "frost", "mist", "sleet"]
QUESTIONS = [f"What is {thing}? One sentence." for thing in THINGS]

with synaptic.Pool(sys.argv[1:] or None) as pool:
    for question, reply in zip(QUESTIONS, pool.chat_many_sync(QUESTIONS, max_tokens=40), strict=True):
        print(f"{reply.node}: {question}\n  {reply.text.strip()}")
