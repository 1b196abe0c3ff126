#!/usr/bin/env bash
# Lets only pass what this repository built from main or from a tag: both images, and the chart, which is fetched into
# the folder $1 and named on standard output. Run with GITHUB_REPOSITORY, VERSION, GATEWAY_DIGEST and ENGINE_DIGEST.
set -euo pipefail
folder=${1:?usage: only-ours.sh FOLDER}
# shellcheck source=.github/scripts/release-words.sh
source "$(dirname "$0")/release-words.sh"

signed_by=$(dirname "$0")/signed-by.sh
"$signed_by" image "$registry/gateway@$GATEWAY_DIGEST"
"$signed_by" image "$registry/engine@$ENGINE_DIGEST"

# A version is a tag, which can be moved: what was fetched is what has to be signed, and what is deployed.
fetched=$(helm pull "oci://$registry/charts/qwen3-vl" --version "$VERSION" --destination "$folder" 2>&1)
digest=$(sed -n 's/^Digest: *\(sha256:[0-9a-f]\{64\}\)$/\1/p' <<<"$fetched")
[ -n "$digest" ] || { echo "helm did not say what it fetched: $fetched" >&2; exit 1; }
"$signed_by" release "$registry/charts/qwen3-vl@$digest"
echo "$folder/qwen3-vl-$VERSION.tgz"
