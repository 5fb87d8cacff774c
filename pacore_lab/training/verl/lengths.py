"""Leaves out problems whose longest P(x, M) is too long for the trainer.

    python -m pacore_lab.training.verl.lengths FILE --checkpoint FOLDER --prompt strategies.prompts.published --to FILE

verl silently cuts a prompt that is too long at its left. The data set refuses such a prompt when it is drawn, which
would end the training; this command removes them beforehand.
"""

from __future__ import annotations

import argparse
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pacore_lab.config.command import one_line_errors
from pacore_lab.errors import ConfigError, require_count
from pacore_lab.interfaces import PromptBuilder
from pacore_lab.training.records import Record, read_records
from pacore_lab.training.sieve import Sieved, add_arguments, finish
from pacore_lab.types import Message, Prompt

M_MAX = 24
TOKENS = 32768
_SPARE = 2  # tokens per message: joined texts and template may be tokenized differently


def prompt_builder(name: str) -> PromptBuilder:
    """What the factory of this dotted name makes, for instance `strategies.prompts.published`. Raises ConfigError."""
    try:
        builder: PromptBuilder = pkgutil.resolve_name(name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"prompt is {name!r}, which makes no prompt builder ({error}); name one like strategies.prompts.published"
        ) from None
    return builder


def token_counter(tokenizer: Any, chat: Mapping[str, Any] | None = None) -> Callable[[Prompt], int]:
    """Counts a conversation's tokens in the checkpoint's chat template, up to the start of its answer."""

    def count(prompt: Prompt) -> int:
        turns = [dict(turn) for turn in prompt]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **(chat or {}))
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def longest(record: Record, m_max: int, prompt: PromptBuilder, tokenizer: Any) -> int:
    """An upper bound on the tokens of P(x, M) for |M| up to m_max: with the longest messages, and a small margin."""
    count = token_counter(tokenizer)
    if not m_max:
        return count(prompt(record.problem, ()))
    sizes = [len(ids) for ids in tokenizer(list(record.responses), add_special_tokens=False)["input_ids"]]
    most = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)[:m_max]
    messages = [Message(text=record.responses[i], sources=()) for i in most]
    return count(prompt(record.problem, messages)) + _SPARE * len(messages)


def within(records: Iterable[Record], m_max: int, tokens: int, prompt: PromptBuilder, tokenizer: Any) -> Sieved:
    """Keep records that have m_max messages and whose longest prompt has at most `tokens` tokens."""
    kept: list[Record] = []
    dropped: Counter[str] = Counter()
    for record in records:
        if len(record.responses) < m_max:
            dropped[f"fewer than {m_max} messages"] += 1
        elif longest(record, m_max, prompt, tokenizer) > tokens:
            dropped[f"its longest prompt may exceed {tokens} tokens"] += 1
        else:
            kept.append(record)
    return Sieved(records=kept, dropped=dropped)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pacore_lab.training.verl.lengths",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="records: .jsonl or .parquet")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FOLDER", help="its tokenizer counts")
    parser.add_argument("--prompt", required=True, metavar="NAME", help="dotted name of the prompt builder's factory")
    parser.add_argument("--m-max", type=int, default=M_MAX, metavar="N", help="most messages shown; %(default)s")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help="data.max_prompt_length; %(default)s")
    add_arguments(parser)
    given = parser.parse_args()
    for key, value, least in (("--m-max", given.m_max, 0), ("--tokens", given.tokens, 1)):
        try:
            require_count(key, value, least=least)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    prompt = prompt_builder(given.prompt)
    tokenizer = _tokenizer(given.checkpoint)
    finish(within(read_records(given.file), given.m_max, given.tokens, prompt, tokenizer), given)


def _tokenizer(folder: Path) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # a broken checkpoint can raise anything in transformers
        raise ConfigError(
            f"--checkpoint {folder}: no usable tokenizer ({' '.join(str(error).split())[:200]}); name a folder with one"
        ) from None


if __name__ == "__main__":
    main()
