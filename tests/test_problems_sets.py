"""The published sets: small local files of the same shape load by name, from every kind of file."""

import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacore_lab.errors import DataError
from pacore_lab.problems import AIME2025, HLEText, HMMTFeb2025, IMOAnswerBench, LiveCodeBench, PaCoReTrain8k
from pacore_lab.results.line import truth_of
from tests.published import ROWS, TURNS, aime, by_name, code, hle, imo, multi, train, write

pytestmark = pytest.mark.usefixtures("datasets_of_its_own")


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
