/** HTML by hand: what is not markup goes through `escape`, everywhere. */

export type Attributes = Record<string, string | undefined>;

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
  "`": "&#96;",
};

/** A text as it stands in an element or a quoted attribute. */
export function escape(text: string): string {
  return text.replace(/[&<>"'`]/g, (character) => ENTITIES[character]!);
}

/** Attributes, those that are undefined left out. */
export function attributes(given: Attributes): string {
  return Object.entries(given)
    .map(([name, value]) => (value === undefined ? "" : ` ${name}="${escape(value)}"`))
    .join("");
}

/** A button that has the page's script do something. */
export function button(does: string, label: string, given: Attributes = {}): string {
  return `<button type="button" data-do="${escape(does)}"${attributes(given)}>${escape(label)}</button>`;
}

/** A text for screen readers only. */
export function hidden(text: string): string {
  return `<span class="unseen">${escape(text)}</span>`;
}

/** A table; `rows` are its rows, already escaped. */
export function table(caption: string, heads: string[], rows: string[], kind = "numbers"): string {
  const cells = heads.map((each) => `<th scope="col">${escape(each)}</th>`).join("");
  return `<div class="table"><table class="${kind}"><caption class="unseen">${escape(caption)}</caption>
<thead><tr>${cells}</tr></thead>
<tbody>
${rows.join("\n")}
</tbody></table></div>`;
}
