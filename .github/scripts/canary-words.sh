# Sourced by deploy-cluster.sh and rollback-cluster.sh: the canary's words from the environment's variables.
# shellcheck shell=bash
: "${PUBLIC_URL:?set the environment variable PUBLIC_URL: the address that clients use, without /v1}"
: "${CANARY_API_KEY:?set the environment secret CANARY_API_KEY: a key of the gateway}"
canary=$(printf '%q ' "${PYTHON:-python3}" -m serving.canary --base-url "${PUBLIC_URL%/}/v1" --set "$CANARY_SET")
compare=''
if [ -n "${PROMETHEUS_URL:-}" ]; then
  compare=$(printf '%q ' --prometheus "$PROMETHEUS_URL" --selector "namespace=\"$NAMESPACE\"")
fi
export canary compare
