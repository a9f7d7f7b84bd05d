// What the server does, done here: rank by vectors, by words or by both, and say what each word adds to a score.

import { Failure } from "./failure.js";
import { read, readJson, readManifest } from "./files.js";
import { best, fused } from "./ranking.js";
import { Tokenizer } from "./tokenizer.js";
import { Rows, normalized } from "./vectors.js";
import { Words } from "./words.js";

let opening = null;

/** The search over this site, its files loaded. */
export function open() {
  opening ??= opened();
  opening.catch(() => { opening = null; });
  return opening;
}

async function opened() {
  const manifest = await readManifest();
  const [rules, table, own, documents, words, postings] = await Promise.all([
    readJson("tokenizer.bin"),
    ...["table.bin", "document_table.bin", "documents.bin", "words.bin", "postings.bin"].map(read),
  ]);
  const rows = (bytes) => bytes && new Rows(bytes, manifest.dim);
  const encoder = manifest.queries === "onnx" ? await (await import("./onnx.js")).open(await read("query.onnx")) : null;
  return new Search({
    manifest, encoder, tokenizer: new Tokenizer(rules), words: new Words(words, postings, rules.words),
    table: rows(table), documentTable: rows(own) ?? rows(table), documents: rows(documents),
  });
}

export class Search {
  constructor(parts) {
    Object.assign(this, parts);
    this.shards = new Map(); // number -> a promise of its passages
    this.asked = { query: null }; // the newest query, its vector and its rankings: methods share them
  }

  /** {rows, scores, dense, bm25}: the best `k` by `method`, and by row the parts of their scores. */
  async rank(query, method, k) {
    const { depth, weight, documents: count } = this.manifest;
    const most = Math.max(depth, k);
    const asked = this.about(query);
    if (method !== "bm25") {
      const vector = await this.encoded(query);
      asked.dense ??= best(null, this.documents.products(vector), most);
    }
    if (method !== "dense") {
      const { rows, scores } = (asked.scored ??= this.words.score(query));
      asked.bm25 ??= best(rows, scores, most);
    }
    const { dense, bm25 } = asked;
    const parts = { dense: method === "bm25" ? null : dense, bm25: method === "dense" ? null : bm25 };
    if (method !== "hybrid") return { ...cut(asked[method], k), ...parts };
    // A list that is not full ends in documents without a score, as the server's does.
    const least = bm25.rows.length < Math.min(most, count) ? 0 : bm25.scores.at(-1);
    return { ...fused(dense, bm25, weight, least, k), ...parts };
  }

  about(query) {
    return this.asked.query === query ? this.asked : (this.asked = { query });
  }

  /** The vector of a query: by the recurrent tower where it came along, else the average of its token vectors. */
  encoded(query) {
    const encode = async ({ ids }) => (this.encoder && ids.length ? this.encoder(ids) : normalized(this.table.sum(ids)));
    return (this.about(query).vector ??= encode(this.tokenizer.encode(query)));
  }

  /** The documents nearest to the one in `row`, itself left out. */
  similar(row, k) {
    const { rows, scores } = best(null, this.documents.products(this.documents.sum([row])), k + 1);
    const kept = rows.map((other, place) => [other, scores[place]]).filter(([other]) => other !== row).slice(0, k);
    const dense = { rows: kept.map(([other]) => other), scores: kept.map(([, score]) => score) };
    return { ...dense, dense, bm25: null };
  }

  /** The passages of `rows`, in their order. */
  passages(rows) {
    return Promise.all(rows.map(async (row) => (await this.shard(Math.floor(row / this.manifest.shard)))[row % this.manifest.shard]));
  }

  shard(number) {
    if (!this.shards.has(number)) {
      const loading = readJson(`passages/${String(number).padStart(5, "0")}.bin`);
      this.shards.set(number, loading.then((rows) => rows.map(([id, title, text, metadata]) => ({ id, title, text, metadata }))));
      loading.catch(() => this.shards.delete(number)); // to be tried again
    }
    return this.shards.get(number);
  }

  /** The row of the document with that id. */
  async rowOf(id) {
    this.rows ??= readJson("ids.bin").then((ids) => new Map(ids.map((name, row) => [name, row])));
    const row = (await this.rows).get(id);
    if (row === undefined) throw new Failure("That did not work", `there is no document "${id}"`);
    return row;
  }

  /**
   * How much each word adds to the cosine of the query and the passage in `row`: the passage's words, or the query's
   * where no average encoded the passage; null where no sum over words gives it.
   */
  explain(query, vector, passage, row) {
    if (this.manifest.model.tower !== "average") return null;
    if (this.manifest.model.document_tower !== "average") {
      const words = shares(this.tokenizer.encode(query), this.table, this.documents.sum([row]));
      return { score: total(words), title: pieces(passage.title, []), text: pieces(passage.text, []), query: pieces(query, words) };
    }
    const content = passage.title ? `${passage.title} ${passage.text}` : passage.text;
    const words = shares((passage.tokens ??= this.tokenizer.encode(content)), this.documentTable, vector);
    const boundary = passage.title ? passage.title.length + 1 : 0;
    const title = words.filter(([, stop]) => stop <= boundary);
    const text = words.slice(title.length).map(([start, stop, share]) => [start - boundary, stop - boundary, share]);
    return { score: total(words), title: pieces(passage.title, title), text: pieces(passage.text, text) };
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

const cut = ({ rows, scores }, k) => ({ rows: rows.slice(0, k), scores: scores.slice(0, k) });

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
