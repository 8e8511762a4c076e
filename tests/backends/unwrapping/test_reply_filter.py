"""A reply without what templates put around it, cut into chunks at every place; and answers that speak of the marks."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.backends.unwrapping.marks import MARKS
from synaptic.backends.unwrapping.reply_filter import ReplyFilter
from synaptic.messages import Delta, ThoughtSoFar

OBJECT = {"type": "object"}
Read = tuple[str, str]


def read(pieces, *, schema=None, opened=False) -> Read:
    """What a reader of the stream has at its end: the text and the thinking, white space around them taken off."""
    reply = ReplyFilter(schema=schema, opened=opened)
    text = thinking = ""
    for chunk in [*(chunk for piece in pieces for chunk in reply.take(Delta(piece))), *reply.finish()]:
        if isinstance(chunk, ThoughtSoFar):
            text, thinking = "", thinking + text
        else:
            text, thinking = text + chunk.text, thinking + chunk.thinking
    return text.strip(), thinking.strip()


def cuts(text: str):
    """The text whole, letter by letter, in pieces of four, and in two at every place."""
    yield [text]
    yield list(text)
    yield [text[place : place + 4] for place in range(0, len(text), 4)]
    yield from ([text[:place], text[place:]] for place in range(len(text) + 1))


AROUND = {
    # thinking in the text
    "Qwen, DeepSeek R1, GLM, MiniMax": ("<think>\nOkay, {x}.\n</think>\n\nParis.", "Paris.", "Okay, {x}."),
    "thinking switched off": ("<think>\n\n</think>\n\nParis.", "Paris.", ""),
    "no line ends": ("<think>Okay</think>Paris.", "Paris.", "Okay"),
    "white space before": ("\n\n <think>Okay</think> Paris.", "Paris.", "Okay"),
    "capitals": ("<THINK>Okay</THINK>Paris.", "Paris.", "Okay"),
    "thinking": ("<thinking>\nOkay\n</thinking>\nParis.", "Paris.", "Okay"),
    "EXAONE Deep": ("<thought>\nOkay\n</thought>\n\nParis.", "Paris.", "Okay"),
    "reasoning": ("<reasoning>Okay</reasoning>Paris.", "Paris.", "Okay"),
    "Seed-OSS": ("<seed:think>Okay</seed:think>Paris.<seed:eos>", "Paris.", "Okay"),
    "Kimi": ("◁think▷Okay◁/think▷Paris.<|im_end|>", "Paris.", "Okay"),
    "Magistral": ("[THINK]Okay[/THINK]Paris.</s>", "Paris.", "Okay"),
    "Apertus": ("<|inner_prefix|>Okay<|inner_suffix|>Paris.<|assistant_end|>", "Paris.", "Okay"),
    "Command A": (
        "<|START_THINKING|>Okay<|END_THINKING|><|START_RESPONSE|>Paris.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        "Paris.",
        "Okay",
    ),
    "Gemma 4": ("<|channel>thought\nOkay\n<channel|>Paris.<turn|>\n", "Paris.", "Okay"),
    "Solar Open": ("<|think|>Okay<|end|><|begin|>assistant<|content|>Paris.<|end|>", "Paris.", "Okay"),
    "openPangu": ("[unused16]Okay[unused17]Paris.", "Paris.", "Okay"),
    "Sky-T1": (
        "<|begin_of_thought|>\n\nOkay\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nParis.\n\n<|end_of_solution|>",
        "Paris.",
        "Okay",
    ),
    "another tag closes": ("<think>Okay</thinking>\nParis.", "Paris.", "Okay"),
    "a mark is thought of": (
        "<think>I write `</think>` and '<|im_end|>'.\n</think>Paris.",
        "Paris.",
        "I write `</think>` and '<|im_end|>'.",
    ),
    "fences around the closing mark": (
        '<think>```json\n{"a": 0}\n```</think>```json\n{"a": 1}\n```',
        '```json\n{"a": 1}\n```',
        '```json\n{"a": 0}\n```',
    ),
    "one-line fences around it": ("<think>So:```x```</think>```y```", "```y```", "So:```x```"),
    "quotations around it": ('<think>He asks "Where?"</think>"Paris."', '"Paris."', 'He asks "Where?"'),
    "code spans around it": ("<think>It is `a`</think>`b`", "`b`", "It is `a`"),
    "quotations around it, behind a sentence": ('<think>"One.\nTwo."</think>"Paris."', '"Paris."', '"One.\nTwo."'),
    "a mark is thought of in Chinese": (
        "<think>写`</think>`来。`</think>`也</think>是巴黎。",
        "是巴黎。",
        "写`</think>`来。`</think>`也",
    ),
    "a mark is thought of behind an apostrophe": (
        "<think>I don't write '</think>' or f(\"</think>\", ['</s>','</think>']).</think>Paris.",
        "Paris.",
        "I don't write '</think>' or f(\"</think>\", ['</s>','</think>']).",
    ),
    "a mark is thought of in a wide code span": (
        "<think>I write ```</think>``` there.</think>Paris.",
        "Paris.",
        "I write ```</think>``` there.",
    ),
    "Reflection": (
        "<thinking>Okay</thinking>\n<reflection>\nHm\n</reflection>\n\n<output>\nParis.\n</output>",
        "Paris.",
        "Okay\nHm",
    ),
    "an answer with a reflection": (
        "<think>Okay</think>\n<reflection>Hm.</reflection>\n<summary>Paris.</summary><|im_end|>",
        "<reflection>Hm.</reflection>\n<summary>Paris.</summary>",
        "Okay",
    ),
    "a sentence goes on with a capital": ("Okay.\n</think> In Paris.", "In Paris.", "Okay."),
    "a byte order mark": ("\ufeff<think>Okay</think>Paris.", "Paris.", "Okay"),
    "thinks twice": ("<think>one</think>\n<think>two</think>Paris.", "Paris.", "onetwo"),
    "between two sentences": ("First.\n<think>\nOkay\n</think>\nParis.", "First.\nParis.", "Okay"),
    "cut within": ("<think>\nOkay, so", "", "Okay, so"),
    "Granite 3.2": (
        "Here is my thought process: Okay. Here is my response: Paris.",
        "Paris.",
        "Okay.",
    ),
    "Granite 3.2, quantized": ("Here's my thought process:\nOkay\nHere's my response:\nParis.", "Paris.", "Okay"),
    "Granite 3.3": ("<think>Okay</think><response>Paris.</response>", "Paris.", "Okay"),
    "Hunyuan": ("<think>\nOkay\n</think>\n<answer>\nParis.\n</answer>", "Paris.", "Okay"),
    "GLM 4.5V": (
        "<think>Okay</think>It is <|begin_of_box|>Paris<|end_of_box|>.<|endoftext|>",
        "It is Paris.",
        "Okay",
    ),
    # thinking that the prompt has opened
    "opened in the prompt": ("Okay, the user asks.\n</think>\n\nParis.", "Paris.", "Okay, the user asks."),
    "opened there, no line end": ("Okay.</think>Paris.", "Paris.", "Okay."),
    "opened there, empty": ("\n</think>\n\nParis.", "Paris.", ""),
    "opened there, fences around its end": (
        "```json\n{}\n```</think>```json\n[]\n```",
        "```json\n[]\n```",
        "```json\n{}\n```",
    ),
    "opened there, quotations around its end": ('"Where?"</think>"Paris."', '"Paris."', '"Where?"'),
    "opened there, leaked end": ("Okay.\n</think>\nParis.<|im_end|>", "Paris.", "Okay."),
    "opened there, Magistral": ("Okay.\n[/THINK]Paris.", "Paris.", "Okay."),
    # gpt-oss
    "harmony": (
        "<|channel|>analysis<|message|>Okay<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>",
        "Paris.",
        "Okay",
    ),
    "harmony with its start": (
        (
            "<|start|>assistant<|channel|>analysis<|message|>Okay<|end|>\n"
            "<|start|>assistant<|channel|>commentary<|message|>Now.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>Paris."
        ),
        "Paris.",
        "OkayNow.",
    ),
    "harmony, answer alone": ("<|channel|>final<|message|>Paris.<|return|>", "Paris.", ""),
    "harmony, to somebody": (
        "<|start|>assistant to=user<|channel|>final<|message|>Paris.<|return|>",
        "Paris.",
        "",
    ),
    "harmony, opened in the prompt": (
        "Okay<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>",
        "Paris.",
        "Okay",
    ),
    "harmony without its tokens": ("analysisWe greet.assistantfinalHello!", "Hello!", "We greet."),
    # the head of the turn, before the answer
    "ChatML head": ("<|im_start|>assistant\nParis.", "Paris.", ""),
    "ChatML head, answer on its line": ("<|im_start|>assistant Paris.", "Paris.", ""),
    "ChatML head with a colon": ("<|im_start|>assistant: In Paris.", "In Paris.", ""),
    "MiniMax head": ("]~!b[]~b]ai\nParis.[e~[", "Paris.", ""),
    "Nemotron head": ("<SPECIAL_11>Assistant\nParis.<SPECIAL_12>", "Paris.", ""),
    "Nemotron head, the system's": ("<SPECIAL_10>Assistant\nParis.", "Paris.", ""),
    "Llama 3 head": ("<|start_header_id|>assistant<|end_header_id|>\n\nParis.", "Paris.", ""),
    "Llama 4 head": ("<|header_start|>assistant<|header_end|>\n\nParis.<|eot|>", "Paris.", ""),
    "Gemma head": ("<start_of_turn>model\nParis.<end_of_turn>", "Paris.", ""),
    "Phi head": ("<|assistant|>\nParis.<|end|>", "Paris.", ""),
    "Phi 4 head": ("<|im_start|>assistant<|im_sep|>Paris.<|im_end|>", "Paris.", ""),
    "Granite head": ("<|start_of_role|>assistant<|end_of_role|>Paris.<|end_of_text|>", "Paris.", ""),
    "Kimi head": ("<|im_assistant|>assistant<|im_middle|>Paris.<|im_end|>", "Paris.", ""),
    "EXAONE head": ("[|assistant|]Paris.[|endofturn|]", "Paris.", ""),
    "DeepSeek head": ("<｜Assistant｜>Paris.<｜end▁of▁sentence｜>", "Paris.", ""),
    "Mistral, the user's end": (" [/INST] Paris.</s>", "Paris.", ""),
    "Jamba head": ("<|startoftext|><|bom|><|assistant|> Paris.<|eom|><|bom|><|user|> And Rome?", "Paris.", ""),
    "BOS": ("<|begin_of_text|>Paris.<|eot_id|>", "Paris.", ""),
    "BOS of Llama 2": ("<s> Paris.</s>", "Paris.", ""),
    "an empty turn first": ("<|im_end|>\n<|im_start|>assistant\nParis.<|im_end|>", "Paris.", ""),
    "Alpaca": ("### Response:\nParis.", "Paris.", ""),
    # the end of the turn, and an invented next one
    "ChatML": ("Paris.<|im_end|>\n<|im_start|>user\nAnd Rome?<|im_end|>\n", "Paris.", ""),
    "ChatML, blank before": ("Paris. <|im_end|>\n<|im_start|>user\nAnd Rome?", "Paris.", ""),
    "ChatML, no sentence": ("Paris <|im_end|>\n<|im_start|>user\nAnd Rome?", "Paris", ""),
    "ChatML, no end": ("Paris.\n<|im_start|>user\nAnd Rome?", "Paris.", ""),
    "ChatML, at the very end": ("Paris<|im_end|>", "Paris", ""),
    "ChatML, nothing else": ("<|im_end|>", "", ""),
    "Llama 3": ("Paris.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd Rome?", "Paris.", ""),
    "Gemma": ("Paris.<end_of_turn>\n<start_of_turn>user\nAnd Rome?<end_of_turn>", "Paris.", ""),
    "Mistral": ("Paris.</s>[INST] And Rome? [/INST]", "Paris.", ""),
    "Llama 2": ("Paris. </s><s>[INST] And Rome?", "Paris.", ""),
    "Zephyr": ("Paris.</s>\n<|user|>\nAnd Rome?", "Paris.", ""),
    "Phi": ("Paris.<|end|>\n<|user|>\nAnd Rome?<|end|>", "Paris.", ""),
    "base model": ("Paris.<|endoftext|>Human: And Rome?", "Paris.", ""),
    "DeepSeek": ("Paris.<｜end▁of▁sentence｜><｜User｜>And Rome?", "Paris.", ""),
    "GLM": ("Paris.<|user|>\nAnd Rome?", "Paris.", ""),
    "GLM, a tool": ("Paris.\n<|observation|>\n{}", "Paris.", ""),
    "Command R": ("Paris.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>And Rome?", "Paris.", ""),
    "Granite": ("Paris.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>And Rome?", "Paris.", ""),
    "EXAONE": ("Paris.[|endofturn|]\n[|user|]And Rome?", "Paris.", ""),
    "MiniMax": ("Paris.[e~[\n", "Paris.", ""),
    "MiniMax, no end": ("Paris.\n]~b]user\nAnd Rome?", "Paris.", ""),
    "Nemotron": ("Paris.\n<SPECIAL_11>User\nAnd Rome?", "Paris.", ""),
    "Reka": ("Paris. <sep> human: And Rome?", "Paris.", ""),
    "Vicuna": ("Paris.</s>USER: And Rome?", "Paris.", ""),
    "Vicuna, a blank before": ("Paris. </s> USER: And Rome?", "Paris.", ""),
    "base model, a blank before": ("Paris. <|endoftext|> Human: And Rome?", "Paris.", ""),
    "Llama 2, no end": ("Paris. [INST] And Rome? [/INST] Rome", "Paris.", ""),
    "Llama 2, no end, no blank": ("Paris.[INST] And Rome? [/INST] Rome", "Paris.", ""),
    "Llama 2 in Chinese": ("是巴黎。[INST] 那罗马呢 [/INST]", "是巴黎。", ""),
    "Kimi, a tool": ("Paris.<|tool_calls_section_begin|><|tool_calls_section_end|><|im_end|>", "Paris.", ""),
    "Kimi, its other end": ("Paris.[EOT]", "Paris.", ""),
    "Kimi, its other end and a turn": ("Paris.\n[EOT]<|im_user|>user<|im_middle|>And?", "Paris.", ""),
    "DeepSeek, in plain letters": ("Paris.<|end▁of▁sentence|>", "Paris.", ""),
    "a mark of two words follows": ("Paris.<s>### Assistant:\nRome.", "Paris.", ""),
    "OpenChat": ("Paris.<|end_of_turn|>GPT4 Correct User: And Rome?", "Paris.", ""),
    "behind code": ("```sh\nls\n```\n<|im_end|>", "```sh\nls\n```", ""),
    "behind code, on its line": ("```sh\nls\n```<|im_end|>\n<|im_start|>user\nAnd?", "```sh\nls\n```", ""),
    "behind a list": ("- one\n- two<|im_end|>", "- one\n- two", ""),
    "behind a quotation": ('He said "yes."<|im_end|>\n', 'He said "yes."', ""),
    "behind bold type": ("It is **Paris**<|im_end|>", "It is **Paris**", ""),
    "in Chinese": ("是巴黎。<|im_end|>\n<|im_start|>user\n那罗马呢", "是巴黎。", ""),
    "a lone backtick": ("It is 5` tall.<|im_end|>\n<|im_start|>user\nAnd?", "It is 5` tall.", ""),
    "after it was spoken of in code": (
        "Its end is `<|im_end|>`.<|im_end|>\n<|im_start|>user\nAnd?",
        "Its end is `<|im_end|>`.",
        "",
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_an_answer_goes_away_at_every_chunk_boundary(name: str) -> None:
    sent, text, thinking = AROUND[name]
    for pieces in cuts(sent):
        assert read(pieces) == (text, thinking), pieces


SPOKEN_OF = [
    "ChatML ends every turn with <|im_end|> and begins one with <|im_start|>.",
    "In ChatML, `<|im_end|>` ends a turn.",
    "The end token is <|im_end|>.",
    "The end token is <|im_end|>",
    'Set stop to "<|im_end|>".',
    "Set stop=['</s>', '<|eot_id|>'] in the request.",
    "Use the stop tokens (<|eot_id|>, <|eom_id|>) there.",
    "The template is:\n```\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n```\nThat is all.",
    "~~~\n<think>\nx\n</think>\n~~~\nSee above.",
    "A prompt looks like this:\n\n<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
    "A prompt:\n\n    <|im_start|>user\n    Hi<|im_end|>\n\nDone.",
    "- <|im_start|>: begins a turn\n- <|im_end|>: ends it",
    "* <|eot_id|>\n* <|eom_id|>\n",
    "1. <|im_end|>\n2. </s>",
    "| token | use |\n|---|---|\n| <|im_end|> | ends a turn |",
    "<|im_end|> is the token that ends a turn.",
    "<|im_start|> and <|im_end|> are ChatML's.",
    "<think> is the tag in which reasoning models think; </think> closes it.",
    "<think> and </think> are tags.",
    "<think>, like <reasoning>, is a tag.",
    "Reasoning models put their thoughts between <think> and </think> and answer after it.",
    "Everything before </think> is thinking.",
    "Write `<think>` first.\n\nThen write `</think>`.",
    "To open thinking write\n<think>\nand go on.",
    "The output is **</think>** here.",
    "“<|im_end|>” ends a turn.",
    "Mistral uses [INST] and [/INST] around what the user says.",
    "See [THINK] in the model card, and [1] below.",
    "The price is <s>100</s> 80.",
    "<s>old</s> new",
    "<p>one</p>\n<s>two</s>",
    "if a < b and c[0] > d: print('<')",
    "Harmony has the channels analysis, commentary and final: <|channel|>analysis<|message|>...<|end|>",
    "# <|im_end|>\n\nA heading.",
    "> <|im_end|>\n\nA quotation.",
    "<|im_end|> → end of turn\n</s> → end of sequence",
    "<|im_end|>→ end of turn",
    "<|im_end|>: ends the turn",
    "<|im_start|> = begin\n<|im_end|> = end",
    "<|im_end|> -> end of turn",
    "<|im_end|> — the end of a turn.",
    "<|im_start|>assistant begins the turn of the model.",
    "<|im_start|>user and <|im_start|>assistant begin turns.",
    "Two tags: <b></think></b>.",
    "Two tags, <code></think></code> and <td class='x'><|im_end|></td>.",
    "ASCII 4 is called EOT.\n[EOT]",
    "Mistral has two. [INST] begins a question. [/INST] ends it.",
    "Mistral has two. [INST] Begins a question.",
    "Mistral has two.\n[INST] The question\n[/INST] The answer",
    "Names. <s>user: 5</s> 6",
    "It stops at </s> USER: and goes on.",
    "BERT has [CLS] and <sep> human readable.",
    "MiniMax begins turns with ]~b] and a role.",
    "a = b[c[0]]~b",
    "```\n<|im_start|>\n``` <|im_end|> is the other one.",
    "<reflection>Hm.</reflection>\n<output>Paris.</output>",
    "Kimi opens tools with <|tool_calls_section_begin|> there.",
    "\ufeffParis.",
    "\ufeff",
    "Reply in XML: <answer>42</answer>",
    '<?xml version="1.0"?>\n<root>\n<analysis>Sales rose.</analysis>\n</root>',
    "<answer>42</answer>",
    "<response>\n  <code>1</code>\n</response>",
    "analysis of the text: it is good.",
    "analysisParalysis is a word.",
    "Here is my thought process: first I read it, then I judged it.",
    "Here is my response: yes.",
    "Hereby I confirm.",
    "a <",
    "a <|",
    "a <|im_",
    "[",
    "The list is empty: []",
    "",
    "  \n plain  ",
]


@pytest.mark.parametrize("text", SPOKEN_OF)
def test_an_answer_that_speaks_of_marks_stays_as_it_is(text: str) -> None:
    for pieces in cuts(text):
        assert read(pieces) == (text.strip(), ""), pieces


JSON = {
    "thinking first": ('<think>{not "json"}</think>\n{"a": 1}', '{"a": 1}'),
    "a fence": ('```json\n{"a": {"b": [1]}}\n```', '{"a": {"b": [1]}}'),
    "a fence without a name": ('```\n{"a": 1}\n```\n', '{"a": 1}'),
    "an introduction": ('Here is the JSON:\n\n{"a": 1}', '{"a": 1}'),
    "an introduction and a fence": ('Sure! Here it is:\n```json\n{"a": 1}\n```\nI hope this helps.', '{"a": 1}'),
    "an introduction on the same line": ('Output: {"a": 1}', '{"a": 1}'),
    "an end of turn": ('{"a": 1}<|im_end|>\n<|im_start|>user\n{"b": 2}', '{"a": 1}'),
    "an end of turn, then thinking": ('{"a": 1}<|im_end|>\nOkay.</think>{"b": 2}', '{"a": 1}'),
    "an end in the fence": ('```json\n{"a": 1}\n```<|eot_id|>', '{"a": 1}'),
    "marks in a string": ('{"a": "<think> `</think>` <|im_end|>\\" ``` }"}', None),
    "a wrapped answer": ('<answer>{"a": 1}</answer>', '{"a": 1}'),
    "an element of another name": ('<json>\n{"a": 1}\n</json>', '{"a": 1}'),
    "a wrapped answer without a value": ("<answer>I cannot.</answer>", None),
    "a bold introduction": ('**Answer:** {"a": 1}', '{"a": 1}'),
    "a bold value": ('Answer: **{"a": 1}**', '{"a": 1}'),
    "a byte order mark": ('\ufeff{"a": 1}', '{"a": 1}'),
    "a byte order mark, then thinking": ('\ufeff<think>{"a": 0}</think>\n{"a": 1}', '{"a": 1}'),
    "fences around the end of thinking": ('<think>```json\n{"a": 0}\n```</think>```json\n{"a": 1}\n```', '{"a": 1}'),
    "the same, opened in the prompt": ('So:\n```json\n{"a": 0}\n```</think>```json\n{"a": 1}\n```', '{"a": 1}'),
    "a reflection": ('<think>x</think><reflection>y</reflection>\n<output>{"a": 1}</output>', '{"a": 1}'),
    "elements in a string": ('{"a": "<b>{}</b> **{\\"x\\"}**"}', None),
    "thinking opened in the prompt": ('Okay {x}: I write it.\n</think>\n\n{"a": 1}', '{"a": 1}'),
    "JSON in the thinking": ('The form is:\n{"a": 0}\nso I fill it in.\n</think>\n{"a": 1}', '{"a": 1}'),
    "harmony": (
        (
            "<|channel|>analysis<|message|>Okay<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"
            '{"a": 1}<|return|>'
        ),
        '{"a": 1}',
    ),
    "two values": ('{"a": 1}\n{"a": 2}', None),
    "no value": ("I cannot do that.", None),
    "a cut value": ('{"a": [1, {"b": "x', None),
    "an empty one": ("{}", None),
    "a backslash at the end": ('{"a": "\\\\"}', None),
}


@pytest.mark.parametrize("name", JSON)
def test_under_a_schema_the_one_value_is_the_answer(name: str) -> None:
    sent, text = JSON[name]
    for pieces in cuts(sent):
        assert read(pieces, schema=OBJECT)[0] == (sent if text is None else text), pieces


def test_an_array_may_be_asked_for_as_well():
    assert read(['Here:\n["a", "b"]\nDone.'], schema={"type": "array"}) == ('["a", "b"]', "")


@pytest.mark.parametrize("schema", [{"enum": ["a", "b"]}, {"type": ["object", "null"]}, {}])
def test_a_value_of_another_kind_is_left_alone(schema):
    assert read(['"a: {"'], schema=schema) == ('"a: {"', "")


OPENED = [
    ("Okay.\n</think>\n\nParis.", "Paris.", "Okay."),
    ("<think>\nOkay.\n</think>\n\nParis.", "Paris.", "<think>\nOkay."),
    ("Paris is the capital.", "Paris is the capital.", "Paris is the capital."),
    ("Paris.<|im_end|>\n<|im_start|>user\n", "Paris.", "Paris.<|im_end|>\n<|im_start|>user"),
]


@pytest.mark.parametrize(("sent", "text", "thinking"), OPENED)
def test_where_the_prompt_is_known_to_open_thinking_it_is_thinking_from_the_first_letter(sent, text, thinking):
    """If no mark closes it, it was the answer."""
    for pieces in cuts(sent):
        reply = ReplyFilter(opened=True)
        chunks = [chunk for piece in pieces for chunk in reply.take(Delta(piece))]
        assert not any(isinstance(chunk, ThoughtSoFar) for chunk in chunks)
        assert read(pieces, opened=True) == (text, thinking)


CUT = [
    ("Okay, so I", True, "", "Okay, so I"),
    ("Okay, so I", False, "Okay, so I", ""),
    ("<think>Okay, so I", False, "", "Okay, so I"),
    ("Here is my thought process: so I", False, "", "so I"),
    ("First.\n<think>\nso I", False, "First.\n", "so I"),
]


@pytest.mark.parametrize(("sent", "opened", "text", "thinking"), CUT)
def test_a_limit_that_cuts_thinking_leaves_it_thinking(sent, opened, text, thinking):
    reply = ReplyFilter(opened=opened)
    chunks = [*reply.take(Delta(sent)), *reply.finish(cut=True)]

    assert "".join(chunk.text for chunk in chunks) == text
    assert "".join(chunk.thinking for chunk in chunks).strip() == thinking


def test_the_reply_says_what_it_has_shown():
    plain, thinks, opened = ReplyFilter(), ReplyFilter(), ReplyFilter()
    plain.take(Delta("Paris."))
    thinks.take(Delta("<think>Okay</think>Paris."))
    opened.take(Delta("Okay.\n</think>\n\nParis."))
    opened.finish()

    assert [(reply.thought, reply.was_opened) for reply in (plain, thinks, opened)] == [
        (False, False),
        (True, False),
        (True, True),
    ]


def test_behind_the_end_of_the_turn_nothing_is_read():
    reply = ReplyFilter()
    given = reply.take(Delta("Paris.<|im_end|>\n<|im_start|>user\nAnd"))

    assert (given, reply.ended) == ((Delta("Paris."),), True)
    assert reply.take(Delta(" Rome?")) == reply.finish() == ()


def test_thinking_that_the_server_knows_for_it_passes():
    reply = ReplyFilter()

    assert reply.take(Delta("", "Okay")) == (Delta("", "Okay"),)
    assert reply.take(Delta("Paris <", ".")) == (Delta("", "."), Delta("Paris "))
    assert reply.finish() == (Delta("<"),)


def test_text_that_cannot_hold_a_mark_passes_as_it_came():
    reply = ReplyFilter()
    pieces = [Delta(text) for text in ("Bon", "jour", " à", " tous", "\n")]

    assert [given for piece in pieces for given in reply.take(piece)] == pieces


TEXT = st.text(alphabet="ab .\n`\"{}:[]<>|/'-", max_size=40)
LINES = ["user\n", "assistant\n", "```\n", "analysis", "Here is my thought process:", "Done. ", " to=user", "USER: "]
MARKED = st.lists(
    st.one_of(TEXT, st.sampled_from([mark.text for mark in MARKS]), st.sampled_from(LINES)),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(MARKED, st.data(), st.sampled_from([None, OBJECT]), st.booleans())
def test_how_a_text_is_cut_into_chunks_makes_no_difference(text, data, schema, opened):
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]

    whole = read([text], schema=schema, opened=opened)
    assert read(pieces, schema=schema, opened=opened) == whole
    assert read(list(text), schema=schema, opened=opened) == whole


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60).filter(lambda text: not re.search(r"[<\[◁{#]", text)), st.integers(1, 5))
def test_a_text_without_the_first_letter_of_a_mark_is_not_touched(text, width):
    lead = text.lower().lstrip()
    if not lead.startswith(("analysis", "here")):
        assert read([text[place : place + width] for place in range(0, len(text), width)]) == (text.strip(), "")
