"""Texts for benchmarks/drafts.py: paragraphs to be revised, and questions whose answers quote nothing."""

from __future__ import annotations

_PARAGRAPHS = """
The lighthouse on the northern cliff was built in 1871 by two brothers who had lost their father to the sea.
For sixty years they kept its lamp burning, first with whale oil and later with kerosene, and not one ship was
lost on the rocks below.

A heat pump moves heat from a cold place to a warm one. It compresses a gas until it is hot, gives that heat
to the water of the house, lets the gas expand until it is cold, and takes up heat again from the air outside.
For each unit of electricity it brings three units of heat.

The harbour council met on Tuesday to decide about the old warehouse. The mayor wanted to sell it, the
fishermen wanted to keep it for their nets, and the school asked for a room in which children could learn to
build boats. No decision was made before midnight.

Bread needs flour, water, salt, yeast and time. Mix them in the evening, leave the dough in a cool kitchen for
the night, fold it twice in the morning, and bake it in a very hot oven for forty minutes. Let it cool before
you cut it, however good it smells.

In spring the river rises over the meadows and leaves fine mud behind. Farmers have used it for centuries:
they sow as soon as the water is gone, and harvest before the dry summer begins. The dam that was built
upstream has ended the floods, and the fields have become poor.

Our library lends books, tools and musical instruments. A book may stay with you for four weeks, a tool for
three days, and a violin for half a year. Whoever brings something back late pays nothing, but is asked to
tell the next reader why the waiting was worth it.
"""
PARAGRAPHS = tuple(" ".join(paragraph.split()) for paragraph in _PARAGRAPHS.split("\n\n"))
MISTAKES = ((" which ", " wich "), (" until ", " untill "), (" their ", " thier "), (" before ", " befor "))

OWN = (
    "Explain how a refrigerator works, in plain words.",
    "Tell a short story about a dragon who is afraid of mice.",
    "What should a person know before they buy a used bicycle?",
    "Describe a market in the morning.",
    "Why is the sky blue, and why is the sunset red?",
    "Give advice to somebody who has to speak in front of many people.",
)
QUESTIONS = (
    "How does a heat pump work, and when does it pay?",
    "What did lighthouses change for sailors?",
    "Why do rivers flood, and what helps?",
)


def revision_of(paragraph: str) -> str:
    """Return what asks for a paragraph with its spelling corrected."""
    for right, wrong in MISTAKES:
        paragraph = paragraph.replace(right, wrong)
    return f"Correct the spelling of the following text. Write all of it and change nothing else.\n\n{paragraph}"
