"""A model's summary of each trajectory, of bounded length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pacore_lab.errors import require_count, require_name, require_part
from pacore_lab.interfaces import Compaction, Sampler
from pacore_lab.types import Message, Problem, Trajectory
from strategies.prompts import Template

INSTRUCTIONS = """\
You are given a problem and a response to it. Summarize the response for somebody who will solve the problem again \
and cannot see it.

Original Problem:
{{ original_prompt }}

Response:
{% for response in ref_responses %}
{{ response }}
{% endfor %}

Keep the approach, the intermediate results it rests on, doubts it names, and its final answer exactly as it is \
written, boxed if it is boxed. Do not solve the problem yourself, and do not correct the response. Use at most WORDS \
words.
"""


@dataclass(frozen=True, kw_only=True)
class LLMSummary:
    """Summarises each message of `of`, all of them at once.

    max_tokens: limit per summary, thinking included; the prompt asks for at most a quarter as many words. role: who
    writes the summaries. The message is the text after the model's own `</think>`. A summary that failed, is empty, or
    was cut off at `max_tokens` (it may be unfinished thinking) is left out, and its trajectory then has no message.
    """

    of: Compaction
    max_tokens: int
    role: str = "summarise"
    instructions: ClassVar[str] = INSTRUCTIONS

    def __post_init__(self) -> None:
        require_count("strategy.compaction.max_tokens", self.max_tokens, least=4)
        require_part("strategy.compaction.of", self.of)
        require_name("strategy.compaction.role", self.role)

    @cached_property
    def _prompt(self) -> Template:
        # a token is about three quarters of a word, and a model that thinks first needs room to think
        return Template(template=self.instructions.replace("WORDS", str(self.max_tokens // 4)))

    async def compact(
        self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler
    ) -> tuple[Message, ...]:
        groups = self._groups(self.of(trajectories))
        prompts = [self._prompt(problem, group) for group in groups]
        calls = [sampler.sample(prompt, 1, role=self.role, max_tokens=self.max_tokens) for prompt in prompts]
        texts = [_concluded(written) for [written] in await asyncio.gather(*calls)]
        sources = [dict.fromkeys(source for message in group for source in message.sources) for group in groups]
        return tuple(Message(text=t, sources=tuple(s)) for t, s in zip(texts, sources, strict=True) if t)

    def _groups(self, messages: Sequence[Message]) -> list[Sequence[Message]]:
        """The messages that each summary covers."""
        return [[message] for message in messages]


def _concluded(written: Trajectory) -> str:
    """The conclusion of a summary; "" if it cannot be used."""
    return "" if written.error or written.truncated else written.conclusion.strip()
