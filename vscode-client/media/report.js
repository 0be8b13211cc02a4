// @ts-check
/** Runs in the page of a report: shows what it is sent, says what was clicked, keeps focus, scroll and folds. */
(() => {
  "use strict";

  // @ts-ignore -- VS Code puts it into every webview
  const vscode = acquireVsCodeApi();
  const page = /** @type {HTMLElement} */ (document.getElementById("page"));
  const news = /** @type {HTMLElement} */ (document.getElementById("news"));
  const patchId = document.body.dataset.patch;
  let state = vscode.getState();
  if (!state || state.patchId !== patchId) state = { patchId, scroll: 0, folds: {} };
  vscode.setState(state);
  let fresh = true;

  function focusedNow() {
    const focused = document.activeElement;
    return { id: focused?.id, does: focused instanceof HTMLElement ? focused.dataset.do : undefined };
  }

  /** Another button that does the same: the focus must not fall on one that does something else. */
  function sameAs(/** @type {string | undefined} */ does) {
    const buttons = /** @type {HTMLElement[]} */ ([...page.querySelectorAll("button[data-do]")]);
    return buttons.find((each) => each.dataset.do === does);
  }

  window.addEventListener("message", ({ data }) => {
    if (typeof data?.body !== "string") return;
    const { id, does } = focusedNow();
    page.innerHTML = data.body; // escaped by the extension; scripts in it would not run
    if (data.forget) state.folds = {};
    for (const each of page.querySelectorAll("details")) {
      if (each.id in state.folds) each.open = state.folds[each.id];
    }
    if (fresh) window.scrollTo(0, state.scroll);
    else if (id) (document.getElementById(id) ?? sameAs(does))?.focus({ preventScroll: true });
    fresh = false;
    if (data.news) news.textContent = data.news;
  });

  page.addEventListener("click", ({ target }) => {
    const button = /** @type {Element} */ (target).closest?.("button[data-do]");
    if (!(button instanceof HTMLElement) || button.getAttribute("aria-disabled") === "true") return;
    vscode.postMessage({ does: button.dataset.do, caseId: button.dataset.case });
  });

  // Not by "toggle", which also comes for what was open from the start.
  page.addEventListener("click", ({ target }) => {
    const details = /** @type {Element} */ (target).closest?.("summary")?.parentElement;
    if (!(details instanceof HTMLDetailsElement)) return;
    state.folds[details.id] = !details.open;
    vscode.setState(state);
  });

  let waiting = 0;
  window.addEventListener("scroll", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.scroll = window.scrollY;
      vscode.setState(state);
    }, 200);
  });

  vscode.postMessage({ does: "ready" });
})();
