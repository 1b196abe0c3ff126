#!/usr/bin/env bash
# Writes down and tells that a step before a deployment or a rollback failed: no tool of this repository was there to do it.
set -euo pipefail
exec "${PYTHON:-python3}" -m delivery given-up --kind "$KIND" --environment "$ENVIRONMENT" --release "$RELEASE" \
  --namespace "$NAMESPACE" --version "$VERSION" ${NO_CLUSTER:+--no-cluster}
