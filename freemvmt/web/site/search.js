// What the server does, done here: rank by vectors, by words or by both, and say what each word adds to a score.
//
// To rank by words takes a few small files. `complete` loads the rest, the vectors, which all else needs.

import { Failure } from "./failure.js";
import { read, readJson, readManifest } from "./files.js";
import { best, fused } from "./ranking.js";
import { Texts } from "./texts.js";
import { Tokenizer } from "./tokenizer.js";
import { Rows, normalized } from "./vectors.js";
import { Words } from "./words.js";

let opening = null;

/** The search over this site, ready to rank by words. */
export function open() {
  opening ??= opened();
  opening.catch(() => { opening = null; });
  return opening;
}

async function opened() {
  const [manifest, start, lengths] = await Promise.all([readManifest(), readJson("start.bin"), read("lengths.bin")]);
  return new Search(manifest, new Words(start, lengths), new Texts(start, manifest.documents));
}

export class Search {
  constructor(manifest, words, texts) {
    Object.assign(this, { manifest, words, texts });
    this.asked = { query: null }; // the newest query, its vector and its rankings: methods share them
    this.completing = null;
    this.isComplete = false; // whether there are vectors
  }

  /** Load what is needed to rank by vectors, once. */
  complete() {
    this.completing ??= this.loadVectors();
    this.completing.catch(() => { this.completing = null; }); // to be tried again
    return this.completing;
  }

  async loadVectors() {
    const { manifest } = this;
    const names = ["table.bin", "document_table.bin", "documents.bin"];
    const [rules, table, own, documents] = await Promise.all([readJson("tokenizer.bin"), ...names.map(read)]);
    const rows = (bytes) => bytes && new Rows(bytes, manifest.dim);
    this.encoder = manifest.queries === "onnx" ? await (await import("./onnx.js")).open(await read("query.onnx")) : null;
    this.tokenizer = new Tokenizer(rules);
    this.table = rows(table);
    this.documentTable = rows(own) ?? this.table;
    this.documents = rows(documents);
    this.isComplete = true;
  }

  /** {rows, scores, dense, bm25}: the best passage of each of the `k` best documents by `method`, and by row the parts
   *  of their scores. */
  async rank(query, method, k) {
    if (method !== "bm25") await this.complete();
    for (let depth = Math.max(this.manifest.depth, this.texts.isCut ? 2 * k : k); ; depth *= 2) {
      const dense = method === "bm25" ? null : await this.side(query, "dense", depth);
      const bm25 = method === "dense" ? null : await this.side(query, "bm25", depth);
      const found = this.firstOfEach(dense && bm25 ? this.fuse(dense, bm25, depth) : dense ?? bm25, k);
      if (found.rows.length === k || (dense ?? bm25).rows.length < depth) return { ...found, dense, bm25 };
    }
  }

  /** The `depth` best passages by one method. */
  async side(query, method, depth) {
    const asked = this.about(query);
    if (method === "dense") asked.products ??= this.documents.products(await this.encoded(query));
    else asked.scored ??= await this.words.score(query);
    const { rows, scores } = method === "dense" ? { rows: null, scores: asked.products } : asked.scored;
    return (asked[`${method} ${depth}`] ??= best(rows, scores, depth));
  }

  fuse(dense, bm25, depth) {
    const { rows, weight } = this.manifest;
    // A list that is not full ends in passages without a score, as the server's does.
    const least = bm25.rows.length < Math.min(depth, rows) ? 0 : bm25.scores.at(-1);
    return fused(dense, bm25, weight, least, 2 * depth);
  }

  /** The best passage of each document, at most `k`. */
  firstOfEach({ rows, scores }, k) {
    const seen = new Set(), found = { rows: [], scores: [] };
    for (let place = 0; place < rows.length && seen.size < k; place++) {
      const owner = this.texts.ownerOf(rows[place]);
      if (seen.has(owner)) continue;
      seen.add(owner);
      found.rows.push(rows[place]);
      found.scores.push(scores[place]);
    }
    return found;
  }

  about(query) {
    return this.asked.query === query ? this.asked : (this.asked = { query });
  }

  /** The vector of a query: by the recurrent tower where it came along, else the average of its token vectors. */
  encoded(query) {
    const encode = async ({ ids }) => (this.encoder && ids.length ? this.encoder(ids) : normalized(this.table.sum(ids)));
    return (this.about(query).vector ??= encode(this.tokenizer.encode(query)));
  }

  /** The documents nearest to another, which is left out: each by its passage that is nearest to one of the other's. */
  async similar(document, k) {
    await this.complete();
    const own = this.texts.rowsOf(document);
    const nearest = new Float32Array(this.documents.count).fill(-Infinity);
    for (const row of own) {
      this.documents.products(this.documents.sum([row])).forEach((score, other) => {
        if (score > nearest[other]) nearest[other] = score;
      });
    }
    for (const row of own) nearest[row] = -Infinity;
    const others = nearest.length - own.length;
    for (let depth = 2 * k; ; depth *= 2) {
      const dense = this.firstOfEach(best(null, nearest, Math.min(depth, others)), k);
      if (dense.rows.length === k || depth >= others) return { ...dense, dense, bm25: null };
    }
  }

  /** The number of the document with that id. */
  async numberOf(id) {
    this.numbers ??= readJson("ids.bin").then((ids) => new Map(ids.map((name, number) => [name, number])));
    this.numbers.catch(() => { this.numbers = null; });
    const number = (await this.numbers).get(id);
    if (number === undefined) throw new Failure("That did not work", `there is no document "${id}"`);
    return number;
  }

  /**
   * How much each word adds to the cosine of the query and the passage in `row`: the passage's words, or the query's
   * where no average encoded the passage; null where no sum over words gives it.
   */
  explain(query, vector, passage, row) {
    if (this.manifest.model.tower !== "average") return null;
    if (this.manifest.model.document_tower !== "average") {
      const words = shares(this.tokenizer.encode(query), this.table, this.documents.sum([row]));
      return { score: total(words), title: pieces(passage.heading, []), text: pieces(passage.text, []), query: pieces(query, words) };
    }
    const { heading } = passage;
    const content = heading ? `${heading} ${passage.text}` : passage.text;
    const words = shares((passage.tokens ??= this.tokenizer.encode(content)), this.documentTable, vector);
    const boundary = heading ? heading.length + 1 : 0;
    const title = words.filter(([, stop]) => stop <= boundary);
    const text = words.slice(title.length).map(([start, stop, share]) => [start - boundary, stop - boundary, share]);
    return { score: total(words), title: pieces(heading, title), text: pieces(passage.text, text) };
  }
}

const total = (words) => words.reduce((sum, [, , share]) => sum + share, 0);

/** [start, stop, share] of each word of a text: what its rows of `table` add to the cosine with `vector`. */
function shares({ ids, words }, table, vector) {
  const length = Math.max(Math.hypot(...table.sum(ids)), 1e-12);
  let first = 0;
  return words.map(([start, stop, count]) => {
    const own = ids.slice(first, (first += count));
    return [start, stop, own.reduce((sum, id) => sum + table.product(id, vector), 0) / length];
  });
}

/** The whole of `text`: its words with their shares, and what stands between them without. */
function pieces(text, words) {
  const found = [];
  let end = 0;
  for (const [start, stop, share] of words) {
    if (start > end) found.push({ text: text.slice(end, start), share: 0 });
    found.push({ text: text.slice(start, stop), share });
    end = stop;
  }
  if (end < text.length) found.push({ text: text.slice(end), share: 0 });
  return found;
}
