"""Copies a checkpoint and writes YaRN into the copy's config, for the trainer and the engine alike.

    python -m pacore_lab.training.verl.checkpoint FOLDER --to FOLDER [--factor 2.0] [--original 65536]

verl's override_config does not reach RoPE on current transformers. The attention temperature stays unchanged
(attention_factor 1, as in `model=pacore_8b`). For transformers 5 and vLLM; SGLang has no attention_factor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pacore_lab.config.command import one_line_errors
from pacore_lab.errors import ConfigError
from pacore_lab.showing.text import safe

FACTOR, ORIGINAL = 2.0, 65536


def stretched(found: Mapping[str, Any], factor: float = FACTOR, original: int = ORIGINAL) -> dict[str, Any]:
    """A config.json with YaRN, whether its rope_theta is inside rope_parameters (transformers 5) or on its own (4).

    factor: the context becomes this multiple of `original` tokens, the context in training. Raises ConfigError if there
    is RoPE scaling already, or no theta.
    """
    if factor < 1 or original < 1:
        raise ConfigError(f"--factor {factor:g} and --original {original}; give 1 or more for both")
    rope = dict(found.get("rope_parameters") or found.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"its config.json already has RoPE of type {kind!r}; name the checkpoint as it was trained")
    theta = rope.get("rope_theta", found.get("rope_theta"))
    if theta is None:
        raise ConfigError("its config.json has no rope_theta; RoPE cannot be scaled without it")
    others = {key: value for key, value in found.items() if key not in ("rope_scaling", "rope_theta")}
    return {
        **others,
        "max_position_embeddings": int(factor * original),
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": factor,
            "original_max_position_embeddings": original,
            "attention_factor": 1.0,
        },
    }


def prepare(source: Path, to: Path, factor: float = FACTOR, original: int = ORIGINAL) -> None:
    """Copy a checkpoint to the new folder `to`, hard-linking weights and tokenizer if the file system can."""
    if not (source / "config.json").is_file():
        raise ConfigError(f"{source} has no config.json; name a checkpoint folder (from the hub: hf download)")
    if to.exists():
        raise ConfigError(f"{to} already exists; name a new folder")
    try:
        made = stretched(json.loads((source / "config.json").read_text("utf-8")), factor, original)
    except ValueError as error:
        raise ConfigError(f"{source}/config.json is not JSON ({error})") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    draft = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name != "config.json":
                _link_or_copy(file.resolve(), draft / file.name)  # the hub's cache holds links
        (draft / "config.json").write_text(json.dumps(made, indent=2) + "\n", "utf-8")
        draft.rename(to)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written ({error.strerror}); name another folder") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _link_or_copy(file: Path, to: Path) -> None:
    try:
        to.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, to)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab.training.verl.checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the checkpoint as it was trained")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the copy goes")
    parser.add_argument("--factor", type=float, default=FACTOR, help="context multiplier; %(default)s")
    parser.add_argument("--original", type=int, default=ORIGINAL, metavar="N", help="tokens as trained; %(default)s")
    given = parser.parse_args()
    prepare(given.folder, given.to, given.factor, given.original)
    said = f"checkpoint  {given.to} ({int(given.factor * given.original)} tokens)"
    Console().print(Text(safe(said)), soft_wrap=True)


if __name__ == "__main__":
    main()
