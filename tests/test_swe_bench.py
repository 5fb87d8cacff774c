"""Predictions as SWE-bench's harness reads them: one per instance, a whole patch or an empty one."""

import json
import os
import subprocess
import sys

import pytest

from pacore_lab.commands.swe_bench import main, patch_of, predictions
from pacore_lab.errors import DataError
from tests.lines import line

DIFF = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"
FENCED = f"<think>```diff\nno\n```</think>\nSo:\n```diff\n{DIFF}```\nDone."


@pytest.fixture
def folder(tmp_path):
    lines = [
        line("a__a-1", final_response=FENCED),
        line("b__b-2", final_response="I give up."),
        line("a__a-1", repeat=1, final_response=""),
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    settings = {"strategy": {"_target_": "strategies.pacore.PaCoRe"}, "model": {"name": "m"}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize(
    ("response", "patch"),
    [
        (FENCED, DIFF),
        (f"```diff\nfirst\n```\n```patch\n{DIFF}\n\n```", DIFF),
        (f"```diff\r\n{DIFF}```".replace("\n", "\r\n"), DIFF),
        (f"```diff\n{DIFF[:-1]}\r\n```", DIFF[:-1] + "\r\n"),
        (f"````diff\n{DIFF}+```\n````", DIFF + "+```\n"),
        (f"Here it is.\n{DIFF}", DIFF),
        (f"```\n{DIFF}```\nDone.", DIFF),
        (f"```diff\n{DIFF}</think>None.", ""),
        (f"```python\nx\n```\n{DIFF}", DIFF),
        ("```diff\n```", ""),
        ("```diff\n  \n```", ""),
        ("It is in diff --git a/x.", ""),
        ("", ""),
    ],
)
def test_the_patch_of_a_response(response, patch):
    assert patch_of(response) == patch


def test_one_prediction_per_instance_of_a_repeat(folder, capsys):
    assert main([str(folder)]) == 0
    said = capsys.readouterr()
    first, second = [json.loads(text) for text in said.out.splitlines()]
    assert first == {"instance_id": "a__a-1", "model_name_or_path": "PaCoRe-m", "model_patch": DIFF}
    assert second == {"instance_id": "b__b-2", "model_name_or_path": "PaCoRe-m", "model_patch": ""}
    assert said.err == "2 predictions of repeat 0, 1 of them without a patch\n"
    (again,) = predictions(folder, repeat=1, name="n")
    assert (again["model_name_or_path"], again["model_patch"]) == ("n", "")


def test_a_line_cut_by_a_kill_is_left_out(folder):
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"request_id": "c')
    assert len(predictions(folder)) == 2


def test_lines_of_unicode_separators_stay_whole(folder):
    """str.splitlines also ends a line at U+2028."""
    text = json.dumps(line("c__c-3", final_response="\u2028\x85" + FENCED), ensure_ascii=False)
    (folder / "results.jsonl").write_text(text + "\n", encoding="utf-8")
    assert predictions(folder)[0]["model_patch"] == DIFF


@pytest.mark.parametrize(
    ("break_it", "arguments", "wrong"),
    [
        (lambda folder: os.remove(folder / "results.jsonl"), [], "results.jsonl: cannot be read"),
        (lambda folder: os.remove(folder / "settings.json"), [], "no settings.json of a run there"),
        (lambda folder: (folder / "settings.json").write_text("[]"), [], "no settings.json of a run there"),
        (lambda folder: (folder / "results.jsonl").write_text("{\n{}\n"), [], "results.jsonl:1: not JSON"),
        (lambda folder: (folder / "results.jsonl").write_text(""), [], "no results of repeat 0 (there: none)"),
        (lambda folder: (folder / "results.jsonl").write_text("{}\n"), [], "results.jsonl:1: not a line of a run"),
        (lambda folder: (folder / "results.jsonl").write_bytes(b"\xff\n"), [], "results.jsonl: cannot be read"),
        (lambda folder: None, ["--repeat", "7"], "holds no results of repeat 7 (there: 0, 1)"),
    ],
)
def test_a_bad_folder_is_one_line(break_it, arguments, wrong, folder, capsys):
    break_it(folder)
    assert main([str(folder), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert wrong in said.err
    assert said.err.count("\n") == 1


def test_as_a_command(folder):
    done = subprocess.run(
        [sys.executable, "-m", "pacore_lab", "swe_bench", folder / "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    with pytest.raises(DataError, match="no settings.json"):
        predictions(folder / "none")
