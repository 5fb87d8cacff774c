"""The published sets, from small local files of the same shape, and what happens to copies that are not."""

import csv
import datetime
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacore_lab.config import schema  # noqa: F401  (registers the schema of the root keys)
from pacore_lab.errors import DataError
from pacore_lab.problems import AIME2025, HLEText, HMMTFeb2025, IMOAnswerBench, LiveCodeBench, PaCoReTrain8k
from pacore_lab.results.line import truth_of

CONF = Path(__file__).parents[1] / "conf"
TURNS = [
    {"role": "user", "content": "Be brief. Hi?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "And now?"},
]


def aime(n: int, answer: object = 70) -> dict:
    return {"problem_idx": n, "problem": f"Find {n}, é\u2028.", "answer": answer}


def code(n: int, **changed: object) -> dict:
    case = {"input": f"{n}\n", "output": "ok\n", "testtype": "stdin"}
    return {
        "question_title": "A",
        "question_content": f"Say ok {n}.",
        "platform": "atcoder",
        "question_id": f"abc{n}",
        "contest_id": "abc",
        "contest_date": "2024-09-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([case]),
        "private_test_cases": json.dumps([case | {"input": "private"}]),
        "metadata": "{}",
        **changed,
    }


def imo(n: int) -> dict:
    return {
        "Problem ID": f"imo-bench-algebra-{n:03}",
        "Problem": 'Say "a,\nb".\n',
        "Short Answer": "007",
        "Category": "Algebra",
        "Subcategory": "Operation",
        "Source": "IMO Shortlist 2021",
    }


def hle(n: int, image: object = "") -> dict:
    return {
        "id": f"66{n}",
        "question": f"Why {n}?",
        "image": image,
        "answer": "3.10",
        "answer_type": "exactMatch",
        "rationale": "",
        "raw_subject": "Algebra",
        "category": "Math",
    }


def multi(n: int, **changed: object) -> dict:
    return {
        "question_id": f"q{n}",
        "axis": "INFERENCE_MEMORY",
        "conversation": TURNS,
        "target_question": "Is it?",
        "pass_criteria": "YES",
        **changed,
    }


def train(truth: object) -> dict:
    return {"conversation": TURNS[:1], "responses": ["a", "b"], "ground_truth": truth}


ROWS = {
    "aime_2025": [aime(1, 70), aime(2, 7)],
    "hmmt_feb_2025": [aime(1, "\\frac{1}{2}") | {"problem_type": ["Algebra", "Geometry"]}],
    "apex_2025": [aime(1, "1/2") | {"source": "Turkey MO"}],
    "imo_answerbench": [imo(1), imo(2)],
    "livecodebench": [code(1), code(2)],
    "hle_text": [hle(1), hle(2)],
    "multichallenge": [multi(1), multi(2)],
    "pacore_train_8k_stage1": [train("7"), train("\\{1, 2\\}")],
    "pacore_train_8k_stage2": [train("7")],
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf")


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("\ufeff\n" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
        case ".json":
            path.write_text(json.dumps(rows), "utf-8")
        case ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                nested = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
                writer.writerows(nested)
    return path


def by_name(name: str, *overrides: str) -> object:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [f"problems={name}", *overrides])
    return instantiate(composed.problems, _convert_="all")


# ---- by name, from every kind of file ----


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("name", ROWS)
def test_every_set_loads_by_name_from_every_kind_of_file(name, kind, tmp_path):
    """A set that loads from parquet only, or whose values a CSV's or JSON's guessed types change (70 to 7e1)."""
    path = write(tmp_path / f"copy [1]{kind}", ROWS[name])
    problem_set = by_name(name, f"problems.path='{path}'")
    problems = problem_set.load()
    assert len(problems) == len(ROWS[name])
    assert len({problem.id for problem in problems}) == len(problems)
    assert all(problem.gradable and problem.messages[-1]["role"] == "user" for problem in problems)
    assert problem_set.origin.startswith(f"{path} (sha256 ")
    reference = by_name(name, f"problems.path='{write(tmp_path / 'again.parquet', ROWS[name])}'").load()
    assert [truth_of(problem) for problem in problems] == [truth_of(problem) for problem in reference]
    if kind != ".csv" or name != "hmmt_feb_2025":  # a list in a CSV is whatever its writer made of it
        assert [(p.id, p.messages, p.group) for p in problems] == [(p.id, p.messages, p.group) for p in reference]


@pytest.mark.parametrize("name", [name for name in ROWS if not name.startswith("pacore_train")])
def test_a_configuration_shows_the_defaults_of_its_class(name):
    """A YAML that drifted from its class: two sets under one name."""
    problem_set = by_name(name)
    assert problem_set == type(problem_set)()
    assert len(problem_set.revision) == 40
    assert set(problem_set.revision) <= set("0123456789abcdef")


def test_a_folder_as_the_hub_lays_it_out(tmp_path):
    """All files of the split in order, those of other splits and hidden ones left alone."""
    for place, name in enumerate(["test-00000-of-00002", "test-00001-of-00002", "train-00000-of-00001", ".x/test"]):
        write(tmp_path / "data" / f"{name}.parquet", [hle(place)])
    (tmp_path / "README.md").write_text("a card")
    assert [problem.id for problem in HLEText(path=str(tmp_path)).load()] == ["660", "661"]


def test_a_folder_with_names_of_its_own(tmp_path):
    write(tmp_path / "b.jsonl", [aime(2)])
    write(tmp_path / "a.jsonl", [aime(1)])
    assert [problem.id for problem in AIME2025(path=str(tmp_path)).load()] == ["aime_2025-1", "aime_2025-2"]


def test_stages_in_folders(tmp_path):
    for stage in (1, 2):
        write(tmp_path / f"stage{stage}" / "data.parquet", [train(f"{stage}")])
        (problem,) = PaCoReTrain8k(path=str(tmp_path), stage=stage).load()
        assert (problem.id, problem.answer) == (f"stage{stage}-0", f"{stage}")


def test_the_version_of_imo_answerbench_is_the_file(tmp_path):
    write(tmp_path / "answerbench.csv", [imo(1)])
    write(tmp_path / "answerbench_v2.csv", [imo(2)])
    write(tmp_path / "gradingbench.csv", [{"Grading ID": 1}])
    for version in (1, 2):
        (problem,) = IMOAnswerBench(path=str(tmp_path), version=version).load()
        assert problem.id == f"imo-bench-algebra-00{version}"
        assert problem.messages[0]["content"].endswith('Say "a,\nb".\n')


@pytest.mark.parametrize(
    "written", ['"3.10"', "3.10", '"007"', "70", '"1e400"', "123456789012345678901234567890", '"NaN"']
)
def test_json_answers_stay_as_written(written, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"problem_idx": 1, "problem": "?", "answer": {written}}}\n')
    assert AIME2025(path=str(path)).load()[0].answer == written.strip('"')


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1))
def test_any_answer_survives_a_csv_and_json_lines(answer, tmp_path_factory):
    """`datasets` reads "007" as 7, "NA" as nothing and "2024-01-01" as a date."""
    folder = tmp_path_factory.mktemp("any")
    for kind in (".csv", ".jsonl"):
        assert AIME2025(path=str(write(folder / f"a{kind}", [aime(1, answer)]))).load()[0].answer == answer


def test_a_rewritten_file_is_read_again(tmp_path):
    """`datasets` keeps a converted copy."""
    path = write(tmp_path / "a.jsonl", [aime(1, "1")])
    first = AIME2025(path=str(path))
    assert first.load()[0].answer == "1"
    write(path, [aime(1, "22")])
    second = AIME2025(path=str(path))
    assert second.load()[0].answer == "22"
    assert first.origin != second.origin


# ---- what each set makes of its rows ----


def test_contests(tmp_path):
    (problem,) = HMMTFeb2025(path=str(write(tmp_path / "a.parquet", ROWS["hmmt_feb_2025"]))).load()
    assert problem.group == "Algebra, Geometry"
    assert problem.messages[0]["content"] == "Put your final answer within \\boxed{}.\n\nFind 1, é\u2028."
    (problem,) = HMMTFeb2025(path=str(tmp_path / "a.parquet"), instruction="").load()
    assert problem.messages[0]["content"] == "Find 1, é\u2028."


def test_hle_leaves_images_out(tmp_path):
    rows = [hle(1), hle(2, "data:image/png;base64,AAAA"), hle(3, None)]
    problems = HLEText(path=str(write(tmp_path / "a.parquet", rows))).load()
    assert [problem.id for problem in problems] == ["661", "663"]
    assert [turn["role"] for turn in problems[0].messages] == ["system", "user"]
    assert problems[0].messages[0]["content"].endswith("your answer}")
    assert problems[0].reference["answer_type"] == "exactMatch"
    (problem, _) = HLEText(path=str(tmp_path / "a.parquet"), system=None).load()
    assert [turn["role"] for turn in problem.messages] == ["user"]


def test_multichallenge_reads_both_shapes_of_a_conversation(tmp_path):
    """`datasets` before version 4 turned a list of turns into a turn of lists."""
    turned = {key: [turn[key] for turn in TURNS] for key in ("role", "content")}
    write(tmp_path / "a.parquet", [multi(1, conversation=turned)])
    (problem,) = by_name("multichallenge", f"problems.path={tmp_path}/a.parquet").load()
    assert list(problem.messages) == TURNS
    assert dict(problem.reference) == {"axis": "INFERENCE_MEMORY", "question": "Is it?", "pass_criteria": "YES"}
    assert problem.answer is None


@pytest.mark.parametrize(
    ("truth", "answer", "tests"),
    [
        ("5050", "5050", None),
        ('{"answer": 3.10}', "3.10", None),
        ("[1, 2]", "[1, 2]", None),
        ("{1, 2}", "{1, 2}", None),
        ({"answer": "x", "inputs": None}, "x", None),
        ('{"inputs": ["1\\n"], "outputs": ["2\\n"]}', None, ("1\n", "2\n", "stdin", None)),
        ('{"inputs": [[1.5]], "outputs": [2], "fn_name": "f"}', None, ("[1.5]", "2", "functional", "f")),
        ([{"input": "1", "output": "2"}], None, ("1", "2", "stdin", None)),
    ],
)
def test_pacore_train_8k_answers_and_tests(truth, answer, tests, tmp_path):
    path = write(tmp_path / "a.jsonl", [train(truth)])
    (problem,) = PaCoReTrain8k(path=str(path)).load()
    assert problem.id == "stage1-0"
    assert problem.answer == answer
    if tests is None:
        assert not problem.reference
    else:
        (case,) = problem.reference["tests"]
        assert (case["input"], case["output"], case["testtype"], problem.reference["fn_name"]) == tests


# ---- LiveCodeBench ----


def test_livecodebench_asks_in_the_benchmarks_words(tmp_path):
    rows = [code(1), code(2, starter_code="class Solution:", metadata='{"func_name": "f"}')]
    with_stdin, with_starter = LiveCodeBench(path=str(write(tmp_path / "a.parquet", rows))).load()
    assert with_stdin.messages[0]["role"] == "system"
    text = with_stdin.messages[1]["content"]
    assert text.startswith("### Question:\nSay ok 1.\n\n### Format: Read the inputs from stdin solve the problem")
    assert text.endswith("```python\n# YOUR CODE HERE\n```\n\n### Answer: (use the provided format with backticks)\n\n")
    assert "```python\nclass Solution:\n```\n\n### Answer:" in with_starter.messages[1]["content"]
    assert with_starter.reference["fn_name"] == "f"
    assert with_stdin.reference["fn_name"] is None
    assert [case["input"] for case in with_stdin.reference["tests"]] == ["1\n", "private"]
    assert with_stdin.group == "easy"


@pytest.mark.parametrize("kind", [".parquet", ".jsonl"])
def test_the_window_takes_both_its_days(kind, tmp_path):
    days = ["2024-07-31T23:59:59", "2024-08-01T00:00:00", "2025-05-31T23:59:59", "2025-06-01", "2024-08-01"]
    path = write(tmp_path / f"a{kind}", [code(n, contest_date=day) for n, day in enumerate(days)])
    assert [problem.id for problem in LiveCodeBench(path=str(path)).load()] == ["abc1", "abc2", "abc4"]
    assert len(LiveCodeBench(path=str(path), start=None, end=None).load()) == 5
    assert len(LiveCodeBench(path=str(path), start="2025-06-01", end="2025-06-01").load()) == 1
    with pytest.raises(DataError, match="none of its 5 rows is from 2030-01-01 to None"):
        LiveCodeBench(path=str(path), start="2030-01-01", end=None).load()


def test_dates_that_parquet_knows_as_such(tmp_path):
    rows = [code(1, contest_date=datetime.datetime(2024, 9, 1)), code(2, contest_date=datetime.datetime(2023, 9, 1))]
    assert len(LiveCodeBench(path=str(write(tmp_path / "a.parquet", rows))).load()) == 1


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"start": "2024-13-01"}, "problems.start is '2024-13-01'; give a day like 2024-08-01"),
        ({"end": "2408"}, "problems.end is '2408'"),
        ({"start": 2024}, "problems.start is 2024"),
        ({"start": "2025-01-02", "end": "2025-01-01"}, "problems.start is 2025-01-02, after problems.end, 2025-01-01"),
    ],
)
def test_a_window_that_is_none(arguments, wrong):
    with pytest.raises(ValueError, match=wrong):
        LiveCodeBench(**arguments)


def test_tests_are_unpacked_when_they_are_asked_for(tmp_path):
    """Private tests of the whole set are gigabytes; a row that cannot be unpacked is named when it is read."""
    path = write(tmp_path / "a.jsonl", [code(1, private_test_cases="eHh4"), code(2)])
    broken, sound = LiveCodeBench(path=str(path)).load()
    assert len(broken.reference.digest) == 64
    assert broken.reference.digest != sound.reference.digest
    assert truth_of(sound) == {"answer": None, "reference": sound.reference.digest}
    assert set(sound.reference) == {"tests", "fn_name"}
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the tests are not zlib data"):
        _ = broken.reference["tests"]


# ---- mistakes ----


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", ".json", ".csv"])
def test_a_wrong_column_is_one_line(kind, tmp_path):
    path = write(tmp_path / f"a{kind}", [{"problem_idx": 1, "question": "?", "answer": "1"}])
    with pytest.raises(DataError) as caught:
        AIME2025(path=str(path)).load()
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "there is no column 'problem'; the columns are problem_idx, question, answer" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("a.jsonl", "", "a.jsonl: the file is empty"),
        ("a.jsonl", "\n \n", "a.jsonl: holds no rows"),
        ("a.json", "[]", "a.json: holds no rows"),
        ("a.csv", "problem_idx,problem,answer\n", "a.csv: holds no rows"),
        ("a.json", "{", "a.json: not JSON"),
        ("a.json", "{}", "a.json: not a JSON list"),
        ("a.json", "[1]", "a.json: row 1: ValueError: a JSON int, not an object"),
        ("a.jsonl", '{"problem_idx": 1,', "a.jsonl:1: JSONDecodeError"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: RecursionError"),
        ("a.jsonl", "[1]", "a.jsonl:1: ValueError: a JSON list, not an object"),
        ("a.parquet", "PAR1 but no more", "a.parquet: not a parquet file"),
        ("a.txt", "x", "a.txt: not a .parquet, .jsonl, .json, .csv file"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": ""}', "a.jsonl:1: answer is ''"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": null}', "a.jsonl:1: answer is missing"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": true}', "a.jsonl:1: answer is True"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": [1]}', "a.jsonl:1: answer is [1]"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "\\ud800", "answer": 1}', "a.jsonl:1: problem holds half of a"),
        ("a.csv", "problem_idx,problem,answer\n1,?,1\n2,?\n", "a.csv: row 2: answer is missing"),
        (
            "a.jsonl",
            '{"problem_idx": 1, "problem": "?", "answer": 1}\n' * 2,
            "a.jsonl:2: id 'aime_2025-1' is already used at ",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_broken_file_is_one_line(name, content, wrong, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        AIME2025(path=str(path)).load()
    assert str(caught.value).startswith(f"{tmp_path}/{wrong}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350 + 3 * len(str(path))


def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"problem": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read \(UnicodeDecodeError"):
        AIME2025(path=str(tmp_path / "a.jsonl")).load()


def test_a_path_that_is_not_there_and_folders_without_an_answer(tmp_path):
    with pytest.raises(DataError, match="no such file or folder; set problems.path"):
        AIME2025(path=str(tmp_path / "none")).load()
    with pytest.raises(DataError, match="holds no .parquet, .jsonl, .json, .csv file"):
        AIME2025(path=str(tmp_path)).load()
    write(tmp_path / "a.csv", [aime(1)])
    write(tmp_path / "a.jsonl", [aime(1)])
    with pytest.raises(DataError, match="holds .csv and .jsonl files; set problems.path to the one to read"):
        AIME2025(path=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (multi(1, conversation=[]), "conversation is not a list of turns"),
        (multi(1, conversation=TURNS[:2]), "conversation does not end with a user's turn"),
        (multi(1, conversation=[{"role": "robot", "content": "x"}]), "conversation[0] needs a text as content"),
        (multi(1, conversation=[{"role": "user", "content": "\ud800"}]), "conversation[0] holds half of a surrogate"),
        (multi(1, conversation="{"), "conversation is not JSON: '{'"),
        (multi(1, pass_criteria="MAYBE"), "pass_criteria is 'MAYBE'; give YES or NO"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_conversation_is_named_by_row(row, wrong, tmp_path):
    write(tmp_path / "a.json", [multi(0), row])
    with pytest.raises(DataError) as caught:
        by_name("multichallenge", f"problems.path={tmp_path}/a.json").load()
    assert str(caught.value).startswith(f"{tmp_path}/a.json: row 2: {wrong}")


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"contest_date": "soon"}, "contest_date is 'soon'"),
        ({"metadata": "[]"}, "metadata is not a JSON object"),
        ({"metadata": '{"func_name": 1}'}, "metadata.func_name is not a text"),
        ({"question_content": ""}, "question_content is ''"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_row_of_livecodebench_is_named(changed, wrong, tmp_path):
    write(tmp_path / "a.json", [code(1, **changed)])
    with pytest.raises(DataError) as caught:
        LiveCodeBench(path=str(tmp_path / "a.json")).load()
    assert str(caught.value).startswith(f"{tmp_path}/a.json: row 1: {wrong}")


@pytest.mark.parametrize("truth", [None, True, "", {"cases": 1}, {"inputs": ["1"], "outputs": []}, [{"input": "1"}]])
def test_a_ground_truth_that_is_none(truth, tmp_path):
    write(tmp_path / "a.json", [train(truth)])
    with pytest.raises(DataError, match=r"a\.json: row 1: ground_truth "):
        PaCoReTrain8k(path=str(tmp_path / "a.json")).load()


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: PaCoReTrain8k(), "problems.revision is not set; name a commit of stepfun-ai/PaCoRe-Train-8k"),
        (lambda: PaCoReTrain8k(path="x", stage=3), "problems.stage is 3; give 1 or 2"),
        (lambda: IMOAnswerBench(version=3), "problems.version is 3; give 1"),
        (lambda: AIME2025(path=5), "problems.path is 5; name a file"),
        (lambda: AIME2025(revision=""), "problems.revision is ''; give a commit"),
    ],
)
def test_bad_arguments(make, wrong):
    with pytest.raises(ValueError, match="^" + wrong):
        make()
