// Text becomes token ids: BERT's normalizer and pre-tokenizer, and WordPiece, exactly as the library `tokenizers` has them.

import { Ranges, codeAt } from "./characters.js";

const STAYS = 0, REMOVED = 1, BARRIER = 2, SPACED = 3; // what happens to a character
const WORD = 0, WHITE = 1, ALONE = 2; // what it then is
const FIRST_SYLLABLE = 0xac00, SYLLABLES = 11172; // of Hangul, which are taken apart by a rule

export class Tokenizer {
  /** From tokenizer.bin. */
  constructor(rules) {
    const { characters } = rules;
    this.rules = rules;
    this.ids = new Map(rules.vocabulary.map((token, id) => [token, id]).filter(([token]) => token !== ""));
    this.removed = new Ranges(characters.removed);
    this.spaced = new Ranges(characters.spaced);
    this.barriers = new Ranges(characters.barriers);
    this.white = new Ranges(characters.white);
    this.alone = new Ranges(characters.alone);
    this.becomes = new Map(Object.entries(characters.becomes));
    this.late = new Map(Object.entries(characters.late));
    const added = Object.keys(rules.added).sort((a, b) => b.length - a.length).map(escaped);
    this.added = added.length ? new RegExp(added.join("|"), "g") : null;
    this.known = new Map(); // code point -> what happens to it
  }

  /** {ids, words}: the token ids, and for each word [start, stop, number of tokens] in the text; both cut at the length. */
  encode(text) {
    const found = { ids: [], words: [] };
    let start = 0;
    for (const match of this.added ? text.matchAll(this.added) : []) {
      this.encodePlain(text, start, match.index, found);
      start = match.index + match[0].length;
      found.words.push([match.index, start, 1]);
      found.ids.push(this.rules.added[match[0]]);
    }
    this.encodePlain(text, start, text.length, found);
    return cut(found, this.rules.most_tokens);
  }

  /** Add what stands between `start` and `stop`, where no special token is. */
  encodePlain(text, start, stop, found) {
    const { units, starts, stops } = this.normalized(text, start, stop);
    let first = 0; // of the word that is read
    const end = (last) => {
      const word = [units, starts, stops].map((list) => list.slice(first, last));
      if (last > first) this.encodeWord(...word, found);
      first = last;
    };
    for (let place = 0; place < units.length && found.ids.length < this.rules.most_tokens; place++) {
      const kind = this.kindOf(units[place]);
      if (kind === WORD) continue;
      end(place);
      if (kind === ALONE) end(place + 1);
      first = place + 1;
    }
    end(units.length);
  }

  /** The characters that remain, and where each came from. */
  normalized(text, start, stop) {
    const units = [], starts = [], stops = [], ranks = [];
    let run = 0; // from here on, marks may still change places
    for (let place = start, width; place < stop; place += width) {
      let code;
      [code, width] = codeAt(text, place);
      const { act, to, rank } = this.treatment(code);
      if (act === REMOVED) continue;
      if (act === BARRIER) { run = units.length; continue; }
      let at = units.length;
      if (rank) while (at > run && ranks[at - 1] > rank) at--;
      if (at < units.length) { // a mark that goes before others; where each came from stays in the order of the text
        units.splice(at, 0, to[0]);
        ranks.splice(at, 0, rank);
      } else {
        units.push(...to);
        ranks.push(...to.map(() => rank));
      }
      starts.push(...to.map(() => place));
      stops.push(...to.map(() => place + width));
      if (!rank) run = units.length;
    }
    return { units, starts, stops };
  }

  treatment(code) {
    let found = this.known.get(code);
    if (!found) this.known.set(code, (found = this.lookUp(code)));
    return found;
  }

  lookUp(code) {
    const character = String.fromCodePoint(code);
    if (this.barriers.has(code)) return { act: BARRIER, to: [], rank: 0 };
    if (this.removed.has(code)) return { act: REMOVED, to: [], rank: 0 };
    if (this.spaced.has(code)) return { act: SPACED, to: [" ", character, " "], rank: 0 };
    if (this.rules.characters.hangul && code >= FIRST_SYLLABLE && code < FIRST_SYLLABLE + SYLLABLES) {
      return { act: STAYS, to: jamo(code - FIRST_SYLLABLE), rank: 0 };
    }
    return { act: STAYS, to: [...(this.becomes.get(character) ?? character)], rank: this.late.get(character) ?? 0 };
  }

  kindOf(character) {
    const code = character.codePointAt(0);
    return this.white.has(code) ? WHITE : this.alone.has(code) ? ALONE : WORD;
  }

  /** Add the longest pieces of one word that are in the vocabulary, from left to right; or that it is unknown. */
  encodeWord(units, starts, stops, found) {
    const { unknown, prefix, longest_word: longest } = this.rules;
    const pieces = units.length > longest ? null : this.pieces(units, prefix);
    const [ids, ends] = pieces ?? [[unknown], [units.length]];
    const room = this.rules.most_tokens - found.ids.length; // a word may be cut in the middle
    if (room <= 0) return;
    const last = ends[Math.min(room, ends.length) - 1];
    found.ids.push(...ids.slice(0, room));
    found.words.push([starts[0], Math.max(...stops.slice(0, last)), Math.min(room, ids.length)]);
  }

  pieces(units, prefix) {
    const ids = [], ends = [];
    for (let first = 0; first < units.length;) {
      let stop = units.length, id;
      for (; stop > first; stop--) {
        id = this.ids.get((first ? prefix : "") + units.slice(first, stop).join(""));
        if (id !== undefined) break;
      }
      if (stop === first) return null;
      ids.push(id);
      ends.push(stop);
      first = stop;
    }
    return [ids, ends];
  }
}

/** The consonants and vowels of Hangul syllable `number`. */
function jamo(number) {
  const parts = [0x1100 + Math.floor(number / 588), 0x1161 + Math.floor((number % 588) / 28), 0x11a7 + (number % 28)];
  return parts.slice(0, number % 28 ? 3 : 2).map((code) => String.fromCodePoint(code));
}

function cut({ ids, words }, most) {
  let left = most;
  const kept = [];
  for (const [start, stop, count] of words) {
    if (left > 0) kept.push([start, stop, Math.min(count, left)]);
    left -= count;
  }
  return { ids: ids.slice(0, most), words: kept };
}

const escaped = (text) => text.replace(/[^\w]/g, "\\$&");
