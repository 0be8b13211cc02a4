/**
 * Stands in for VS Code in unit tests: as much of it as the views use, and what they did to it in `seen`.
 *
 * It promises nothing about the real one; tests/editors drives that.
 */

type Listener<T> = (value: T) => unknown;

export class Disposable {
  constructor(private readonly end: () => unknown) {}
  static from(...all: { dispose(): unknown }[]): Disposable {
    return new Disposable(() => all.forEach((each) => each.dispose()));
  }
  dispose(): void {
    this.end();
  }
}

export class EventEmitter<T> {
  private readonly listeners = new Set<Listener<T>>();
  readonly event = (listener: Listener<T>): Disposable => {
    this.listeners.add(listener);
    return new Disposable(() => this.listeners.delete(listener));
  };
  fire(value: T): void {
    for (const each of [...this.listeners]) each(value);
  }
  dispose(): void {
    this.listeners.clear();
  }
}

export class ThemeIcon {
  constructor(
    readonly id: string,
    readonly color?: ThemeColor,
  ) {}
}
export class ThemeColor {
  constructor(readonly id: string) {}
}
export class MarkdownString {
  constructor(readonly value: string) {}
}
export class TreeItem {
  [name: string]: unknown;
  constructor(
    readonly label: string,
    readonly collapsibleState: number,
  ) {}
}
export const TreeItemCollapsibleState = { None: 0, Collapsed: 1, Expanded: 2 };
export const ViewColumn = { Active: -1 };
export const NotebookEditorRevealType = { InCenterIfOutsideViewport: 2 };

export class Position {
  constructor(
    readonly line: number,
    readonly character: number,
  ) {}
}
export class Range {
  constructor(
    readonly start: Position,
    readonly end: Position,
  ) {}
}
export class NotebookRange {
  constructor(
    readonly start: number,
    readonly end: number,
  ) {}
}

export class Uri {
  private constructor(
    readonly scheme: string,
    readonly path: string,
    readonly query: string,
    readonly fragment: string,
  ) {}
  static parse(text: string): Uri {
    const [, scheme, path, , query, , fragment] =
      /^([\w-]+):(?:\/\/[^/]*)?([^?#]*)(\?([^#]*))?(#(.*))?$/.exec(text)!;
    return new Uri(scheme!, path!, query ?? "", fragment ?? "");
  }
  static from(parts: { scheme: string; path: string; query?: string }): Uri {
    return new Uri(parts.scheme, parts.path, parts.query ?? "", "");
  }
  static joinPath(base: Uri, ...names: string[]): Uri {
    return new Uri(base.scheme, [base.path, ...names].join("/"), "", "");
  }
  with(parts: { scheme?: string; fragment?: string }): Uri {
    return new Uri(parts.scheme ?? this.scheme, this.path, this.query, parts.fragment ?? this.fragment);
  }
  toString(): string {
    const behind = (sign: string, text: string): string => (text ? sign + text : "");
    return `${this.scheme}:${this.path}${behind("?", this.query)}${behind("#", this.fragment)}`;
  }
}

/** A document of so much text. */
export function aDocument(uri: string, text: string): FakeDocument {
  const starts = [0, ...Array.from(text.matchAll(/\n/g), (each) => each.index + 1)];
  const at = (offset: number): Position => {
    const line = starts.findLastIndex((start) => start <= offset);
    return new Position(line, offset - starts[line]!);
  };
  const offsetOf = ({ line, character }: Position): number =>
    Math.min((starts[line] ?? text.length) + character, text.length);
  return {
    uri: Uri.parse(uri),
    getText: () => text,
    positionAt: at,
    offsetAt: offsetOf,
    validatePosition: (position: Position) => at(offsetOf(position)),
  };
}

export interface FakeDocument {
  uri: Uri;
  getText(): string;
  positionAt(offset: number): Position;
  offsetAt(position: Position): number;
  validatePosition(position: Position): Position;
}

export class FakePanel {
  title = "";
  iconPath: unknown;
  shown = 1;
  readonly posted: { body: string; news?: string; forget?: boolean }[] = [];
  private readonly heard = new EventEmitter<unknown>();
  private readonly ended = new EventEmitter<void>();
  private gone = false;
  readonly webview = {
    html: "",
    options: {},
    cspSource: "https://webview.test",
    asWebviewUri: (uri: Uri) => uri,
    onDidReceiveMessage: this.heard.event,
    postMessage: async (message: { body: string }) => {
      if (this.gone) throw new Error("Webview is disposed");
      this.posted.push(message);
      return true;
    },
  };
  readonly onDidDispose = this.ended.event;
  /** The page's script says something. */
  say(message: unknown): void {
    this.heard.fire(message);
  }
  get last(): { body: string; news?: string; forget?: boolean } {
    return this.posted.at(-1)!;
  }
  reveal(): void {
    this.shown += 1;
  }
  dispose(): void {
    if (this.gone) return;
    this.gone = true;
    this.ended.fire();
  }
}

interface View {
  id: string;
  provider: { getChildren(row?: unknown): unknown[]; getTreeItem(row: unknown): TreeItem };
  badge?: { value: number; tooltip: string };
  message?: string;
  selection: unknown[];
}

/** What was done to the editor, and how it answers; `reset` makes it new. */
export const seen = {
  views: new Map<string, View>(),
  commands: new Map<string, (...given: unknown[]) => unknown>(),
  ran: [] as unknown[][],
  panels: [] as FakePanel[],
  serializers: new Map<string, { deserializeWebviewPanel(panel: unknown, state: unknown): Promise<void> }>(),
  contents: new Map<string, { provideTextDocumentContent(uri: Uri): Promise<string> }>(),
  told: [] as string[],
  opened: [] as { uri: string; selection?: Range }[],
  /** What the developer clicks in the next messages, and picks in the next list. */
  answers: [] as (string | undefined)[],
  pick: 0,
  documents: [] as FakeDocument[],
  files: new Map<string, string>(),
};

export function reset(): void {
  for (const each of Object.values(seen)) {
    if (Array.isArray(each)) each.length = 0;
    else if (each instanceof Map) each.clear();
  }
}

async function tell(text: string, ...rest: unknown[]): Promise<string | undefined> {
  const [first] = rest as [{ detail?: string } | string | undefined];
  seen.told.push(typeof first === "object" && first.detail ? `${text} ${first.detail}` : text);
  return seen.answers.shift();
}

export const window = {
  createTreeView(
    id: string,
    { treeDataProvider }: { treeDataProvider: View["provider"] },
  ): View & { dispose(): void } {
    const view = { id, provider: treeDataProvider, selection: [], dispose: () => undefined };
    seen.views.set(id, view);
    return view;
  },
  createWebviewPanel(): FakePanel {
    const panel = new FakePanel();
    seen.panels.push(panel);
    return panel;
  },
  registerWebviewPanelSerializer(kind: string, serializer: never): Disposable {
    seen.serializers.set(kind, serializer);
    return new Disposable(() => seen.serializers.delete(kind));
  },
  showInformationMessage: tell,
  showWarningMessage: tell,
  showErrorMessage: tell,
  setStatusBarMessage: (text: string) => void seen.told.push(text),
  async showTextDocument(document: FakeDocument, options: { selection?: Range }): Promise<void> {
    seen.opened.push({
      uri: document.uri.toString(),
      ...(options.selection ? { selection: options.selection } : {}),
    });
  },
  async showNotebookDocument(): Promise<{ revealRange(): void }> {
    return { revealRange: () => undefined };
  },
  showQuickPick: async (items: unknown[]) => items[seen.pick],
};

export const workspace = {
  get textDocuments(): FakeDocument[] {
    return seen.documents;
  },
  notebookDocuments: [],
  async openTextDocument(uri: Uri): Promise<FakeDocument> {
    const content = seen.contents.get(uri.scheme);
    const text = content ? await content.provideTextDocumentContent(uri) : seen.files.get(uri.toString());
    if (text === undefined) throw new Error(`cannot open ${uri.toString()}`);
    return aDocument(uri.toString(), text);
  },
  async openNotebookDocument(): Promise<never> {
    throw new Error("no notebook");
  },
  registerTextDocumentContentProvider(scheme: string, provider: never): Disposable {
    seen.contents.set(scheme, provider);
    return new Disposable(() => seen.contents.delete(scheme));
  },
};

export const commands = {
  registerCommand(id: string, run: (...given: unknown[]) => unknown): Disposable {
    seen.commands.set(id, run);
    return new Disposable(() => seen.commands.delete(id));
  },
  async executeCommand(...given: unknown[]): Promise<void> {
    seen.ran.push(given);
  },
};

export const env = { language: "en" };

export const l10n = {
  t: (sentence: string, ...fill: unknown[]) =>
    sentence.replace(/\{(\d+)\}/g, (whole, at: string) => String(fill[Number(at)] ?? whole)),
};
