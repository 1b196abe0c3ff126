#!/usr/bin/env bash
# Lists the kept releases of one environment; with TO set, goes to one of them. What rollback.yml runs.
set -euo pipefail
# A list that cannot be had is written down and told by the rollback itself, which then fails for the same reason.
"${PYTHON:-python3}" -m delivery releases --release "$RELEASE" --namespace "$NAMESPACE" || [ -n "${TO:-}" ]
if [ -z "${TO:-}" ]; then
  echo 'Nothing was changed: give a revision, version or commit to go to.'
  exit 0
fi
# shellcheck source=.github/scripts/canary-words.sh
source "$(dirname "$0")/canary-words.sh"

exec "${PYTHON:-python3}" -m delivery rollback --to "$TO" \
  --environment "$ENVIRONMENT" --release "$RELEASE" --namespace "$NAMESPACE" \
  --canary "$canary" --compare "$compare" --soak-s "${SOAK_S:-120}"
