/**
 * Where `star-lsp` is on this machine. Knows nothing of VS Code, and never names a file of the workspace.
 *
 * The first that is there wins: the setting, the selected Python environment, PATH and the folders where
 * installers put programs, and the environment that this extension made for itself.
 */

import * as path from "node:path";

/** What is asked of the disk; a double in tests. */
export interface Disk {
  /** Whether there is a file that may be run. */
  runnable(file: string): boolean;
  /** The path without symbolic links; the path itself when there is nothing. */
  real(file: string): string;
}

export interface Places {
  readonly platform: NodeJS.Platform;
  /** The setting, empty when there is none. It is the user's own: no workspace can set it. */
  readonly setting: string;
  /** The interpreter of the selected Python environment. */
  readonly python: string | undefined;
  /** PATH, as the environment has it. */
  readonly path: string;
  readonly home: string;
  /** The environment that this extension made for itself. */
  readonly own: string;
  /** Folders that are open. */
  readonly workspace: readonly string[];
  readonly trusted: boolean;
}

export interface Found {
  readonly command: string;
  readonly from: "setting" | "python" | "path" | "own";
}

/** Why something that might have been it is not. */
export interface Skipped {
  readonly place: string;
  readonly why: "relative" | "workspace" | "absent";
}

export interface Search {
  readonly found: Found | undefined;
  readonly skipped: readonly Skipped[];
}

export function find(places: Places, disk: Disk): Search {
  const skipped: Skipped[] = [];
  const paths = flavour(places.platform);
  const skip = (place: string, why: Skipped["why"]) => void skipped.push({ place, why });

  const setting = expanded(places.setting.trim(), places);
  if (setting) {
    if (!paths.isAbsolute(setting)) {
      skip(setting, "relative");
    } else if (!places.trusted && ofWorkspace(setting, places, disk)) {
      skip(setting, "workspace");
    } else if (!disk.runnable(setting)) {
      skip(setting, "absent");
    } else {
      return { found: { command: setting, from: "setting" }, skipped };
    }
    // Who says where it is does not want another one.
    return { found: undefined, skipped };
  }

  const program = places.platform === "win32" ? "star-lsp.exe" : "star-lsp";
  const look = (folder: string, from: Found["from"], quiet: boolean): Found | undefined => {
    const file = paths.join(folder, program);
    if (!disk.runnable(file)) {
      return quiet ? undefined : (skip(file, "absent"), undefined);
    }
    return from === "own" || !ofWorkspace(file, places, disk)
      ? { command: file, from }
      : (skip(file, "workspace"), undefined);
  };

  if (places.python && places.trusted) {
    const found = paths.isAbsolute(places.python) && look(paths.dirname(places.python), "python", false);
    if (found) {
      return { found, skipped };
    }
  }
  for (const folder of programFolders(places, skip)) {
    const found = look(folder, "path", true);
    if (found) {
      return { found, skipped };
    }
  }
  const own = look(binOf(places.own, places.platform), "own", true);
  return { found: own, skipped };
}

/** A program by its name, from the same folders as the server and under the same rules. */
export function program(name: string, places: Places, disk: Disk): string | undefined {
  const paths = flavour(places.platform);
  const file = places.platform === "win32" ? `${name}.exe` : name;
  return programFolders(places, () => undefined)
    .map((folder) => paths.join(folder, file))
    .find((each) => disk.runnable(each) && !ofWorkspace(each, places, disk));
}

/** The folder of programs in a Python environment. */
export function binOf(environment: string, platform: NodeJS.Platform): string {
  return flavour(platform).join(environment, platform === "win32" ? "Scripts" : "bin");
}

/** Whether a path is that of an open folder or lies in one, by any of its names. */
export function ofWorkspace(
  file: string,
  places: Pick<Places, "platform" | "workspace">,
  disk: Disk,
): boolean {
  const paths = flavour(places.platform);
  // Such systems may hold two spellings for one; to skip too much is safe.
  const folded = (each: string) => (places.platform === "linux" ? each : each.toLowerCase());
  const within = (inner: string, outer: string) => {
    const way = paths.relative(folded(outer), folded(inner));
    return way === "" || !(way === ".." || way.startsWith(`..${paths.sep}`) || paths.isAbsolute(way));
  };
  const names = [paths.resolve(file), disk.real(file)];
  return places.workspace.some((folder) =>
    [paths.resolve(folder), disk.real(folder)].some((outer) => names.some((inner) => within(inner, outer))),
  );
}

/** An environment for a Python program: less what would have it load files from elsewhere, as a workspace. */
export function environment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { PYTHONPATH: _path, PYTHONHOME: _home, PYTHONSTARTUP: _startup, ...kept } = env;
  return { ...kept, PYTHONSAFEPATH: "1" };
}

function programFolders(places: Places, skip: (place: string, why: "relative") => void): string[] {
  const paths = flavour(places.platform);
  // GUI programs often have a shorter PATH than shells: uv and pipx put theirs here.
  const known = [paths.join(places.home, ".local", "bin")];
  if (places.platform !== "win32") {
    known.push("/usr/local/bin", "/opt/homebrew/bin");
  }
  const folders: string[] = [];
  for (const entry of [...places.path.split(paths.delimiter), ...known]) {
    const folder = entry.replace(/^"(.*)"$/, "$1");
    if (!paths.isAbsolute(folder)) {
      // An empty entry means the working folder, which may be the workspace.
      skip(folder, "relative");
    } else if (!folders.includes(folder)) {
      folders.push(folder);
    }
  }
  return folders;
}

function expanded(setting: string, places: Places): string {
  return /^~[\\/]/.test(setting) ? flavour(places.platform).join(places.home, setting.slice(2)) : setting;
}

function flavour(platform: NodeJS.Platform): path.PlatformPath {
  return platform === "win32" ? path.win32 : path.posix;
}
