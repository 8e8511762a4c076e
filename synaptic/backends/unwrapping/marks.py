"""The marks that models and their templates put around an answer: data, and how one is found in a text.

Collected in November 2026 from the vocabularies, templates and parsers of llama.cpp (``src/llama-vocab.cpp``,
``src/llama-chat.cpp``, ``common/chat.cpp``), Ollama (``template/``, ``model/parsers``, ``harmony``, ``thinking``) and
vLLM (``vllm/reasoning``). A server that knows a model's marks takes them out; a GGUF file with a wrong template, a
missing stop token or a server that detokenizes special tokens as text lets them through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class MarkKind(Enum):
    """What a mark does."""

    OPENS = "opens thinking"
    CLOSES = "closes thinking, whether or not its opening was seen"
    ENDS = "ends the turn"
    TURN = "begins the turn of somebody else"
    ROLE = "begins a turn; whose it is follows"
    HEAD = "begins the assistant's own turn, or stands before it"
    UNWRAPS = "stands before the answer, behind the thinking"
    REWRAPS = "stands behind an answer that a mark of the kind before opened"
    CHANNEL = "names the channel of what follows"
    REFLECTS = "goes on with the thinking, between it and a wrapped answer"


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark.

    Attributes:
        closed_by: What ends the thinking that it opens.
        is_html: Whether it is a tag of HTML or a word in brackets, too, that answers use for something else.
    """

    text: str
    kind: MarkKind
    closed_by: tuple[str, ...] = ()
    is_html: bool = False


ROLES: Final = (
    "user",
    "system",
    "assistant",
    "developer",
    "tool",
    "human",
    "model",
    "ipython",
    "environment",
    "function",
    "observation",
    "ai",
)

_TAGS: Final = ("think", "thinking", "thought", "thoughts", "reasoning", "reason", "seed:think", "mm:think", "analysis")
_CLOSERS: Final = tuple(f"</{tag}>" for tag in _TAGS)
_FINAL: Final = "<|channel|>final<|message|>"
_HARMONY_ENDS: Final = ("<|end|>", "<|call|>", "<|return|>")

_OPENING: Final = {
    **{f"<{tag}>": _CLOSERS for tag in _TAGS},
    "◁think▷": ("◁/think▷",),
    "[THINK]": ("[/THINK]",),
    "<|think|>": ("<|/think|>", "<|end|>", "<|content|>"),  # Solar Open
    "<|begin_of_thought|>": ("<|end_of_thought|>",),
    "<|inner_prefix|>": ("<|inner_suffix|>",),  # Apertus
    "<|START_THINKING|>": ("<|END_THINKING|>",),  # Command A
    "<|thinking_start|>": ("<|thinking_end|>",),
    "<|think:start|>": ("<|think:end|>",),  # Solar Open 2
    "<ifm|think>": ("</ifm|think>",),  # K2 Horizon
    "<ifm|think_fast>": ("</ifm|think_fast>",),
    "<ifm|think_faster>": ("</ifm|think_faster>",),
    "<|channel>thought": ("<channel|>",),  # Gemma 4
    "[unused16]": ("[unused17]",),  # openPangu
    "[BEGIN_THINK]": ("[END_THINK]",),
}
_ANSWER_CHANNELS: Final = (f"<|end|><|start|>assistant{_FINAL}", f"<|start|>assistant{_FINAL}")
"""How gpt-oss goes from its thinking to its answer; of thinking that the prompt opened, only this is seen."""

_ENDING: Final = (
    "<|im_end|>",
    "<|im_end_of_turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|endofresponse|>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "<|end_of_sentence|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|EOT|>",
    "<|eos|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|turn_end|>",
    "<|message_sep|>",
    "<|separator|>",
    "<|assistant_end|>",
    "<|plamo:eos|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|END_RESPONSE|>",
    "<|END_TEXT|>",
    "<|endofprompt|>",
    "<｜end▁of▁sentence｜>",
    "<|end▁of▁sentence|>",
    "<|tool_calls_section_begin|>",  # Kimi K2
    "<｜hy_end▁of▁sentence｜>",
    "<｜hy_place▁holder▁no▁2｜>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<turn|>",
    "<seed:eos>",
    "[|endofturn|]",
    "[e~[",
    "[EOT]",
)
_HTML_ENDING: Final = ("</s>", "<eos>", "<EOT>", "<pad>", "<sep>", "<SPECIAL_12>")
_TURNS: Final = (
    "<|im_user|>",
    "<|im_system|>",
    "<|user|>",
    "<|system|>",
    "<|developer|>",
    "<|observation|>",
    "<|tool|>",
    "<|human|>",
    "<|prompter|>",
    "<|userprompt|>",
    "<|user_start|>",
    "<|system_start|>",
    "<|USER_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<｜User｜>",
    "<｜hy_User｜>",
    "<role>HUMAN</role>",
    "<role>SYSTEM</role>",
    "[|user|]",
    "[|system|]",
    "<用户>",
)
_HTML_TURNS: Final = ("[INST]", "[SYSTEM_PROMPT]", "<<SYS>>")
_ROLE_FOLLOWS: Final = (
    "<|im_start|>",
    "<|im_assistant|>",
    "<|start_header_id|>",
    "<|header_start|>",
    "<|start_of_role|>",
    "<|role_start|>",
    "<|start|>",
    "<|begin|>",
    "<|turn>",
    "<|START_OF_TURN_TOKEN|>",
    "<start_of_turn>",
    "]~b]",  # MiniMax
    "<SPECIAL_10>",  # Nemotron
    "<SPECIAL_11>",
)
_HEADS: Final = (
    "<|bom|>",
    "<|im_middle|>",
    "<|im_sep|>",
    "<|end_header_id|>",
    "<|header_end|>",
    "<|end_of_role|>",
    "<|role_end|>",
    "<|role_sep|>",
    "<|message|>",
    "<|content|>",
    "<|assistant|>",
    "<|bot|>",
    "<|assistant_start|>",
    "<|response|>",
    "<|CHATBOT_TOKEN|>",
    "<|START_RESPONSE|>",
    "<|START_TEXT|>",
    "<|startoftext|>",
    "<|begin_of_text|>",
    "<|begin_of_sentence|>",
    "<｜Assistant｜>",
    "<｜hy_Assistant｜>",
    "<｜begin▁of▁sentence｜>",
    "<｜hy_begin▁of▁sentence｜>",
    "<role>ASSISTANT</role>",
    "<seed:bos>",
    "<bos>",
    "<BOS_TOKEN>",
    "[|assistant|]",
    "[gMASK]",
    "]~!b[",
    "<sop>",
)
_HTML_HEADS: Final = ("<s>", "[/INST]", "### Response:", "### Assistant:")
_UNWRAPPED: Final = {
    "<answer>": "</answer>",
    "<response>": "</response>",
    "<final>": "</final>",
    "<final_answer>": "</final_answer>",
    "<output>": "</output>",
    "<|begin_of_solution|>": "<|end_of_solution|>",
    "<|begin_of_box|>": "<|end_of_box|>",
}
_CHANNELS: Final = ("<|channel|>",)
REFLECTION_ENDS: Final = tuple(f"</reflection>{gap}<output>" for gap in ("", "\n", "\n\n"))
"""Elsewhere the element may be the answer's own."""


def _closing() -> set[str]:
    """Return what closes thinking and nothing else; "<|end|>" ends a turn, too."""
    closers = {closer for closers in _OPENING.values() for closer in closers}
    return (closers | set(_ANSWER_CHANNELS)) - {*_ENDING, *_HEADS}


def _table() -> tuple[Mark, ...]:
    return (
        *(Mark(text, MarkKind.OPENS, closers) for text, closers in _OPENING.items()),
        *(Mark(text, MarkKind.CLOSES) for text in sorted(_closing())),
        *(Mark(text, MarkKind.ENDS) for text in _ENDING),
        *(Mark(text, MarkKind.ENDS, is_html=True) for text in _HTML_ENDING),
        *(Mark(text, MarkKind.TURN) for text in _TURNS),
        *(Mark(text, MarkKind.TURN, is_html=True) for text in _HTML_TURNS),
        *(Mark(text, MarkKind.ROLE) for text in _ROLE_FOLLOWS),
        *(Mark(text, MarkKind.HEAD) for text in _HEADS),
        *(Mark(text, MarkKind.HEAD, is_html=True) for text in _HTML_HEADS),
        *(Mark(text, MarkKind.UNWRAPS, (closer,)) for text, closer in _UNWRAPPED.items()),
        *(Mark(closer, MarkKind.REWRAPS) for closer in _UNWRAPPED.values()),
        *(Mark(text, MarkKind.CHANNEL, _HARMONY_ENDS) for text in _CHANNELS),
        Mark("<reflection>", MarkKind.REFLECTS, REFLECTION_ENDS),
    )


MARKS: Final = _table()


@dataclass(frozen=True, slots=True)
class MarkFound:
    """What stands at a place of a text.

    Attributes:
        mark: ``None`` where none stands there.
        may_grow: Whether the text ends so early that another mark, or a longer one, may stand there.
    """

    mark: Mark | None = None
    may_grow: bool = False


@dataclass(frozen=True)
class Finder:
    """Finds marks in a text, upper and lower case alike."""

    _marks: dict[str, Mark] = field(default_factory=lambda: {mark.text.lower(): mark for mark in MARKS})
    _beginnings: frozenset[str] = frozenset(
        mark.text[:end].lower() for mark in MARKS for end in range(1, len(mark.text))
    )
    _pattern: re.Pattern[str] = re.compile(
        "|".join(re.escape(mark.text) for mark in sorted(MARKS, key=lambda mark: -len(mark.text))), re.IGNORECASE
    )
    longest: int = max(len(mark.text) for mark in MARKS)

    def at(self, text: str, place: int) -> MarkFound:
        """Return what stands at ``place``: the longest mark."""
        match = self._pattern.match(text, place)
        rest = len(text) - place
        may_grow = rest < self.longest and text[place:].lower() in self._beginnings
        return MarkFound(self._marks[match.group().lower()] if match else None, may_grow)


FINDER: Final = Finder()
FIRST_CHARACTERS: Final = re.compile("[" + re.escape("".join({mark.text[0] for mark in MARKS} - {"#"})) + "]")
"""Where a mark may begin in the middle of a text: what has none of these characters has no mark."""
