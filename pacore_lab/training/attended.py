"""The attention a response pays to each message it was shown, measured with a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacore_lab.analysis.methods import Floats
from pacore_lab.errors import ConfigError
from pacore_lab.training.syntheses import Rebuilt, mark

HELD = 64_000_000
"""Attention weights in memory at once: 256 MB of float32. The model reads a response in pieces that fit."""
SERIES = ("all", "right", "wrong")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Paid:
    """The attention in one synthesis, arrays [messages]. shares: of a response token's attention, averaged over tokens,
    layers and heads. ratios: share over that of evenly spread attention, nan for a message without tokens. scores: nan
    if not graded.
    """

    problem: str
    shares: Floats
    ratios: Floats
    scores: Floats

    def of(self, series: str) -> Floats:
        """The ratios of the messages in one of `SERIES`; nan for the other messages."""
        wanted = {"all": np.full(len(self.ratios), True), "right": self.scores == 1, "wrong": self.scores == 0}
        return np.where(wanted[series], self.ratios, np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """A checkpoint that gives out its attention weights."""

    net: Any
    tokenizer: Any
    template: dict[str, Any]
    context: int

    @classmethod
    def load(cls, folder: Path, template: dict[str, Any]) -> Reader:
        """template: keyword arguments of the chat template. Raises ConfigError if the folder cannot be loaded."""
        if not (folder / "config.json").is_file():
            raise ConfigError(f"--model {folder} is not a checkpoint folder (no config.json); name one")
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            net = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype="auto")
        except Exception as error:  # transformers can raise anything here
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"--model {folder} cannot be loaded: {reason}") from None
        if not tokenizer.is_fast or tokenizer.chat_template is None:
            raise ConfigError(f"--model {folder}: its tokenizer is not a fast one with a chat template")
        net = net.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        context = int(net.config.get_text_config().max_position_embeddings)
        return cls(net=net, tokenizer=tokenizer, template=template, context=context)

    def read(self, item: Rebuilt) -> Paid | str:
        """The attention the response paid, or why it is unknown. The response is tokenized again, after the prompt."""
        try:
            text, frame = (
                self.tokenizer.apply_chat_template(
                    list(prompt), add_generation_prompt=True, tokenize=False, **self.template
                )
                for prompt in (item.prompt, item.frame)
            )
        except Exception as error:  # a chat template can raise anything
            return f"refused by the chat template: {' '.join(str(error).split())[:80]}"
        spans = spans_of(text, frame, item.messages)
        if spans is None:
            return "its messages are not found in its prompt"
        asked = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        said = self.tokenizer(item.response, add_special_tokens=False)["input_ids"]
        tokens = [*asked["input_ids"], *said]
        if not said:
            return "its response has no tokens"
        if len(tokens) > self.context:
            return f"longer than the context of the model, {self.context:,} tokens"
        starts = np.array([start for start, _ in asked["offset_mapping"]])
        mass = attention(self.net, tokens, len(starts))
        inside = [(starts >= start) & (starts < stop) for start, stop in spans]
        shares = np.array([mass[: len(starts)][each].sum() for each in inside])
        even = np.mean([1 / (place + 1) for place in range(len(starts), len(tokens))])
        counts = np.array([each.sum() for each in inside], dtype=np.float64)
        return Paid(
            problem=item.problem,
            shares=shares,
            ratios=np.divide(shares, counts * even, out=np.full(len(shares), np.nan), where=counts > 0),
            scores=np.array([np.nan if score is None else score for score in item.scores]),
        )


def spans_of(text: str, frame: str, messages: Sequence[str]) -> list[tuple[int, int]] | None:
    """Each message's span in `text`, found from `frame`, the same text with marks for messages; None if they differ.

    Searching for the messages themselves would find a short answer inside the problem.
    """
    spans, built, rest = [], "", frame
    for number, message in enumerate(messages):
        before, _, rest = rest.partition(mark(number))
        built += before
        spans.append((len(built), len(built) + len(message)))
        built += message
    return spans if built + rest == text else None


def attention(net: Any, tokens: Sequence[int], first: int, held: int = HELD) -> Floats:
    """[tokens]: attention to each token from the tokens at `first` and later, averaged over them, layers and heads.

    Sums to 1. held: weights in memory at once. Raises ConfigError if some layers do not see the whole text.
    """
    import torch

    heads = net.config.get_text_config().num_attention_heads
    layers = net.config.get_text_config().num_hidden_layers
    total, ids = len(tokens), torch.tensor([list(tokens)], device=net.device)
    mass: Floats = np.zeros(total)
    done, cache = 0, None
    while done < total:
        paying = done >= first
        size = max(1, held // (heads * total * (layers if paying else 1)))
        stop = min(done + size, total if paying else first)
        with torch.inference_mode():
            made = net(ids[:, done:stop], past_key_values=cache, use_cache=True, output_attentions=paying,
                       logits_to_keep=1)  # fmt: skip
        cache, done = made.past_key_values, stop
        for weights in made.attentions if paying else ():
            if weights is None or weights.shape[-1] != stop:
                raise ConfigError("some layers of the model see only a part of the text and lack these weights")
            mass[:stop] += weights[0].double().sum(dim=(0, 1)).cpu().numpy()
    paid: Floats = mass / mass.sum()
    return paid
