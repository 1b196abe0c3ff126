"""Run by .venv-chart's Python: manifests against the schemas of Kubernetes releases and of custom resources.

Server-side apply is part of that: lists that the API server merges by keys (x-kubernetes-list-map-keys) may have one entry
for each key, whatever JSON schema thinks of it.

Standard input: {"versions": [...], "crds": {...}, "manifests": {sample: [...]}}. Standard output: a list of faults.
Schemas are read once for each release; a kind that neither knows is a fault, not a warning.
"""

from __future__ import annotations

import functools
import json
import sys

import jsonschema
from kubernetes_validate import utils
from referencing import Registry, Resource


@functools.cache
def definitions(version):
    contents = utils.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version)
    return Resource.from_contents(contents) @ Registry()


@functools.cache
def validator(version, kind, api_version):
    group, _, number = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.partition(".")[0], number]))
    schema = utils.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{name}.json", version)
    registry = Resource.from_contents(schema) @ definitions(version)
    return jsonschema.validators.Draft202012Validator(schema, registry=registry)


LIST_DEFAULTS = {"protocol": "TCP"}
"""A key that is left out, as the API server fills it in."""


def merged_twice(version, schema, node, path="$"):
    """Lists with two entries for one key of server-side apply."""
    if (reference := schema.get("$ref")) is not None:
        name = reference.rpartition("/")[2]
        schema = definitions_of(version)[name] | {key: value for key, value in schema.items() if key != "$ref"}
    if isinstance(node, dict):
        inner = schema.get("properties", {})
        for key, value in node.items():
            below = inner.get(key) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from merged_twice(version, below, value, f"{path}.{key}")
    elif isinstance(node, list):
        kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", [])
        if kind is None and "merge" in schema.get("x-kubernetes-patch-strategy", ""):
            # As older releases say it; the API server takes it for the same.
            kind, keys = ("map", [key]) if (key := schema.get("x-kubernetes-patch-merge-key")) else ("set", [])
        entries = [
            [entry.get(key, LIST_DEFAULTS.get(key)) for key in keys] if kind == "map" else entry for entry in node
        ]
        if kind in {"map", "set"}:
            yield from (f"{path}: {entry} twice" for at, entry in enumerate(entries) if entry in entries[:at])
        for at, entry in enumerate(node):
            yield from merged_twice(version, schema.get("items", {}), entry, f"{path}[{at}]")


@functools.cache
def definitions_of(version):
    return utils.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version)[
        "$defs"
    ]


def native(version, manifest):
    try:
        checked = validator(version, manifest["kind"], manifest["apiVersion"])
    except FileNotFoundError:
        return [f"{manifest['apiVersion']} {manifest['kind']} does not exist in Kubernetes {version}"]
    found = [f"{error.json_path}: {error.message}" for error in checked.iter_errors(manifest)]
    return found + list(merged_twice(version, checked.schema, manifest))


def custom(schema, manifest):
    checked = jsonschema.validators.Draft202012Validator({"type": "object", **schema})
    return [f"$.spec{error.json_path[1:]}: {error.message}" for error in checked.iter_errors(manifest["spec"])]


def pods_of(manifest):
    """A LeaderWorkerSet's pods, as Deployments: their schema is Kubernetes' own."""
    for role in ("leaderTemplate", "workerTemplate"):
        template = manifest["spec"]["leaderWorkerTemplate"][role]
        spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
        yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": manifest["metadata"], "spec": spec}


def main():
    asked = json.load(sys.stdin)
    faults = []
    for sample, manifests in asked["manifests"].items():
        for manifest in manifests:
            name = f"{sample}: {manifest['kind']}/{manifest['metadata']['name']}"
            schema = asked["crds"].get(f"{manifest['apiVersion']}/{manifest['kind']}")
            natives = [manifest]
            if schema is not None:
                faults += [f"{name}: {fault}" for fault in custom(schema, manifest)]
                natives = list(pods_of(manifest)) if manifest["kind"] == "LeaderWorkerSet" else []
            for version in asked["versions"]:
                for one in natives:
                    faults += [f"{name} ({version}): {fault}" for fault in native(version, one)]
    json.dump(faults, sys.stdout)


if __name__ == "__main__":
    main()
