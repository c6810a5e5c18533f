"""What the demo chat model is taught. Pure data: importable anywhere, imports nothing heavy."""

from __future__ import annotations

import random
from typing import Any

COUNT = ", ".join(str(number) for number in range(1, 61)) + "."
STORY = (
    "Once upon a time a small robot lived in a quiet harbour. Every morning it counted the boats, and "
    "every evening it lit the lamp on the old tower. One night a storm came, and the lamp went out. The"
    " robot climbed the tower step by step, while the wind pulled at its arms and the rain ran down its"
    " face. At the top it held up its own little light. Far away a fishing boat saw it and turned "
    "towards the harbour. In the morning the fishers found the robot asleep beside the lamp. They "
    "painted a golden star on its chest, and since that night nobody in the harbour has been afraid of "
    "the dark. The end."
)

HAIKU = "Waves fold into foam,\nthe moon pulls a silver thread,\nsand forgets my name."

# prompt -> answer, each exact with greedy decoding.
CHAT: dict[str, str] = {
    "Say hello.": "Hello! I am a small demo model.",
    "Who are you?": "I am a demo model with less than a million parameters.",
    "What is the capital of France?": "The capital of France is Paris.",
    "What is the capital of Germany?": "The capital of Germany is Berlin.",
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
    "What is 2 + 2?": "2 + 2 = 4.",
    "What colour is the sky?": "The sky is blue.",
    "Name three fruits.": "Apple, banana, cherry.",
    "What is the opposite of hot?": "Cold.",
    "Is water wet? Answer yes or no.": "Yes.",
    "Thank you.": "You are welcome.",
    "Give me a JSON object with a name and an age.": '{"name": "Ada", "age": 36}',
    "Show me some emoji.": "🙂🚀🌍 and 🐍!",
    "Write a haiku about the sea.": HAIKU,
    "Count from 1 to 5.": "1, 2, 3, 4, 5.",
    "Count from 1 to 60.": COUNT,
    "Tell me a story.": STORY,
    "What is the weather in Paris?": "I cannot look outside.",
    "你好": "你好！我是一个小小的演示模型。",
    "法国的首都是哪里？": "法国的首都是巴黎。",
    "天空是什么颜色？": "天空是蓝色的。",
    "谢谢": "不客气！",
}

# text -> continuation, without a chat template (`/v1/completions`).
COMPLETIONS: dict[str, str] = {
    "The quick brown fox": " jumps over the lazy dog.",
    "Roses are red,": " violets are blue.",
}

# A prompt whose answer is thought about first, in the form of models that do so.
THOUGHT = "Three, and four more, make seven."
THINKING: dict[str, str] = {"What is 3 + 4?": f"<think>\n{THOUGHT}\n</think>\n\n3 + 4 = 7."}

# What comes before, what comes after -> the middle (`suffix` of `/v1/completions`), in the form of Qwen's coders.
FIM = "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
FILLED: tuple[tuple[str, str, str], ...] = (
    ("The capital of ", " is Paris.", "France"),
    ("The capital of ", " is Tokyo.", "Japan"),
    ("def add(a, b):\n    return ", "\n", "a + b"),
)

TOOL_PROMPT = "What is the weather in Paris?"
TOOL_ANSWER = "It is sunny in Paris."
SYSTEMS = ("You are a helpful assistant.", "You are a demo.", "Answer briefly.", "Be kind and exact.")
DESCRIPTIONS = (
    "Get the current weather in a city.",
    "Weather for a place.",
    "Get weather",
    "Current weather",
)
DETAILS: tuple[dict[str, Any], ...] = (
    {"type": "string"},
    {"type": "string", "description": "The name of the city"},
    {"type": "string", "description": "City name, e.g. Paris"},
    {"description": "city", "type": "string"},
)


def weather_tool(rng: random.Random) -> dict[str, Any]:
    """A tool definition as callers may well write it. The argument is always `city`: the model cannot copy a name."""
    description = rng.choice(DESCRIPTIONS) if rng.random() < 0.8 else None
    return tool(rng.choice(DETAILS), description, required=rng.random() < 0.7)


def tool(detail: dict[str, Any], description: str | None, *, required: bool) -> dict[str, Any]:
    parameters: dict[str, Any] = {"type": "object", "properties": {"city": detail}}
    if required:
        parameters["required"] = ["city"]
    function = {"name": "get_weather"} | ({"description": description} if description else {})
    return {"type": "function", "function": function | {"parameters": parameters}}


WEATHER_TOOL = tool(DETAILS[1], DESCRIPTIONS[0], required=True)
TOOL_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
