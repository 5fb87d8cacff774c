"""A copy of a checkpoint whose own config says YaRN, for trainer and engine alike.

    python -m pacore_lab.training.verl.checkpoint FOLDER --to FOLDER [--factor 2.0] [--original 65536]

verl's override_config does not reach RoPE on current transformers. The attention temperature stays as it was
(attention_factor 1, as in `model=pacore_8b`). For transformers 5 and vLLM; SGLang knows no attention_factor.
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
    """A config.json with YaRN, whether its rope_theta stands in rope_parameters (transformers 5) or alone (4).

    factor: of `original` tokens, which the model was trained with. Raises ConfigError where there is RoPE scaling
    already, and where there is no theta.
    """
    if factor < 1 or original < 1:
        raise ConfigError(f"--factor {factor:g} and --original {original}; give 1 or more for both")
    rope = dict(found.get("rope_parameters") or found.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"its config.json has RoPE of type {kind!r} already; name the checkpoint as it was trained")
    theta = rope.get("rope_theta", found.get("rope_theta"))
    if theta is None:
        raise ConfigError("its config.json has no rope_theta; RoPE cannot be scaled without")
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
    """Weights and tokenizer are linked where the file system can, else copied. `to` must not be there yet."""
    if not (source / "config.json").is_file():
        raise ConfigError(
            f"{source} has no config.json; name the folder of a checkpoint (for one of the hub: hf download)"
        )
    if to.exists():
        raise ConfigError(f"{to} is there already; name a new folder")
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
                _link_or_copy(file.resolve(), draft / file.name)  # hub caches hold links
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
    parser.add_argument("--factor", type=float, default=FACTOR, help="times as many tokens; %(default)s")
    parser.add_argument("--original", type=int, default=ORIGINAL, metavar="N", help="tokens as trained; %(default)s")
    given = parser.parse_args()
    prepare(given.folder, given.to, given.factor, given.original)
    said = f"checkpoint  {given.to} ({int(given.factor * given.original)} tokens)"
    Console().print(Text(safe(said)), soft_wrap=True)


if __name__ == "__main__":
    main()
