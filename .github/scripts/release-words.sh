# Sourced by only-ours.sh and deploy-cluster.sh: what is to be deployed, said exactly. A version that is a range would let
# helm choose one; a digest with a comma would set further values.
# shellcheck shell=bash
[[ ${VERSION:-} =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] ||
  { echo "VERSION is '${VERSION:-}': give one version as published, such as 0.1.0-main.7" >&2; exit 2; }
for digest in "${GATEWAY_DIGEST:-}" "${ENGINE_DIGEST:-}"; do
  [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] ||
    { echo "'$digest' is no digest: GATEWAY_DIGEST and ENGINE_DIGEST have to be sha256: and 64 hex digits" >&2; exit 2; }
done
registry=ghcr.io/${GITHUB_REPOSITORY,,}
export registry
