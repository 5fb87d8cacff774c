"""Answers of real engines with the tiny checkpoint, held to what a backend promises (`pacore_lab.interfaces.Backend`).

Prompts and texts, limits, seeds, log-probabilities, confidences, prefill, schemas.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pacore_lab.errors import RequestError
from pacore_lab.interfaces import Backend, Chunk
from pacore_lab.types import ChatMessage, Completion
from tests.engines.asking import QUESTION, asking, encodes_back, logprobs_of, net, rambling, tokenizer, tokens_of
from tests.engines.conftest import CONTEXT

pytestmark = pytest.mark.asyncio(loop_scope="session")
CONVERSATIONS: dict[str, tuple[ChatMessage, ...]] = {
    "one turn": (QUESTION,),
    "several": ({"role": "system", "content": "Be brief."}, QUESTION, {"role": "assistant", "content": "1"}, QUESTION),
    "odd text": ({"role": "user", "content": "  größer 数学 🙂\n\n<|im_end|> </think> {{x}}  "},),
    "parts": ({"role": "user", "content": [{"type": "text", "text": "What is 2 * 3?"}]},),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_prompts_are_rendered_by_the_checkpoints_template(engine: Backend, name: str) -> None:
    prompt = CONVERSATIONS[name]
    assert (await engine.complete(asking(prompt, max_tokens=1))).prompt_tokens == len(tokens_of(prompt))


async def test_greedy_text_is_that_of_transformers(engine: Backend) -> None:
    """A prompt rendered differently, or a model run differently, shows in what it says."""
    import torch

    prompt = torch.tensor([tokens_of((QUESTION,))])
    with torch.inference_mode():
        ids = net().generate(prompt, do_sample=False, max_new_tokens=60)[0, prompt.shape[1] :]
    text = tokenizer().decode(ids, skip_special_tokens=True)
    assert (await engine.complete(asking(temperature=0.0, max_tokens=60))).content == text


async def test_stop_and_length_and_token_counts(engine: Backend) -> None:
    stopped = [done for seed in range(8) for done in [await engine.complete(asking(seed=seed))]]
    for done in stopped:
        assert done.finish_reason == "stop"
        assert "<|im_end|>" not in done.content
        assert done.generated_tokens == len(tokenizer()(done.content)["input_ids"]) + 1
    cut = await engine.complete(asking(max_tokens=7))
    assert (cut.finish_reason, cut.generated_tokens, cut.max_tokens, cut.clamped) == ("length", 7, 7, False)
    assert len(tokenizer()(cut.content)["input_ids"]) == 7


async def test_max_tokens_beyond_the_context_are_clamped_and_that_is_recorded(engine: Backend) -> None:
    done = await engine.complete(asking(max_tokens=1_000_000))
    assert done.finish_reason == "stop"
    assert done.clamped
    assert done.max_tokens == CONTEXT - done.prompt_tokens


async def test_an_answer_ends_with_the_context(engine: Backend, kind: str) -> None:
    long: tuple[ChatMessage, ...] = ({"role": "user", "content": "7" * (CONTEXT - 60)},)
    done = [await engine.complete(asking(long, seed=seed, temperature=2.0)) for seed in range(6)]
    room = CONTEXT - len(tokens_of(long))
    assert max(item.generated_tokens for item in done) <= room
    spare = 6 if kind == "sglang_server" else 0  # SGLang keeps a few tokens of its context for itself
    assert all(item.generated_tokens >= room - spare for item in done if item.finish_reason == "length")
    assert any(item.finish_reason == "length" for item in done)


async def test_a_prompt_too_long_is_one_line_and_the_engine_lives(engine: Backend, kind: str) -> None:
    long: tuple[ChatMessage, ...] = ({"role": "user", "content": "1+" * 3000},)
    with pytest.raises(RequestError) as caught:
        await engine.complete(asking(long))
    assert "\n" not in str(caught.value)
    assert str(CONTEXT) in str(caught.value)
    assert str(len(tokens_of(long))) in str(caught.value) or kind == "vllm_server"  # it stops counting at the limit
    assert (await engine.complete(asking())).content


async def test_seeds_as_declared(engine: Backend) -> None:
    """The same seed asked alone repeats; another differs."""
    assert engine.capabilities.seeds == "request"
    texts = [(await engine.complete(asking(seed=seed))).content for seed in (5, 5, 2**62 + 5, 2**62 + 5, 6)]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    many = await asyncio.gather(*(engine.complete(rambling(seed, max_tokens=20)) for seed in range(64)))
    assert len({done.content for done in many}) > 60  # some end at once


@pytest.mark.parametrize("params", [{}, {"temperature": 0.03}, {"top_p": 0.8}, {"temperature": 0.06, "top_p": 0.5}])
async def test_logprobs_are_the_models_own(engine: Backend, params: dict[str, float]) -> None:
    """Before temperature and top-p, whatever they are; as mean and per window of 64."""
    assert engine.capabilities.logprobs == "topk"
    done = [await engine.complete(asking(seed=seed, logprobs=True, **params)) for seed in range(3)]
    for item in done:
        expected = logprobs_of((QUESTION,), item)
        assert item.mean_logprob == pytest.approx(sum(expected) / len(expected), abs=2e-3)
        windows = [expected[i : i + 64] for i in range(0, len(expected), 64)]
        assert item.window_logprobs == pytest.approx([sum(w) / len(w) for w in windows], abs=5e-3)
    assert (await engine.complete(asking())).mean_logprob is None


def confidences_of(prompt: Sequence[ChatMessage], completion: Completion, top: int) -> list[float]:
    """As `logprobs_of`: minus the mean log-probability of the `top` likeliest tokens in each place."""
    import torch

    asked, answer = tokens_of(prompt), tokenizer()(completion.content, add_special_tokens=False)["input_ids"]
    places = slice(len(asked) - 1, len(asked) - 1 + completion.generated_tokens)
    with torch.inference_mode():
        logits = net()(torch.tensor([asked + answer])).logits[0, places].double()
    return (-torch.log_softmax(logits, -1).topk(top).values.mean(-1)).tolist()


async def test_confidences_are_those_of_the_likeliest_tokens(engine: Backend) -> None:
    """Of so many tokens, the chosen one among them only where it is one of the likeliest.

    Nearly uniform draws: nine of ten chosen tokens are not among the likeliest, and an engine may list them with these.
    """
    assert engine.capabilities.logprobs == "topk"
    quiet = [asking(temperature=0.0, logprobs=True, top_logprobs=5), asking(logprobs=True, top_logprobs=20)]
    odd = [rambling(seed, logprobs=True, top_logprobs=top, max_tokens=3) for seed in range(40) for top in (1, 20)]
    checked = 0
    for request in [*quiet, *odd]:
        done = await engine.complete(request)
        assert done.confidences is not None
        assert len(done.confidences) == done.generated_tokens
        if encodes_back(done):
            chosen = logprobs_of((QUESTION,), done)
            if done.mean_logprob == pytest.approx(sum(chosen) / len(chosen), abs=2e-3):  # so these tokens were drawn
                checked += 1
                expected = confidences_of((QUESTION,), done, request.params.top_logprobs)
                assert done.confidences == pytest.approx(expected, abs=3e-3)
    assert checked >= 20
    plain = await engine.complete(replace(quiet[0], params=replace(quiet[0].params, top_logprobs=0)))
    assert plain.content == (await engine.complete(quiet[0])).content
    assert plain.confidences is None


async def test_chunks_carry_their_confidences(engine: Backend, kind: str) -> None:
    """As many as tokens, so that a strategy can abort on them."""
    for top in (1, 20):
        request, chunks = asking(temperature=0.0, logprobs=True, top_logprobs=top), list[Chunk]()
        whole = await engine.complete(request)
        done = await engine.complete(request, chunks.append)
        assert [len(chunk.confidences) for chunk in chunks] == [chunk.tokens for chunk in chunks]
        streamed = [number for chunk in chunks for number in chunk.confidences]
        assert whole.confidences is not None
        assert len(streamed) >= len(whole.confidences) - 1
        assert streamed == pytest.approx(whole.confidences[: len(streamed)], abs=1e-3)
        assert done.confidences is not None
        if kind == "sglang_server":  # of a token without a text of its own, as the end of the turn, it streams none
            assert list(done.confidences) == streamed
        else:
            assert len(done.confidences) == done.generated_tokens


async def test_prefill_goes_on_from_a_given_beginning(engine: Backend) -> None:
    """As if the model had said it: not as a finished turn, and not with what a template makes of one."""
    assert engine.capabilities.prefill
    whole = (await engine.complete(asking(temperature=0.0, max_tokens=60))).content
    pieces = tokenizer()(whole, add_special_tokens=False)["input_ids"]
    for cut in (0, 1, 17, len(pieces) - 1):
        begun, rest = tokenizer().decode(pieces[:cut]), tokenizer().decode(pieces[cut:])
        prompt: tuple[ChatMessage, ...] = (QUESTION, {"role": "assistant", "content": begun})
        done = await engine.complete(asking(prompt, temperature=0.0, max_tokens=60 - cut))
        assert done.content == rest
        assert done.prompt_tokens == len(tokens_of((QUESTION,))) + cut
    thought: tuple[ChatMessage, ...] = (QUESTION, {"role": "assistant", "content": " <think>\nHm\n</think>\n\n 数 "})
    text = tokenizer()(str(thought[1]["content"]), add_special_tokens=False)["input_ids"]
    done = await engine.complete(asking(thought, max_tokens=2))
    assert done.prompt_tokens == len(tokens_of((QUESTION,))) + len(text)


async def test_a_schema_is_followed(engine: Backend, kind: str) -> None:
    """A judge's fields: the tiny checkpoint, which has never seen JSON, writes it only if the engine sees to that."""
    if not engine.capabilities.schema:
        assert kind == "hf"
        return
    fields = {"same": {"type": "string", "enum": ["yes", "no"]}}
    schema = json.dumps({"type": "object", "properties": fields, "required": ["same"], "additionalProperties": False})
    for seed in range(4):  # with room for blanks between the words of JSON, which a quiet model draws by the dozen
        done = await engine.complete(replace(asking(seed=seed, max_tokens=2000, temperature=1.0), schema=schema))
        assert json.loads(done.content)["same"] in ("yes", "no"), done.content
