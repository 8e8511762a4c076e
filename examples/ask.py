"""Ask one question from a program."""

import synaptic

result = synaptic.run_sync("Explain how a heat pump works", pipeline="parallel")

print(result.answer)
for step in result.steps:
    print(f"{step.id}: {step.status}, {step.usage.completion_tokens} tokens")
