#!/usr/bin/env bash
# Asks a GPU host to deploy, roll back, or tell: what deploy-host.yml runs, with its variables. The host does the rest, also
# when this connection is cut; its exit code is this script's (255: no connection). Sets the step's output `reached` when the
# host has begun, which it says on standard output: from then on it tells people itself. What it refuses it only says as an error.
set -euo pipefail
: "${SSH_HOST:?set the environment variable SSH_HOST: name or address of the GPU host}"
: "${SSH_KNOWN_HOSTS:?set the environment variable SSH_KNOWN_HOSTS: the line of ssh-keyscan, compared on the host itself}"
: "${SSH_KEY:?set the environment secret SSH_KEY: the private key that install.sh --deploy-key was given the other half of}"

who=$(printf '%s' "${GITHUB_ACTOR:-nobody}" | tr -c 'A-Za-z0-9-' '-')
run="${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY/actions/runs/${GITHUB_RUN_ID:-0}"
words=("$COMMAND")
case $COMMAND in
  deploy)
    : "${VERSION:?a deployment needs a version}"
    words+=(--version "$VERSION" --commit "$GITHUB_SHA" --actor "$who" --run-url "$run" ${UNLESS_NEWER:+--unless-newer})
    images=ghcr.io/${GITHUB_REPOSITORY,,}
    [ -z "${GATEWAY_DIGEST:-}" ] || words+=("$images/gateway@$GATEWAY_DIGEST")
    [ -z "${ENGINE_DIGEST:-}" ] || words+=("$images/engine@$ENGINE_DIGEST")
    ;;
  rollback) words+=(--actor "$who" --run-url "$run" ${VERSION:+"$VERSION"}) ;;
  status | list) ;;
  *)
    printf 'deploy-host.sh: no such command: %s\n' "$COMMAND" >&2
    exit 2
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(umask 077 && printf '%s\n' "$SSH_KEY" >"$work/key")
printf '%s\n' "$SSH_KNOWN_HOSTS" >"$work/known_hosts"
# The words hold nothing that a shell reads: the host refuses any other sign. No agent, no other key, no unknown host.
code=0
ssh -F /dev/null -i "$work/key" -p "$SSH_PORT" -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes \
  -o "UserKnownHostsFile=$work/known_hosts" -o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=20 \
  -o ServerAliveInterval=30 -o ServerAliveCountMax=10 -- "$SSH_USER@$SSH_HOST" "${words[*]}" | tee "$work/said" || code=$?
[ ! -s "$work/said" ] || echo 'reached=yes' >>"${GITHUB_OUTPUT:-/dev/null}"
exit "$code"
