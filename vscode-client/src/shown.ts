/** What was shown and accepted last in each document, and where that is now. Knows nothing of VS Code. */

import { after, type Edit, type Region } from "./region";

/** One completion that the server gave. */
export interface Completion {
  readonly id: string;
  readonly uri: string;
  /** The text as the server has it: lines end in \n. */
  readonly text: string;
  /** Where it begins, and as much of it as stands in the document: nothing until it is accepted. */
  readonly region: Region;
  readonly accepted: boolean;
  /** False once the server that gave it is gone. */
  readonly remembered: boolean;
  /** What a fix needs when the server has forgotten: the text around the place, as it was. */
  readonly around: Around;
}

export interface Around {
  readonly language: string;
  readonly line: number;
  readonly prefix: string;
  readonly suffix: string;
}

const KEPT = 32;

/** The last completions of a window. */
export class Shown {
  private all: Completion[] = [];

  /** One more was given, for an offset in a document; the newest comes first. */
  add(id: string, uri: string, offset: number, text: string, around: Around): void {
    const region = { start: offset, end: offset };
    const made = { id, uri, text, region, accepted: false, remembered: true, around };
    this.all = [made, ...this.all.filter((each) => each.id !== id)].slice(0, KEPT);
  }

  /** One was taken over into its document, whose lines end in `eol`. */
  accept(id: string, eol: string): Completion | undefined {
    return this.change(id, (each) => {
      const length = each.text.replaceAll("\n", eol).length;
      const region = { start: each.region.start, end: each.region.start + length };
      return { ...each, region, accepted: true };
    });
  }

  /** A document changed; a place that was overwritten as a whole is forgotten unless it is needed to flag. */
  edited(uri: string, edits: readonly Edit[]): void {
    this.all = this.all.map((each) => {
      if (each.uri !== uri) {
        return each;
      }
      const region = after(each.region, edits);
      // A place where nothing stands is where it was: what is typed there is not part of it.
      return region ? { ...each, region: each.accepted ? region : { ...region, end: region.start } } : each;
    });
  }

  /** The server that gave them is gone, and remembers none. */
  forgotten(): void {
    this.all = this.all.map((each) => ({ ...each, remembered: false }));
  }

  /** A document has another name now. */
  renamed(from: string, to: string): void {
    this.all = this.all.map((each) => (each.uri === from ? { ...each, uri: to } : each));
  }

  /** It was flagged: it is not what is meant next. */
  drop(id: string): void {
    this.all = this.all.filter((each) => each.id !== id);
  }

  get(id: string): Completion | undefined {
    return this.all.find((each) => each.id === id);
  }

  /**
   * The one that is ghost text at an offset: the newest that begins there, or that has been typed as far as
   * there; `typed` gives the document's text from one offset to another.
   */
  ghost(uri: string, offset: number, typed: (start: number, end: number) => string): Completion | undefined {
    return this.all.find((each) => {
      const { start } = each.region;
      const far = offset - start;
      if (each.uri !== uri || each.accepted || far < 0 || far > 2 * each.text.length) {
        return false;
      }
      return each.text.startsWith(typed(start, offset).replaceAll("\r\n", "\n"));
    });
  }

  /**
   * The one that is meant by someone at an offset: the newest accepted one around it, else the newest shown
   * nearby, else the newest of the document; `near` tells whether two offsets are close to each other.
   */
  at(uri: string, offset: number, near: (a: number, b: number) => boolean): Completion | undefined {
    const mine = this.all.filter((each) => each.uri === uri);
    const touches = ({ region }: Completion) =>
      region.start <= offset && offset <= region.end
        ? true
        : near(region.start, offset) || near(region.end, offset);
    return (
      mine.find((each) => each.accepted && touches(each)) ??
      mine.find((each) => touches(each)) ??
      mine.find((each) => each.accepted) ??
      mine[0]
    );
  }

  /** The newest accepted one in which an offset is. */
  around(uri: string, offset: number): Completion | undefined {
    return this.all.find(
      ({ uri: mine, accepted, region }) =>
        mine === uri &&
        accepted &&
        region.start <= offset &&
        offset <= region.end &&
        region.end > region.start,
    );
  }

  /** The last few, newest first, each text once for each document. */
  recent(): Completion[] {
    const seen = new Set<string>();
    return this.all.filter(({ uri, text }) => {
      const key = JSON.stringify([uri, text]);
      return !seen.has(key) && seen.add(key);
    });
  }

  /** The newest accepted one of a document, or of all; else the newest shown. */
  last(uri?: string): Completion | undefined {
    const mine = this.all.filter((each) => uri === undefined || each.uri === uri);
    return mine.find((each) => each.accepted) ?? mine[0];
  }

  private change(id: string, how: (each: Completion) => Completion): Completion | undefined {
    this.all = this.all.map((each) => (each.id === id ? how(each) : each));
    return this.get(id);
  }
}
