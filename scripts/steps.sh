# shellcheck shell=bash
# How a script tells what it is doing; sourced, never run. One line per step, and one line that explains a failure.

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step TEXT COMMAND...: one line with the time it took; the command's own output is shown only if it fails.
step() {
  local text="$1" log child status=0 start=$SECONDS; shift
  log="$(mktemp)"
  "$@" >"$log" 2>&1 & child=$!
  # A background job of a script ignores Ctrl-C, so it is ended here.
  trap 'kill "$child" 2>/dev/null; rm -f "$log"; exit 130' INT TERM
  if [ -t 1 ]; then
    while kill -0 "$child" 2>/dev/null; do printf '\r  %s ... %d s' "$text" $((SECONDS - start)); sleep 1; done
    printf '\r'
  else
    say "  $text ..."
  fi
  wait "$child" || status=$?
  trap - INT TERM
  [ $status -eq 0 ] || explain "$text" "$log"
  rm -f "$log"
  say "  $text: $((SECONDS - start)) s   "
}

explain() {
  local reason
  if grep -qE 'No space left on device|Errno 28' "$2"; then
    reason="the disk is full ($(df -h "$ROOT" | awk 'NR==2 {print $4}') free under $ROOT)"
  elif grep -qE 'Temporary failure in name resolution|Failed to establish a new connection|Network is unreachable' "$2"; then
    reason="the package index cannot be reached; check the network, a proxy, or pip's index setting"
  elif grep -qE 'lib(torch_cuda|cudart|cudnn|cublas|nccl|nvrtc)' "$2"; then
    reason="pip took a CUDA build of torch on a machine without CUDA; point pip at PyTorch's CPU wheels (PIP_INDEX_URL)"
  else
    reason="$(grep -E '^(ERROR|error|Error)' "$2" | tail -n 3 || true)"
    tail -n 25 "$2" >&2
  fi
  rm -f "$2"
  die "$1 failed: ${reason:-see above}"
}
