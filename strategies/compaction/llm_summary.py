"""A model's summary of each trajectory: compaction as something a model does, of a bounded length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pacore_lab.errors import require_count
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
    """Each message of `of` in a model's words, all of them asked at once.

    max_tokens: of a summary, thinking included. The model is told a quarter of it, as words. role: who is asked.
    What follows the model's own `</think>` is the message. A summary that failed, is empty, or was cut off at
    `max_tokens` (it may be unfinished thinking) is left out, so that its trajectory is the source of no message.
    """

    of: Compaction
    max_tokens: int
    role: str = "summarise"

    def __post_init__(self) -> None:
        require_count("strategy.compaction.max_tokens", self.max_tokens, least=4)

    @cached_property
    def _prompt(self) -> Template:
        return instructed(INSTRUCTIONS, self.max_tokens)

    async def compact(
        self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler
    ) -> tuple[Message, ...]:
        messages = self.of(trajectories)
        prompts = [self._prompt(problem, [message]) for message in messages]
        calls = [sampler.sample(prompt, 1, role=self.role, max_tokens=self.max_tokens) for prompt in prompts]
        texts = [summary(written) for [written] in await asyncio.gather(*calls)]
        return tuple(
            Message(text=text, sources=message.sources) for message, text in zip(messages, texts, strict=True) if text
        )


def instructed(template: str, max_tokens: int) -> Template:
    """A token is about three quarters of a word, and a model that thinks first needs room for that."""
    return Template(template=template.replace("WORDS", str(max_tokens // 4)))


def summary(written: Trajectory) -> str:
    """What a summariser concluded; "" where there is nothing to be used."""
    return "" if written.error or written.truncated else written.conclusion.strip()
