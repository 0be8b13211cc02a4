// Bundles the extension: `node esbuild.mjs`, with --watch while developing. Two files, because the editor waits
// for the first one, and the language client, nine tenths of it all, is needed only after that.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

import { build, context } from "esbuild";

const watch = process.argv.includes("--watch");
const options = {
  entryPoints: ["src/extension.ts", "src/wire.ts"],
  outdir: "dist",
  bundle: true,
  platform: "node",
  format: "cjs",
  target: "node20", // what VS Code 1.91 runs on
  external: ["vscode", "./wire.js"],
  mainFields: ["module", "main"],
  minify: !watch,
  sourcemap: watch,
  banner: { js: "const loading = performance.now();" }, // activation counts from here
  metafile: true,
  logLevel: "warning",
};

/** The licences of what is in the bundle: they ask to be passed on. */
function licences({ inputs }) {
  const packages = new Set(
    Object.keys(inputs).flatMap((input) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0] ?? []),
  );
  return [...packages].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
    const file = readdirSync(folder).find((each) => /^licen[sc]e/i.test(each));
    const text = file ? readFileSync(`${folder}/${file}`, "utf8").trim() : license;
    return `${name} ${version} (${license})\n\n${text}\n`;
  });
}

if (watch) {
  await (await context(options)).watch();
} else {
  if (existsSync("dist")) {
    rmSync("dist", { recursive: true });
  }
  const { metafile } = await build(options);
  writeFileSync("dist/LICENSES.txt", licences(metafile).join(`\n${"-".repeat(78)}\n\n`));
}
