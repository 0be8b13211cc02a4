/** Words for what is shown: translated sentences, clipped code, times, sizes, numbers. Knows no VS Code. */

/** A sentence in the language of the editor, `{0}`, `{1}` … filled in; as `vscode.l10n.t`. */
export type Translate = (sentence: string, ...fill: (string | number)[]) => string;

/** What a text for people depends on; `now` is in milliseconds since the epoch. */
export interface Words {
  t: Translate;
  language: string;
  now: number;
}

/** Untranslated, for tests. */
export const english: Translate = (sentence, ...fill) =>
  sentence.replace(/\{(\d+)\}/g, (whole, at: string) => String(fill[Number(at)] ?? whole));

/**
 * A text on one line of at most so many characters.
 *
 * What stands before its first word goes, and the rest of its lines shows as an ellipsis: a row of a tree has
 * only one.
 */
export function clipped(text: string, most: number): string {
  const trimmed = text.trim();
  const [first = ""] = trimmed.split(/\r\n|\r|\n/, 1);
  const line = shown(first.replace(/\s+/g, " "));
  const letters = Array.from(line.slice(0, 4 * most)); // never half of a surrogate pair
  if (letters.length > most) return `${letters.slice(0, most - 1).join("")}…`;
  return first.length < trimmed.length ? `${line} …` : line;
}

/**
 * A text in which nothing can hide or turn the rest of the line around.
 *
 * Control and direction characters show by their code point; code that is judged must be the code that is seen.
 */
export function shown(text: string): string {
  return text.replace(HIDDEN, (character) => {
    return `[U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

/** Controls, directions, widths of nothing; the joiner stays where it holds an emoji together. */
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|(?<![\p{Extended_Pictographic}\u{fe0f}\u{1f3fb}-\u{1f3ff}])\u200d/gu;

/** When something was, short: the time if it was today, else the day. */
export function moment(iso: string, words: Words): string {
  const then = new Date(iso);
  if (Number.isNaN(then.getTime())) return iso;
  const now = new Date(words.now);
  const today = then.toDateString() === now.toDateString();
  const year = then.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return then.toLocaleString(
    words.language,
    today ? { hour: "numeric", minute: "2-digit" } : { day: "numeric", month: "short", year },
  );
}

/** When something was, in full. */
export function instant(iso: string, words: Words): string {
  const then = new Date(iso);
  if (Number.isNaN(then.getTime())) return iso;
  return then.toLocaleString(words.language, { dateStyle: "medium", timeStyle: "short" });
}

/** One form for 1, the other for all else. */
export function plural(count: number, one: string, many: string): string {
  return count === 1 ? one : many;
}

/** A number with so many significant digits. */
export function number(value: number, digits: number, words: Words): string {
  return value.toLocaleString(words.language, { maximumSignificantDigits: digits });
}

/** A share as percent, rounded down: what is not wholly unchanged must not read 100 %. */
export function percent(share: number, words: Words): string {
  const style = { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 } as const;
  return (Math.floor(share * 1000 + 1e-9) / 1000).toLocaleString(words.language, style);
}

/** A count of bytes. */
export function size(bytes: number, words: Words): string {
  const [unit, of] = bytes >= 1e6 ? (["MB", 1e6] as const) : (["kB", 1e3] as const);
  return `${(bytes / of).toLocaleString(words.language, { maximumFractionDigits: 1 })} ${unit}`;
}

/** The name of the file that a URI points at; the whole of it if it cannot be read. */
export function fileName(uri: string): string {
  const path = uri.replace(/[?#].*$/s, "");
  const name = path.slice(path.search(/[^/:]*$/)) || path;
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}
