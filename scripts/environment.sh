# shellcheck shell=bash
# What the install-* scripts share; sourced, never run. It owns one virtual environment: who may change it, whether it is
# complete, and what is said while that takes minutes. It knows nothing of what goes in.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$ROOT"

# shellcheck source=scripts/steps.sh
. scripts/steps.sh

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
    # A name on PATH may be a version manager's shim for a Python that is not there, so it is tried.
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"; return
    fi
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a Python 3.11 or newer with venv"
  done
  die "no Python 3.11 or newer with venv found; install one (Debian: apt-get install python3 python3-venv) or set PYTHON="
}

# digest TEXT...: of all that an environment is made from. A checkout that was moved needs its environments again.
digest() { printf '%s\n' "$ROOT" "$@" | sha256sum | cut -d' ' -f1; }

# project_table: the part of pyproject.toml that decides what is installed, which the tools' settings do not.
project_table() { sed '/^\[tool\./,$d' pyproject.toml; }

# open_environment NAME DIGEST [EXTRA...]: returns 1 if it is complete already, else with the environment ready for pip.
open_environment() {
  VENV="$ROOT/$1" STAMP="$ROOT/$1/.complete" BUSY="$ROOT/$1/.installing" DIGEST="$2"; shift 2
  is_complete "$@" && return 1
  lock_environment
  is_complete "$@" && return 1 # the one we waited for did our work
  # Rebuilt when half of it is missing, when it was cut short, and when the folder was moved (scripts name their path).
  if [ -e "$BUSY" ] || ! grep -qsF -- "$VENV" "$VENV/bin/activate" || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    local python; python="$(find_python)" || exit 1
    step "create ${VENV##*/} with $("$python" -V)" "$python" -m venv --clear "$VENV"
  fi
  touch "$BUSY"
  rm -f "$STAMP"
}

is_complete() {
  local extra
  [ -x "$VENV/bin/python" ] && [ ! -e "$BUSY" ] && grep -qsxF "$DIGEST" "$STAMP" || return 1
  for extra in "$@"; do grep -qxF "extra $extra" "$STAMP" || return 1; done
}

lock_environment() {
  command -v flock >/dev/null || return 0 # not on macOS: two installs at once are then the user's to avoid
  exec 9>"$ROOT/.install-${VENV##*/.}.lock"
  flock -n 9 || { say "waiting for another installation of ${VENV##*/}"; flock 9; }
}

# installed_extras: what earlier runs asked for, so that a plain run does not forget it.
installed_extras() { sed -n 's/^extra //p' "$ROOT/$1/.complete" 2>/dev/null || true; }

close_environment() {
  { printf '%s\n' "$DIGEST"; [ $# -eq 0 ] || printf 'extra %s\n' "$@"; } > "$STAMP"
  rm -f "$BUSY"
  say "${VENV##*/} is ready: $(du -sh "$VENV" | cut -f1)"
}

# Replaces the step's subshell, so that ending the step ends pip.
pip_install() { exec "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }
