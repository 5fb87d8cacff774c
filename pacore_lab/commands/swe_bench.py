"""Predictions for SWE-bench's official harness (github.com/SWE-bench/SWE-bench), from a run's folder.

    python -m pacore_lab swe_bench RUN_FOLDER > predictions.jsonl
    python -m swebench.harness.run_evaluation --dataset_name princeton-nlp/SWE-bench_Verified \\
        --predictions_path predictions.jsonl --run_id NAME

The run's problem ids are instance ids. A patch is the last ```diff (or ```patch) block of the conclusion, or else the
text from the first bare "diff --git" on. The harness takes one prediction per instance: one file per repeat (--repeat).
An answer without a patch is exported as an empty patch, which the harness counts apart; stderr says how many.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pacore_lab.errors import DataError
from pacore_lab.types import conclusion

_FENCED = re.compile(r"^(`{3,})(?:diff|patch)[ \t\r]*\n(.*?)^\1`*[ \t\r]*$", re.DOTALL | re.MULTILINE)
_BARE = re.compile(r"^diff --git a/", re.MULTILINE)


def patch_of(response: str) -> str:
    """The patch of a response, ending in a newline as `git apply` wants it; "" if there is none."""
    text = conclusion(response)
    if text.count("\n") == text.count("\r\n"):  # else the file itself has such line ends, to be kept
        text = text.replace("\r\n", "\n")
    if blocks := _FENCED.findall(text):
        patch = blocks[-1][1]
    elif bare := _BARE.search(text):
        patch = text[bare.start() :].partition("\n```")[0]
    else:
        return ""
    return patch.rstrip("\n") + "\n" if patch.strip() else ""


def predictions(folder: Path, repeat: int = 0, name: str | None = None) -> list[dict[str, str]]:
    """One prediction per problem of one repeat, with the harness's keys.

    name: model_name_or_path; None takes strategy and model from the folder's settings. Raises DataError: one line.
    """
    name = name or _name(folder)
    found: dict[str, str] = {}
    repeats = set()
    for number, line in enumerate(_lines(folder / "results.jsonl"), start=1):
        try:
            instance, which, response = line["request_id"], line["repeat"], line["final_response"]
        except (KeyError, TypeError):
            raise DataError(f"{folder / 'results.jsonl'}:{number}: not a line of a run of this lab") from None
        repeats.add(which)
        if which == repeat:
            found[instance] = patch_of(response)
    if not found:
        there = ", ".join(map(str, sorted(repeats))) or "none"
        raise DataError(f"{folder}: holds no results of repeat {repeat} (there: {there}); give another --repeat")
    return [
        {"instance_id": instance, "model_name_or_path": name, "model_patch": patch} for instance, patch in found.items()
    ]


def _name(folder: Path) -> str:
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        strategy = settings["strategy"]["_target_"].rpartition(".")[2]
        return f"{strategy}-{settings['model']['name']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{folder}: no settings.json of a run there; name a run's folder") from None


def _lines(path: Path) -> Iterator[Any]:
    """The lines of a file, without a last one that a kill cut short. Raises DataError."""
    cut = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                if cut:
                    raise DataError(f"{path}:{cut}: not JSON; it is not a run's results.jsonl")
                try:
                    yield json.loads(text)
                except ValueError:
                    cut = number
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); name a run's folder") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pacore_lab swe_bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="a run's folder (out=)")
    parser.add_argument("--repeat", type=int, default=0, help="which repeat to export (default 0)")
    parser.add_argument("--name", help="model_name_or_path; by default strategy and model")
    chosen = parser.parse_args(arguments)
    try:
        made = predictions(chosen.folder, chosen.repeat, chosen.name)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.write("".join(json.dumps(each) + "\n" for each in made))
    empty = sum(not each["model_patch"] for each in made)
    print(f"{len(made)} predictions of repeat {chosen.repeat}, {empty} of them without a patch", file=sys.stderr)
    return 0
