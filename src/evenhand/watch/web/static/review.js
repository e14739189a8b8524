/* Revealing, single-key shortcuts and announcements; every page works without this file. */
"use strict";

(() => {
  const STORED = "evenhand.single-keys";
  const byId = (id) => document.getElementById(id);

  // ---- shortcuts can be switched off, in this browser ----
  function keysAreOn() {
    try { return localStorage.getItem(STORED) !== "off"; } catch { return true; }
  }
  function keepKeys(on) {
    try { localStorage.setItem(STORED, on ? "on" : "off"); } catch { /* until the page is left */ }
    document.documentElement.classList.toggle("keys-off", !on);
  }

  // ---- what a screen reader is told without moving it ----
  function say(text, { isSeen = false } = {}) {
    const live = byId("live");
    if (!live) return;
    live.className = isSeen ? "problem" : "unseen";
    live.textContent = "";
    setTimeout(() => { live.textContent = text; }, 50);
  }

  // ---- a post is revealed and hidden again; hidden means hidden from everybody ----
  function isShown() {
    const button = byId("reveal");
    return button !== null && button.getAttribute("aria-expanded") === "true";
  }
  function reveal(shown) {
    const post = byId("post");
    const button = byId("reveal");
    if (!post || !button) return;
    const text = post.querySelector(".post-text");
    post.classList.toggle("veiled", !shown);
    post.querySelector(".veil-note").hidden = shown;
    text.inert = !shown;
    if (shown) {
      text.removeAttribute("aria-hidden");
      text.tabIndex = 0;
    } else {
      text.setAttribute("aria-hidden", "true");
      text.removeAttribute("tabindex");
    }
    button.setAttribute("aria-expanded", String(shown));
    button.querySelector("span").textContent = shown ? "Hide the post" : "Reveal the post";
    byId("reveal-form").elements.show.value = shown ? "0" : "1";
    const answers = byId("answers");
    if (shown && answers) {
      // Once it has been seen it can be labelled, hidden again or not.
      answers.disabled = false;
      byId("reveal-first").hidden = true;
    }
    say(shown ? "The post is shown." : "The post is hidden.");
  }

  // ---- "none of these" and groups exclude each other; one of them is needed ----
  function groupBoxes() {
    return [...document.querySelectorAll("#groups input[type=checkbox]")];
  }
  function agree(changed) {
    if (changed && changed.checked) {
      const isNone = "none" in changed.dataset;
      for (const box of groupBoxes()) {
        if (box !== changed && (isNone || "none" in box.dataset)) box.checked = false;
      }
    }
    const boxes = groupBoxes();
    if (boxes.length) {
      const missing = boxes.every((box) => !box.checked);
      boxes[0].setCustomValidity(missing ? 'Choose whom the post speaks of, or "none of these".' : "");
    }
  }

  // ---- keys ----
  function isTyping(target) {
    return target.closest("textarea, select, [contenteditable], input:not([type=radio], [type=checkbox])") !== null;
  }
  function chooseByKey(key) {
    const input = document.querySelector(`#answers [data-key="${CSS.escape(key)}"]`);
    if (!input) return false;
    if (input.matches(":disabled")) {
      say("Reveal the post first.");
    } else {
      input.click();
      input.focus();
    }
    return true;
  }
  function openUndo() {
    const undo = byId("undo");
    if (!undo) return false;
    undo.open = true;
    byId("undo-reason").focus();
    return true;
  }
  function press(id) {
    const button = byId(id);
    if (!button) return false;
    if (!button.matches(":disabled")) button.click();
    return true;
  }
  function onKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (!keysAreOn() || isTyping(event.target) || event.repeat) return;
    let done = false;
    if (event.key === "Enter") {
      // A link, a button or a summary has an Enter of its own.
      if (event.target.closest("a, button, summary")) return;
      done = press("submit");
    } else if (event.key === "r") {
      done = press("reveal");
    } else if (event.key === "s") {
      done = press("skip");
    } else if (event.key === "z") {
      done = openUndo();
    } else if (/^[hn0-9]$/.test(event.key)) {
      done = chooseByKey(event.key);
    }
    if (done) event.preventDefault();
  }

  function start() {
    document.documentElement.classList.add("scripted");
    keepKeys(keysAreOn());
    const box = byId("keys-on");
    if (box) box.checked = keysAreOn();
    agree(null);
  }

  document.addEventListener("keydown", onKey);
  document.addEventListener("submit", (event) => {
    if (event.target.id === "reveal-form") {
      event.preventDefault();
      reveal(!isShown());
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "keys-on") keepKeys(event.target.checked);
    if (event.target.closest("#groups")) agree(event.target);
  });

  // ---- after htmx put a new page in place: go to its post, and say what was done ----
  let said = "";
  document.addEventListener("htmx:beforeRequest", (event) => {
    said = event.detail.elt.dataset.said || "";
  });
  document.addEventListener("htmx:afterSettle", () => {
    start();
    const told = document.querySelector("#main [data-announce]");
    if (document.querySelector("#main .problem")) said = "";
    say([said, told ? told.textContent.trim() : ""].join(" ").trim());
    const place = byId("post-heading") || byId("main");
    place.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  });
  document.addEventListener("htmx:sendError", () => {
    say("The server could not be reached. Nothing was sent; your answer is still here.", { isSeen: true });
  });

  start();
})();
