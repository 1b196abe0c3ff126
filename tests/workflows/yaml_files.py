"""The workflows and actions as they are read by tests."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))


def read(path):
    content = yaml.safe_load(path.read_text())
    content["on"] = content.pop(True, content.get("on"))  # YAML 1.1 takes `on` for true
    return content


def jobs():
    return [(path, name, job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]


def steps():
    found = [(path, step) for path, _, job in jobs() for step in job.get("steps", ())]
    return found + [(path, step) for path in ACTIONS for step in read(path)["runs"]["steps"]]


def label(path):
    """`release`, or `cluster` of actions/cluster/action.yml."""
    return path.parent.name if path.name == "action.yml" else path.stem
