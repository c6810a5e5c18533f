"""The other side of `embed_ratio`: sentence-transformers' own `encode`, in the engines' environment.

Runs as a program there: per line of JSON on stdin, `{texts, batch}`, the seconds it took on stdout. A batch of 1 is one
call per text.
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
        asked = json.loads(line)
        batches = [asked["texts"]] if asked["batch"] > 1 else [[text] for text in asked["texts"]]
        began = time.perf_counter()
        for texts in batches:
            model.encode(texts, batch_size=asked["batch"], show_progress_bar=False)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
