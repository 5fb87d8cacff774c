"""A backend without a model: answers at once or after a delay, the same text for the same request.

For tests, for benchmarks of everything around an engine, and for trying a strategy's plumbing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass

from pacore_lab.interfaces import Capabilities, Chunk, OnChunk, Request
from pacore_lab.types import Completion, Model, SamplingParams, mean_and_windows


@dataclass(frozen=True, kw_only=True)
class Mock:
    """characters: length of the thinking. answers: how many different boxed answers there are, 0 .. answers - 1.

    delay: mean seconds per answer; each request has its own, between 0 and twice that.

    A token is four characters. Log-probabilities and confidences are made up from a hash of the text: each trajectory
    has its own level, around which its tokens scatter. A beginning to continue gets a whole answer, as usual.
    """

    model: Model
    characters: int = 200
    delay: float = 0.0
    answers: int = 10

    def __post_init__(self) -> None:
        if self.characters < 0 or self.delay < 0 or self.answers < 1:
            raise ValueError("backend: characters and delay must be 0 or more, answers 1 or more")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            seeds="request", logprobs="topk", partial=True, prefill=True, context_length=self.model.context_length
        )

    @property
    def fingerprint(self) -> str:
        return f"mock:{self.model.name}:{self.characters}:{self.answers}"

    async def start(self) -> None:
        pass

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        key = hashlib.sha256(json.dumps([request.prompt, request.seed]).encode()).digest()
        number = int.from_bytes(key[:8], "big")
        thought = hashlib.shake_256(key).hexdigest(self.characters // 2 + 1)[: self.characters]
        text = f"<think>{thought}</think>\n\n\\boxed{{{number % self.answers}}}"
        most = request.params.max_tokens
        cut = most is not None and len(text) // 4 > most
        text = text[: 4 * most] if most is not None and cut else text
        tokens = len(text) // 4
        logprobs, sure = _made_up(text, tokens, request.params) if request.params.logprobs else ([], ())
        wait = self.delay * 2 * (number % 1000) / 1000
        if on_chunk is not None:
            pieces = [text[i : i + 64] for i in range(0, len(text), 64)]
            for i, piece in enumerate(pieces):
                await asyncio.sleep(wait / len(pieces))
                on_chunk(Chunk(text=piece, tokens=len(piece) // 4, confidences=sure[16 * i : 16 * (i + 1)]))
        elif wait:
            await asyncio.sleep(wait)
        prompt_tokens = sum(len(json.dumps(turn)) for turn in request.prompt) // 4
        mean, windows = mean_and_windows(logprobs)
        return Completion(
            content=text,
            finish_reason="length" if cut else "stop",
            prompt_tokens=prompt_tokens,
            generated_tokens=tokens,
            max_tokens=most,
            mean_logprob=mean,
            window_logprobs=windows,
            confidences=sure if request.params.top_logprobs else None,
        )

    async def close(self) -> None:
        pass


def _made_up(text: str, tokens: int, params: SamplingParams) -> tuple[list[float], tuple[float, ...]]:
    """Log-probabilities and, if asked for, confidences."""
    level, *scatter = hashlib.shake_256(text.encode()).digest(tokens + 1)
    sure = tuple(round(4 + level / 32 + place / 64, 4) for place in scatter) if params.top_logprobs else ()
    return [-(level + place) / 256 for place in scatter], sure
