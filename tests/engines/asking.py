"""Short ways to ask a real engine something, and what transformers says of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any

from pacore_lab.interfaces import Request
from pacore_lab.types import ChatMessage, Completion, SamplingParams
from tests.engines.conftest import QUIET, checkpoint

numbers = count()
QUESTION: ChatMessage = {"role": "user", "content": "What is 234 + 451? Put the final answer in \\boxed{}."}


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint())


@cache
def net() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint(), dtype="float32").eval()


def tokens_of(prompt: Sequence[ChatMessage]) -> list[int]:
    text = tokenizer().apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


def asking(
    prompt: tuple[ChatMessage, ...] = (QUESTION,), *, seed: int = 1, priority: int = 0, **params: Any
) -> Request:
    """Answered as the checkpoint was trained to, unless the temperature says otherwise."""
    drawn = SamplingParams(**{"temperature": 1 / QUIET, **params})
    return Request(id=f"r{next(numbers)}", prompt=prompt, params=drawn, seed=seed, priority=priority)


def rambling(seed: int = 1, **params: Any) -> Request:
    """Nearly uniform tokens: an answer ends after some 220 of them, and often after many more."""
    return asking(seed=seed, temperature=2.0, **params)


def encodes_back(completion: Completion) -> bool:
    """Whether its text has the tokens that were drawn: a model that improvises spells words in other pieces."""
    ended = completion.finish_reason == "stop"
    return (
        len(tokenizer()(completion.content, add_special_tokens=False)["input_ids"]) + ended
        == completion.generated_tokens
    )


def logprobs_of(prompt: Sequence[ChatMessage], completion: Completion, weights: Any = None) -> list[float]:
    """What transformers says of the same text: log-probability of each of its tokens, the end of turn included."""
    import torch

    asked, answer = tokens_of(prompt), tokenizer()(completion.content, add_special_tokens=False)["input_ids"]
    if completion.finish_reason == "stop":
        answer.append(tokenizer().eos_token_id)
    assert len(answer) == completion.generated_tokens
    with torch.inference_mode():
        logits = (weights or net())(torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()
