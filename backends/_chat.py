"""Prompts as token ids, for engines that take tokens: the checkpoint's own chat template, and the context's limit."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pacore_lab.errors import BackendError, RequestError
from pacore_lab.interfaces import Request
from pacore_lab.types import Model, Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A request as an engine takes it. max_tokens: what is left of the context, or less if less was asked for.

    text: equal texts have equal tokens; a beginning to continue is set apart by a NUL.
    """

    text: str
    tokens: list[int]
    max_tokens: int
    clamped: bool


def prefix_of(prompt: Prompt) -> str | None:
    """The final assistant's turn, to be continued; None for a prompt that asks for a new turn.

    Raises RequestError if the turn is not plain text.
    """
    if not prompt or prompt[-1]["role"] != "assistant":
        return None
    content = prompt[-1].get("content")
    if not isinstance(content, str) or prompt[-1].get("reasoning_content"):
        raise RequestError("the prompt ends with an assistant's turn that is not one plain text; write it into content")
    return content


class Chat:
    """Renders conversations with a transformers tokenizer, in a thread of its own.

    context_length: tokens of prompt and answer together. Raises BackendError for a tokenizer that cannot do it.
    prefill: whether a text can be cut between any two tokens and both parts decoded separately (not if the decoder
    drops the space of a first word), so that the text after a given beginning is exactly what was sampled.
    """

    def __init__(self, model: Model, tokenizer: Any, context_length: int) -> None:
        if not tokenizer.is_fast:
            raise BackendError(f"model.path={model.path}: the tokenizer is not a fast one; add its tokenizer.json")
        if tokenizer.chat_template is None:
            raise BackendError(f"model.path={model.path}: the tokenizer has no chat template; add chat_template.jinja")
        self.model, self.tokenizer, self.context_length = model, tokenizer, context_length
        self._thread = ThreadPoolExecutor(1, "chat-template")
        template = dict(model.chat_template_kwargs)

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

        @lru_cache(maxsize=64)  # the samples of a round share their prompt
        def render(messages: str, prefix: str | None = None) -> tuple[str, list[int]]:
            turns = json.loads(messages)
            if prefix is not None:
                turns.pop()
            text: str = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **template)
            tokens = encode(text)
            if prefix is None:
                return text, tokens
            # The beginning is added unchanged, since templates rewrite an assistant's turn. When the model wrote it,
            # its first token was apart from the prompt's last, so the two must not merge. If they do not, the text is
            # tokenized as a whole: alone, the beginning may be taken for the start of a sentence.
            whole = encode(text + prefix)
            apart = whole if whole[: len(tokens)] == tokens else tokens + encode(prefix)
            return f"{text}\0{prefix}", apart

        self._render = render
        pieces = encode("a b c")
        cuts = [(self.decode(pieces[:i]), self.decode(pieces[i:])) for i in range(len(pieces) + 1)]
        self.prefill = {before + after for before, after in cuts} == {"a b c"}

    async def render(self, request: Request) -> Rendered:
        """Raises RequestError if the template refuses the prompt, and if the prompt leaves no room for an answer.

        A prompt that ends with an assistant's turn is left open, to be continued.
        """
        loop = asyncio.get_running_loop()
        prefix = prefix_of(request.prompt)
        if prefix is not None and not self.prefill:
            raise RequestError(
                f"the prompt ends with an assistant's turn, which {self.model.name} cannot continue exactly: its "
                "tokenizer drops spaces between texts; end the prompt with another turn"
            )
        try:
            text, tokens = await loop.run_in_executor(self._thread, self._render, json.dumps(request.prompt), prefix)
        except Exception as error:  # whatever a chat template raises
            reason = " ".join(str(error).split())
            raise RequestError(f"the chat template of {self.model.name} refused the prompt: {reason}") from error
        asked, room = request.params.max_tokens, self.context_length - len(tokens)
        if room < 1:
            raise RequestError(
                f"the prompt has {len(tokens)} tokens and the context of {self.model.name} holds "
                f"{self.context_length}, answer included"
            )
        bound = room if asked is None else min(room, asked)
        return Rendered(text=text, tokens=tokens, max_tokens=bound, clamped=asked is not None and bound < asked)

    def decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def close(self) -> None:
        self._thread.shutdown(wait=False)
