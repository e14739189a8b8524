"""The server that one would write in an hour: FastAPI, transformers, one forward pass a request.

It answers as `evenhand serve` does (POST /v1/classify), from the same run folder: base model and
adapter merged, the same prompt, the same tokens, p(hate) from the complete label strings. Each
post is scored in one padded batch that holds it once with each label; a lock keeps requests from
fighting for the cores. It checks, stores and measures nothing.
    python benchmarks/plain_server.py RUN [--port 8001]
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from peft import PeftModel
from pydantic import BaseModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from evenhand.core.records import HATE, LABELS, Row
from evenhand.finetune.encoding import build_encoder
from evenhand.finetune.folders import locate
from evenhand.prompts.template import load_prompt


class Post(BaseModel):
    id: str | None = None
    text: str


class Posts(BaseModel):
    posts: list[Post]


def load_scorer(run: Path) -> Callable[[str], float]:
    """Return the function that scores one post with the merged model of a run folder."""
    config = json.loads((run / "config.json").read_text("utf-8"))["config"]
    training = json.loads((run / "training.json").read_text("utf-8"))
    location = locate(config["model_name_or_path"])
    model: Any = AutoModelForCausalLM.from_pretrained(
        location, dtype=getattr(torch, training["dtype"]), attn_implementation="sdpa"
    )
    model = PeftModel.from_pretrained(model, str(run / "adapter")).merge_and_unload().eval()
    encoder = build_encoder(
        AutoTokenizer.from_pretrained(location),
        load_prompt(run / "prompt.json"),
        max_length=config["max_seq_length"],
        model_type=AutoConfig.from_pretrained(location).model_type,
    )
    longest = max(len(label) for label in encoder.labels)

    def score(text: str) -> float:
        question = [*encoder.prefix, *encoder.encode(Row(id="", text=text)).ids]
        width = len(question) + longest
        ids = torch.zeros(len(encoder.labels), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, label in enumerate(encoder.labels):
            # Padding on the left: every label ends at the right edge.
            ids[number, width - len(question) - len(label) :] = torch.tensor([*question, *label])
            mask[number, width - len(question) - len(label) :] = 1
        with torch.inference_mode():
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                logits_to_keep=longest + 1,
                use_cache=False,
            ).logits[:, :-1]
        log_probs = logits.float().log_softmax(-1)
        sums = [
            log_probs[number, -len(label) :].gather(1, torch.tensor(label)[:, None]).sum()
            for number, label in enumerate(encoder.labels)
        ]
        return float(torch.stack(sums).softmax(0)[LABELS.index(HATE)])

    return score


def create_app(score: Callable[[str], float]) -> FastAPI:
    """Return the application: one endpoint, and one that says that it is up."""
    app, lock = FastAPI(), threading.Lock()

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/classify")
    def classify(posts: Posts) -> dict[str, Any]:
        with lock:
            scores = [score(post.text) for post in posts.posts]
        results = [
            {"id": post.id, "score": one, "decision": "hate" if one >= 0.5 else "normal"}
            for post, one in zip(posts.posts, scores, strict=True)
        ]
        return {"results": results}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    options = parser.parse_args()
    app = create_app(load_scorer(options.run))
    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
