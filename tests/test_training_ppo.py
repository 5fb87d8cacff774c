"""Rollouts and training that share a prompt are what plain forward passes would give; PPO's arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma2Config, Gemma2ForCausalLM

from pacore_lab.errors import ConfigError
from pacore_lab.training.ppo import Rollout, sample
from pacore_lab.training.ppo.advantages import clipped_loss, gae, whiten
from pacore_lab.training.ppo.sequences import Piece, log_probs, new_critic, pack, split, values
from pacore_lab.training.ppo.shared_prompt import NAME, adopted
from tests.tiny_hf import net, tokenizer

assert net
assert tokenizer
CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 2], [11, 12]]
EOS = range(0, 256, 5)  # a fifth of the vocabulary, so that rows end at all times


@pytest.fixture(scope="module")
def policy(net: Any) -> Iterator[Any]:
    made = copy.deepcopy(net)
    with adopted(made):
        yield made


def draw(policy: Any, seed: int = 0, **changed: Any) -> list[list[Rollout]]:
    generator = torch.Generator().manual_seed(seed)
    settings = {"max_tokens": 12, "eos": EOS, "generator": generator, **changed}
    return sample(policy, PROMPTS, 6, **settings)


def plain(net: Any, prompt: list[int], response: tuple[int, ...] | list[int], temperature: float = 1.0) -> Any:
    """Log-probabilities of the response's tokens, by transformers' own attention on one sequence."""
    logits = net(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_rollouts_tell_the_probabilities_of_their_tokens(net: Any, policy: Any, temperature: float) -> None:
    found = draw(policy, temperature=temperature)
    assert {len(made) for made in found} == {6}
    lengths = {len(rollout.tokens) for made in found for rollout in made}
    assert len(lengths) > 4, "rows that end at different times are what is to be tested"
    with torch.no_grad():
        for prompt, made in zip(PROMPTS, found, strict=True):
            for rollout in made:
                expected = plain(net, prompt, rollout.tokens, temperature)
                torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, rtol=0, atol=1e-4)


def test_rollouts_end_at_the_first_stop_token_or_at_the_limit(policy: Any) -> None:
    for rollout in [rollout for made in draw(policy) for rollout in made]:
        stops = [token in EOS for token in rollout.tokens]
        assert stops == [False] * (len(stops) - 1) + [rollout.finish_reason == "stop"]
        assert rollout.finish_reason == "stop" or len(stops) == 12


def test_what_is_drawn_depends_on_the_seed_and_not_on_who_is_decoded_together(policy: Any) -> None:
    """A row's random numbers once moved up when another row was dropped."""
    together = [[rollout.tokens for rollout in made] for made in draw(policy)]
    alone = [[rollout.tokens for rollout in made] for made in draw(policy, rows=1)]
    other = [[rollout.tokens for rollout in made] for made in draw(policy, seed=1)]
    assert together == alone
    assert together != other


def test_tokens_come_with_their_probabilities(net: Any, policy: Any) -> None:
    """Over 4000 draws of one token the frequencies are within 5 standard errors of the probabilities."""
    generator = torch.Generator().manual_seed(0)
    [made] = sample(policy, PROMPTS[:1], 4000, max_tokens=1, eos=EOS, generator=generator)
    with torch.no_grad():
        expected = net(torch.tensor(PROMPTS[:1])).logits[0, -1].softmax(-1)
    found = torch.tensor([rollout.tokens[0] for rollout in made]).bincount(minlength=len(expected)) / 4000
    error = (expected * (1 - expected) / 4000).sqrt()
    assert bool(((found - expected).abs() < 5 * error + 1e-3).all())


def pieces(policy: Any) -> list[Piece]:
    """Of unequal numbers of responses, one of them a single token."""
    found = draw(policy)
    made = [[rollout.tokens for rollout in rollouts[: 6 - 2 * i]] for i, rollouts in enumerate(found)]
    made[1][0] = (5,)
    places = iter(range(100))
    return [
        Piece(prompt=prompt, responses=tokens, places=[next(places) for _ in tokens])
        for prompt, tokens in zip(PROMPTS, made, strict=True)
    ]


@pytest.mark.parametrize("most", [1, 60, 10_000])
def test_packed_log_probabilities_and_gradients_are_those_of_separate_sequences(
    net: Any, policy: Any, most: int
) -> None:
    """However they are packed: a response that sees another one, or a prompt cut off from its gradient, shows."""
    shown = pieces(policy)
    net.zero_grad()
    policy.zero_grad()
    weights = torch.linspace(-1, 1, 20)
    for piece in shown:
        for place, response in zip(piece.places, piece.responses, strict=True):
            (weights[place] * plain(net, list(piece.prompt), list(response)).sum()).backward()
    seen: list[int] = []
    for batch in split(shown, most):
        packed = pack(batch, CPU)
        logs, entropy = log_probs(policy, packed)
        starts = [0, *packed.lengths.cumsum(0).tolist()]
        whole = [(piece, response) for piece in batch for response in piece.responses]
        for (piece, response), start, end in zip(whole, starts[:-1], starts[1:], strict=True):
            assert packed.targets[start:end].tolist() == list(response)
            torch.testing.assert_close(
                logs[start:end], plain(net, list(piece.prompt), list(response)), rtol=0, atol=1e-4
            )
        assert bool((entropy > 0).all())
        (weights[packed.places].repeat_interleave(packed.lengths) * logs).sum().backward()
        seen += packed.places.tolist()
    assert sorted(seen) == list(range(sum(len(piece.responses) for piece in shown)))
    for one, other in zip(policy.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
    net.zero_grad()
    policy.zero_grad()


def test_the_critic_values_the_state_before_each_token(net: Any, policy: Any) -> None:
    """Off by one, it would see the token whose advantage it is the baseline of."""
    critic = new_critic(policy)
    shown = pieces(policy)
    packed = pack(shown, CPU)
    with torch.no_grad():
        assert not values(critic, packed).any(), "a new critic says 0"
        torch.nn.init.normal_(critic["head"].weight)
        found = torch.split(values(critic, packed), packed.lengths.tolist())
        whole = [(piece.prompt, response) for piece in shown for response in piece.responses]
        for (prompt, response), said in zip(whole, found, strict=True):
            states = net.model(torch.tensor([[*prompt, *response]])).last_hidden_state[0, len(prompt) - 1 : -1]
            torch.testing.assert_close(said, critic["head"](states)[:, 0], rtol=0, atol=1e-3)


def test_a_critic_is_no_part_of_the_policy(policy: Any) -> None:
    critic = new_critic(policy)
    shared = {id(p) for p in policy.parameters()} & {id(p) for p in critic.parameters()}
    assert not shared


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.integers(1, 9), min_size=1, max_size=7)), min_size=1, max_size=6
    ),
    st.integers(1, 120),
)
def test_micro_batches_hold_every_response_once_and_keep_their_bound(
    shape: list[tuple[int, list[int]]], most: int
) -> None:
    places = iter(range(1000))
    shown = [
        Piece(prompt=[1] * prompt, responses=[[2] * k for k in lengths], places=[next(places) for _ in lengths])
        for prompt, lengths in shape
    ]
    batches = split(shown, most)
    assert sorted(place for batch in batches for piece in batch for place in piece.places) == list(range(next(places)))
    for batch in batches:
        assert len(batch) == len(batch[0].responses) == 1 or pack(batch, CPU).ids.numel() <= most


def test_models_that_attend_in_another_way_are_refused() -> None:
    """Gemma 2 caps its attention's scores: its log-probabilities would silently be those of another model."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, sliding_window=8, initializer_range=0.5, attn_logit_softcapping=1.0,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    with pytest.raises(ConfigError, match="Gemma2ForCausalLM"), adopted(model):
        pass
    assert model.config._attn_implementation != NAME


def test_a_model_is_left_as_it_was_found(net: Any) -> None:
    """Under our attention generate() would look at the first token alone, and say nothing."""
    before, ids = net.config._attn_implementation, torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = net(ids).logits
        draw(net)
        assert net.config._attn_implementation == before
        assert torch.equal(net(ids).logits, expected)
        with adopted(net), pytest.raises(TypeError, match="plan"):
            net(ids)


small = st.floats(-2, 2, width=32)


@given(st.lists(st.lists(small, min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_gae_is_its_definition(said: list[list[float]], data: st.DataObject) -> None:
    """The sum over l of (gamma * lam)^l * delta, with the reward at the end only and nothing behind it."""
    gamma, lam = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1))
    rewards = [data.draw(small) for _ in said]
    longest = max(map(len, said))
    table = torch.tensor([[*row, *[99.0] * (longest - len(row))] for row in said], dtype=torch.float64)
    lengths = torch.tensor([len(row) for row in said])
    found = gae(torch.tensor(rewards, dtype=torch.float64), table, lengths, gamma=gamma, lam=lam)
    for row, reward, got in zip(said, rewards, found.tolist(), strict=True):
        after = [*row[1:], 0.0]
        paid = [0.0] * (len(row) - 1) + [reward]
        delta = [paid[t] + gamma * after[t] - row[t] for t in range(len(row))]
        expected = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(row))) for t in range(len(row))]
        assert got == pytest.approx(expected + [0.0] * (longest - len(row)), abs=1e-9)


def test_with_the_papers_gae_an_advantage_is_the_reward_less_the_value() -> None:
    table = torch.tensor([[0.25, 0.5, 0.0], [0.75, 0.0, 0.0]])
    found = gae(torch.tensor([1.0, 0.0]), table, torch.tensor([3, 1]), gamma=1.0, lam=1.0)
    assert found.tolist() == [[0.75, 0.5, 1.0], [-0.75, 0.0, 0.0]]


def test_whitening() -> None:
    found = whiten(torch.tensor([1.0, 2.0, 6.0]))
    assert float(found.mean()) == pytest.approx(0, abs=1e-6)
    assert float(found.var(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert not whiten(torch.full((4,), 3.0)).any(), "equal advantages are none"


def test_the_objective_is_clipped_where_it_would_gain_only() -> None:
    """The gradient is that of -advantage * ratio, and none where the policy has gone far enough already."""
    ratios = torch.tensor([1.0, 1.5, 1.5, 0.5, 0.5])
    advantages = torch.tensor([2.0, 1.0, -1.0, 1.0, -1.0])
    logs = ratios.log().requires_grad_()
    loss, clipped = clipped_loss(logs, torch.zeros(5), advantages, 0.2)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([-2.0, -1.2, 1.5, -0.5, 0.8])
    assert clipped.tolist() == [False, True, False, False, True]
    assert logs.grad is not None
    assert logs.grad.tolist() == pytest.approx([-2.0, 0.0, 1.5, -0.5, 0.0])
