"""The adapters' dropout on a CPU behaves as PyTorch's own does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from evenhand.config.schema import PhaseConfig
from evenhand.finetune.classifier import prepare
from evenhand.finetune.dropout import FastDropout
from evenhand.prompts.template import PromptTemplate


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_share_of_zeros_and_scale(p: float) -> None:
    torch.manual_seed(0)
    x = torch.full((1, 1001, 333), 2.0, requires_grad=True)
    y = FastDropout(p)(x)
    y.sum().backward()
    assert x.grad is not None
    zeros = (y == 0).double().mean().item()
    assert zeros == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
    assert y.detach()[y != 0].unique().tolist() == pytest.approx([2 / (1 - p)])
    assert torch.equal(x.grad, y.detach() / 2)
    # No pattern along rows or columns.
    for axis in (1, 2):
        assert (y == 0).double().mean(dim=axis).std() < 3 * (p * (1 - p) / 333) ** 0.5


def test_seed_decides_and_evaluation_drops_nothing() -> None:
    x, dropout = torch.ones(50, 7), FastDropout(0.3)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)
    assert dropout.eval()(x) is x


def test_recomputation_drops_the_same() -> None:
    x, dropout = torch.ones(64, 8, requires_grad=True), FastDropout(0.4)
    seen: list[torch.Tensor] = []

    def block(value: torch.Tensor) -> torch.Tensor:
        seen.append(dropout(value))
        return seen[-1].square()

    checkpoint(block, x, use_reentrant=False).sum().backward()
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


def test_adapters_on_a_cpu_use_it(
    make_config: Callable[..., PhaseConfig], prompt: PromptTemplate
) -> None:
    classifier = prepare(make_config(lora_dropout=0.25), prompt)
    found = [one for one in classifier.model.modules() if isinstance(one, FastDropout)]
    assert len(found) == 4  # two layers, q_proj and v_proj
    assert {one.p for one in found} == {0.25}
    assert not any(isinstance(one, torch.nn.Dropout) for one in classifier.model.modules())
