"""From a post to token ids: one rendered prompt around it, and no way out of it.

The chat template is rendered once with a marker in the post's place. What stands before the marker
is the shared prefix of every row; what stands after it belongs to the row. The post itself is
tokenised as plain text, so that special-token strings in it are ordinary characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import TemplateError

from evenhand.core.errors import ConfigError, ModelError, Problem
from evenhand.core.records import LABELS, Row
from evenhand.prompts.template import PromptTemplate

_MARK = "\ue000post\ue001"
# Some chat templates write today's date, a reasoning effort or a place for thoughts; all are
# pinned, or training, evaluation and serving would see different prompts. The date is a macro that
# hides the template engine's clock.
PINNED_DATE = "2025-01-01"
_PINNED_CLOCK = f"{{%- macro strftime_now(format) -%}}{PINNED_DATE}{{%- endmacro -%}}"
_HARMONY_MODELS = frozenset({"gpt_oss"})


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row's own tokens (post and what follows it), with its gold label's index if it has one.

    ``weight`` is that of the row's label loss in training, and ``pair`` its counterfactual, whose
    logit training holds against the row's own.
    """

    ids: tuple[int, ...]
    label: int | None
    is_truncated: bool
    weight: float = 1.0
    pair: EncodedRow | None = None


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """A prompt in the tokens of a model.

    Attributes:
        prefix: the tokens that every row shares.
        tail: the tokens between the post and the answer.
        labels: for each canonical label, the complete answer's tokens, end of turn included.
        tokenizer: the model's tokenizer.
        max_length: longest sequence in tokens; the post is cut to fit.
    """

    prefix: tuple[int, ...]
    tail: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    tokenizer: Any
    max_length: int

    @property
    def room(self) -> int:
        """Tokens left for the post."""
        longest = max(len(ids) for ids in self.labels)
        return self.max_length - len(self.prefix) - len(self.tail) - longest

    def encode(self, row: Row) -> EncodedRow:
        """Return a row's tokens; special-token strings in its text stay plain text."""
        ids = encode_plain(self.tokenizer, row.text)
        label = None if row.label is None else LABELS.index(row.label)
        return EncodedRow((*ids[: self.room], *self.tail), label, len(ids) > self.room)


def encode_plain(tokenizer: Any, text: str) -> list[int]:
    """Tokenise text in which nothing is special.

    Added tokens that are not marked special (``<think>``, say) are not split by the tokenizer;
    where the text spells one, it is cut inside the spelling.
    """
    # Not through the tokenizer's own call, which takes three times as long for a short text.
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    reserved = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if len(token.content.strip()) > 1 and number != tokenizer.unk_token_id
    }
    spelled = {reserved[number] for number in ids if number in reserved}
    if not spelled:
        return ids
    inside = "|".join(f"(?<={re.escape(one[0])})(?={re.escape(one[1:])})" for one in spelled)
    parts = re.split(inside, text)
    if len(parts) == 1:  # the tokenizer found it only after changing the text
        return [number for number in ids if number not in reserved]
    return [number for part in parts for number in encode_plain(tokenizer, part)]


def build_encoder(
    tokenizer: Any, prompt: PromptTemplate, *, max_length: int, model_type: str
) -> PromptEncoder:
    """Render the prompt with the model's chat template and tokenise it around the post.

    Raises:
        ConfigError: the prompt leaves no room for a post within ``max_length`` tokens.
        ModelError: the tokenizer has no chat template, or one that cannot carry the prompt.
    """
    template = chat_template(tokenizer, model_type)
    messages = prompt_messages(prompt, _MARK)
    head, found, tail = render_chat(tokenizer, messages, template, ask=True).partition(_MARK)
    if not found:
        raise ModelError(f"the chat template of {tokenizer.name_or_path} leaves out the user turn")
    end = _end_of_turn(tokenizer, messages, template)
    encoder = PromptEncoder(
        prefix=tuple(tokenizer.encode(head, add_special_tokens=False)),
        tail=tuple(tokenizer.encode(tail, add_special_tokens=False)),
        labels=tuple((*encode_plain(tokenizer, prompt.labels[name]), end) for name in LABELS),
        tokenizer=tokenizer,
        max_length=max_length,
    )
    if encoder.room < 1:
        used = max_length - encoder.room
        message = f"is {max_length}, but the prompt alone takes {used} tokens"
        raise ConfigError("the configuration", [Problem("max_seq_length", message)])
    return encoder


def prompt_messages(prompt: PromptTemplate, text: str) -> list[dict[str, str]]:
    """Return the conversation that asks about a text; an empty instruction is left out."""
    user = {"role": "user", "content": prompt.before + text + prompt.after}
    system = {"role": "system", "content": prompt.system_prompt}
    return [system, user] if prompt.system_prompt else [user]


def render_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], template: str, *, ask: bool
) -> str:
    """Render a conversation; ``ask`` ends it where the assistant's answer begins.

    Raises:
        ModelError: the template refuses the conversation (some take no system turn).
    """
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            chat_template=_PINNED_CLOCK + template,
            tokenize=False,
            add_generation_prompt=ask,
            reasoning_effort="low",
            enable_thinking=False,
        )
    except TemplateError as error:
        raise ModelError(
            f"the chat template of {tokenizer.name_or_path} refuses the prompt: {error}",
            hint='if it takes no system turn, put the instruction into "user_template"',
        ) from error


def chat_template(tokenizer: Any, model_type: str) -> str:
    """Return the chat template to use: our harmony one for gpt-oss, else the tokenizer's own."""
    if model_type in _HARMONY_MODELS:
        return resources.files("evenhand.prompts").joinpath("harmony.jinja").read_text("utf-8")
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template",
            hint="choose an instruction-tuned model; its tokenizer says how a turn is written",
        )
    return tokenizer.chat_template


def _end_of_turn(tokenizer: Any, messages: list[dict[str, str]], template: str) -> int:
    """The token that the template writes after an assistant's answer, else end of sequence."""
    answered = [*messages, {"role": "assistant", "content": "answer" + _MARK}]
    text = render_chat(tokenizer, answered, template, ask=False).rpartition("answer" + _MARK)[2]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    found = [one for one in tokenizer.encode(text, add_special_tokens=False) if one in special]
    end = found[0] if found else tokenizer.eos_token_id
    if end is None:
        raise ModelError(f"the tokenizer of {tokenizer.name_or_path} has no end-of-turn token")
    return end
