"""The other side of `embed_ratio`: sentence-transformers' own `encode`, in the engines' environment.

Runs as a program there: a list of texts per line of JSON on stdin, the seconds it took per line on stdout.
"""

import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    folder, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    for line in sys.stdin:
        texts = json.loads(line)
        began = time.perf_counter()
        model.encode(texts, show_progress_bar=False)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
