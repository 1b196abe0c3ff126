#!/usr/bin/env bash
# Deploys one version to one environment: what deploy.yml runs, from the repository's root, with its variables.
set -euo pipefail
# shellcheck source=.github/scripts/release-words.sh
source "$(dirname "$0")/release-words.sh"
# shellcheck source=.github/scripts/canary-words.sh
source "$(dirname "$0")/canary-words.sh"

exec "${PYTHON:-python3}" -m delivery deploy \
  --environment "$ENVIRONMENT" --release "$RELEASE" --namespace "$NAMESPACE" --version "$VERSION" \
  --chart "${CHART:-oci://$registry/charts/qwen3-vl}" --chart-version "$VERSION" \
  --values ".github/environments/$ENVIRONMENT.yaml" \
  --set-string "gateway.image.repository=$registry/gateway" \
  --set-string "gateway.image.digest=$GATEWAY_DIGEST" \
  --set-string "engine.image.repository=$registry/engine" \
  --set-string "engine.image.digest=$ENGINE_DIGEST" \
  ${ALLOW_OLDER:+--allow-older} --canary "$canary" --compare "$compare" --soak-s "${SOAK_S:-120}"
