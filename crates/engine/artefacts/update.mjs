// Writes package-lock.json and files.sha256 anew after a version in package.json was changed.
//
//     node crates/engine/artefacts/update.mjs            lock and hashes
//     node crates/engine/artefacts/update.mjs --check    only say whether they are up to date
//
// Installs into a temporary folder with the same npm options as the build script. docs/artefacts.md
// says what to look at before the result is committed.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const check = process.argv.includes("--check");
const folder = mkdtempSync(join(tmpdir(), "dormouse-artefacts-"));

try {
  copyFileSync(join(here, "package.json"), join(folder, "package.json"));
  const oldLock = join(here, "package-lock.json");
  if (existsSync(oldLock)) copyFileSync(oldLock, join(folder, "package-lock.json"));

  // `resolved` addresses would tie the lock to one registry; `integrity` is what makes it safe.
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"];
  execFileSync(npm, ["install", "--omit-lockfile-registry-resolved", ...options], {
    cwd: folder,
    stdio: "inherit",
    shell: process.platform === "win32",
  });

  const lock = readFileSync(join(folder, "package-lock.json"), "utf8");
  const packages = Object.entries(JSON.parse(lock).packages).filter(([name]) => name !== "");
  for (const [name, entry] of packages) {
    if (entry.resolved) throw new Error(`${name} has a "resolved" address in the lock`);
    if (!entry.integrity) throw new Error(`${name} has no integrity hash in the lock`);
  }

  const modules = join(folder, "node_modules");
  const scope = "@electric-sql";
  const main = ["initdb.wasm", "pglite.data", "pglite.js", "pglite.wasm"];
  const files = readdirSync(join(modules, scope))
    .flatMap((name) => {
      const dist = `${scope}/${name}/dist`;
      const used = (file) => file.endsWith(".tar.gz") || (name === "pglite" && main.includes(file));
      return readdirSync(join(modules, dist)).filter(used).map((file) => `${dist}/${file}`);
    })
    .sort();
  const sha256 = (file) => createHash("sha256").update(readFileSync(join(modules, file))).digest("hex");
  const hashes = files.map((file) => `${sha256(file)}  ${file}\n`).join("");

  let stale = false;
  for (const [name, text] of [["package-lock.json", lock], ["files.sha256", hashes]]) {
    const path = join(here, name);
    if (existsSync(path) && readFileSync(path, "utf8") === text) continue;
    stale = true;
    if (!check) writeFileSync(path, text);
    console.log(`${name}: ${check ? "out of date" : "written"}`);
  }
  console.log(`${files.length} files of ${packages.length} packages${stale ? "" : ": up to date"}`);
  if (check && stale) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true });
}
