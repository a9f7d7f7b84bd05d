// The texts of the site: what a hit shows, and whole documents, from pieces that are fetched when they are shown.

import { Pieces } from "./files.js";
import { BETWEEN } from "./hits.js";
import { lastAtMost } from "./ranking.js";

export class Texts {
  /** From start.bin: the first row of each piece, and how many rows each document has; null: one. */
  constructor({ passages: firsts, counts }, documents) {
    this.firsts = firsts;
    this.pieces = new Pieces("passages", passagesOf);
    this.starts = Int32Array.from({ length: documents + 1 }, (_, number) => number); // the first row of each document
    counts?.forEach((count, number) => { this.starts[number + 1] = this.starts[number] + count; });
    this.isCut = counts !== null;
  }

  /** The number of the document of a row. */
  ownerOf(row) {
    return this.isCut ? lastAtMost(this.starts, row) : row;
  }

  /** The rows of a document. */
  rowsOf(document) {
    const [first, stop] = this.starts.subarray(document, document + 2);
    return Array.from({ length: stop - first }, (_, place) => first + place);
  }

  /** The passages of `rows`, in their order. */
  passages(rows) {
    return Promise.all(rows.map(async (row) => {
      const number = lastAtMost(this.firsts, row);
      return (await this.pieces.get(number))[row - this.firsts[number]];
    }));
  }

  /** A document as a whole: its passages with what stands between them. */
  async document(number) {
    const passages = await this.passages(this.rowsOf(number));
    const { id, title, metadata } = passages[0];
    const text = passages.map(({ before, text, after }) => before + text + after).join("");
    return { id, title, metadata, text };
  }
}

/** The passages of a piece; `heading` is what stands before the text where it was encoded. */
function passagesOf(bytes) {
  return JSON.parse(new TextDecoder().decode(bytes)).flatMap(([id, title, metadata, rows]) =>
    rows.map(({ text, url = null, place, bare = false, before = "", after = "" }) => {
      const trail = place?.trail.replaceAll(BETWEEN, " ");
      const heading = bare ? "" : [title, trail].filter(Boolean).join(" ");
      return { id, title, metadata, text, url, place, heading, before, after };
    }));
}
