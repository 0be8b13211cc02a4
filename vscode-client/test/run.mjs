/**
 * Runs the unit tests: `node test/run.mjs [name …]`.
 *
 * Each test/*.test.ts is bundled by esbuild, with test/vscode.ts in the place of VS Code, and given to
 * `node --test`; Node 20 reads no TypeScript by itself.
 */

import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "out", `test-${process.pid}`); // of its own: two runs may overlap
const wanted = process.argv.slice(2);
const names = readdirSync(here)
  .filter((name) => name.endsWith(".test.ts"))
  .map((name) => name.slice(0, -".test.ts".length))
  .filter((name) => !wanted.length || wanted.includes(name));

await build({
  entryPoints: names.map((name) => join(here, `${name}.test.ts`)),
  outdir: out,
  outExtension: { ".js": ".cjs" },
  bundle: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  sourcemap: "inline",
  alias: { vscode: join(here, "vscode.ts") },
  external: ["playwright-core", "axe-core"],
  logLevel: "warning",
});
const files = names.map((name) => join(out, `${name}.test.cjs`));
const { status } = spawnSync(
  process.execPath,
  ["--enable-source-maps", "--test", "--test-reporter=spec", "--test-timeout=120000", ...files],
  {
    cwd: join(here, ".."),
    stdio: "inherit",
  },
);
rmSync(out, { recursive: true, force: true });
process.exit(status ?? 1);
