"""The parts of a long input, and what is asked of it. Pure: nothing here counts or calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synaptic.pipeline import Attached

MOST_QUESTION: Final = 500
"""Characters up to which the first or the last paragraph of a long text is taken for what is asked about it."""

PREFACE: Final = (
    "The text is long. These are notes of {} parts; where you use one, name its part in brackets, as in [{}]."
)


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a text, or several that follow one another and became one note.

    Attributes:
        name: Of the document; "" where there is only one and it has no name.
        first: Number of the part, from 1; ``last`` is that of the last one.
        start: The line of the text that it begins in, from 1; 0 where the text has no lines.
        end: The line that it ends in.
    """

    name: str
    first: int
    last: int
    start: int
    end: int
    text: str

    @property
    def label(self) -> str:
        """``notes.txt, part 2, lines 81-140``."""
        parts = f"part {self.first}" if self.first == self.last else f"parts {self.first}-{self.last}"
        lines = f"line {self.start}" if self.start == self.end else f"lines {self.start}-{self.end}"
        return ", ".join(word for word in (self.name, parts, lines if self.start else "") if word)

    def noted(self, text: str) -> TextPart:
        """Return the part with a note in place of its text."""
        return TextPart(self.name, self.first, self.last, self.start, self.end, text)


@dataclass(frozen=True, slots=True)
class Material:
    """A long input taken apart: what is asked, and the texts that it is asked about.

    Attributes:
        texts: (name, text) of each; a single one may have no name.
    """

    question: str
    texts: tuple[tuple[str, str], ...]


def texts_of(value: Any) -> list[str]:
    """Return the texts in an input of the type ``string``, ``file`` or ``files``; none of another one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return [value["text"]]
    if isinstance(value, list):
        return [text for item in value for text in (texts_of(item) if isinstance(item, dict) else [])]
    return []


def material_of(name: str, inputs: Mapping[str, Any], attached: Attached | None) -> Material:
    """Return an input taken apart."""
    value, query = inputs[name], inputs.get("query")
    if isinstance(value, str):
        if name == "query" and attached is not None and attached.documents and len(attached.question) <= MOST_QUESTION:
            return Material(attached.question, tuple((text["name"], text["text"]) for text in attached.documents))
        question, text = split_question(value)
        return Material(question, (("", text),))
    documents = value if isinstance(value, list) else [value]
    question = query if isinstance(query, str) and len(query) <= MOST_QUESTION else ""
    return Material(question, tuple((document.get("name") or "", document["text"]) for document in documents))


def split_question(text: str) -> tuple[str, str]:
    """Return what is asked and the text that it is asked about: a short first paragraph, else a short last one."""
    text = text.strip()
    head, gap, rest = text.partition("\n\n")
    if gap and len(head) <= MOST_QUESTION and not head.startswith("#"):
        return head.strip(), rest.strip()
    before, gap, tail = text.rpartition("\n\n")
    if gap and len(tail) <= MOST_QUESTION:
        return tail.strip(), before.strip()
    return "", text


def parts_of(name: str, text: str, pieces: Sequence[str], before: int) -> Iterator[TextPart]:
    """Yield the pieces of a text as parts, with the lines that they come from; ``before`` parts were there already."""
    position, line = 0, 1
    lined = "\n" in text.strip()
    for number, piece in enumerate(pieces, before + 1):
        start = text.find(piece, position)
        line += text.count("\n", position, start)
        end = line + piece.count("\n")
        yield TextPart(name, number, number, line if lined else 0, end if lined else 0, piece)
        position, line = start + len(piece), end


def joined(parts: Sequence[TextPart]) -> TextPart:
    """Return parts that follow one another as one; their texts keep their labels."""
    first, last = parts[0], parts[-1]
    text = with_labels(parts)
    if first.name != last.name:
        return TextPart("", first.first, last.last, 0, 0, text)
    return TextPart(first.name, first.first, last.last, first.start, last.end, text)


def with_labels(parts: Sequence[TextPart]) -> str:
    """Return the texts of the parts, each behind its label."""
    return "\n\n".join(f"[{part.label}] {part.text}" for part in parts)


def notes_value(value: Any, question: str, notes: Sequence[TextPart], missing: int = 0) -> Any:
    """Return what stands in the place of a long input: its notes, in the form of the input; some may be missing."""
    count = f"its {notes[-1].last}" if not missing else "some of its"
    text = f"{PREFACE.format(count, notes[0].label)}\n\n{with_labels(notes)}"
    if isinstance(value, str):
        return f"{question}\n\n{text}" if question else text
    document = {"name": "notes", "path": "", "text": text}
    return [document] if isinstance(value, list) else {**value, "text": text}
