// BM25: a query's words as the server makes them, and the scores of the documents that have them, which are tantivy's.

import { REPLACEMENT, Ranges, codeAt } from "./characters.js";
import { Pieces } from "./files.js";
import { lastAtMost } from "./ranking.js";
import { stem } from "./stemmer.js";

const K1 = Math.fround(1.2), B = Math.fround(0.75); // tantivy's, which computes with 32 bits
const EXACT = 40; // lengths below are kept as they are
const { fround, log } = Math;
const NONE = 0, OTHER = 1, SPACELESS = 2, MARK = 3; // what a character is: see search/analysis.py

export class Words {
  /** From the rules and the first word of each piece in start.bin, and lengths.bin. */
  constructor({ rules, words: firsts }, lengths) {
    Object.assign(this, { rules, firsts });
    this.lengths = new Uint8Array(lengths);
    this.documents = this.lengths.length;
    this.pieces = new Pieces("postings", listsOf);
    for (const name of ["unassigned", "ignored", "spaceless", "others", "marks", "symbols"]) {
      this[name] = new Ranges(rules[name]);
    }
    this.folds = new Map(Object.entries(rules.folds));
    this.stop = new Set(rules.stop);
    this.norms = normsFor(fround(fround(rules.tokens) / fround(this.documents)));
    this.scores = new Float32Array(this.documents); // of one query; zero in between
  }

  /** The words of a text, as search/analysis.py makes them; here in the order of the text. */
  analyzed(text) {
    const found = [];
    let run = [], kind = NONE; // what is read
    for (const letter of `${this.normalized(text)} `) {
      const next = this.kindOf(letter.codePointAt(0));
      if (kind !== NONE && (next === kind || next === MARK)) {
        run.push(letter);
        continue;
      }
      if (kind === OTHER) this.addPieces(run, found);
      if (kind === SPACELESS) this.addPairs(run, found);
      kind = next === MARK ? NONE : next;
      run = [letter];
    }
    return found;
  }

  /** NFKC and case folding, by the Unicode of the export; without characters that are made to be ignored. */
  normalized(text) {
    const known = Array.from(text, (letter) => {
      const [code] = codeAt(letter, 0);
      return code === REPLACEMENT || this.unassigned.has(code) ? String.fromCodePoint(REPLACEMENT) : letter;
    });
    const folded = Array.from(known.join("").normalize("NFKC"), (letter) => this.folds.get(letter) ?? letter);
    const kept = Array.from(folded.join("")).filter((letter) => !this.ignored.has(letter.codePointAt(0)));
    return kept.join("").normalize("NFKC");
  }

  kindOf(code) {
    if (this.others.has(code)) return OTHER;
    if (this.spaceless.has(code)) return SPACELESS;
    return this.marks.has(code) ? MARK : NONE;
  }

  /** The stem of a word, or of each piece of one that is too long. */
  addPieces(run, found) {
    const { longest } = this.rules;
    for (let start = 0; start < run.length; start += longest) {
      const word = run.slice(start, start + longest).join("");
      if (!this.stop.has(word)) found.push(stem(word));
    }
  }

  /** Of a script without spaces: each pair of neighbours, and alone what counts alone, all with their marks. */
  addPairs(run, found) {
    const letters = [];
    for (const letter of run) {
      if (this.marks.has(letter.codePointAt(0))) letters[letters.length - 1] += letter;
      else letters.push(letter);
    }
    letters.forEach((letter, place) => {
      if (letters.length === 1 || this.symbols.has(letter.codePointAt(0))) found.push(letter);
      if (place + 1 < letters.length) found.push(letter + letters[place + 1]);
    });
  }

  /** {rows, scores}: every document that has a word of the query, in no order. */
  async score(query) {
    const times = new Map();
    for (const word of this.analyzed(query)) times.set(word, (times.get(word) ?? 0) + 1);
    const lists = await Promise.all([...times.keys()].map((word) => this.listOf(word)));
    const rows = [];
    [...times.values()].forEach((count, place) => { if (lists[place]) this.addScores(lists[place], count, rows); });
    const scores = Float32Array.from(rows, (row) => this.scores[row]);
    for (const row of rows) this.scores[row] = 0;
    return { rows: Int32Array.from(rows), scores };
  }

  /** The list of a word, from its piece; nothing where no document has the word. */
  async listOf(word) {
    const number = lastAtMost(this.firsts, word);
    return number < 0 ? undefined : (await this.pieces.get(number)).get(word);
  }

  /** Add what the word of a list gives each document, `count` times; documents that had nothing join `rows`. */
  addScores(bytes, count, rows) {
    const { scores, lengths, norms } = this;
    let at = 0;
    const next = () => {
      let value = 0;
      for (let shift = 0; ; shift += 7) {
        const byte = bytes[at++];
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80) return value;
      }
    };
    const having = next();
    const weight = fround(fround(this.rarity(having) * fround(1 + K1)) * count);
    for (let left = having, row = 0; left > 0; left--) {
      const step = next();
      row += step >> 1;
      const times = step & 1 || next();
      const worth = fround(times / fround(times + norms[lengths[row]]));
      if (scores[row] === 0) rows.push(row);
      scores[row] += fround(weight * worth);
    }
  }

  /** The inverse document frequency of a word that `having` documents have. */
  rarity(having) {
    return fround(log(fround(1 + fround(fround(this.documents - having + 0.5) / fround(having + 0.5)))));
  }
}

/** The list of each word of a piece of postings, as bytes. */
function listsOf(piece) {
  const count = new DataView(piece).getUint32(0, true);
  const sizes = new Uint32Array(piece, 4, count);
  const names = 4 + 4 * count + sizes.reduce((sum, size) => sum + size, 0);
  let at = 4 + 4 * count;
  return new Map(new TextDecoder().decode(new Uint8Array(piece, names)).split("\n").map((word, number) => {
    const list = new Uint8Array(piece, at, sizes[number]);
    at += sizes[number];
    return [word, list];
  }));
}

/** For each length, which is kept as 3 bits and an exponent: what stands beside a word's count in BM25. */
function normsFor(average) {
  return Float32Array.from({ length: 256 }, (_, code) => {
    const over = code - EXACT;
    const length = over < 0 ? code : 24 + ((8 + (over % 8)) << (Math.floor(over / 8) + 1));
    return fround(K1 * fround(fround(1 - B) + fround(fround(B * fround(length)) / average)));
  });
}
