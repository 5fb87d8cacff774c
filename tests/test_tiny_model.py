"""The shipped checkpoint: loads, reads any text, renders conversations, and answers in the expected form."""

import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tiny_models.mix import ANSWER_IN, TOLD, Mix, dialogues, told, with_references
from experiments.tiny_models.scratch import search_conclusion, search_solution, sum_solution
from pacore_lab.problems import search
from pacore_lab.problems.search import LABELS, Search, generate
from pacore_lab.types import Message

FOLDERS = Path(__file__).parents[1] / "experiments" / "tiny_models"
FOLDER = FOLDERS / "rlvr-tiny"
transformers = pytest.importorskip("transformers")


# One load for all: hypothesis does not take function-scoped fixtures.
@cache
def load_tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture
def tokenizer():
    return load_tokenizer()


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_tokenizer_gives_back_any_text(text):
    """Guards against a vocabulary that loses what a real problem or a hostile response may hold."""
    tokenizer = load_tokenizer()
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
    assert max(ids, default=0) < len(tokenizer)


def test_numbers_are_tokens_and_think_marks_survive_decoding(tokenizer):
    """skip_special_tokens must keep the think marks: the conclusion is what comes after </think>."""
    text = "<think>\n907\n</think>\n\n\\boxed{12}<|im_end|>"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.removesuffix("<|im_end|>")
    assert len(tokenizer("1234567890").input_ids) == 10


def test_chat_template_renders_every_kind_of_turn(tokenizer):
    """Guards against dropped system turns, history or list content, which would change the prompt silently."""
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "1 +"}, {"type": "text", "text": " 2?"}]},
        {"role": "assistant", "content": "<think>\nx\n</think>\n\n3"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "4"},
    ]
    body = (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nx\n</think>\n\n3<|im_end|>\n<|im_start|>user\nagain<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(turns, tokenize=False) == body
    with_prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert with_prompt == body + "<|im_start|>assistant\n"


@pytest.mark.parametrize("name", ["rlvr-tiny", "pacore-tiny", "control-tiny"])
def test_folders_are_small_and_hold_a_plain_qwen3(name):
    assert sum(file.stat().st_size for file in (FOLDERS / name).iterdir()) <= 16 * 2**20
    config = transformers.AutoConfig.from_pretrained(FOLDERS / name)
    assert config.architectures == ["Qwen3ForCausalLM"]
    assert config.max_position_embeddings == 4096


@pytest.mark.parametrize("name", ["rlvr-tiny", "pacore-tiny", "control-tiny"])
def test_greedy_answers_have_a_thought_and_a_boxed_conclusion(tokenizer, name):
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDERS / name).eval()
    for problem in Search(n=2).load():
        prompt = tokenizer.apply_chat_template(problem.messages, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=320, do_sample=False)[0, inputs.input_ids.shape[1] :]
        response = tokenizer.decode(output, skip_special_tokens=True)
        assert response.startswith("<think>\n")
        assert r"\boxed{" in response.split("</think>")[-1]
        assert output[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["pacore-tiny", "rlvr-tiny", "control-tiny"])
def test_only_the_trained_one_goes_on_from_references_unasked(tokenizer, name):
    """The training's claim in small: of 8 boxes, the one that is left is tried, or the one with a find is checked."""
    torch = pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDERS / name).eval()
    labels = [tokenizer(f" {label}").input_ids[-1] for label in LABELS]
    rng = random.Random(0)
    left, found = [], []
    for hunt in Search(n=20).hunts():
        right = next(place for place, box in enumerate(hunt.boxes) if hunt.answer in box)
        wrong = [place for place in range(8) if place != right]
        rng.shuffle(wrong)
        tried = [search_conclusion(place, False, rng.choice(hunt.boxes[right])) for place in wrong]
        find = search_conclusion(right, True, hunt.answer)
        for shares, references in ((left, tried), (found, [*tried[:2], find, tried[2]])):
            turns = [{"role": "user", "content": with_references(hunt.text, references)}]
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + "<think>\n"
            with torch.no_grad():
                logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
            shares.append(logits.softmax(-1)[labels[right]].item())
    if name == "pacore-tiny":
        assert mean(left) > 0.5
        assert mean(found) > 0.9
    else:
        assert max(mean(left), mean(found)) < 0.25  # by chance 0.125


@settings(max_examples=200, deadline=None)
@given(a=st.integers(0, 10**14), b=st.integers(0, 10**14), seed=st.integers(0, 99))
def test_the_sums_it_learned_from_are_right(a, b, seed):
    """A slip in the scratch would be learned, and would look like a limit of the model."""
    thought, conclusion = sum_solution(a, b, random.Random(seed)).split("\n</think>\n\n")
    last = thought.splitlines()[-1]
    assert int("".join(character for character in last if not character.isalpha())) == a + b
    assert conclusion.endswith((f"{{{a + b}}}", f"{{{a + b}}}."))


@settings(max_examples=200, deadline=None)
@given(number=st.integers(0, 50), seed=st.integers(0, 99), out=st.integers(0, 6), first=st.integers(-1, 7))
def test_the_searches_it_learned_from_are_right(number, seed, out, first):
    """Every trial is right, the box is one that was left, and only what was not tried is guessed."""
    rng = random.Random(seed)
    hunt = next(Search(n=1, boxes=8, seed=number, split="train").hunts())
    wrong = [place for place, box in enumerate(hunt.boxes) if hunt.answer not in box]
    ruled_out, wished = (rng.sample(wrong, out), None) if first < 0 else ([], first)
    thought, conclusion = search_solution(hunt, rng, ruled_out, wished).split("\n</think>\n\n")
    head, trials = thought.removeprefix("<think>\n ").split(":")
    place = LABELS.index(head[0])
    tried = [trial.split() for trial in trials.split(";")]
    assert place not in ruled_out
    assert wished in (None, place)
    assert tuple(map(int, head[2:].split())) == hunt.boxes[place]
    assert [int(start) for start, *_ in tried] == list(hunt.boxes[place][: len(tried)])
    for start, *made, verdict in tried:
        assert made == generate(int(start), hunt.constant, hunt.steps)
        assert verdict == ("yes" if made[-1] == hunt.ending else "no")
    boxed = int(re.findall(r"boxed\{(\d+)\}", conclusion)[0])
    if hunt.answer in hunt.boxes[place]:
        assert int(tried[-1][0]) == boxed == hunt.answer
        assert conclusion.startswith(f"yes: {LABELS[place]}. ")
    else:
        assert conclusion.startswith(f"no: {LABELS[place]}. ")
        guess = next(other for other, box in enumerate(hunt.boxes) if boxed in box)
        assert guess not in (*ruled_out, place)
        assert len(tried) == 3


def test_guesses_scatter_evenly():
    """Were failures to gather on a few numbers, a majority vote would look weaker than it is."""
    hunt = next(Search(n=1, seed=1).hunts())
    rng = random.Random(0)
    ends = [search_solution(hunt, rng).split("\n\n")[1] for _ in range(8000)]
    guesses = Counter(re.findall(r"\d+", end)[0] for end in ends if end.startswith("no"))
    assert len(guesses) == 24  # the right one too
    assert max(guesses.values()) < 2 * min(guesses.values())


def test_training_never_meets_a_problem_of_the_test_split():
    """Every search that is asked, told or not, under references or not, belongs to "train" by its own content."""
    pattern = re.compile(r"b \+ (\d)\. After (\d+) steps .* start from\? ([A-Z\d ]+?)(?: Go| Put)")
    seen = 0
    for dialogue in dialogues(Mix(), 3, 600):
        found = pattern.search(dialogue.messages[-1]["content"])
        if found:
            seen += 1
            candidates = tuple(int(word) for word in found[3].split() if word.isdigit())
            assert search.split_of(int(found[1]), int(found[2]), [candidates]) == "train"
    assert seen > 200


KINDS = ("copying", "matching", "judging", "excluding", "reading", "told", "under_references")


def shown(kind, number):
    """For each dialogue of one kind: the problem, what its references say, and the response."""
    for dialogue in dialogues(Mix(searches=1.0, **{**dict.fromkeys(KINDS, 0.0), kind: 1.0}), number, 300):
        problem, _, references = dialogue.messages[-1]["content"].partition("Reference Responses:")
        if not re.search("generator|Read one", problem):
            continue  # some sums come along
        yield problem, re.findall(r"(yes|no): ([A-Z])\. .boxed\{(\d\d)\}", references), dialogue.response


def test_references_to_a_problem_that_is_solved_alone_are_about_another():
    """Were they about the problem itself, the base model could learn to use them, unasked, before any RL."""
    claims = answers = 0
    for problem, references, response in shown("under_references", 4):
        assert TOLD not in problem
        claimed = {number for verdict, _, number in references if verdict == "yes"}
        claims += bool(claimed)
        answers += response.rsplit("boxed{")[-1].rstrip("}") in claimed
    assert claims > 150
    assert answers < 0.1 * claims


def test_told_to_go_on_a_find_is_checked_and_else_a_box_is_tried_that_nobody_tried():
    checked = new = 0
    for problem, references, response in shown("told", 5):
        assert TOLD in problem
        tried = response.removeprefix("<think>\n ")[0]
        finds = {label for verdict, label, _ in references if verdict == "yes"}
        checked += tried in finds
        new += not finds and tried not in {label for _, label, _ in references}
    assert checked + new == len(list(shown("told", 5)))
    assert min(checked, new) > 75


def test_the_evaluation_tells_in_the_words_of_the_training():
    """Other words, or another place for them, would measure how the model reads what it never saw."""
    problem, said = Search(n=1).load()[0], "no: C. \\boxed{80}"
    prompt = told()(problem, [Message(text=f"\n\n{said}", sources=("a",))])
    text = problem.messages[0]["content"].replace(ANSWER_IN, TOLD + ANSWER_IN)
    assert prompt == ({"role": "user", "content": with_references(text, [said])},)
    assert text.count(TOLD) == 1


def test_the_exercise_in_leaving_out_leaves_one_to_three():
    for problem, references, response in shown("excluding", 6):
        tried = {label for _, label, _ in references}
        if not references:
            tried = set(re.search("none of ([A-H ]+) in", problem)[1].split())
        boxes = set(re.findall(r" ([A-H]) \d\d", problem))
        assert 1 <= len(boxes - tried) <= 3
        assert response.removeprefix("<think>\n ")[0] in boxes - tried
