"""Grouping embeddings by speaker when nobody says how many there are.

FunASR's own grouping (spectral, then merging groups whose centres are alike) takes every sound of less than 20 pieces
for one speaker, is random, and above 2048 pieces leaves some to nobody. So here few pieces are joined
bottom-up, chance is fixed, and long sounds are grouped part by part before the merging.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from funasr.models.campplus.cluster_backend import ClusterBackend, SpectralCluster
from sklearn import cluster as sklearn_cluster  # type: ignore[import-untyped,import-not-found,unused-ignore]

FEW, MANY = 20, 2048
ALIKE = 0.4  # cosine between groups of few pieces that are one speaker
CENTRES_ALIKE = 0.78  # FunASR's, for the centres of larger groups


class Spectral(SpectralCluster):  # type: ignore[misc,unused-ignore]
    """FunASR's, but always the same for the same embeddings."""

    def cluster_embs(self, emb: Any, k: int) -> Any:
        return sklearn_cluster.k_means(emb, k, random_state=0, n_init=4)[1]


def cluster(embeddings: Any) -> Any:
    """A number for each of the embeddings (pieces by numbers); the same number is the same speaker."""
    if len(embeddings) == 1:
        return np.zeros(1, np.int64)
    if len(embeddings) < FEW:
        joined = sklearn_cluster.AgglomerativeClustering(
            n_clusters=None, distance_threshold=1 - ALIKE, metric="cosine", linkage="average"
        )
        return joined.fit_predict(embeddings)
    labels, groups = [], 0
    for part in np.array_split(embeddings, -(-len(embeddings) // MANY)):
        found = Spectral()(part)
        labels.append(found + groups)
        groups += int(found.max()) + 1
    return ClusterBackend().merge_by_cos(np.concatenate(labels), embeddings, CENTRES_ALIKE)
