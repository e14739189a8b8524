"""How others score posts: padded label scoring, generation, llama.cpp with its prompt cached."""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from arithmetic import Shape, Span
from peers_training import fast_format, load_model, make_encoder
from workload import SAMPLING, Workload

from evenhand.core.errors import ModelError
from evenhand.core.records import HATE, LABELS
from evenhand.finetune.embedded import EMBEDDED, find_source
from evenhand.finetune.encoding import PromptEncoder
from evenhand.prompts.parse import parse_answer

_HATE = LABELS.index(HATE)


def measure_padded(work: Workload, *, batch_rows: int) -> dict[str, Any]:
    """Time label scoring with plain transformers: each row and label a padded sequence of its own.

    Rows are sorted by length; padding is on the left, so that the labels end at the right edge and
    only the logits there are computed.
    """
    encoder = make_encoder(work)
    rows = work.draw(work.rows)
    number_format = fast_format()
    model = load_model(work, number_format).eval()
    questions = [[*encoder.prefix, *encoder.encode(row).ids] for row in rows]
    order = sorted(range(len(rows)), key=lambda place: len(questions[place]))
    batches = [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]
    scores = np.empty(len(rows))
    with torch.inference_mode():
        _padded_batch(model, encoder, [questions[place] for place in batches[0][:2]])
        started = time.perf_counter()
        for batch in batches:
            scores[batch] = _padded_batch(model, encoder, [questions[place] for place in batch])
        seconds = time.perf_counter() - started
    spans = [Span(0, len(one) + len(label) - 1) for one in questions for label in encoder.labels]
    logits = len(rows) * sum(len(label) for label in encoder.labels)
    return {
        "rows": len(rows),
        "seconds": seconds,
        "number_format": number_format,
        "tokens": sum(span.tokens for span in spans),
        "flops": Shape.of(model).forward(spans, logits=logits),
        "scores": scores.tolist(),
    }


def _padded_batch(
    model: Any, encoder: PromptEncoder, questions: Sequence[Sequence[int]]
) -> np.ndarray:
    sequences = [[*question, *label] for question in questions for label in encoder.labels]
    longest = max(len(one) for one in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, one in enumerate(sequences):
        ids[number, longest - len(one) :] = torch.tensor(one)
        mask[number, longest - len(one) :] = 1
    keep = max(len(label) for label in encoder.labels) + 1
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        logits_to_keep=keep,
        use_cache=False,
    ).logits
    log_probs = logits[:, :-1].float().log_softmax(-1)
    sums = torch.empty(len(questions), len(encoder.labels))
    for number in range(len(sequences)):
        row, label = divmod(number, len(encoder.labels))
        answer = torch.tensor(encoder.labels[label])
        each = log_probs[number, -len(answer) :].gather(1, answer[:, None])
        sums[row, label] = each.sum()
    return sums.softmax(1)[:, _HATE].numpy()


def measure_generation(work: Workload) -> dict[str, Any]:
    """Time the reference's evaluation: sample an answer row after row, up to its token limit."""
    encoder = make_encoder(work)
    tokenizer = encoder.tokenizer
    rows = work.draw(work.rows)
    number_format = fast_format()
    model = load_model(work, number_format).eval()
    torch.manual_seed(work.seed)
    ends = sorted({label[-1] for label in encoder.labels} | {tokenizer.eos_token_id})
    # Its sampling settings also where the prompt is ours.
    settings = {**SAMPLING, **(work.prompt.parameters if work.prompt_name == "reference" else {})}
    written = parsed = 0
    started = time.perf_counter()
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([[*encoder.prefix, *encoder.encode(row).ids]])
            answer = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=settings["max_tokens"],
                do_sample=True,
                temperature=settings["temperature"],
                top_p=settings["top_p"],
                top_k=0,
                eos_token_id=ends,
                pad_token_id=ends[0],
            )[0, ids.shape[1] :]
            written += len(answer)
            text = tokenizer.decode(answer, skip_special_tokens=True)
            parsed += parse_answer(text, labels=work.prompt.labels) is not None
    return {
        "rows": len(rows),
        "seconds": time.perf_counter() - started,
        "number_format": number_format,
        "tokens_written_per_row": written / len(rows),
        "rows_parsed": parsed,
    }


def gguf_file(work: Workload) -> str:
    """Return the GGUF file of the embedded model.

    Raises:
        ModelError: the model is not an embedded one with a GGUF.
    """
    model = EMBEDDED.get(work.model)
    source = None if model is None or not model.is_gguf else find_source(model)
    if source is None:
        raise ModelError(f'llama.cpp needs a GGUF, and "{work.model}" has none')
    return str(source)


def measure_llama_cpp(work: Workload, *, together: int) -> dict[str, Any]:
    """Time llama.cpp on the same file, the prompt's keys and values computed once and kept.

    ``together`` rows are decoded in one call. Through the low-level interface: a row's tokens
    belong to one sequence a label, so that they are computed once, and each label's tokens follow
    in their own; all share the prompt's cells. Logits are asked for at label positions alone.
    """
    encoder = make_encoder(work)
    rows = work.draw(work.rows)
    questions = [encoder.encode(row).ids for row in rows]
    model = _LlamaCpp(gguf_file(work), encoder, together=together)
    model.score(questions[:together])
    started = time.perf_counter()
    scores: list[float] = []
    for start in range(0, len(questions), together):
        scores += model.score(questions[start : start + together])
    seconds = time.perf_counter() - started
    model.close()
    return {"rows": len(rows), "seconds": seconds, "number_format": "q4_1", "scores": scores}


@functools.cache
def _silence() -> Any:
    # Kept for ever: llama.cpp calls it whenever it has something to log.
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda *_: None)


class _LlamaCpp:
    """A llama.cpp context whose sequence 0 holds the prompt."""

    def __init__(self, path: str, encoder: PromptEncoder, *, together: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        self.encoder = encoder
        self.branches = len(encoder.labels)
        llama_cpp.llama_log_set(_silence(), ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.words = llama_cpp.llama_vocab_n_tokens(vocabulary)
        settings = llama_cpp.llama_context_default_params()
        longest = encoder.room + len(encoder.tail) + sum(len(one) for one in encoder.labels)
        settings.n_ctx = len(encoder.prefix) + together * longest
        settings.n_batch = max(512, len(encoder.prefix), together * longest)
        settings.n_ubatch = 512
        settings.n_seq_max = 1 + together * self.branches
        settings.kv_unified = True  # sequences share the prompt's cells
        settings.n_threads = settings.n_threads_batch = len(os.sched_getaffinity(0))
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(settings.n_batch, 0, self.branches)
        self._add(encoder.prefix, at=0, sequences=[0], logits=False)
        self._decode()
        for sequence in range(1, settings.n_seq_max):
            llama_cpp.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)

    def score(self, questions: Sequence[Sequence[int]]) -> list[float]:
        """Return p(hate) of each question, whose tokens follow the prompt."""
        prefix = len(self.encoder.prefix)
        places: list[list[list[int]]] = []
        for number, ids in enumerate(questions):
            sequences = [1 + number * self.branches + label for label in range(self.branches)]
            self._add(ids[:-1], at=prefix, sequences=sequences, logits=False)
            start = prefix + len(ids)
            last = self._add(ids[-1:], at=start - 1, sequences=sequences, logits=True)
            each = []
            for label, sequence in zip(self.encoder.labels, sequences, strict=True):
                inside = self._add(label[:-1], at=start, sequences=[sequence], logits=True)
                each.append([*last, *inside])
            places.append(each)
        self._decode()
        scores = []
        for each in places:
            sums = np.array(
                [
                    sum(self._log_prob(at, token) for at, token in zip(where, label, strict=True))
                    for where, label in zip(each, self.encoder.labels, strict=True)
                ]
            )
            scores.append(float(np.exp(sums[_HATE] - np.logaddexp.reduce(sums))))
        for sequence in range(1, 1 + len(questions) * self.branches):
            self.api.llama_memory_seq_rm(self.memory, sequence, prefix, -1)
        return scores

    def close(self) -> None:
        """Give the memory back."""
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)

    def _add(
        self, ids: Sequence[int], *, at: int, sequences: Sequence[int], logits: bool
    ) -> list[int]:
        batch, first = self.batch, self.batch.n_tokens
        for number, token in enumerate(ids, start=first):
            batch.token[number] = token
            batch.pos[number] = at + number - first
            batch.n_seq_id[number] = len(sequences)
            for place, sequence in enumerate(sequences):
                batch.seq_id[number][place] = sequence
            batch.logits[number] = logits
        batch.n_tokens = first + len(ids)
        return list(range(first, batch.n_tokens))

    def _decode(self) -> None:
        code = self.api.llama_decode(self.context, self.batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        self.batch.n_tokens = 0

    def _log_prob(self, place: int, token: int) -> float:
        pointer = self.api.llama_get_logits_ith(self.context, place)
        logits = np.ctypeslib.as_array(pointer, shape=(self.words,))
        top = logits.max()
        return float(logits[token] - top - np.log(np.exp(logits - top).sum()))
