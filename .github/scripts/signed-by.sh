#!/usr/bin/env bash
# Fails unless a workflow of this repository's main or of a tag signed it: signed-by.sh WORKFLOW IMAGE@DIGEST
set -euo pipefail
workflow=${1:?usage: signed-by.sh WORKFLOW IMAGE@DIGEST}
image=${2:?usage: signed-by.sh WORKFLOW IMAGE@DIGEST}
# A workflow of another branch signs with the same repository's name: the branch is a part of the identity. Dots are literal.
repository=${GITHUB_REPOSITORY//./\\.}
exec cosign verify "$image" --certificate-oidc-issuer https://token.actions.githubusercontent.com \
  --certificate-identity-regexp \
  "^https://github\.com/$repository/\.github/workflows/$workflow\.yml@refs/(heads/main|tags/v[0-9][^/]*)\$" >/dev/null
