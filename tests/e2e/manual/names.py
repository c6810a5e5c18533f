"""The names under which the manual's examples call models. Data only."""

from __future__ import annotations

CHAT = "Qwen2.5-7B-Instruct"
LARGER_CHAT = "Qwen2.5-14B-Instruct"
CODER = "Qwen2.5-Coder-14B-Instruct"
FILLER = "deepseek-coder-6.7b-base"
VISION = "Qwen2.5-VL-7B-Instruct"
PAINTER = "majicmixRealistic_v7.safetensors/majicmixRealistic_v7.safetensors"
EDGES = "control_v11p_sd15_canny"
SPEAKER = "maskgct-tts-clone"
LISTENER = "funasr"
EMBEDDER = "bge-base-zh-v1.5"
RERANKER = "bge-reranker-base"
FILMER = "CogVideoX-5b"
