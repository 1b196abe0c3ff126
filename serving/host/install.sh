#!/usr/bin/env bash
# Sets one GPU host up, from a checkout or an unpacked release: files, deploy user, sudo rule, public port, units. Run as root.
#
#   serving/host/install.sh [--deploy-key FILE]
#
#   --deploy-key FILE   public key(s) of who may deploy: they get deploy, rollback, status and list, and nothing else
#
# May be run again: code and units are replaced, what is in /etc/qwen3-vl stays. Starts nothing but the proxy. Afterwards:
#
#   1. /etc/qwen3-vl/host.env     repositories, canary set, how an engine is swapped
#      /etc/qwen3-vl/images.env   digests of the images of Redis, Prometheus, Grafana and the exporters
#      /etc/qwen3-vl/gateway.env, engine.env   GATEWAY_*, VLLM_* and the engine's arguments; secrets.env: NOTIFY_*
#      The canary's key (/etc/qwen3-vl/canary.key) is made by the first deployment, where there is none.
#   2. /opt/qwen3-vl/serving/host/deploy.sh deploy --version V GATEWAY@sha256:… ENGINE@sha256:…
#   3. systemctl enable --now qwen3-vl
#
# Needs, and says so when it is missing: python3 (3.11 or newer), docker with compose, haproxy, sudo.
# With packages of Debian 12 or Ubuntu 24.04: docker-ce docker-compose-plugin haproxy sudo nvidia-container-toolkit.
#
# For tests and packages: PREFIX, ETC, STATE, DEPLOY_USER, SUDOERS, UNITS name other places than the defaults below;
# UNITS= (empty) installs no unit.
set -euo pipefail

PREFIX=${PREFIX-/opt/qwen3-vl}
ETC=${ETC-/etc/qwen3-vl}
STATE=${STATE-/var/lib/qwen3-vl}
DEPLOY_USER=${DEPLOY_USER-qwen3-vl-deploy}
SUDOERS=${SUDOERS-/etc/sudoers.d/qwen3-vl}
UNITS=${UNITS-/etc/systemd/system}

fail() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 1
}
