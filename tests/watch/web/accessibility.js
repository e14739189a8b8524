// What a program can check of a page's accessibility; returns what is wrong, in words.
(minTarget) => {
  const wrong = [];
  const visible = (el) => el.checkVisibility({ visibilityProperty: true }) &&
    !el.closest("[inert], .unseen, .veiled .post-text");
  const told = (el) => `${el.tagName.toLowerCase()}#${el.id}.${el.className} "${el.textContent.trim().slice(0, 30)}"`;
  const count = (selector, number) => {
    const found = document.querySelectorAll(selector).length;
    if (found !== number) wrong.push(`${found} of ${selector}`);
  };
  count("h1", 1);
  count("main", 1);
  if (!document.documentElement.lang || !document.title) wrong.push("no language or no title");
  const ids = [...document.querySelectorAll("[id]")].map((el) => el.id);
  for (const id of new Set(ids)) if (ids.filter((one) => one === id).length > 1) wrong.push(`id ${id} twice`);
  for (const el of document.querySelectorAll("[aria-labelledby], [aria-describedby], [aria-controls]")) {
    for (const name of ["aria-labelledby", "aria-describedby", "aria-controls"]) {
      for (const id of (el.getAttribute(name) || "").split(/\s+/).filter(Boolean)) {
        if (!document.getElementById(id)) wrong.push(`${name} of ${told(el)} leads nowhere: ${id}`);
      }
    }
  }
  for (const el of document.querySelectorAll("input:not([type=hidden]):not([aria-hidden]), textarea, select")) {
    if (!el.labels.length && !el.getAttribute("aria-label")) wrong.push(`no label: ${el.name}`);
  }
  for (const el of document.querySelectorAll("button, a, summary")) {
    if (!el.textContent.trim() && !el.getAttribute("aria-label")) wrong.push(`no name: ${told(el)}`);
  }
  for (const el of document.querySelectorAll("fieldset")) {
    if (!el.querySelector(":scope > legend")) wrong.push(`no legend: ${el.id}`);
  }
  let level = 0;
  for (const el of document.querySelectorAll("h1, h2, h3, h4")) {
    const now = Number(el.tagName[1]);
    if (now > level + 1) wrong.push(`a heading is left out before ${told(el)}`);
    level = now;
  }
  // WCAG 2.2, 2.5.5: controls (links within sentences and tables are exempt)
  for (const el of document.querySelectorAll("button, .button, nav a, .choice, summary, input[type=text], input[type=password], textarea, .tabs a")) {
    if (!visible(el)) continue;
    const box = el.getBoundingClientRect();
    if (box.height < minTarget - 0.5 || box.width < 24) wrong.push(`small: ${told(el)} ${box.width}x${box.height}`);
  }
  // WCAG 2.2, 1.4.3: contrast of every visible text
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const part = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (el) => {
    for (let one = el; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba(getComputedStyle(document.documentElement).colorScheme === "dark" ? "black" : "white");
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const el = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !visible(el) || el.closest("title, desc, script, :disabled button, button:disabled")) continue;
    const style = getComputedStyle(el);
    const front = rgba(el.closest("svg") ? style.fill : style.color);
    const [low, high] = [luminance(front), luminance(behind(el))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)}: ${told(el)}`);
  }
  return wrong;
}
