import assert from "node:assert/strict";
import test from "node:test";

import { binOf, type Disk, environment, find, ofWorkspace, type Places, program } from "../src/server";

function disk(files: string[], links: Record<string, string> = {}): Disk {
  const real = (file: string) => {
    const link = Object.keys(links).find((each) => file === each || file.startsWith(`${each}/`));
    return link === undefined ? file : links[link] + file.slice(link.length);
  };
  return { runnable: (file) => files.includes(file), real };
}

const LINUX: Places = {
  platform: "linux",
  setting: "",
  python: undefined,
  path: "/usr/bin",
  home: "/home/me",
  own: "/home/me/.config/Code/star/server",
  workspace: ["/home/me/code"],
  trusted: true,
};

test("the setting is first, then the selected environment, then PATH, then the environment of our own", () => {
  const files = ["/opt/star-lsp", "/envs/py/bin/star-lsp", "/usr/bin/star-lsp", `${LINUX.own}/bin/star-lsp`];
  const all = { ...LINUX, setting: "/opt/star-lsp", python: "/envs/py/bin/python" };
  assert.deepEqual(find(all, disk(files)).found, { command: "/opt/star-lsp", from: "setting" });
  const unset = { ...all, setting: "" };
  assert.equal(find(unset, disk(files)).found?.from, "python");
  assert.equal(find(unset, disk(files.slice(2))).found?.from, "path");
  assert.equal(find(unset, disk(files.slice(3))).found?.from, "own");
  assert.equal(find(unset, disk([])).found, undefined);
});

test("who says where it is gets no other one", () => {
  const { found, skipped } = find({ ...LINUX, setting: "/gone/star-lsp" }, disk(["/usr/bin/star-lsp"]));
  assert.equal(found, undefined);
  assert.deepEqual(skipped, [{ place: "/gone/star-lsp", why: "absent" }]);
});

test("a setting may begin with ~ and must not be relative", () => {
  const files = ["/home/me/bin/star-lsp"];
  assert.equal(find({ ...LINUX, setting: "~/bin/star-lsp" }, disk(files)).found?.command, files[0]);
  assert.equal(find({ ...LINUX, setting: "bin/star-lsp" }, disk(files)).skipped[0]?.why, "relative");
});

test("entries of PATH that are relative or empty are skipped: they mean the workspace", () => {
  const files = ["./star-lsp", "star-lsp", "bin/star-lsp", "/home/me/code/star-lsp"];
  const { found, skipped } = find({ ...LINUX, path: "::.:bin:node_modules/.bin" }, disk(files));
  assert.equal(found, undefined);
  assert.ok(skipped.length >= 3 && skipped.every(({ why }) => why === "relative"));
});

test("entries of PATH in the workspace are skipped, by whatever name they go", () => {
  const path = "/home/me/code/.venv/bin:/home/me/other/../code/bin:/link/bin:/usr/bin";
  const files = [
    "/home/me/code/.venv/bin/star-lsp",
    "/home/me/other/../code/bin/star-lsp",
    "/home/me/code/bin/star-lsp",
    "/link/bin/star-lsp",
    "/usr/bin/star-lsp",
  ];
  const { found, skipped } = find({ ...LINUX, path }, disk(files, { "/link": "/home/me/code" }));
  assert.equal(found?.command, "/usr/bin/star-lsp");
  assert.deepEqual(new Set(skipped.map(({ why }) => why)), new Set(["workspace"]));
});

test("a link elsewhere that leads to a file of the workspace is skipped, and a workspace that is a link is seen through", () => {
  const one = disk(["/usr/bin/star-lsp"], { "/usr/bin/star-lsp": "/home/me/code/evil" });
  assert.equal(find(LINUX, one).found, undefined);
  const two = disk(["/real/code/bin/star-lsp"], { "/home/me/code": "/real/code" });
  assert.equal(find({ ...LINUX, path: "/real/code/bin" }, two).found, undefined);
});

test("the selected environment is not used when it lies in the workspace or the workspace is not trusted", () => {
  const files = ["/home/me/code/.venv/bin/star-lsp", "/envs/py/bin/star-lsp"];
  const inside = { ...LINUX, python: "/home/me/code/.venv/bin/python" };
  assert.equal(find(inside, disk(files)).skipped[0]?.why, "workspace");
  const outside = { ...LINUX, python: "/envs/py/bin/python", trusted: false };
  assert.equal(find(outside, disk(files)).found, undefined);
});

test("a file of a workspace that is not trusted is not run even when the setting names it", () => {
  const named = { ...LINUX, setting: "/home/me/code/.venv/bin/star-lsp" };
  const there = disk([named.setting]);
  assert.equal(find(named, there).found?.from, "setting");
  assert.equal(find({ ...named, trusted: false }, there).skipped[0]?.why, "workspace");
});

test("every folder of a workspace of several counts", () => {
  const places = { ...LINUX, workspace: ["/a", "/b"], path: "/a/bin:/b/bin:/bc/bin" };
  const files = ["/a/bin/star-lsp", "/b/bin/star-lsp", "/bc/bin/star-lsp"];
  assert.equal(find(places, disk(files)).found?.command, "/bc/bin/star-lsp");
});

test("where uv and pipx put programs is looked at beyond PATH", () => {
  const files = ["/home/me/.local/bin/star-lsp", "/home/me/.local/bin/uv"];
  assert.equal(find(LINUX, disk(files)).found?.command, files[0]);
  assert.equal(program("uv", LINUX, disk(files)), files[1]);
  assert.equal(program("uv", { ...LINUX, workspace: ["/home/me"] }, disk(files)), undefined);
});

test("on Windows it is an .exe, drives and cases are seen through", () => {
  const windows: Places = {
    ...LINUX,
    platform: "win32",
    path: '"C:\\Program Files\\py";c:\\CODE\\bin;.',
    home: "C:\\Users\\me",
    own: "C:\\own",
    workspace: ["C:\\Code"],
  };
  const files = ["c:\\CODE\\bin\\star-lsp.exe", "C:\\own\\Scripts\\star-lsp.exe"];
  const { found, skipped } = find(windows, disk(files));
  assert.deepEqual(found, { command: files[1], from: "own" });
  assert.deepEqual(skipped.map(({ why }) => why).sort(), ["relative", "workspace"]);
  const spaced = find(windows, disk(["C:\\Program Files\\py\\star-lsp.exe"]));
  assert.equal(spaced.found?.from, "path");
  assert.equal(ofWorkspace("D:\\Code\\x", windows, disk([])), false);
  assert.equal(binOf("C:\\own", "win32"), "C:\\own\\Scripts");
});

test("the environment of a shell cannot have the server load files of the workspace", () => {
  const env = environment({ PATH: "/usr/bin", PYTHONPATH: ".", PYTHONHOME: "x", STAR_LSP_HOME: "/h" });
  assert.deepEqual(env, { PATH: "/usr/bin", STAR_LSP_HOME: "/h", PYTHONSAFEPATH: "1" });
});
