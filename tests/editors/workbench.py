"""A real VS Code workbench: code-server in Chromium, from package registries only, driven by Playwright."""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from filelock import FileLock
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.editors.session import ROOT, Lsp, absent, cache, need, until

__all__ = ["PICTURES", "PICTURES_FOLDER", "Tools", "Window", "Workbench", "chromium", "tools", "vsix"]

_NODE, _SERVER = "24.21.0", "4.139.1"
_CLIENT = ROOT / "vscode-client"

#: What the READMEs show, and where it is.
PICTURES = ("ghost", "mark", "lens", "correct", "status", "report", "report-dark", "view", "batch")
PICTURES_FOLDER = _CLIENT / "media" / "screens"

#: Keeps the page quiet: nothing but what a test does is to be seen, and nothing asks for a network.
_SETTINGS = {
    "workbench.startupEditor": "none",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.tips.enabled": False,
    "chat.disableAIFeatures": True,
    "git.enabled": False,
    "git.openRepositoryInParentFolders": "never",
    "telemetry.telemetryLevel": "off",
    "extensions.autoCheckUpdates": False,
    "extensions.autoUpdate": False,
    "editor.minimap.enabled": False,
    "editor.quickSuggestions": {"other": "off"},
    "editor.parameterHints.enabled": False,
    "editor.autoClosingBrackets": "never",
    "editor.autoClosingQuotes": "never",
    "editor.occurrencesHighlight": "off",
    "workbench.colorTheme": "Light Modern",
    "files.simpleDialog.enable": True,
    "window.confirmBeforeClose": "never",
    "security.workspace.trust.enabled": True,
    "security.workspace.trust.startupPrompt": "never",
    "security.workspace.trust.banner": "never",
}

#: code-server without its native logger writes no log files; this writes them.
_LOGGER = """
// Put here by star-lsp's tests: the native module needs a compiler, the log of the extension host does not.
const fs = require('fs'), path = require('path');
exports.version = 0; exports.setLevel = () => {}; exports.setFlushOn = () => {};
class Logger {
  constructor(_type, name, file) { this.name = name; this.file = file; }
  write(level, text) { fs.appendFileSync(this.file, `${new Date().toISOString()} [${level}] ${text}\\n`); }
  critical(text) { this.write('critical', text); } error(text) { this.write('error', text); }
  warn(text) { this.write('warning', text); } info(text) { this.write('info', text); }
  debug(text) { this.write('debug', text); } trace(text) { this.write('trace', text); }
  getLevel() { return 0; } setLevel() {} setPattern() {} clearFormatters() {} flush() {} drop() {}
}
exports.Logger = Logger;
async function create(name, file) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  return new Logger('', name, file);
}
exports.createRotatingLogger = create; exports.createAsyncRotatingLogger = create;
"""

_BROWSER_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--force-color-profile=srgb",
]  # fmt: skip


@dataclass(frozen=True)
class Tools:
    """Node, and code-server's entry point."""

    node: Path
    entry: Path
    cache: Path

    @property
    def environ(self) -> dict[str, str]:
        """The environment with this Node first, and nothing of a VS Code in whose terminal the tests run."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VSCODE_")}
        return kept | {"PATH": f"{self.node.parent}{os.pathsep}{kept['PATH']}"}


def tools() -> Tools:
    """What a workbench needs, installed on first use.

    A folder that holds all of it is used again; one that an interrupted run has left is filled anew.
    """
    npm = need("npm", "npm")
    folder = cache()
    arch = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine()) or absent(
        "Node for this machine", "run these tests on x86_64 or aarch64"
    )
    node = folder / f"node-{_NODE}" / "node_modules" / f"node-linux-{arch}" / "bin" / "node"
    server = folder / f"code-server-{_SERVER}" / "node_modules" / "code-server"
    made = Tools(node, server / "out" / "node" / "entry.js", folder)
    with FileLock(folder / "lock"):
        if not node.exists():
            _install(npm, folder / f"node-{_NODE}", os.environ, f"node-linux-{arch}@{_NODE}")
        if not (server / "complete").exists():
            _install(
                npm, folder / f"code-server-{_SERVER}", made.environ, f"code-server@{_SERVER}", "--omit=dev"
            )
            _npm(npm, server / "lib" / "vscode", made.environ, "install", "--omit=dev")
            logger = server / "lib" / "vscode" / "node_modules" / "@vscode" / "spdlog" / "index.js"
            logger.write_text(_LOGGER, "utf-8")
            (server / "complete").touch()
    return made


def vsix(tools: Tools) -> Path:
    """The extension, packaged by its own script from a copy of its sources; once for each state of them."""
    npm = need("npm", "npm")
    ignored = {"node_modules", "dist", "out"}
    sources = sorted(
        path
        for path in _CLIENT.rglob("*")
        if path.is_file() and not ignored & set(path.relative_to(_CLIENT).parts) and path.suffix != ".vsix"
    )
    state = hashlib.sha256()
    for path in sources:
        state.update(f"{path.relative_to(_CLIENT)}\0".encode() + path.read_bytes() + b"\0")
    made = tools.cache / "vsix" / f"{state.hexdigest()[:16]}.vsix"
    with FileLock(tools.cache / "lock"):
        if made.exists():
            return made
        build = tools.cache / "client"
        lock = _CLIENT / "package-lock.json"
        kept = build / "node_modules"
        fresh = kept.exists() and (build / "package-lock.json").read_bytes() == lock.read_bytes()
        for path in build.iterdir() if build.exists() else ():
            if path != kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(_CLIENT, build, ignore=shutil.ignore_patterns(*ignored, "*.vsix"), dirs_exist_ok=True)
        if not fresh:
            _npm(npm, build, tools.environ, "ci")
        _npm(npm, build, tools.environ, "run", "package")
        (found,) = build.glob("*.vsix")
        made.parent.mkdir(exist_ok=True)
        found.rename(made)
    return made


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium without a window; Playwright's own is not on any registry."""
    program = shutil.which("chromium") or absent("Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_BROWSER_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


class Workbench:
    """One code-server with the extension, in a folder of its own; every window has its own extension host."""

    def __init__(
        self, tools: Tools, browser: Browser, folder: Path, extension: Path | None, lsp: Lsp,
        settings: Mapping[str, Any] | None = None, *, trusted: bool = True,
    ) -> None:  # fmt: skip
        """Install the extension and start; ``settings`` are the user's own beyond the quiet ones."""
        self._browser = browser
        self._data = folder / "data"
        self._contexts: list[BrowserContext] = []
        # This workbench is a remote one to its page: what is of a machine is read from the server's own file.
        for name, values in (
            ("User", {**_SETTINGS, **(settings or {})}),
            ("Machine", {"star-lsp.server.path": str(lsp.program)}),
        ):
            path = self._data / name / "settings.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(values, indent=1), "utf-8")
        (folder / "config.yaml").touch()
        home = {
            f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")
        }
        self._environ = {**tools.environ, **lsp.environ, **home, "EXTENSIONS_GALLERY": '{"serviceUrl":""}'}
        self._environ["PATH"] = f"{tools.node.parent}{os.pathsep}{lsp.environ['PATH']}"
        self._command = [
            tools.node, tools.entry, "--user-data-dir", self._data, "--extensions-dir", folder / "extensions",
            "--config", folder / "config.yaml",
        ]  # fmt: skip
        if extension:
            self._run("--install-extension", str(extension))
        self.output = folder / "code-server.log"
        options = [
            "--auth",
            "none",
            "--bind-addr",
            "127.0.0.1:0",
            "--disable-telemetry",
            "--disable-update-check",
        ]
        options += ["--disable-getting-started-override", *(["--disable-workspace-trust"] if trusted else [])]
        with self.output.open("wb") as out:
            self._process = subprocess.Popen(
                [*self._command, *options], env=self._environ, cwd=folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._address = str(until(self._listens, "code-server", 60, lambda: self.output.read_text("utf-8")))

    def window(self, place: Path | None, *, width: int = 1000, height: int = 640) -> "Window":
        """A new window on a folder or on a ``.code-workspace`` file, ready to be used."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=1
        )
        self._contexts.append(context)
        page = context.new_page()
        query = ""
        if place:
            query = f"?{'workspace' if place.suffix == '.code-workspace' else 'folder'}={quote(str(place))}"
        return Window(page, f"{self._address}/{query}", self)

    def logs(self, name: str) -> str:
        """All log files of one name, of every extension host that there was."""
        return "\n".join(
            path.read_text("utf-8", "replace") for path in sorted(self._data.glob(f"logs/**/{name}"))
        )

    def servers(self) -> list[psutil.Process]:
        """The language servers that run here, oldest first."""
        found = [
            child
            for child in psutil.Process(self._process.pid).children(recursive=True)
            if any(str(part).endswith("/star-lsp") for part in _command_of(child))
        ]
        return sorted(found, key=lambda child: child.create_time())

    def faults(self) -> list[str]:
        """What extension hosts and the extension logged as errors."""
        lines = f"{self.logs('remoteexthost.log')}\n{self.logs('STAR.log')}".splitlines()
        # A native module that is not compiled; a second window on a folder that the first has locked.
        known = re.compile(r"Release/watchdog|/vscode\.lock'")
        return [line for line in lines if re.search(r"\[(error|critical)\]", line) and not known.search(line)]

    def stop(self) -> None:
        """End all windows, then code-server and whatever it started."""
        for context in self._contexts:
            context.close()
        family = [
            psutil.Process(self._process.pid),
            *psutil.Process(self._process.pid).children(recursive=True),
        ]
        self._process.terminate()
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()

    def _listens(self) -> str | None:
        assert self._process.poll() is None, self.output.read_text("utf-8")
        found = re.search(r"HTTP server listening on (http://[\d.:]+)", self.output.read_text("utf-8"))
        return found[1] if found else None

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Window:
    """One window of the workbench, driven by keys and palette as a person drives it."""

    page: Page
    address: str
    workbench: Workbench
    console: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Load the page until the workbench shows."""
        self.page.set_default_timeout(60_000)
        self.page.on("console", self._heard)
        self.page.goto(self.address)
        self.page.wait_for_selector(".monaco-workbench .part.statusbar", timeout=90_000)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console.append(f"[{message.type}] {message.text[:300]}")

    # -- what a person does

    def command(self, title: str) -> None:
        """Run a command by its title in the palette."""
        self.quick("F1", f">{title}")
        self.pick(title)

    def quick(self, key: str, text: str) -> None:
        """Open a box at the top by its key, and write into it."""
        box = self.page.locator(".quick-input-widget:visible .quick-input-box input")

        def written() -> bool:
            if not box.count():
                self.page.keyboard.press(key)
            with contextlib.suppress(PlaywrightError):  # one that is on its way out takes nothing
                box.first.fill(text, timeout=2_000)
                return bool(box.count())
            return False

        until(written, f"box of {key}", 60, self.said)

    def pick(self, label: str) -> None:
        """Choose the row with that label in the box at the top."""
        row = self.page.locator(f'.quick-input-list .monaco-list-row[aria-label*="{label}"]').first
        row.wait_for()
        row.click()

    def answer(self, text: str | None = None) -> None:
        """Write into the input box that shows, and confirm it; None confirms what is there."""
        box = self.page.locator(".quick-input-widget:visible .quick-input-box input").first
        box.wait_for()
        if text is not None:
            box.fill(text)
        box.press("Enter")

    def open(self, name: str) -> None:
        """Open a file of the folder by its name, and put the focus into it."""
        self.quick("Control+P", name)
        self.pick(name)
        self.page.wait_for_selector(f'.tab.active[data-resource-name="{name}"]')
        self.page.wait_for_selector(".editor-instance .monaco-editor.focused, .notebook-editor")

    def go(self, line: int) -> None:
        """Put the cursor at the end of a line (from 1)."""
        self.quick("Control+G", f":{line}")
        until(self._left_box, "end of the box", 20, self.said)
        self.page.keyboard.press("End")

    def at(self, line: int, text: str) -> None:
        """Put a text in place of a line by keys, with the cursor at its end."""
        self.go(line)
        self.page.keyboard.press("Shift+Home")
        self.page.keyboard.press("Shift+Home")
        self.page.keyboard.press("Delete")
        self.page.keyboard.type(text)

    def press(self, key: str) -> None:
        """Press a key, with its modifiers as Playwright names them."""
        self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        """Type a text as it stands."""
        self.page.keyboard.type(text)

    def saved(self, file: Path, text: str) -> str:
        """Save the editor with the focus until its file has this text in it."""

        def written() -> str | None:
            self.page.keyboard.press("Control+S")
            now = file.read_text("utf-8")
            return now if text in now else None

        return str(
            until(written, f"{text!r} in {file.name}", 30, lambda: (file.read_text("utf-8"), self.said()))
        )

    def click(self, text: str) -> None:
        """Click a link or button that has this text: of a CodeLens, a notification, a dialog."""
        found = self.page.locator(
            f'.codelens-decoration a:has-text("{text}"), .monaco-button:has-text("{text}"), '
            f'.monaco-text-button:has-text("{text}")'
        )
        until(lambda: _clicked(found), f"button {text!r}", 60, self.said)

    def suggested(self, text: str, blank: str = " ") -> None:
        """Type the last blank of a line, again and again while nothing is suggested; until this is."""
        self.type(blank)

        def there() -> bool:
            # A busy machine takes its time; what is typed again is asked again, and begins anew.
            end = time.monotonic() + 12
            while time.monotonic() < end:
                if self.ghost() == text:
                    return True
                time.sleep(0.2)
            self.press("Escape")
            self.press("Backspace")
            self.type(blank)
            return False

        until(there, f"ghost text {text!r}", 120, lambda: (self.ghost(), self.said()))

    # -- what a person sees

    def ghost(self) -> str:
        """The ghost text that shows, without its line breaks."""
        parts = self.page.locator('.view-lines [class*="ghost-text"], .view-zones [class*="ghost-text"]')
        return "".join(parts.all_inner_texts()).replace("\xa0", " ").replace("·", " ")

    def notices(self) -> str:
        """The notifications that show, and those that were hidden since."""
        return "\n".join(self.page.locator(".notifications-toasts .notification-list-item").all_inner_texts())

    def status(self) -> str:
        """The texts of the status bar."""
        items = self.page.locator(".part.statusbar .statusbar-item").all_inner_texts()
        return "\n".join(text.replace("\xa0", " ").strip() for text in items)

    def ready(self) -> None:
        """Wait until the server has its model, and nothing to do."""

        def there() -> bool:
            status = self.status()
            assert "STAR: install" not in status, self.said()
            return "STAR" in status.split("\n")

        until(there, "ready server", 120, self.said)

    def dialog(self) -> str:
        """The text of the dialog that shows."""
        return "\n".join(self.page.locator(".monaco-dialog-box").all_inner_texts())

    def lenses(self) -> str:
        """The texts of all CodeLenses."""
        return "\n".join(self.page.locator(".codelens-decoration").all_inner_texts())

    def frame(self, text: str) -> Any:
        """The webview that shows this text."""

        def found() -> Any:
            for frame in self.page.frames:
                try:
                    if frame.get_by_text(text).count():
                        return frame
                except PlaywrightError:  # gone meanwhile
                    continue
            return None

        return until(found, f"webview with {text!r}", 60, self.said)

    def see(self, what: str, holds: Callable[[], Any], seconds: float = 120) -> Any:
        """The first true value of ``holds``."""
        return until(holds, what, seconds, self.said)

    def picture(self, name: str) -> None:
        """Keep what shows as an artifact; with STAR_LSP_PICTURES=1, as a picture of the READMEs too."""
        folder = Path(
            os.environ.get("STAR_LSP_ARTIFACTS") or Path(tempfile.gettempdir()) / "star-lsp-pictures"
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        self.page.screenshot(path=path)
        if os.environ.get("STAR_LSP_PICTURES") == "1" and name in PICTURES:
            from PIL import Image

            PICTURES_FOLDER.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:  # few colours: a third of the bytes, and no difference to be seen
                image.convert("RGB").quantize(160).save(PICTURES_FOLDER / f"{name}.png", optimize=True)

    def said(self) -> str:
        """What helps to see why something did not come."""
        self.picture(f"missing-{time.strftime('%H%M%S')}")
        seen = {"dialog": self.dialog(), "notices": self.notices(), "status": self.status()}
        return f"{seen}; console {self.console[-10:]}"

    def close(self) -> None:
        """Close the window."""
        self.page.context.close()

    def _left_box(self) -> bool:
        """Confirm the box at the top until it is gone; it takes no key before it is ready."""
        box = self.page.locator(".quick-input-widget:visible .quick-input-box input")
        if not box.count():
            return True
        with contextlib.suppress(PlaywrightError):
            box.first.press("Enter", timeout=1_000)
        return not box.count()


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _clicked(found: Any) -> bool:
    try:
        if not found.count():
            return False
        found.first.click(timeout=2_000)
    except PlaywrightError:  # redrawn meanwhile
        return False
    return True


def _install(npm: str, folder: Path, environ: Mapping[str, str], *what: str) -> None:
    """Install packages into a folder of their own, from nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text("{}", "utf-8")
    _npm(npm, folder, environ, "install", "--no-save", *what)


def _npm(npm: str, folder: Path, environ: Mapping[str, str], *arguments: str) -> None:
    """Run npm without scripts of packages: none is needed, and none is trusted."""
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    scripts = [] if arguments[0] == "run" else ["--ignore-scripts"]
    command = [npm, *arguments, *quiet, *scripts]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"npm {' '.join(arguments)}: {done.stdout}{done.stderr}"
