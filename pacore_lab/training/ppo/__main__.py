"""Train a small model on message pools, by PPO with a critic. Repeating an interrupted command continues the training.

    python -m pacore_lab ppo --model FOLDER --records FILE --out OUT --m-min 8 --m-max 16 --steps 300

OUT gets a line per step (log.jsonl), the last two checkpoints, and the policies (policy-STEP). --m-min 0 --m-max 0 is
the control: the bare problems.
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from pacore_lab.config.command import one_line_errors
from pacore_lab.config.stored import prompt_builder
from pacore_lab.errors import ConfigError
from pacore_lab.grading import MathGrader
from pacore_lab.grading.code import LcbSubprocess
from pacore_lab.interfaces import Grader
from pacore_lab.training.environment import SynthesisEnvironment
from pacore_lab.training.ppo.settings import Settings
from pacore_lab.training.ppo.training import train
from pacore_lab.training.records import read_records

TYPES: dict[str, type] = {"int": int, "float": float}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab ppo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="as save_pretrained writes it")
    parser.add_argument("--records", type=Path, required=True, metavar="FILE", help=".jsonl or .parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="the training's folder")
    parser.add_argument("--m-min", type=int, required=True, help="fewest messages shown")
    parser.add_argument("--m-max", type=int, required=True, help="most messages shown")
    parser.add_argument("--data-seed", type=int, default=0, help="seed of the order and message draws; %(default)s")
    parser.add_argument(
        "--prompt",
        default="strategies.prompts.published",
        metavar="NAME",
        help="the builder of P(x, M), as a _target_; %(default)s",
    )
    said = parser.add_argument_group("settings", "see pacore_lab.training.ppo.settings")
    for field in fields(Settings):
        option = f"--{field.name.replace('_', '-')}"
        if field.type == "bool":
            said.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
        elif field.default is MISSING:
            said.add_argument(option, type=TYPES[str(field.type)], required=True)
        else:
            said.add_argument(option, type=TYPES[str(field.type)], default=field.default, help="%(default)s")
    return parser


@one_line_errors
def main() -> None:
    given = _parser().parse_args()
    records = read_records(given.records)
    graders: dict[str, Grader] = {"math": MathGrader(), "code": LcbSubprocess(score="share")}
    target = {"strategy": {"_target_": given.prompt, "prompt": {"_target_": given.prompt}}}
    try:
        settings = Settings(**{field.name: getattr(given, field.name) for field in fields(Settings)})
        environment = SynthesisEnvironment(
            records=records,
            prompt=prompt_builder(target),
            graders={domain: graders[domain] for domain in sorted({record.domain for record in records})},
            m_min=given.m_min,
            m_max=given.m_max,
            seed=given.data_seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    policy, tokenizer = _load(given.model)
    train(policy, tokenizer, environment, settings, given.out)


def _load(folder: Path) -> tuple[Any, Any]:
    """Raises ConfigError if the folder does not hold a causal language model with a chat template."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"--model {folder} has no config.json; name a folder that save_pretrained wrote")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        policy = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except Exception as error:  # a broken checkpoint can raise anything in transformers
        raise ConfigError(f"--model {folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if tokenizer.chat_template is None:
        raise ConfigError(f"--model {folder}: the tokenizer has no chat template; add chat_template.jinja")
    return policy, tokenizer


if __name__ == "__main__":
    main()
