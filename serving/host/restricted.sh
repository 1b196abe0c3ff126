#!/usr/bin/env bash
# What the deploy user's key runs, whatever was asked for (authorized_keys: restrict,command="…/restricted.sh").
# Four words and plain arguments pass; no shell ever reads them. deploy.sh checks each argument again, as root.
set -euo pipefail
set -f
root=$(cd -P "$(dirname "$0")/../.." && pwd)
asked=${SSH_ORIGINAL_COMMAND-}

refuse() {
  printf 'refused: %s\nusage: deploy --version V [--commit SHA] [--actor WHO] [--run-url URL] [--unless-newer] IMAGE@sha256:… … | rollback [VERSION] | status | list\n' "$1" >&2
  exit 2
}

[ "${#asked}" -le 1000 ] || refuse 'too long'
[[ $asked =~ ^[A-Za-z0-9@:/._\ -]+$ ]] || refuse 'an empty command, or a sign that no argument needs'
read -r -a words <<<"$asked"
case "${words[0]-}" in
  deploy | rollback | status | list) ;;
  *) refuse 'no such command' ;;
esac
exec sudo --non-interactive "$root/serving/host/deploy.sh" "${words[@]}"
