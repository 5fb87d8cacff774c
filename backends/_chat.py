"""Prompts as token ids, for the engines in this process: the checkpoint's own chat template and the context's bound."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pacore_lab.errors import BackendError, RequestError
from pacore_lab.interfaces import Request
from pacore_lab.types import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A request as an engine takes it. max_tokens: what is left of the context, or less if less was asked for."""

    text: str
    tokens: list[int]
    max_tokens: int
    clamped: bool


class Chat:
    """Renders conversations with a transformers tokenizer, in a thread of its own.

    context_length: tokens of prompt and answer together. Raises BackendError for a tokenizer that cannot do it.
    """

    def __init__(self, model: Model, tokenizer: Any, context_length: int) -> None:
        if not tokenizer.is_fast:
            raise BackendError(f"model.path={model.path}: the tokenizer is not a fast one; add its tokenizer.json")
        if tokenizer.chat_template is None:
            raise BackendError(f"model.path={model.path}: the tokenizer has no chat template; add chat_template.jinja")
        self.model, self.tokenizer, self.context_length = model, tokenizer, context_length
        self._thread = ThreadPoolExecutor(1, "chat-template")
        template = dict(model.chat_template_kwargs)

        @lru_cache(maxsize=64)  # the samples of a round share their prompt
        def render(messages: str) -> tuple[str, list[int]]:
            text: str = tokenizer.apply_chat_template(
                json.loads(messages), add_generation_prompt=True, tokenize=False, **template
            )
            return text, tokenizer(text, add_special_tokens=False)["input_ids"]

        self._render = render

    async def render(self, request: Request) -> Rendered:
        """Raises RequestError for what the template refuses, and for a prompt that leaves no room for an answer."""
        loop = asyncio.get_running_loop()
        try:
            text, tokens = await loop.run_in_executor(self._thread, self._render, json.dumps(request.prompt))
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
