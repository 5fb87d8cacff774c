"""One bounded workspace distilled from a whole round (PDR, arXiv 2510.01123: its global summary)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pacore_lab.errors import require_count
from pacore_lab.interfaces import Compaction, Sampler
from pacore_lab.types import Message, Problem, Trajectory
from strategies.compaction.llm_summary import instructed, summary
from strategies.prompts import Template

INSTRUCTIONS = """\
You are given a problem and several responses to it. Distill them into one page of notes for somebody who will solve \
the problem again and cannot see them.

Original Problem:
{{ original_prompt }}

Responses:
{% for response in ref_responses %}
Response {{ loop.index }}:
{{ response }}
{% endfor %}

Note what the responses agree on, where they contradict one another and what speaks for either side, the intermediate \
results worth keeping, what is still open, and every final answer that was given, exactly as it is written, with the \
number of responses that gave it. Do not decide by that number. Use at most WORDS words.
"""


@dataclass(frozen=True, kw_only=True)
class GlobalSummary:
    """One message made of all messages of `of`, which are its sources together.

    max_tokens: of the summary, thinking included. The model is told a quarter of it, as words. role: who is asked.
    What follows the model's own `</think>` is the message. Where the summary failed, is empty, or was cut off at
    `max_tokens` (it may be unfinished thinking) there is no message, and the next round sees the bare problem.
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
        if not messages:
            return ()
        prompt = self._prompt(problem, messages)
        [written] = await sampler.sample(prompt, 1, role=self.role, max_tokens=self.max_tokens)
        sources = dict.fromkeys(source for message in messages for source in message.sources)
        return (Message(text=text, sources=tuple(sources)),) if (text := summary(written)) else ()
