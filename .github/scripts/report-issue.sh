#!/usr/bin/env bash
# Opens an issue with a report, or adds the report to the open one of that title: report-issue.sh TITLE FILE
set -euo pipefail
title=${1:?usage: report-issue.sh TITLE FILE}
file=${2:?usage: report-issue.sh TITLE FILE}
number=$(gh issue list --state open --search "in:title \"$title\"" --json number,title \
  --jq "map(select(.title == \"$title\")) | .[0].number // empty")
if [ -n "$number" ]; then
  gh issue comment "$number" --body-file "$file"
else
  gh issue create --title "$title" --body-file "$file"
fi
