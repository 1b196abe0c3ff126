#!/usr/bin/env bash
# The chart in a real cluster: builds the gateway's image and the CPU engine's, makes a kind cluster, loads them, and runs
# `make cluster-test` in it. Run from the repository's root.
#
#   PYTHON_DIGEST=sha256:… .github/scripts/kind.sh
#
# Needs docker and kind. KEEP=yes leaves the cluster. Exit code: that of the first command that fails.
set -euo pipefail
: "${PYTHON_DIGEST:?set the variable PYTHON_DIGEST: the digest of python:3.11-slim (gateway/Dockerfile says how to read it)}"
name=qwen3-vl-test
version=$(sed -n 's/^appVersion: *//p' helm/qwen3-vl/Chart.yaml)
work=$(mktemp -d)
export KUBECONFIG=$work/kubeconfig

clean() {
  code=$?
  if [ "$code" != 0 ] && [ -s "$KUBECONFIG" ]; then
    kubectl get pods,events --all-namespaces --output wide || true
    kubectl logs --namespace qwen3-vl-test --selector app.kubernetes.io/name=qwen3-vl --all-containers --prefix --tail 60 || true
  fi
  [ -n "${KEEP:-}" ] || kind delete cluster --name "$name" || true
  rm -rf "$work"
  exit "$code"
}
trap clean EXIT

# The names that helm/qwen3-vl/ci/minimal.yaml has.
images=("ghcr.io/qwen3-vl-stack/gateway:$version" "ghcr.io/qwen3-vl-stack/engine-cpu:$version")
docker build --file gateway/Dockerfile --build-arg "PYTHON_DIGEST=$PYTHON_DIGEST" --tag "${images[0]}" .
docker build --file serving/Dockerfile.cpu --build-arg "PYTHON_DIGEST=$PYTHON_DIGEST" --tag "${images[1]}" .
kind version
kind create cluster --name "$name" --config tests/cluster/kind.yaml --wait 180s
kind load docker-image --name "$name" "${images[@]}"
# A failure is looked at above, so the namespace stays until then.
make cluster-test ARGS="--keep --timeout-s 900"
