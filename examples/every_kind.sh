#!/usr/bin/env bash
# One call of each kind with curl: picture, edit, a question about a picture, video, speech, transcription, embeddings,
# rerank. Each line works alone once `url`, `call`, `json` and `field` are defined. Files go into a new folder. Needs
# curl and python3.
#   INFERQ_API_KEY="$(cat data/admin.key)" examples/every_kind.sh
set -euo pipefail
url="${INFERQ_URL:-http://127.0.0.1:9000}/v1"
: "${INFERQ_API_KEY:?set it to an API key, for instance the content of data/admin.key}"
call() { curl --fail-with-body --silent --show-error -H "Authorization: Bearer $INFERQ_API_KEY" "$@"; }
json() { call -H 'Content-Type: application/json' --data "$2" "$url/$1"; }
field() { python3 -c '
import json, sys
text = sys.stdin.read()
try:
    value = json.loads(text)
    for key in sys.argv[1:]:
        value = value[int(key) if key.isdigit() else key]
except (ValueError, LookupError):
    sys.exit(f"no {sys.argv[1]} in the answer: {text}")
print(value)' "$@"; }
say() { echo "$*" >&2; }
cd "$(mktemp -d)"

say "The first call of each model starts it, which takes up to a minute."
say "a picture"
call -o red.png "$(json images/generations '{"model": "demo-image", "prompt": "a red square", "size": "64x64", "steps": 8}' | field data 0 url)"
say "an edit of it"
call -o blue.png "$(call -F model=demo-image -F prompt='a blue square' -F steps=8 -F denoise_strength=0.9 -F image=@red.png "$url/images/edits" | field data 0 url)"
say "a question about that"
json chat/completions '{"model": "demo-vision", "messages": [{"role": "user", "content": [{"type": "text", "text": "What colour is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,'"$(base64 < blue.png | tr -d '\n')"'"}}]}]}' | field choices 0 message content
say "a video"
# A video is always a job; `Prefer: wait` waits for its end. Without it the answer is an id to poll.
call -o cat.mp4 "$(call -H 'Prefer: wait=120' -H 'Content-Type: application/json' --data '{"model": "demo-video", "prompt": "a red cat", "size": "96x64", "duration": 2, "steps": 4}' "$url/video/generations" | field data 0 url)"
say "speech, and what is heard in it"
json audio/speech '{"model": "demo-speech", "voice": "alloy", "input": "Where is the next train?", "response_format": "wav"}' > train.wav
call -F model=demo-asr -F file=@train.wav "$url/audio/transcriptions" | field text
say "the first number of an embedding"
json embeddings '{"model": "demo-embed", "input": "It will rain tomorrow."}' | field data 0 embedding 0
say "the document that fits best"
json rerank '{"model": "demo-rerank", "query": "Rain is expected tomorrow.", "documents": ["The cat sleeps.", "It will rain tomorrow."], "top_n": 1}' | field results 0 document
ls -l "$PWD"
