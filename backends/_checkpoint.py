"""The checkpoint behind `model.path`: finding it, fingerprinting it, and loading it with transformers."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from pacore_lab.errors import BackendError, ConfigError
from pacore_lab.types import Model

REPOSITORY = Path(__file__).resolve().parents[1]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
WEIGHTS = (".safetensors", ".bin")
TEXTS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
FULL_HASH_BYTES = 200_000_000
BLOCK, BLOCKS = 1 << 16, 64


def locate(model: Model) -> Path | None:
    """The local folder of `model.path` (as given, else relative to the repository), or None for a hub id.

    Raises ConfigError if it is not set, BackendError if it is neither; imports nothing heavy.
    """
    if model.path is None:
        raise ConfigError(f"model.path is not set for {model.name}: give a folder with weights, or a hub id")
    given = Path(model.path).expanduser()
    for folder in (given, REPOSITORY / given):
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise BackendError(
                    f"model.path={model.path}: the folder has no config.json (it holds {_listing(folder)}); "
                    "point model.path at the folder that save_pretrained wrote"
                )
            return folder.resolve()
    parents = [folder for folder in (given.parent, REPOSITORY / given.parent) if folder.is_dir()]
    if HUB_ID.fullmatch(model.path) and not parents:
        return None
    there = f" ({given.parent} holds {_listing(parents[0])})" if parents else ""
    raise BackendError(
        f"model.path={model.path}: no such folder{there}; give an existing one, or a hub id (owner/name)"
    )


def _listing(folder: Path) -> str:
    held = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return ", ".join(held[:8]) + (", ..." if len(held) > 8 else "") if held else "nothing"


def fingerprint(model: Model, folder: Path | None, commit: str | None) -> str:
    """Names what decides the distribution of samples: weights, tokenizer, chat template, dtype, RoPE and context.

    A folder is identified by the contents of its files (large weights by header, size and sampled blocks), so that it
    can be moved; a hub id by its commit.
    """
    digest = hashlib.sha256()
    if folder is None:
        digest.update(f"{model.path}@{commit or model.revision}".encode())
    else:
        weights = sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS)
        whole = sum(file.stat().st_size for file in weights) < FULL_HASH_BYTES
        for file in [folder / name for name in TEXTS if (folder / name).is_file()]:
            digest.update(f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        for file in weights:
            digest.update(f"{file.name}:{_hash_weights(file, whole)}\n".encode())
    settings = {
        "dtype": model.dtype,
        "context_length": model.context_length,
        "yarn": [model.yarn_factor, model.yarn_original],
        "chat_template_kwargs": dict(model.chat_template_kwargs),
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def _hash_weights(file: Path, whole: bool) -> str:
    with file.open("rb") as stream:
        if whole:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        if file.suffix == ".safetensors":
            length = int.from_bytes(stream.read(8), "little")
            digest.update(stream.read(length))
        for i in range(BLOCKS):
            stream.seek((size - BLOCK) * i // (BLOCKS - 1))
            digest.update(stream.read(BLOCK))
        return digest.hexdigest()


def load(model: Model, folder: Path | None, device: str) -> tuple[Any, Any]:
    """The model in eval mode on `device`, and its tokenizer. Raises BackendError in one line."""
    import torch
    import transformers

    config, tokenizer = load_tokenizer(model, folder)
    _stretch(config, model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        net = transformers.AutoModelForCausalLM.from_pretrained(
            **_source(model, folder), config=config, dtype=model.dtype
        )
        return net.to(device).eval(), tokenizer
    except Exception as error:
        raise _unusable(model, error) from error


def load_tokenizer(model: Model, folder: Path | None) -> tuple[Any, Any]:
    """The checkpoint's own config, and its tokenizer. Raises BackendError in one line."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(**_source(model, folder))
        return config, transformers.AutoTokenizer.from_pretrained(**_source(model, folder))
    except Exception as error:  # whatever a broken checkpoint makes transformers raise
        raise _unusable(model, error) from error


def _source(model: Model, folder: Path | None) -> dict[str, Any]:
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(folder or model.path)}
    return source | ({"revision": model.revision} if folder is None and model.revision else {})


def _unusable(model: Model, error: Exception) -> BackendError:
    return BackendError(f"model.path={model.path} cannot be loaded: {_one_line(error)}")


def context_of(model: Model, config: Any) -> int:
    """Tokens of prompt and answer together. Raises BackendError if the checkpoint cannot hold that many."""
    own = int(config.get_text_config().max_position_embeddings)
    if model.yarn_factor is not None:
        assert model.yarn_original is not None
        return model.context_length or int(model.yarn_factor * model.yarn_original)
    if model.context_length is not None and model.context_length > own:
        raise BackendError(
            f"model.context_length is {model.context_length} but {model.path} is made for at most {own} tokens; "
            "lower it, or set model.yarn_factor and model.yarn_original"
        )
    return model.context_length or own


def vocabulary_of(model: Model, config: Any) -> int:
    """How many tokens the model chooses from. Raises BackendError if model.top_logprobs asks for more."""
    size = int(config.get_text_config().vocab_size)
    if model.top_logprobs > size:
        raise BackendError(
            f"model.top_logprobs is {model.top_logprobs}, but {model.path} has {size} tokens to choose from; lower it"
        )
    return size


def config_overrides(model: Model, config: Any) -> dict[str, Any]:
    """YaRN's changes to the checkpoint's config; {} without YaRN. Keys are those of a transformers config.json."""
    if model.yarn_factor is None:
        return {}
    rope = {
        **config.get_text_config().rope_parameters,
        "rope_type": "yarn",
        "factor": model.yarn_factor,
        "original_max_position_embeddings": model.yarn_original,
        "attention_factor": 1.0,  # the attention temperature stays as the model was trained
    }
    return {"max_position_embeddings": context_of(model, config), "rope_parameters": rope}


def _stretch(config: Any, model: Model) -> None:
    """Apply model.context_length and YaRN to a transformers config, in place."""
    context_of(model, config)  # refuses too long a context
    for key, value in config_overrides(model, config).items():
        setattr(config.get_text_config(), key, value)


def stop_tokens(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a turn, from the generation config and the tokenizer."""
    eos = generation_config.eos_token_id
    ids = eos if isinstance(eos, list) else [eos]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
