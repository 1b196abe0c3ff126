#!/usr/bin/env bash
# Lets only pass what this repository built from main or from a tag: both images, and the chart, which is fetched into
# the folder $1 and named on standard output. Run with GITHUB_REPOSITORY, VERSION, GATEWAY_DIGEST and ENGINE_DIGEST.
set -euo pipefail
folder=${1:?usage: only-ours.sh FOLDER}
# shellcheck source=.github/scripts/release-words.sh
source "$(dirname "$0")/release-words.sh"

# A workflow of another branch signs with the same repository's name: the branch is a part of the identity. Dots are literal.
repository=${GITHUB_REPOSITORY//./\\.}
signed_by() {
  cosign verify "$2" --certificate-oidc-issuer https://token.actions.githubusercontent.com \
    --certificate-identity-regexp \
    "^https://github\.com/$repository/\.github/workflows/$1\.yml@refs/(heads/main|tags/v[0-9][^/]*)\$" >/dev/null
}
signed_by image "$registry/gateway@$GATEWAY_DIGEST"
signed_by image "$registry/engine@$ENGINE_DIGEST"

# A version is a tag, which can be moved: what was fetched is what has to be signed, and what is deployed.
fetched=$(helm pull "oci://$registry/charts/qwen3-vl" --version "$VERSION" --destination "$folder" 2>&1)
digest=$(sed -n 's/^Digest: *\(sha256:[0-9a-f]\{64\}\)$/\1/p' <<<"$fetched")
[ -n "$digest" ] || { echo "helm did not say what it fetched: $fetched" >&2; exit 1; }
signed_by release "$registry/charts/qwen3-vl@$digest"
echo "$folder/qwen3-vl-$VERSION.tgz"
