#!/usr/bin/env bash
# A durable job with curl: accepted with an id, polled, its result fetched. It survives restarts of every process.
#   INFERQ_API_KEY="$(cat data/admin.key)" examples/durable_job.sh
set -euo pipefail
url="${INFERQ_URL:-http://127.0.0.1:9000}"
: "${INFERQ_API_KEY:?set it to an API key, for instance the content of data/admin.key}"
call() { curl --fail-with-body --silent --show-error -H "Authorization: Bearer $INFERQ_API_KEY" "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
id="$(call -H 'Content-Type: application/json' --data-binary "@$here/chat.json" "$url/v1/jobs" | field id)"
echo "accepted: $id"
state=queued
while [ "$state" = queued ] || [ "$state" = running ]; do
  sleep 0.5
  state="$(call "$url/v1/jobs/$id" | field state)"
done
echo "$state"
call "$url/v1/jobs/$id/result"
echo
