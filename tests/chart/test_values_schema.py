"""Every rule of values.schema.json refuses what it is there to refuse: derived from the schema, asked of helm itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict

import pytest

from gateway.settings import Settings
from helm.tools import schema as schema_tool
from helm.tools import values_file
from tests.support import chart

SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())
COMPLAINT = re.compile(r"^\s*- at '([^']*)': (.*)$", re.MULTILINE)
WRONG_TYPE = {"string": 7, "integer": "seven", "number": "seven", "boolean": "maybe", "array": "list", "object": "map"}
SAMPLES = {"string": "x", "integer": 1, "number": 1, "object": {}}
UNKNOWN = "noSuchKey"


def resolved(rule):
    return SCHEMA["definitions"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule


def types(rule):
    given = rule.get("type", [])
    return [given] if isinstance(given, str) else given


def long_enough(rule):
    """A value that keeps the other rules of a list's items, so that only the rule under test is broken."""
    rule = resolved(rule)
    if "pattern" in rule:
        return "10.0.0.0/8"
    return rule.get("minimum", SAMPLES[types(rule)[0]])


SIMPLE = {
    "enum": lambda _: "none-of-them",
    "pattern": lambda _: "\t",
    "minimum": lambda limit: limit - 1,
    "exclusiveMinimum": lambda limit: limit,
    "maximum": lambda limit: limit + 1,
    "minLength": lambda _: "",
    "maxLength": lambda limit: "x" * (limit + 1),
    "minItems": lambda _: [],
}
"""A rule of one value -> a value that breaks it."""


def broken(rule):
    """Values that break one rule each: (name of the rule, value, path below at which helm complains)."""
    if types(rule):
        yield "type", WRONG_TYPE[next(one for one in types(rule) if one != "null")] if len(types(rule)) == 1 else [], ""
    for name in SIMPLE.keys() & rule.keys():
        yield name, SIMPLE[name](rule[name]), ""
    if rule.get("uniqueItems"):
        yield "uniqueItems", [long_enough(rule["items"])] * 2, ""
    if isinstance(rule.get("items"), dict):
        yield from broken_items(resolved(rule["items"]))
    extra = rule.get("additionalProperties")
    if isinstance(extra, dict) and "$ref" not in extra:
        for name, value, below in broken(extra):
            yield f"values {name}", {"KEY": value}, f"/KEY{below}"


def broken_items(items):
    for name, value, below in broken(items):
        yield f"items {name}", [value], f"/0{below}"
    if items.get("additionalProperties") is False:
        yield "items additionalProperties", [{"name": "x", UNKNOWN: 1}], "/0"
    for name in items.get("required", []):
        yield f"items required {name}", [{}], "/0"


def rules(rule, path):
    """Every rule of the schema below this path: (path, name, value, path of the complaint)."""
    rule = resolved(rule)
    if path:
        for name, value, below in broken(rule):
            yield path, name, value, "/" + "/".join(path) + below
    for key, inner in rule.get("properties", {}).items():
        yield from rules(inner, (*path, key))
    if rule.get("additionalProperties") is False:
        yield (*path, UNKNOWN), "additionalProperties", 1, "/" + "/".join(path) if path else ""
    if isinstance(rule.get("additionalProperties"), dict) and "$ref" in rule["additionalProperties"]:
        yield from rules(rule["additionalProperties"], (*path, "l4"))


def put(values, path, value):
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def complaints(values):
    done = subprocess.run(
        [chart.HELM, "template", "x", chart.CHART, "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | chart.FAST,
    )
    assert done.returncode, "helm let it pass"
    found = defaultdict(list)
    for path, message in COMPLAINT.findall(done.stderr):
        found[path].append(message)
    return found


@pytest.fixture(scope="module")
def told():
    """Each rule with what helm says when it is broken. As many rules at once as do not hide each other."""
    left = list(rules(SCHEMA, ()))
    answers = {}
    while left:
        values, taken, later = {"pools": {"l4": {"profile": "l4"}}}, [], []
        for one in left:
            path = one[0]
            # A map that is given as a whole, or is no map at all, hides what is below it.
            if any(path[: len(other[0])] == other[0] or other[0][: len(path)] == path for other in taken):
                later.append(one)
            else:
                put(values, path, one[2])
                taken.append(one)
        found = complaints(values)
        for path, name, _, at in taken:
            answers[path, name] = found.get(at, [])
        left = later
    return answers


def test_every_rule_refuses(told):
    assert len(told) > 500
    assert [key for key, messages in told.items() if not messages] == []


def test_every_kind_of_rule_is_exercised(told):
    def keywords(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key in {"properties", "definitions"}:
                    for inner in value.values():
                        yield from keywords(inner)
                else:
                    yield key
                    yield from keywords(value)
        elif isinstance(node, list):
            for value in node:
                yield from keywords(value)

    rule_words = set(keywords(SCHEMA)) - {"$schema", "title", "description", "$ref", "items", "format"}
    exercised = {word for _, name in told for word in name.split()}
    # `required` and `propertyNames` have tests of their own below.
    assert rule_words - exercised <= {"required", "propertyNames"}


def test_a_key_that_is_taken_out_is_missed():
    def blank(rule, top):
        rule = resolved(rule)
        return {
            name: None if not top or "properties" not in inner else blank(inner, top=False)
            for name, inner in rule["properties"].items()
            if name in rule.get("required", [])
        }

    found = complaints(dict.fromkeys(SCHEMA["required"]))
    for name in SCHEMA["required"]:
        assert f"'{name}'" in str(found[""]), name
    found = complaints(
        {
            name: blank(SCHEMA["properties"][name], top=False)
            for name in SCHEMA["required"]
            if "properties" in SCHEMA["properties"][name]
        }
    )
    for name, rule in SCHEMA["properties"].items():
        for inner in rule.get("required", []):
            assert f"'{inner}'" in str(found[f"/{name}"]), (name, inner)


@pytest.mark.parametrize("name", ["L4", "a_b", "4x", "-a", "a-", "p" * 21])
def test_a_pools_name_must_fit_into_names_of_objects(name):
    assert complaints({"pools": {name: {"profile": "l4"}}})


def test_a_pool_must_name_its_profile():
    assert "'profile'" in str(complaints({"pools": {"l4": {"replicas": 1}}})["/pools/l4"])


def test_every_setting_of_the_gateway_can_be_given_but_those_that_the_chart_sets():
    offered = set(SCHEMA["definitions"]["gatewaySettings"]["properties"])
    secret = {"engine_api_key", "redis_url", "tenant_secret"}
    assert offered == set(Settings.model_fields) - schema_tool.CHART_SETS - schema_tool.AUDIT_FILE - secret


def test_every_key_is_documented():
    keys = values_file.read((chart.CHART / "values.yaml").read_text())
    assert [key.path for top in keys for key in top.walk() if not key.doc] == []
