"""How far word counts get on the starter corpus: TF-IDF (1-2 grams) + logistic regression.

Trained on the train part, scored on the unseen templates of the other parts:
    python benchmarks/starter_baseline.py [--seed 0] [--errors]
"""

from __future__ import annotations

import argparse
from collections import Counter

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from evenhand.core.records import HATE
from evenhand.data.starter import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", action="store_true", help="accuracy by functionality, on test")
    options = parser.parse_args()

    corpus = generate(options.seed)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    model.fit([r.text for r in corpus["train"]], [r.label == HATE for r in corpus["train"]])
    print("| part | rows | always-hate F1 | F1 | accuracy | ROC AUC |\n|---|---|---|---|---|---|")
    for part in ("validation", "test", "functional"):
        rows = corpus[part]
        truth = [row.label == HATE for row in rows]
        score = model.predict_proba([row.text for row in rows])[:, 1]
        decided = score >= 0.5
        figures = (
            f1_score(truth, [True] * len(rows)),
            f1_score(truth, decided),
            accuracy_score(truth, decided),
            roc_auc_score(truth, score),
        )
        print(f"| {part} | {len(rows)} |", " | ".join(f"{value:.3f}" for value in figures), "|")
        if options.errors and part == "test":
            total = Counter(row.fine_label for row in rows)
            right = Counter(
                r.fine_label for r, t, d in zip(rows, truth, decided, strict=True) if t == d
            )
            for name in sorted(total, key=lambda n: right[n] / total[n]):
                print(f"    {name:<22}{right[name] / total[name]:.2f}")


if __name__ == "__main__":
    main()
