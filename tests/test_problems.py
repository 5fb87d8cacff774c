"""Problem files: both formats read faithfully, every mistake named by file and line."""

import json
from pathlib import Path

import pytest
import yaml

from pacore_lab.errors import DataError
from pacore_lab.problems import JSONL, Ask

CONF = Path(__file__).parents[1] / "conf" / "problems"
TURN = '{"role": "user", "content": "1 + 1 = ?"}'


@pytest.fixture
def load(tmp_path):
    """Writes a file and loads it; `load.path` is where."""

    def load(content):
        load.path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return JSONL(path=str(load.path)).load()

    load.path = tmp_path / "problems.jsonl"
    return load


def test_the_published_format(load):
    """As in the sample questions of the published client; a line without an id is named by its place."""
    messages = [
        {"role": "system", "content": "Be brief.", "name": "s"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "Hm?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
        {"role": "user", "content": "Area?", "reasoning_content": "kept"},
    ]
    lines = [
        {"id": "math_002", "messages": messages, "ground_truth": {"answer": "32 cm²"}, "category": "math"},
        {"messages": messages[:1] + messages[1:2]},
        {"id": 7, "messages": messages[4:], "ground_truth": {"answer": 5050}},
        {"messages": messages[4:], "ground_truth": None},
        {"messages": messages[4:], "ground_truth": {"test_cases": []}},
    ]
    problems = load("\n\n".join(json.dumps(line) for line in lines) + "\n  \n")
    assert [problem.id for problem in problems] == ["math_002", "req_1", "7", "req_3", "req_4"]
    assert [problem.answer for problem in problems] == ["32 cm²", None, "5050", None, None]
    assert list(problems[0].messages) == messages
    assert list(problems[1].messages) == messages[:2]


def test_the_plain_format(load):
    problems = load(
        '\ufeff{"question": "1 + 1 = ?", "answer": 2}\r\n'
        '{"question": "π?", "answer": 3.14159265358979323846, "id": "pi"}\r\n'
        '{"question": "Why?", "answer": ""}\n'
        '{"question": "Why not?", "answer": null}'
    )
    assert [problem.id for problem in problems] == ["req_0", "pi", "req_2", "req_3"]
    assert [problem.answer for problem in problems] == ["2", "3.14159265358979323846", None, None]
    assert problems[1].messages == ({"role": "user", "content": "π?"},)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('{"question": "a"', "not JSON: "),
        ("[" * 100_000, "not usable JSON: "),
        ('{"question": "a", "answer": NaN}', "not usable JSON: NaN"),
        (f'{{"question": "a", "answer": {"9" * 5000}}}', "not usable JSON: "),
        ('{"question": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"question": "\xff"}', "not UTF-8 (byte 15 of the line)"),
        ("[1]", "a JSON list, not an object"),
        ("{}", 'neither "messages" nor "question"'),
        ('{"question": " "}', "question is not a text"),
        ('{"question": ["a"]}', "question is not a text"),
        ('{"question": "a", "answer": true}', "answer is neither a text nor a number"),
        ('{"question": "a", "answer": ["2"]}', "answer is neither a text nor a number"),
        ('{"question": "a", "id": ""}', "id is neither a text nor an integer"),
        ('{"question": "a", "id": 1.5}', "id is neither a text nor an integer"),
        (f'{{"messages": [{TURN}], "ground_truth": "2"}}', "ground_truth is not an object"),
        (f'{{"messages": [{TURN}], "ground_truth": {{"answer": {{}}}}}}', "ground_truth.answer is neither"),
        ('{"messages": "a"}', "messages is not a list of turns"),
        ('{"messages": ["a"]}', "messages is not a list of turns"),
        ('{"messages": []}', 'no turn has role "user"'),
        ('{"messages": [{"role": "system", "content": "a"}]}', 'no turn has role "user"'),
        (
            f'{{"messages": [{TURN}, {{"role": "robot", "content": "a"}}]}}',
            'messages[1].role is "robot"; use one of sys',
        ),
        ('{"messages": [{"content": "a"}]}', "messages[0].role is missing"),
        ('{"messages": [{"role": ["user"], "content": "a"}]}', 'messages[0].role is ["user"]'),
        ('{"messages": [{"role": "user"}]}', "messages[0].content is missing"),
        ('{"messages": [{"role": "user", "content": 5}]}', "messages[0].content is 5"),
        ('{"messages": [{"role": "user", "content": ["a"]}]}', "messages[0].content: a part is malformed"),
        ('{"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}', "messages[0].content: a part"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "the last user turn holds no text"),
        (f'{{"messages": [{TURN}, {{"role": "user", "content": ""}}]}}', "the last user turn holds no text"),
        ('{"question": "a", "id": "first"}', 'id "first" is already used on line 1'),
        ('{"question": "a", "id": "req_1"}', 'id "req_1" is already used on line 2'),
    ],
    ids=lambda text: str(text)[:40],
)
def test_a_mistake_is_named_by_line_and_how_to_mend_it(load, line, wrong):
    line = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(DataError) as caught:
        load(b'{"question": "a", "id": "first"}\n{"question": "a"}\n\n' + line + b'\n{"question": "a"}\n')
    message = str(caught.value)
    assert message.startswith(f"{load.path}:4: {wrong}")
    assert "; " in message
    assert "\n" not in message
    assert len(message) < 250 + len(str(load.path))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_set_is_refused(load, content):
    with pytest.raises(DataError, match="holds no problems; write one per line"):
        load(content)


def test_a_path_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: No such file or directory; set problems\.path to"):
        JSONL(path=str(tmp_path / "none.jsonl")).load()
    with pytest.raises(DataError, match=r"Is a directory; set problems\.path to"):
        JSONL(path=str(tmp_path)).load()


def test_ask():
    (problem,) = Ask(question="What is 17 * 24?").load()
    assert (problem.id, problem.answer) == ("ask", None)
    assert problem.messages == ({"role": "user", "content": "What is 17 * 24?"},)
    assert Ask(question="What is 17 * 24?", answer=408).load()[0].answer == "408"
    with pytest.raises(ValueError, match=r"^problems\.question is empty; ask something, e\.g\. "):
        Ask(question=" \n")


@pytest.mark.parametrize(("name", "keys"), [("jsonl", {"path": "???"}), ("ask", {"question": "???", "answer": None})])
def test_conf_lists_every_argument(name, keys):
    conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert conf.pop("_target_") in ("pacore_lab.problems.JSONL", "pacore_lab.problems.Ask")
    assert conf == keys
