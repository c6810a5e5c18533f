"""What the libraries themselves answer: run by the engines' Python, asked in JSON, so that a test can compare.

    python -m tests.engines.library NAME MODEL < question > answer

Deliberately the plain way, one input after the other where batches could hide a mistake.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def predict(model: str, pairs: list[list[str]]) -> list[float]:
    """Cross-encoder scores, in batches as the library makes them."""
    from sentence_transformers import CrossEncoder

    scores: list[float] = CrossEncoder(model, device="cpu").predict(pairs).tolist()
    return scores


def logits(model: str, pairs: list[list[str]]) -> list[float]:
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(model, device="cpu")
    scores: list[float] = encoder.predict(pairs, activation_fn=torch.nn.Identity()).tolist()
    return scores


def encode(model: str, question: dict[str, Any]) -> list[list[float]]:
    """Sentence vectors; `prompt_name` and the like are handed on."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu", **question.get("load", {}))
    return [encoder.encode([text], **question.get("how", {}))[0].tolist() for text in question["texts"]]


def bgem3(model: str, texts: list[str]) -> list[dict[str, Any]]:
    """Sparse weights and token vectors of bge-m3, token by token from the last hidden states."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, body = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    sparse, colbert = (
        torch.load(Path(model) / f"{name}_linear.pt", weights_only=True) for name in ("sparse", "colbert")
    )
    answers = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        with torch.inference_mode():
            hidden = body(torch.tensor([ids])).last_hidden_state[0]
        weights: defaultdict[str, float] = defaultdict(float)
        vectors = []
        for place, (token, state) in enumerate(zip(ids, hidden, strict=True)):
            weight = float(sparse["weight"][0] @ state + sparse["bias"][0])
            if weight > 0 and token not in tokenizer.all_special_ids:
                weights[str(token)] = max(weights[str(token)], weight)
            if place > 0:
                vector = colbert["weight"] @ state + colbert["bias"]
                vectors.append((vector / vector.norm()).tolist())
        answers.append(
            {"sparse": weights, "colbert": vectors, "dense": (hidden[0] / hidden[0].norm()).tolist()}
        )
    return answers


if __name__ == "__main__":
    asked = {"predict": predict, "logits": logits, "encode": encode, "bgem3": bgem3}[sys.argv[1]]
    answer = asked(sys.argv[2], json.load(sys.stdin))  # type: ignore[operator]
    print("\n" + json.dumps(answer))
