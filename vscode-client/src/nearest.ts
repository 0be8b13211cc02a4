/** Where a text stands after other edits. Knows no VS Code. */

const FAR_CHARACTERS = 4000;

/**
 * The occurrence, as `[start, end]`, that is nearest to an offset; null when there is none near it.
 *
 * The first of `wanted` that is found counts: a file that has been corrected holds the expected text.
 */
export function nearest(text: string, offset: number, wanted: readonly string[]): [number, number] | null {
  const from = Math.max(0, offset - FAR_CHARACTERS);
  const region = text.slice(from, offset + FAR_CHARACTERS);
  for (const each of wanted.map((one) => one.trimEnd()).filter((one) => one.trim())) {
    let best: number | null = null;
    for (let at = region.indexOf(each); at >= 0; at = region.indexOf(each, at + 1)) {
      const start = from + at;
      if (best === null || Math.abs(start - offset) < Math.abs(best - offset)) best = start;
    }
    if (best !== null) return [best, best + each.length];
  }
  return null;
}
