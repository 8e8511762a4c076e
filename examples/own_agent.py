"""Give the program an agent of your own, with an output shape, and watch it work."""

import asyncio

from synaptic import Agent, Pipeline, RunFinished, TokenDelta, stream_events

CHEF = Agent(
    name="chef",
    prompt="You are a chef. Suggest one simple dish.",
    max_tokens=256,
    output={"dish": "string(3..60)", "ingredients": "list[string(3..40)](2..6)", "minutes": "integer(5..120)"},
)
DINNER = Pipeline.parse("""\
version: 1
name: dinner
inputs:
  query: {type: string, required: true}
steps:
  suggest: {agent: chef, prompt: "{{ inputs.query }}"}
  recipe:
    agent: editor
    prompt: |
      Write a short recipe for {{ steps.suggest.dish }} in {{ steps.suggest.minutes }} minutes with:
      {{ steps.suggest.ingredients }}
result: "{{ steps.recipe }}"
""")


async def main() -> None:
    """Print the recipe as it is written."""
    async for event in stream_events("dinner with potatoes", pipeline=DINNER, agents={"chef": CHEF}):
        if isinstance(event, TokenDelta) and event.path == "recipe":
            print(event.text, end="", flush=True)
        elif isinstance(event, RunFinished):
            print(f"\n\n{event.result.usage.total_tokens} tokens")


asyncio.run(main())
