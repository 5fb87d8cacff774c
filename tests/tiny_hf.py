"""A random-weight model small enough to run in tests, and short ways to ask the HF backend something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from backends._hf_rows import Row
from backends.hf import HF
from pacore_lab.interfaces import Request
from pacore_lab.types import Completion, Model, SamplingParams

CONTEXT = 400
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'bad' %}{{ raise_exception('no such role') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if think %}<think>{% endif %}{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # far from uniform, so that greedy choices are never near ties
    "bos_token_id": None,
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    bytes_only = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens(
        [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    bytes_only.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def ship(folder: Path, tokenizer: PreTrainedTokenizerFast, net: Any) -> Path:
    net.generation_config.eos_token_id = [tokenizer.eos_token_id]
    net.generation_config.pad_token_id = tokenizer.pad_token_id
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def net(tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SHAPE)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, net: Any) -> Path:
    return ship(tmp_path_factory.mktemp("tiny"), tokenizer, net)


class Running:
    """`async with Running(HF(...)) as ask`: ask(text, seed=, ...) completes one request."""

    def __init__(self, backend: HF) -> None:
        self.backend = backend

    async def __aenter__(self) -> Running:
        await self.backend.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.backend.close()

    async def __call__(
        self, text: str, *, seed: int = 0, on_chunk: Any = None, role: str = "user", **params: Any
    ) -> Completion:
        prompt = ({"role": role, "content": text},)
        request = Request(id=f"{seed}", prompt=prompt, params=SamplingParams(**params), seed=seed)  # type: ignore[arg-type]
        return await self.backend.complete(request, on_chunk)


def backend(folder: Path, **options: Any) -> HF:
    settings = {key: options.pop(key) for key in list(options) if key in Model.__dataclass_fields__}
    return HF(model=Model(name="tiny", path=str(folder), **settings), **{"max_batch": 8, "threads": 1, **options})


def plain_greedy(net: Any, tokenizer: Any, text: str, max_tokens: int) -> tuple[Any, int]:
    """Token ids [1, prompt + answer] of `generate` on this one prompt, and the length of the prompt."""
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False, return_tensors="pt"
    )
    out = net.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens)
    return out, ids.shape[1]


def mixed(n: int, seed: int = 0) -> list[tuple[str, int]]:
    """(text, max_tokens) of all lengths, some texts asked for several times, some answers past the first bucket."""
    rng = np.random.default_rng(seed)
    texts = ["".join(chr(c) for c in rng.integers(97, 123, size)) for size in rng.integers(1, 200, n)]
    return [(texts[i if i % 3 else i // 2], int(rng.integers(1, 150 if i % 4 == 0 else 50))) for i in range(n)]


def rows(n: int, **settings: Any) -> list[Row]:
    common: dict[str, Any] = {
        "prompt": [1], "key": "", "order": (0, 0), "max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "logprobs": False
    }  # fmt: skip
    return [Row(seed=seed, **{**common, **settings}) for seed in range(n)]
