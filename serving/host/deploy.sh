#!/usr/bin/env bash
# Deploys to this one GPU host: a new stack beside the old one, a vision answer, the switch, and back again by itself.
#
#   deploy.sh deploy --version V [--commit SHA] [--actor WHO] [--run-url URL] [--unless-newer] IMAGE@sha256:… [IMAGE@sha256:…]
#                                 the gateway's image, the engine's, or both; one that is not named stays as it is;
#                                 --unless-newer: a release that was overtaken by a newer one fails, and changes nothing
#   deploy.sh rollback [VERSION]  to a kept version; without one, to the one that served before
#   deploy.sh status              what serves, and how the last attempt ended
#   deploy.sh list                the kept versions
#   deploy.sh converge            make what runs what the state says: at boot (qwen3-vl.service), after a kill
#
# Run as root. Settings: /etc/qwen3-vl/host.env (host.env.example lists them). The images must be of GATEWAY_REPOSITORY
# and ENGINE_REPOSITORY there, whoever asks. docs/host.md has what it does, step by step.
#
# Exit codes: 0 it serves, and sees; 1 it does not, and what served before serves again; 2 the command line or a setting is
# wrong; 3 a person is needed; 75 another deployment is under way.
#
# A thin entry: the program is serving/host/*.py, standard library only, Python 3.11 or newer. It starts with a clean
# environment, so that nobody's shell decides what is run as root.
set -euo pipefail
root=$(cd -P "$(dirname "$0")/../.." && pwd)
cd / # and -P: what lies in the caller's directory is no part of the program
# As root it must not write .pyc files beside sources that somebody else may own.
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
  PYTHONPATH="$root:$root/.github/scripts" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
  python3 -P -m serving.host --etc "$root/etc" "$@"
