#!/usr/bin/env bash
# Known vulnerabilities of what the locks pin, as PyPI's advisories have them: audit.sh LOCK...
#
# It needs https://pypi.org/pypi/NAME/VERSION/json. Where a machine reaches only a mirror of OSV's database, set
# PIP_AUDIT_VULNERABILITY_SERVICE=osv and PIP_AUDIT_OSV_URL=https://…/v1/query, which pip-audit reads.
#
# PIP_AUDIT   the program (default: .cache/workflows/venv/bin/pip-audit)
# Exit codes: 0 none is known; 1 some are, and the table says which; 2 the advisories could not be asked.
set -uo pipefail
audit=${PIP_AUDIT:-.cache/workflows/venv/bin/pip-audit}
said=$(mktemp)
trap 'rm -f "$said"' EXIT
found=0
for lock in "$@"; do
  echo "audit: $lock"
  "$audit" --strict --disable-pip --require-hashes --requirement "$lock" 2>"$said"
  code=$?
  # Vulnerabilities and failures share an exit code; only the former are counted in a sentence.
  if [ "$code" != 0 ] && ! grep -q '^Found [0-9]* known vulnerabilit' "$said"; then
    echo "audit: $lock is not audited, as PyPI's advisories cannot be asked: $(tail -n 1 "$said" | cut -c 1-300)" >&2
    echo "audit: the head of $0 says what it has to reach" >&2
    exit 2
  fi
  cat "$said" >&2
  [ "$code" = 0 ] || found=1
done
exit "$found"
