// Hits: how they are drawn, and what can be done with them once they are. Nothing here asks the server.
//
// Text from the corpus only ever becomes text nodes and attributes, never HTML.

const FAINTEST = 0.12; // of the largest share of a hit: what is below it is not tinted
export const BETWEEN = " › "; // headings of a trail
const MOST_TAGS = 3; // values of the metadata that a hit shows before it is opened

// ------------------------------------------------------------------------------------------------ elements and numbers

/** An element; attributes that are null or false are left out, functions become listeners, strings become text. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null));
  return node;
}

export const terms = (rows) =>
  rows.map(([name, value]) => [make("dt", { dir: "auto" }, name), make("dd", { dir: "auto" }, value)]);
export const count = (number) => number.toLocaleString("en");
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
export const milliseconds = (number) => `${number < 10 ? number.toFixed(1) : Math.round(number)} ms`;

export const unseen = (text) => make("span", { class: "unseen" }, text);
const score = (number) => (Math.abs(number) < 10 ? number.toFixed(3) : number.toFixed(1));
const plain = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

// ------------------------------------------------------------------------------------------------------------- drawing

/** One ranking: a heading with the time it took, and its hits. `reference`: the ranking whose places are compared. */
export function column(name, { hits, took_ms, note }, reference = null) {
  const id = `list-${name.toLowerCase()}`;
  const items = hits.map((hit, index) => card(hit, index + 1, reference && rankMark(hit.id, index, reference.hits)));
  return make("section", { class: "column", "aria-labelledby": id },
    make("h2", {}, make("span", { id }, name), make("small", {}, !note ? milliseconds(took_ms) : hits.length ? "by words so far" : "")),
    items.length
      ? make("ol", { role: "list" }, items.map((item) => make("li", {}, item)))
      : make("p", {}, note ? "The vectors are on their way." : name === "BM25" ? "No document has a word of this query." : "No hits."));
}

export function columns(nodes, tints) {
  const kinds = ["columns", nodes.length === 1 && "one", tints && "tints"].filter(Boolean);
  return make("div", { class: kinds.join(" ") }, nodes);
}

/** A passage: a hit with its rank, or the source of "more like this", which has none. */
export function card(hit, rank = null, rankChange = null) {
  const { title, trail, text, query, words } = tinted(hit);
  const tags = Object.values(hit.metadata).filter((value) => ["string", "number"].includes(typeof value));
  const heading = hit.title ? title : hit.url ? hit.id : null;
  const name = `${rank ? `${rank}. ` : ""}${hit.title || hit.text.slice(0, 80) || hit.id}`;
  const place = hit.place ? { "data-start": hit.place.start, "data-stop": hit.place.stop } : {};
  return make("article", { class: "hit", tabindex: rank && "-1", "data-id": hit.id, "aria-label": name, ...place },
    rank && make("span", { class: "rank", "aria-hidden": "true" }, String(rank)),
    heading && make("h3", { dir: "auto" }, hit.url ? make("a", { href: hit.url }, heading) : heading),
    hit.place ? make("p", { class: "place", dir: "auto" }, placeOf(hit.place, trail)) : null,
    make("p", { class: "text", dir: "auto" }, text),
    query && make("p", { class: "why", dir: "auto" }, unseen("What the query's words add: "), query),
    words ? make("p", { class: "unseen" }, words) : null,
    make("div", { class: "meta" },
      rankChange,
      rank && make("span", { title: "Score" }, unseen("Score "), score(hit.score)),
      tags.slice(0, MOST_TAGS).map((value) => make("span", { class: "tag", dir: "auto" }, String(value))),
      make("span", { class: "acts" },
        rank && make("button", { type: "button", "data-act": "like" }, "More like this"),
        hit.place ? make("button", { type: "button", "data-act": "whole" }, "In the document") : null,
        make("button", { type: "button", "data-act": "expand", "aria-expanded": "false" }, "Show all"))),
    make("dl", { class: "facts" }, terms(facts(hit))));
}

/** Where a passage stands in its document: the headings above it, which are drawn, and its page or its lines. */
function placeOf({ trail, page, lines: [first, last] }, drawnTrail) {
  const where = page ? `page ${page}` : first === last ? `line ${first}` : `lines ${first}-${last}`;
  return trail ? [drawnTrail, ", ", where] : where;
}

/** How the place of a hit differs from its place among the hits of hybrid. */
function rankMark(id, index, hybrid) {
  const there = hybrid.findIndex((hit) => hit.id === id);
  const moved = there - index;
  if (there < 0) return mark("new", "new", "not among the hits of hybrid");
  if (moved === 0) return mark("even", "=", "same place as in hybrid");
  const words = `${plural(Math.abs(moved), "place")} ${moved > 0 ? "above" : "below"} its place in hybrid`;
  return mark(moved > 0 ? "up" : "down", `${moved > 0 ? "▲" : "▼"}${Math.abs(moved)}`, words);
}

function mark(kind, sign, words) {
  const seen = make("span", { "aria-hidden": "true" }, sign);
  return make("span", { class: `mark ${kind}`, title: words }, seen, unseen(words));
}

function facts({ id, dense, bm25, metadata }) {
  const parts = [["dense", dense], ["BM25", bm25]].filter(([, number]) => typeof number === "number");
  const known = Object.entries(metadata).map(([name, value]) => [name, plain(value)]);
  return [["id", id], ...parts.map(([name, number]) => [name, score(number)]), ...known];
}

/** Title, trail, text and query as nodes, words tinted by their share of the score; `words` says the largest shares. */
function tinted(hit) {
  const parts = hit.explanation;
  const trail = hit.place?.trail ?? "";
  if (!parts) return { title: hit.title, trail, text: hit.text, query: null, words: "" };
  const ofQuery = (parts.query ?? []).some(({ share }) => share !== 0); // a transformer's documents have no shares
  const best = [...parts.title, ...parts.text, ...(ofQuery ? parts.query : [])].filter(({ share }) => share > 0).sort((a, b) => b.share - a.share);
  const largest = best[0]?.share ?? 0;
  const nodes = (pieces) => pieces.map(({ text, share }) => {
    if (share <= 0 || share < FAINTEST * largest) return text;
    const title = `${share.toFixed(3)} of the dense score ${parts.score.toFixed(3)}`;
    const word = make("span", { class: "tint", title }, text);
    word.style.setProperty("--share", (share / largest).toFixed(3));
    return word;
  });
  const words = best.slice(0, 3).map(({ text, share }) => `${text} ${share.toFixed(3)}`).join(", ");
  const said = words && `Largest shares of the dense score ${parts.score.toFixed(3)}: ${words}`;
  const query = ofQuery ? nodes(parts.query) : null;
  const known = { text: nodes(parts.text), query, words: said };
  if (!parts.title.length) return { title: hit.title, trail, ...known }; // too long to stand before the passage
  if (!hit.place) return { title: nodes(parts.title), trail, ...known };
  const [title, headings] = splitPieces(parts.title, hit.title.length);
  return { title: nodes(title), trail: nodes(trailPieces(headings, trail)), ...known };
}

/** The pieces of the first characters of a text, and those of the rest without white space before it. */
function splitPieces(pieces, characters) {
  const first = [], rest = [];
  let left = characters;
  for (const { text, share } of pieces) {
    const [here, after] = [text.slice(0, left), rest.length ? text.slice(left) : text.slice(left).trimStart()];
    if (here) first.push({ text: here, share });
    if (after) rest.push({ text: after, share });
    left -= here.length;
  }
  return [first, rest];
}

/** The pieces of the headings of a trail with what stands between them there, where the tower reads a space. */
function trailPieces(pieces, trail) {
  let left = trail;
  return pieces.map(({ text, share }) => {
    const seen = [...text].map((character) => {
      const part = character === " " && left.startsWith(BETWEEN) ? BETWEEN : character;
      left = left.slice(part.length);
      return part;
    });
    return { text: seen.join(""), share };
  });
}

// ------------------------------------------------------------------------------------------------ among the drawn hits

const drawn = () => [...document.querySelectorAll(".column .hit")];

export const firstHit = () => drawn()[0];
export const hitOf = (id) => drawn().find((hit) => hit.dataset.id === id);

/** Show all of a hit, or less again. */
export function expand(hit) {
  const open = hit.classList.toggle("open");
  const button = hit.querySelector("[data-act=expand]");
  button.textContent = open ? "Show less" : "Show all";
  button.setAttribute("aria-expanded", open);
}

/** Show the whole document of a hit, opened at the passage that was found. `text` is the document's. */
export function showWhole(hit, text) {
  const [start, stop] = [hit.dataset.start, hit.dataset.stop].map((place) => unitsBefore(text, Number(place)));
  const passage = make("mark", {}, text.slice(start, stop));
  hit.querySelector(".text").replaceChildren(text.slice(0, start), passage, text.slice(stop));
  hit.querySelector("[data-act=whole]").remove();
  hit.classList.add("whole");
  if (!hit.classList.contains("open")) expand(hit);
  passage.scrollIntoView({ block: "nearest" });
}

/** The UTF-16 units before a character, which the server counts in code points. */
function unitsBefore(text, characters) {
  let units = 0;
  for (let left = characters; left > 0 && units < text.length; left--) units += text.codePointAt(units) > 0xffff ? 2 : 1;
  return units;
}

/** Mark the document under the pointer or the focus in every column. */
export function linkSame(event) {
  const id = ["mouseleave", "focusout"].includes(event.type) ? null : event.target.closest(".hit")?.dataset.id;
  const same = drawn().filter((hit) => hit.dataset.id === id);
  for (const hit of drawn()) hit.classList.toggle("same", same.length > 1 && same.includes(hit));
}

/** The hit above or below in its column, or at the same place of the column beside; nothing at an end. */
export function neighbour(hit, key) {
  const lists = [...document.querySelectorAll(".column ol")];
  const at = lists.indexOf(hit.closest("ol"));
  const place = [...lists[at].children].indexOf(hit.closest("li"));
  const beside = (list) => list?.children[Math.min(place, list.children.length - 1)];
  const item = {
    ArrowUp: () => lists[at].children[place - 1],
    ArrowDown: () => lists[at].children[place + 1],
    ArrowLeft: () => beside(lists[at - 1]),
    ArrowRight: () => beside(lists[at + 1]),
  }[key]();
  return item?.firstElementChild;
}
