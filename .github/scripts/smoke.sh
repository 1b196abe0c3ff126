#!/usr/bin/env bash
# Smoke-tests a published gateway image: real vLLM on the CPU with the demo checkpoint behind it, the demo's golden
# questions through it. Run from the repository's root.
#
#   GATEWAY_IMAGE=ghcr.io/…/gateway@sha256:… .github/scripts/smoke.sh
#
# PYTHON      with the gateway's dependencies (default: .venv/bin/python)
# CONTAINER   docker or podman (default: docker)
# ENGINE_URL  an engine that runs already; without it one is started on port 18000 and stopped at the end
# PORT        the gateway's (default: 18080); its metrics are on the next port
# Exit code: the canary's, or 1 when engine or gateway do not come up.
set -euo pipefail

: "${GATEWAY_IMAGE:?set it to the published image, by digest}"
python=${PYTHON:-.venv/bin/python}
container=${CONTAINER:-docker}
port=${PORT:-18080}
work=$(mktemp -d)
engine='' gateway=''

clean() {
  code=$?
  if [ -n "$gateway" ]; then
    [ "$code" = 0 ] || "$container" logs "$gateway" || true
    "$container" rm --force "$gateway" >/dev/null || true
  fi
  if [ -n "$engine" ]; then
    kill "$engine" 2>/dev/null || true
    wait "$engine" || true
    [ "$code" = 0 ] || tail -n 40 "$work/engine.log"
  fi
  rm -rf "$work"
  exit "$code"
}
trap clean EXIT

if [ -z "${ENGINE_URL:-}" ]; then
  "$python" -m serving run --profile cpu --port 18000 --no-report >"$work/engine.log" 2>&1 &
  engine=$!
  "$python" -m serving ready --port 18000 --wait-s 300
  ENGINE_URL=http://127.0.0.1:18000
fi

CANARY_API_KEY=$("$python" -m gateway keys create --file "$work/keys.json" --tenant smoke 2>/dev/null)
export CANARY_API_KEY
# The image's user is another one; the file has hashes only, and goes away with this script.
chmod 755 "$work"
chmod 644 "$work/keys.json"

gateway=$("$container" run --detach --network host --read-only --tmpfs /tmp --cap-drop ALL \
  --volume "$work/keys.json:/keys/keys.json:ro" \
  --env GATEWAY_KEYS_FILE=/keys/keys.json --env GATEWAY_ENGINES="$ENGINE_URL" \
  --env GATEWAY_HOST=127.0.0.1 --env GATEWAY_PORT="$port" --env GATEWAY_METRICS_PORT=$((port + 1)) \
  "$GATEWAY_IMAGE")

for _ in $(seq 60); do
  curl --silent --fail --output /dev/null "http://127.0.0.1:$port/readyz" && break
  sleep 1
done
"$python" -m serving.canary --base-url "http://127.0.0.1:$port/v1" --set demo
