// The search page: the address says what is asked, the server answers, the answer is drawn.
//
//     address <-> state -> run() -> answers -> draw()
//
// An answer is drawn only when no newer question was asked since. ask.js asks the server, hits.js draws the hits. A site
// without a server (`two-towers export --format site`) has another ask.js, and all else as it is here. Its first answers
// have a `rest`: a function that loads what is missing, after which the same question has a better answer.

import { Failure, about, ask, timing, useToken } from "./ask.js";
import {
  card, column, columns, count, expand, firstHit, hitOf, linkSame, make, neighbour, plural, showWhole, terms,
  unseen,
} from "./hits.js";

const METHODS = ["hybrid", "dense", "bm25"];
const NAMES = { hybrid: "Hybrid", dense: "Dense", bm25: "BM25" };
const TYPING_MS = 110; // rest after a key before the server is asked
const LONGEST_WAIT_S = 15; // between two tries while the server is away
const HITS = [5, 10, 20, 50, 100]; // choices of k
const FIRST = ["folder", "type"]; // the filters that stand before the others
const CHOICES = 12; // values of a field that are seen at first

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 56rem)");

const state = { q: "", view: "compare", k: 10, filters: new Map(), tints: true, like: null };
let info = null; // of GET /info
let answers = new Map(); // method, "similar" or "source" -> the server's answer
let asked = ""; // the question that `answers` answer, without its method
let turn = 0; // counts the questions; only the newest may draw
let pending = null; // the address whose answer is on its way
let running = new AbortController();
let roundTrip = 0; // milliseconds that the newest answers took, with the way
let timer = 0; // typing, or the next try
let tries = 0;

// ---------------------------------------------------------------------------------------------------- address, state

function readAddress() {
  const given = new URLSearchParams(location.search);
  const k = Number(given.get("k"));
  state.q = given.get("q") ?? "";
  state.view = METHODS.includes(given.get("view")) ? given.get("view") : "compare";
  state.k = Number.isInteger(k) && k > 0 ? k : 10;
  state.tints = given.get("tints") !== "off";
  state.like = given.get("like");
  state.filters = new Map();
  for (const [key, value] of given) {
    const name = key.slice(2);
    if (key.startsWith("f.")) setFilter(name, [...filter(name), value]);
  }
}

/** Put the state into the address: as a new step of the history, which is named, or in place of the current one. */
function writeAddress(step = "") {
  const next = new URLSearchParams();
  if (state.q) next.set("q", state.q);
  if (state.view !== "compare") next.set("view", state.view);
  if (state.k !== 10) next.set("k", state.k);
  for (const [name, values] of state.filters) for (const value of values) next.append(`f.${name}`, value);
  if (!state.tints) next.set("tints", "off");
  if (state.like !== null) next.set("like", state.like);
  const search = next.size ? `?${next}` : location.pathname;
  if (step) history.pushState({ step }, "", search);
  else history.replaceState(history.state, "", search);
  document.title = [state.like === null ? state.q : `Like ${state.like}`, "two-towers"].filter(Boolean).join(" · ");
}

const filter = (name) => state.filters.get(name) ?? [];

function setFilter(name, values) {
  if (values.length) state.filters.set(name, values);
  else state.filters.delete(name);
}

/** A filter as the server wants it; a number field stands in the address as "from..to", and dates as their year. */
function wireFilter([name, values]) {
  const { type, years } = info.fields[name] ?? {};
  if (type === "boolean") return [name, values[0] === "true"];
  if (years && /^\d{4}$/.test(values)) return [name, { gte: `${values}-01-01`, lt: `${nextYear(values)}-01-01` }];
  if (type !== "number") return [name, values.length === 1 ? values[0] : values];
  const [from, to] = range(name);
  return [name, { ...(from !== "" && { gte: Number(from) }), ...(to !== "" && { lte: Number(to) }) }];
}

const nextYear = (year) => String(Number(year) + 1).padStart(4, "0");

const wireFilters = () => Object.fromEntries([...state.filters].map(wireFilter));

function range(name) {
  const [from = "", to = ""] = (filter(name)[0] ?? "").split("..");
  return [from, to];
}

/** The methods whose answers the view shows, or needs to mark how ranks changed. */
function needed() {
  if (narrow.matches || state.view === "compare") return METHODS;
  return state.view === "hybrid" ? ["hybrid"] : ["hybrid", state.view];
}

const shown = () => (state.view !== "compare" ? [state.view] : narrow.matches ? ["hybrid"] : METHODS);

// ------------------------------------------------------------------------------------------------------- asking

/** Ask what the state says and draw it; whatever was asked before is given up. */
async function run() {
  const mine = giveUp();
  const { signal } = (running = new AbortController());
  pending = location.search;
  setBusy(true);
  try {
    if (!info) receive(await ask("info", signal));
    const began = performance.now();
    const found = await (state.like !== null ? fetchSimilar(signal) : fetchHits(signal));
    if (mine !== turn) return;
    if (found !== answers) roundTrip = performance.now() - began;
    answers = found;
    tries = 0;
    draw();
    const { rest } = [...found.values()].find((answer) => answer.rest) ?? {};
    if (rest) await complete(rest, mine);
  } catch (error) {
    if (mine !== turn) return;
    if (!(error instanceof Failure)) throw error;
    drawFailure(error);
  } finally {
    if (mine === turn) {
      pending = null;
      setBusy(false);
    }
  }
}

/** Ask again once the rest is there; if it cannot be loaded, that is said above the hits that there are. */
async function complete(rest, mine) {
  document.body.classList.add("partial");
  try {
    await rest();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (mine === turn) $("notice").replaceChildren(failure(error));
    return;
  }
  asked = "";
  if (mine !== turn) return;
  const focus = document.activeElement.closest(".hit")?.dataset.id;
  await run();
  if (focus !== undefined && document.activeElement === document.body) hitOf(focus)?.focus();
}

/** From here on no answer to an earlier question is drawn; gives the number of the next question. */
function giveUp() {
  running.abort();
  pending = null;
  clearTimeout(timer);
  return ++turn;
}

function setBusy(busy) {
  document.body.classList.toggle("busy", busy);
  document.body.classList.remove("partial");
  $("results").setAttribute("aria-busy", busy);
}

/** The answers of the methods that are needed; what is known of the same question is not asked again. */
async function fetchHits(signal) {
  if (!state.q.trim()) return new Map();
  const question = { query: state.q, k: state.k, filter: wireFilters(), explain: state.tints };
  const known = asked === JSON.stringify(question) ? answers : new Map();
  const missing = needed().filter((method) => !known.has(method));
  if (!missing.length) return known;
  const found = await Promise.all(missing.map((method) => ask("search", signal, { ...question, method })));
  asked = JSON.stringify(question);
  return new Map([...known, ...missing.map((method, index) => [method, found[index]])]);
}

async function fetchSimilar(signal) {
  const [similar, source] = await Promise.all([
    ask("similar", signal, { id: state.like, k: state.k, filter: wireFilters() }),
    ask(`documents/${encodeURIComponent(state.like)}`, signal).catch(() => null), // no path can hold an id such as ".."
  ]);
  asked = "";
  return new Map([["similar", similar], ["source", source ?? { id: state.like, title: "", text: "", metadata: {} }]]);
}

// ---------------------------------------------------------------------------------------------------------- drawing

function draw() {
  $("notice").replaceChildren();
  syncControls();
  if (state.like !== null) drawLists([answers.get("similar")], () => [column("Neighbours", answers.get("similar"))]);
  else if (state.q.trim()) drawLists(shown().map((method) => answers.get(method)), () => shown().map(methodColumn));
  else show("", "", intro());
}

function drawLists(lists, columnsOf) {
  const hits = Math.max(...lists.map((list) => list.hits.length));
  const similar = state.like !== null;
  const of = similar ? " like this passage" : ` of ${plural(lists[0].documents, "document")}`;
  const { note } = lists.find((list) => list.note) ?? {};
  const counted = (hits ? plural(hits, "hit") + of : note ? "No hits yet" : "No hits") + (note ? `, ${note}` : "");
  const status = [counted, similar ? "" : unseen(` for ${state.q}`)];
  const took = Math.max(...lists.map((list) => list.took_ms));
  const found = hits || note ? columns(columnsOf(), state.tints && !similar) : nothing();
  show(status, timing(took, roundTrip), ...(similar ? [sourcePassage(), found] : [found]));
}

function show(status, latency, ...nodes) {
  $("status").replaceChildren(...status);
  $("latency").textContent = latency;
  $("results").replaceChildren(...nodes);
}

const methodColumn = (method) =>
  column(NAMES[method], answers.get(method), method === "hybrid" ? null : answers.get("hybrid"));

function sourcePassage() {
  const source = answers.get("source");
  return make("div", { class: "source" },
    make("button", { class: "quiet", type: "button", click: goBack }, "← Back"),
    make("h2", {}, "More like “", make("bdi", {}, source.title || source.id), "”"),
    card({ ...source, title: "" }));
}

function intro() {
  const { index, model } = info;
  const recall = index["recall@10"];
  const rows = [
    ["Documents", count(info.documents)],
    ["Model", [model.base, `${info.dim} dimensions`, model.id.slice(0, 12)].filter(Boolean).join(", ")],
    ["Index", `${index.kind}, ${index.stored}`],
    ["Recall@10", recall === undefined ? null : `${(100 * recall).toFixed(1)} % of exact search`],
    ["Filters", Object.keys(info.fields).join(", ") || null],
  ].filter(([, value]) => value);
  return make("div", { class: "intro" },
    make("h2", {}, `Search ${plural(info.documents, "document")}`),
    make("p", {}, "By meaning, by words, and by both. Each word is tinted by what it adds to the score."),
    make("dl", { class: "facts" }, terms(rows)),
    make("p", { class: "wide" }, make("kbd", {}, "/"), " to search, ", make("kbd", {}, "?"), " for all keys"),
    about(info));
}

function nothing() {
  const what = state.like === null ? `“${state.q}”` : "this passage";
  if (!state.filters.size) {
    const advice = make("p", {}, `Nothing was found for ${what}. Try other words.`);
    return make("div", { class: "nothing" }, make("h2", {}, "No hits"), advice);
  }
  const remove = () => { state.filters.clear(); change("filters"); };
  return make("div", { class: "nothing" },
    make("h2", {}, "Nothing matches these filters"),
    make("p", {}, `No document that they let through answers ${what}.`),
    make("button", { class: "quiet", type: "button", click: remove }, "Remove the filters"));
}

function drawFailure(error) {
  syncControls();
  answers = new Map();
  asked = "";
  show("", "");
  $("notice").replaceChildren(failure(error));
  if (error.wait === null) return;
  timer = setTimeout(run, 1000 * Math.min(error.wait * 2 ** tries, LONGEST_WAIT_S));
  tries += 1;
}

/** What went wrong, and what can be done. */
function failure({ title, message, status, reference }) {
  return make("div", {},
    make("h2", {}, title),
    make("p", {}, message),
    reference ? make("p", {}, make("small", {}, `Request ${reference}`)) : null,
    status === 401 ? tokenForm() : make("button", { class: "quiet", type: "button", click: run }, "Try again"),
    state.like !== null ? make("button", { class: "quiet", type: "button", click: goBack }, "← Back") : null);
}

/** For a server that asks for its token: kept until the tab is closed. */
function tokenForm() {
  const input = make("input", { type: "password", "aria-label": "Token", placeholder: "Token", autocomplete: "off" });
  const submit = (event) => { event.preventDefault(); useToken(input.value); run(); };
  return make("form", { class: "token", submit }, input, make("button", { class: "quiet" }, "Go on"));
}

// ---------------------------------------------------------------------------------------------------------- filters

/** What the server is: the filters and the choices of k are made of it, once. */
function receive(answer) {
  info = answer;
  const fields = Object.entries(info.fields).filter(([name, field]) => filter(name).length || hasChoice(field));
  fields.sort((a, b) => filterPlace(a) - filterPlace(b));
  $("filters-open").hidden = fields.length === 0;
  $("filters").replaceChildren(...fields.map(([name, field]) => {
    const inputs = { string: valuesInput, number: rangeInput, boolean: truthInput }[field.type] ?? valuesInput;
    const input = (field.years ? yearInput : inputs)(name, field);
    return make("fieldset", {}, make("legend", { dir: "auto" }, name), input);
  }));
  const choices = [...new Set([...HITS, state.k])].filter((k) => k <= info.limits.k).sort((a, b) => a - b);
  $("k").replaceChildren(...choices.map((k) => make("option", { value: k }, String(k))));
  syncControls();
}

/** Whether a field has something to choose: nobody picks one of a thousand paths, or the only year. */
const hasChoice = ({ type, values, years }) => type !== "string" || (years ? years.length > 1 : values?.length > 0);

function filterPlace([name, { years }]) {
  if (FIRST.includes(name)) return FIRST.indexOf(name);
  return FIRST.length + (years ? 0 : 1);
}

/** Boxes for the values of a field; those after the first few are seen once they are asked for, or chosen. */
function valuesInput(name, field) {
  const values = [...new Set([...(field.values ?? []), ...filter(name)])];
  const box = (value, label) => {
    const input = { type: "checkbox", "data-field": name, "data-any": value === null, value: value ?? "" };
    return make("label", {}, make("input", { ...input, change: pick }), make("span", { dir: "auto" }, label));
  };
  const boxes = values.map((value) => box(value, value || "(empty)"));
  const rest = boxes.slice(CHOICES);
  for (const label of rest) label.hidden = true;
  const showRest = ({ target }) => {
    const first = rest.find((label) => label.hidden) ?? rest[0];
    for (const label of rest) label.hidden = false;
    first.firstElementChild.focus();
    target.remove();
  };
  const button = { type: "button", class: "more", "aria-label": `Show ${rest.length} more of ${name}`, click: showRest };
  const more = rest.length ? make("button", button, `${rest.length} more`) : null;
  return make("div", { class: "values" }, box(null, "any"), boxes, more);
}

function pick(event) {
  const { field, any } = event.target.dataset;
  const others = filter(field).filter((value) => value !== event.target.value);
  setFilter(field, any !== undefined ? [] : event.target.checked ? [...others, event.target.value] : others);
  change("filter");
}

function rangeInput(name) {
  const ends = ["from", "to"].map((end) => {
    const input = { type: "number", step: "any", "data-field": name, "data-end": end, "aria-label": `${name} ${end}` };
    return [make("span", { "aria-hidden": "true" }, end), make("input", { ...input, input: pickRange })];
  });
  return make("div", { class: "range" }, ends);
}

function pickRange(event) {
  const { field, end } = event.target.dataset;
  const [from, to] = end === "from" ? [event.target.value, range(field)[1]] : [range(field)[0], event.target.value];
  setFilter(field, from || to ? [`${from}..${to}`] : []);
  soon();
}

const truthInput = (name) => choiceInput(name, [["true", "yes"], ["false", "no"]]);

function yearInput(name, { years }) {
  return choiceInput(name, [...new Set([...years, ...filter(name)])].map((year) => [year, year]));
}

/** A choice of one value, or of none. */
function choiceInput(name, choices) {
  const choose = ({ target }) => { setFilter(name, target.value ? [target.value] : []); change("filter"); };
  return make("select", { "data-field": name, "aria-label": name, change: choose },
    [["", "any"], ...choices].map(([value, label]) => make("option", { value }, label)));
}

/** Controls and chips say what the state says, whichever way it came about. */
function syncControls() {
  if ($("query").value !== state.q) $("query").value = state.q;
  const view = narrow.matches && state.view === "compare" ? "hybrid" : state.view;
  for (const radio of document.querySelectorAll("[name=view]")) radio.checked = radio.value === view;
  $("views").hidden = $("tints-label").hidden = state.like !== null;
  $("tints").checked = state.tints;
  $("k").value = state.k;
  for (const input of $("filters").querySelectorAll("[data-field]")) syncInput(input, filter(input.dataset.field));
  const chips = [...state.filters].flatMap(([name, values]) => values.map((value) => chip(name, value)));
  $("chips").replaceChildren(...chips);
  $("chips").hidden = !chips.length;
  $("filters-open").textContent = chips.length ? `Filters (${chips.length})` : "Filters";
}

/** An input says what its field's filter says; a number is left alone while it is typed. */
function syncInput(input, values) {
  const { field, end, any } = input.dataset;
  if (input.type === "checkbox") {
    input.checked = any === undefined ? values.includes(input.value) : !values.length;
    if (input.checked) input.parentElement.hidden = false;
  } else if (input.type !== "number") input.value = values[0] ?? "";
  else if (input !== document.activeElement) input.value = range(field)[end === "to" ? 1 : 0];
}

function chip(name, value) {
  let label = value;
  if (info?.fields[name]?.type === "number") {
    const [from, to] = range(name);
    label = from && to ? `${from} to ${to}` : from ? `from ${from}` : `to ${to}`;
  } else if (info?.fields[name]?.type === "boolean") label = value === "true" ? "yes" : "no";
  const click = () => {
    setFilter(name, filter(name).filter((other) => other !== value));
    change("filter");
    $("filters-open").focus();
  };
  const button = { type: "button", "aria-label": `Remove filter ${name}: ${label}`, click };
  return make("li", {}, make("button", button, make("bdi", {}, name), ": ", make("bdi", {}, label), " ✕"));
}

// ------------------------------------------------------------------------------------------------- what people do

/** The state changed: write it down and ask. */
function change(step) {
  writeAddress(step);
  return run();
}

/** The state changes with every key: write it down now and ask when the keys rest. */
function soon() {
  writeAddress();
  giveUp();
  timer = setTimeout(run, TYPING_MS);
}

function showLike(id) {
  history.replaceState({ ...history.state, focus: id }, ""); // to come back to
  state.like = id;
  change("like").then(() => { $("results").focus({ preventScroll: true }); scrollTo(0, 0); });
}

/** Show the whole document of a passage; what goes wrong stands on the button, which can be pressed again. */
async function openWhole(hit) {
  try {
    const { text } = await ask(`documents/${encodeURIComponent(hit.dataset.id)}`);
    if (hit.isConnected && hit.querySelector("[data-act=whole]")) showWhole(hit, text);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    hit.querySelector("[data-act=whole]").textContent = error.message;
  }
}

function goBack() {
  if (history.state?.step === "like") return history.back();
  state.like = null;
  return change("back");
}

function escape(hit) {
  if (state.like !== null) goBack();
  else if (hit) $("query").focus();
  else if (state.q) { state.q = ""; $("query").focus(); change(); }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("help").open) return;
  const focus = document.activeElement;
  const hit = focus.closest(".column .hit");
  const writing = focus.matches("input, select");
  const act = focus === $("query") ? keysInBox(event.key) : writing ? null : keys(event.key, focus, hit);
  if (!act) return;
  event.preventDefault();
  act();
}

/** What a key does in the search box; nothing for what is written. */
function keysInBox(key) {
  if (key === "Escape") return () => escape(null);
  if (key === "ArrowDown" && firstHit()) return () => firstHit().focus();
  return null;
}

/** What a key does elsewhere; nothing for what is the browser's. */
function keys(key, focus, hit) {
  const arrow = { j: "ArrowDown", k: "ArrowUp" }[key] ?? key;
  if (key === "Escape") return () => escape(hit);
  if (key === "/") return () => { $("query").focus(); $("query").select(); };
  if (key === "?") return () => $("help").showModal();
  if (key === "j" && !hit && firstHit()) return () => firstHit().focus();
  if (!hit) return null;
  if (key === "m") return () => showLike(hit.dataset.id);
  if (key === "Enter" && focus === hit) return () => expand(hit);
  if (key === "o" && hit.querySelector("[data-act=whole]")) return () => openWhole(hit);
  if (!/^Arrow(Up|Down|Left|Right)$/.test(arrow)) return null;
  const next = neighbour(hit, arrow) ?? (arrow === "ArrowUp" ? $("query") : null);
  return next && (() => next.focus());
}

function onClick(event) {
  const hit = event.target.closest(".hit");
  if (event.target.dataset.act === "like") showLike(hit.dataset.id);
  else if (event.target.dataset.act === "expand") expand(hit);
  else if (event.target.dataset.act === "whole") openWhole(hit);
}

async function onPopState() {
  readAddress();
  writeAddress();
  await run();
  const focus = history.state?.focus;
  if (focus !== undefined) hitOf(focus)?.focus();
}

function start() {
  readAddress();
  writeAddress();
  $("k").replaceChildren(make("option", {}, String(state.k)));
  syncControls();
  $("query").addEventListener("input", () => { state.q = $("query").value; state.like = null; soon(); });
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (narrow.matches) $("query").blur(); // puts the keyboard of a phone away
    if (pending !== location.search) run(); // Enter does not ask twice what the resting keys asked just now
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("views").addEventListener("change", (event) => { state.view = event.target.value; change("view"); });
  $("tints").addEventListener("change", () => { state.tints = $("tints").checked; change(); });
  $("k").addEventListener("change", () => { state.k = Number($("k").value); change("k"); });
  $("filters-open").addEventListener("click", () => {
    $("filters").hidden = !$("filters").hidden;
    $("filters-open").setAttribute("aria-expanded", !$("filters").hidden);
  });
  $("help-open").addEventListener("click", () => $("help").showModal());
  $("results").addEventListener("click", onClick);
  for (const kind of ["mouseover", "mouseleave", "focusin", "focusout"]) $("results").addEventListener(kind, linkSame);
  document.addEventListener("keydown", onKey);
  addEventListener("popstate", onPopState);
  addEventListener("online", () => { tries = 0; run(); });
  narrow.addEventListener("change", run);
  run();
}

start();
