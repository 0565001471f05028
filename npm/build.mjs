// node npm/build.mjs FOLDER: make the npm package in a folder, for "npm pack" there.
//
// Above this folder there must be node_modules with typescript, @types/react and vue. Its modules are those that the
// blueprint serves, and npm/src; tsc makes the declarations of their types, and fails where a type is wrong.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const HERE = import.meta.dirname;
const SERVED = "../flask_sse_emitters/server/static";

const folder = resolve(process.argv[2]);
const modules = join(folder, "dist");
rmSync(modules, { recursive: true, force: true });
mkdirSync(modules, { recursive: true });

for (const name of readdirSync(join(HERE, SERVED))) copyFileSync(join(HERE, SERVED, name), join(modules, name));
for (const name of readdirSync(join(HERE, "src"))) {
  const text = readFileSync(join(HERE, "src", name), "utf8");
  writeFileSync(join(modules, name), text.replaceAll(`../${SERVED}/`, "./")); // in the package all lie side by side
}

/** The version of setup.cfg, as npm writes it: 1.0.0rc1 is 1.0.0-rc.1. */
const [, version] = /^version = (\S+)$/m.exec(readFileSync(join(HERE, "../setup.cfg"), "utf8"));
const described = JSON.parse(readFileSync(join(HERE, "package.json"), "utf8"));
described.version = version.replace(/(\d)(a|b|rc)(\d+)$/, (_, digit, kind, number) => {
  return `${digit}-${{ a: "alpha", b: "beta", rc: "rc" }[kind]}.${number}`;
});
writeFileSync(join(folder, "package.json"), `${JSON.stringify(described, null, 2)}\n`);
for (const name of ["README.md", "tsconfig.json"]) copyFileSync(join(HERE, name), join(folder, name));
copyFileSync(join(HERE, "../LICENSE"), join(folder, "LICENSE"));

const compiler = createRequire(join(folder, "package.json")).resolve("typescript/bin/tsc");
execFileSync(process.execPath, [compiler, "--project", folder], { stdio: "inherit" });
