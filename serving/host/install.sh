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

key=
while [ $# -gt 0 ]; do
  case $1 in
    --deploy-key)
      key=${2-}
      [ -f "$key" ] || fail "--deploy-key: no file ${key:-(none given)}"
      shift 2
      ;;
    *) fail "$1 is no option; the head of this file has the usage" ;;
  esac
done

[ "$(id -u)" = 0 ] || fail 'run it as root'
source=$(cd -P "$(dirname "$0")/../.." && pwd)
[ "$source" != "$PREFIX" ] || fail "run it from a checkout or an unpacked release, not from $PREFIX"
missing=
for tool in python3 haproxy sudo ${CONTAINER-docker}; do
  command -v "$tool" >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || fail "missing:$missing (see the head of this file for the packages)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail 'python3 must be 3.11 or newer (Debian 12, Ubuntu 24.04)'

# ---- the program: replaced as a whole, so that nothing of an older one is left -----------------------------------------
install -d -m 755 "$PREFIX"
install -d -m 711 "$STATE"
exec 9>"$STATE/lock"
flock --nonblock 9 || fail 'a deployment is under way'
new=$(mktemp -d "$PREFIX/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
install -d -m 755 "$new/serving" "$new/delivery"
cp "$source"/serving/__init__.py "$source"/serving/arguments.py "$source"/serving/exchange.py "$new/serving/"
cp -r "$source/serving/canary" "$source/serving/host" "$new/serving/"
cp "$source"/.github/scripts/delivery/*.py "$new/delivery/"
find "$new" -name __pycache__ -prune -exec rm -rf {} +
chmod -R u=rwX,go=rX "$new"
for part in serving delivery; do
  rm -rf "${PREFIX:?}/$part.old"
  [ ! -e "$PREFIX/$part" ] || mv "$PREFIX/$part" "$PREFIX/$part.old"
  mv "$new/$part" "$PREFIX/$part"
  rm -rf "$PREFIX/$part.old"
done
ln -sfn "$ETC" "$PREFIX/etc"
host=$PREFIX/serving/host

# ---- settings: only what is not there yet ------------------------------------------------------------------------------
install -d -m 700 "$ETC"
install -d -m 755 "$STATE/textfile"
install -d -m 770 -o 2000 -g 0 "$STATE/cache"
install -d -m 700 -o 10001 -g 10001 "$ETC/keys"
put() { # FILE MODE, content from stdin, only when there is none
  if [ -e "$1" ]; then
    cat >/dev/null # read it all the same, or who writes it may end by SIGPIPE, and this script with it
  else
    install -m "$2" /dev/stdin "$1"
  fi
}
put "$ETC/host.env" 600 <"$host/host.env.example"
put "$ETC/images.env" 600 <"$host/images.env.example"
engine_key=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
if [ ! -e "$ETC/gateway.env" ] && [ ! -e "$ETC/engine.env" ]; then
  printf 'GATEWAY_ENGINE_API_KEY=%s\nGATEWAY_REDIS_URL=redis://127.0.0.1:6379/0\nGATEWAY_TENANT_SECRET=%s\n' \
    "$engine_key" "$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')" | put "$ETC/gateway.env" 600
  printf 'VLLM_API_KEY=%s\n' "$engine_key" | put "$ETC/engine.env" 600
fi
printf '# NOTIFY_WECOM_URL=…, as docs/delivery.md has them\n' | put "$ETC/secrets.env" 600
put "$STATE/serving.map" 644 <<<'gateway nowhere'
value() { # NAME DEFAULT: of host.env
  local line
  line=$(grep -E "^$1=" "$ETC/host.env" | tail -n 1) || true
  [ -z "$line" ] && printf '%s' "$2" || printf '%s' "${line#*=}"
}
ports=$(value GATEWAY_PORTS 8081,8082)
socket=$(value PROXY_SOCKET /run/haproxy/qwen3-vl.sock)
sed -e "s|@SOCKET@|$socket|; s|@STATE@|$STATE|; s|@BIND@|${BIND-:8080}|; s|@PORT_A@|${ports%,*}|; s|@PORT_B@|${ports#*,}|" \
  "$host/haproxy.cfg" | put "$ETC/haproxy.cfg" 644

# ---- what follows the release: compose file, alerts, dashboards ---------------------------------------------------------
install -m 644 "$host/compose.yaml" "$ETC/compose.yaml"
install -d -m 755 "$ETC/monitoring"
cp -r "$host/monitoring/." "$ETC/monitoring/"
files=$source/helm/qwen3-vl/files
for part in alerts dashboards; do
  rm -rf "${ETC:?}/monitoring/$part"
  cp -r "$files/$part" "$ETC/monitoring/$part"
done
cp "$files/dcgm/counters.csv" "$ETC/monitoring/counters.csv"
chmod -R u=rwX,go=rX "$ETC/monitoring"

# ---- who may deploy ----------------------------------------------------------------------------------------------------
if [ -n "$key" ]; then
  id "$DEPLOY_USER" >/dev/null 2>&1 || useradd --system --create-home --shell /bin/sh "$DEPLOY_USER"
  usermod --password '*' "$DEPLOY_USER" # no password, but not locked: sshd without PAM refuses a locked user
  home=$(getent passwd "$DEPLOY_USER" | cut -d: -f6)
  # Root's own: the user can neither change nor add to it.
  install -d -m 755 "$home/.ssh"
  grep -E '^(ssh-ed25519|ecdsa-sha2-nistp[0-9]+|ssh-rsa|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+' "$key" |
    sed "s|^|restrict,command=\"$host/restricted.sh\" |" |
    install -m 644 /dev/stdin "$home/.ssh/authorized_keys"
  [ -s "$home/.ssh/authorized_keys" ] || fail "$key has no public key"
  rule=$(mktemp)
  printf '%s ALL=(root) NOPASSWD: %s\n' "$DEPLOY_USER" "$host/deploy.sh" >"$rule"
  visudo --check --quiet --file="$rule" || fail 'sudo does not take the rule'
  install -m 440 "$rule" "$SUDOERS"
  rm -f "$rule"
fi

# ---- units -------------------------------------------------------------------------------------------------------------
if [ -n "$UNITS" ]; then
  sed "s|@PREFIX@|$PREFIX|" "$host/qwen3-vl.service" | install -m 644 /dev/stdin "$UNITS/qwen3-vl.service"
  install -d -m 755 "$UNITS/haproxy.service.d"
  printf '[Service]\nEnvironment=CONFIG=%s\n' "$ETC/haproxy.cfg" | install -m 644 /dev/stdin "$UNITS/haproxy.service.d/qwen3-vl.conf"
  haproxy -c -q -f "$ETC/haproxy.cfg" || fail "haproxy does not take $ETC/haproxy.cfg"
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable --quiet haproxy
    systemctl restart haproxy
  fi
fi
printf 'installed in %s; settings are in %s (1. of the head of install.sh)\n' "$PREFIX" "$ETC"
