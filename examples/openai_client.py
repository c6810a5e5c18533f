"""The openai package against inferq: an answer, a stream, embeddings. Needs `pip install openai`.

export INFERQ_API_KEY="$(cat data/admin.key)"
python examples/openai_client.py
"""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("INFERQ_URL", "http://127.0.0.1:9000") + "/v1",
    api_key=os.environ.get("INFERQ_API_KEY") or sys.exit('set INFERQ_API_KEY="$(cat data/admin.key)"'),
)


def main() -> None:
    answer = client.chat.completions.create(
        model="demo-chat",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        # The lane: high, medium or low. OpenAI's own service_tier is understood too.
        extra_headers={"X-Priority": "high"},
    )
    print(answer.choices[0].message.content)

    stream = client.chat.completions.create(
        model="demo-chat",
        messages=[{"role": "user", "content": "Tell me a story."}],
        temperature=0,
        stream=True,
    )
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    vectors = client.embeddings.create(model="demo-embed", input=["It will rain tomorrow."])
    print(len(vectors.data[0].embedding), "numbers")


if __name__ == "__main__":
    main()
