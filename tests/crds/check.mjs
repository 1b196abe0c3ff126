// Run by node: the published validators over manifests. Standard input: {"modules": folder, "manifests": [[schema, manifest], …]},
// where schema is the path of a validator below the folder. Standard output: a list of faults.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const { modules, manifests } = JSON.parse(readFileSync(0, "utf8"));
const faults = [];
for (const [schema, manifest] of manifests) {
  const { validate } = await import(pathToFileURL(join(modules, schema)));
  if (!validate(manifest))
    for (const one of validate.errors)
      faults.push(`${manifest.kind}/${manifest.metadata.name}: ${one.instancePath} ${one.keyword} ${JSON.stringify(one.params)}`);
}
console.log(JSON.stringify(faults));
