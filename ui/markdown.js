// Simple Markdown: paragraphs, headings, lists, code, bold and italics. It makes elements and text nodes only: whatever a
// model writes stays text.

import { element } from "./dom.js";

/** The nodes of a text. */
export function markdown(text) {
  const made = document.createDocumentFragment();
  blocks(text.split("\n"), made);
  return made;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

function blocks(lines, parent) {
  let i = 0;
  // The lines from here on for which `belongs` holds.
  const take = (belongs) => {
    const from = i;
    while (i < lines.length && belongs(lines[i])) i += 1;
    return lines.slice(from, i);
  };
  while (i < lines.length) {
    const line = lines[i];
    const fence = FENCE.exec(line)?.[1];
    const heading = HEADING.exec(line);
    if (fence) {
      i += 1;
      const code = take((l) => !(l.trim().startsWith(fence) && /^(`+|~+)$/.test(l.trim())));
      i += 1;
      parent.append(element("pre", {}, element("code", {}, code.join("\n"))));
    } else if (heading) {
      i += 1;
      // The page's own heading is the first level.
      parent.append(inline(element(`h${Math.min(6, heading[1].length + 1)}`), heading[2]));
    } else if (ITEM.test(line)) {
      list(take((l) => ITEM.test(l) || (/^\s{2,}\S/.test(l) && !FENCE.test(l))), parent);
    } else if (line.trim() === "") {
      i += 1;
    } else {
      const special = (l) => l.trim() === "" || [FENCE, HEADING, ITEM].some((kind) => kind.test(l));
      parent.append(inline(element("p"), take((l) => !special(l)).join("\n")));
    }
  }
}

// Items have the indent of the first one. A line with a larger indent belongs to the item above it.
function list(lines, parent) {
  const [, indent, marker] = ITEM.exec(lines[0]);
  const ordered = /\d/.test(marker);
  const made = element(ordered ? "ol" : "ul");
  if (ordered) made.start = parseInt(marker, 10);
  let inner = [];
  const close = () => { if (inner.length) blocks(inner, made.lastChild); inner = []; };
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= indent.length) {
      close();
      made.append(inline(element("li"), item[3]));
    } else {
      inner.push(line.slice(indent.length + 2));
    }
  }
  close();
  parent.append(made);
}

// Text with `code`, **bold** and *italics*.
function inline(parent, text) {
  const mark = /(`{1,2})(.+?)\1|\*\*(?=\S)(.+?)\*\*|\*(?=[^\s*])([^*]*[^\s*])\*/s;
  for (let found; (found = mark.exec(text)); text = text.slice(found.index + found[0].length)) {
    parent.append(text.slice(0, found.index));
    if (found[2] !== undefined) parent.append(element("code", {}, found[2]));
    else if (found[3] !== undefined) parent.append(inline(element("strong"), found[3]));
    else parent.append(inline(element("em"), found[4]));
  }
  parent.append(text);
  return parent;
}
