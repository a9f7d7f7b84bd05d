// Asking: what the server of `two-towers serve` would answer, answered here from the files of the site.

import { Failure } from "./failure.js";
import { readManifest } from "./files.js";
import { make, milliseconds } from "./hits.js";
import { open } from "./search.js";

export { Failure };

const TABLE_NOTICE =
  "Queries have a recurrent tower, which does not run in this page: their vectors are the average of their words, so " +
  "dense and hybrid hits differ from the server’s, and words are not tinted.";
const ONNX_NOTICE = "The recurrent tower of queries runs in this page. Words are not tinted.";

/** The answer to a question of the page. Throws a Failure, or where there is a signal an AbortError. */
export async function ask(path, signal, body) {
  const answer = await (path === "info" ? info() : answered(path, body));
  signal?.throwIfAborted();
  return answer;
}

/** No host of files asks for a token. */
export function useToken() {}

/** What is said of the time: ranking alone, and with the passages that had to be loaded. */
export const timing = (took, shown) => `ranked in ${milliseconds(took)} · shown in ${milliseconds(shown)}`;

/** What the first page says beside the counts. */
export function about({ notice, megabytes }) {
  const loaded = "Everything is searched in this browser. The first hits are found by words, of which a search loads " +
    `little; then ${megabytes} MB of vectors are loaded, and hits are ranked by meaning too.`;
  return [make("p", { class: "site-loaded" }, loaded), notice ? make("p", { class: "site-notice" }, notice) : null];
}

async function info() {
  const manifest = await readManifest();
  open().catch(() => {}); // what every search needs; what goes wrong is said at the first one
  return {
    documents: manifest.documents,
    dim: manifest.dim,
    model: manifest.model,
    index: { kind: "exact", stored: "int8", "recall@10": manifest.recall },
    fields: {},
    limits: { k: manifest.most_hits },
    notice: manifest.model.tower === "average" ? "" : manifest.queries === "onnx" ? ONNX_NOTICE : TABLE_NOTICE,
    megabytes: megabytes(manifest),
  };
}

/** What is loaded after the first hits. */
function megabytes({ files }) {
  const bytes = Object.entries(files)
    .filter(([name]) => !["data/start.bin", "data/lengths.bin", "data/ids.bin"].includes(name))
    .reduce((sum, [, file]) => sum + file.bytes, 0);
  return (bytes / 1e6).toFixed(1);
}

async function answered(path, body) {
  const search = await open();
  if (path === "search") return search.isComplete ? searched(search, body) : provisional(search, body);
  if (path === "similar") return similar(search, body);
  return search.texts.document(await search.numberOf(decodeURIComponent(path.slice("documents/".length))));
}

/** What words alone find, while there are no vectors: `rest` loads them, and then the same is to be asked again. */
async function provisional(search, { query, method, k }) {
  const found = await searched(search, { query, method: "bm25", k: method === "dense" ? 0 : k, explain: false });
  const sofar = method === "dense" ? "" : found.hits.length ? "by words so far, " : "no document has a word of this query, ";
  const note = `${sofar}${megabytes(search.manifest)} MB of vectors are on their way`;
  return { ...found, method, k, note: method === "bm25" ? "" : note, rest: () => search.complete() };
}

async function searched(search, { query, method, k, explain }) {
  const began = performance.now();
  const ranking = await search.rank(query, method, k);
  const took_ms = performance.now() - began;
  const hits = await hitsOf(search, ranking);
  if (explain) {
    const vector = await search.encoded(query);
    hits.forEach((hit, place) => { hit.explanation = search.explain(query, vector, hit.passage, ranking.rows[place]); });
  }
  return { query, method, k, took_ms, documents: search.manifest.documents, hits };
}

async function similar(search, { id, k }) {
  const number = await search.numberOf(id);
  await search.complete();
  const began = performance.now();
  const ranking = await search.similar(number, k);
  const took_ms = performance.now() - began;
  return { id, took_ms, hits: await hitsOf(search, ranking) };
}

async function hitsOf(search, { rows, scores, dense, bm25 }) {
  const passages = await search.texts.passages(rows);
  const part = (ranking, row) => {
    const place = ranking ? ranking.rows.indexOf(row) : -1;
    return place < 0 ? null : ranking.scores[place];
  };
  return passages.map((passage, place) => ({
    ...passage, passage, score: scores[place], dense: part(dense, rows[place]), bm25: part(bm25, rows[place]),
  }));
}
