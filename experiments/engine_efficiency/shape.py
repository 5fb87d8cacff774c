"""Writes a checkpoint folder with Qwen3's shape but no weights, for measuring speed: `load_format=dummy`.

    python -m experiments.engine_efficiency.shape FOLDER [--size 8b] [--weights]

The tokenizer is rlvr-tiny's; ids beyond it decode to nothing, which does no harm to text from random weights.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

TINY = Path(__file__).parents[1] / "tiny_models" / "rlvr-tiny"
SIZES: dict[str, dict[str, Any]] = {  # from the published configurations of Qwen/Qwen3-8B and Qwen/Qwen3-0.6B
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="8b")
    parser.add_argument("--weights", action="store_true", help="write random weights (bfloat16) for transformers")
    args = parser.parse_args()
    shutil.copytree(TINY, args.folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = Qwen3Config(
        **SIZES[args.size], num_key_value_heads=8, head_dim=128, vocab_size=151936, max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000}, tie_word_embeddings=args.size == "0.6b",
        eos_token_id=445, pad_token_id=443, bos_token_id=None, dtype="bfloat16", architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(args.folder)
    if args.weights:
        torch.set_default_dtype(torch.bfloat16)
        Qwen3ForCausalLM(config).save_pretrained(args.folder)


if __name__ == "__main__":
    main()
