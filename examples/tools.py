"""A Python function as a step of a pipeline: it measures what a model wrote.

synaptic --tools examples/tools.py -p examples/tools.yaml "why the sea is salty"
"""

import re
from dataclasses import dataclass
from pathlib import Path

import synaptic


@dataclass
class Readability:
    """What the pipeline sees: ``steps.measure.words`` and so on, each checked before anything runs."""

    words: int
    words_per_sentence: float
    hard_words: list[str]


@synaptic.tool
def readability(text: str, hard_from: int = 12) -> Readability:
    """Measure how hard a text is to read; a word is hard from so many letters on."""
    words = re.findall(r"[^\W\d_]+", text)
    sentences = [part for part in re.split(r"[.!?]+", text) if part.strip()]
    hard = {word.lower() for word in words if len(word) >= hard_from}
    return Readability(len(words), round(len(words) / max(len(sentences), 1), 1), sorted(hard))


if __name__ == "__main__":
    result = synaptic.run_sync(
        "why the sea is salty",
        pipeline=Path(__file__).with_name("tools.yaml"),
        tools={"readability": synaptic.Tool.of(readability)},
    )
    print(result.answer)
