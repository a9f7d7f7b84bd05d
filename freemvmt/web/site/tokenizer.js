// Text becomes token ids: BERT's normalizer and pre-tokenizer, and WordPiece, exactly as the library `tokenizers` has them.

import { Ranges, codeAt } from "./characters.js";

const STAYS = 0, REMOVED = 1, BARRIER = 2; // what happens to a character
const WORD = 0, WHITE = 1, ALONE = 2; // what it then is
const FIRST_SYLLABLE = 0xac00, SYLLABLES = 11172; // of Hangul, which are taken apart by a rule
const MOST_KEPT = 50_000; // words whose pieces are remembered

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
    this.cut = new Map(); // word -> its pieces
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
    const { units, kinds, starts, stops } = this.normalized(text, start, stop);
    let first = 0; // of the word that is read
    for (let place = 0; place <= units.length && found.ids.length < this.rules.most_tokens; place++) {
      const kind = place < units.length ? kinds[place] : WHITE;
      if (kind === WORD) continue;
      if (place > first) this.encodeWord(units, starts, stops, first, place, found);
      if (kind === ALONE) this.encodeWord(units, starts, stops, place, place + 1, found);
      first = place + 1;
    }
  }

  /** The characters that remain, what they are, and where each came from. */
  normalized(text, start, stop) {
    const units = [], kinds = [], starts = [], stops = [], ranks = [];
    let run = 0; // from here on, marks may still change places
    for (let place = start, width; place < stop; place += width) {
      let code;
      [code, width] = codeAt(text, place);
      const { act, to, are, rank } = this.treatment(code);
      if (act === BARRIER) run = units.length;
      if (act !== STAYS) continue;
      let at = units.length;
      if (rank) while (at > run && ranks[at - 1] > rank) at--;
      for (let number = 0; number < to.length; number++) { // a mark that goes before others is one character
        if (at < units.length) units.splice(at, 0, to[number]);
        else units.push(to[number]);
        kinds.push(are[number]);
        starts.push(place);
        stops.push(place + width);
        if (at < ranks.length) ranks.splice(at, 0, rank);
        else ranks.push(rank);
        at = units.length;
      }
      if (!rank) run = units.length;
    }
    return { units, kinds, starts, stops };
  }

  treatment(code) {
    let found = this.known.get(code);
    if (!found) this.known.set(code, (found = this.lookUp(code)));
    return found;
  }

  lookUp(code) {
    const stays = (to, rank = 0) => ({ act: STAYS, to, are: to.map((unit) => this.kindOf(unit)), rank });
    const character = String.fromCodePoint(code);
    if (this.barriers.has(code)) return { act: BARRIER };
    if (this.removed.has(code)) return { act: REMOVED };
    if (this.spaced.has(code)) return stays([" ", character, " "]);
    const syllable = code - FIRST_SYLLABLE;
    if (this.rules.characters.hangul && syllable >= 0 && syllable < SYLLABLES) return stays(jamo(syllable));
    return stays([...(this.becomes.get(character) ?? character)], this.late.get(character));
  }

  kindOf(character) {
    const code = character.codePointAt(0);
    return this.white.has(code) ? WHITE : this.alone.has(code) ? ALONE : WORD;
  }

  /** Add the pieces of the word of `units` from `first` to `last`; or that it is unknown. */
  encodeWord(units, starts, stops, first, last, found) {
    const { unknown, longest_word: longest, most_tokens: most } = this.rules;
    const pieces = last - first > longest ? null : this.pieces(units.slice(first, last));
    const { ids, ends } = pieces ?? { ids: [unknown], ends: [last - first] };
    const count = Math.min(ids.length, most - found.ids.length); // a word may be cut in the middle
    for (let number = 0; number < count; number++) found.ids.push(ids[number]);
    found.words.push([starts[first], stops[first + ends[count - 1] - 1], count]);
  }

  /** The longest pieces that are in the vocabulary, from left to right: {ids, ends}; null where there are none. */
  pieces(word) {
    const whole = word.join("");
    let found = this.cut.get(whole);
    if (found !== undefined) return found;
    found = this.cutUp(word);
    if (this.cut.size >= MOST_KEPT) this.cut.clear();
    this.cut.set(whole, found);
    return found;
  }

  cutUp(word) {
    const ids = [], ends = [];
    for (let first = 0; first < word.length;) {
      let stop = word.length, id;
      for (; stop > first; stop--) {
        id = this.ids.get((first ? this.rules.prefix : "") + word.slice(first, stop).join(""));
        if (id !== undefined) break;
      }
      if (stop === first) return null;
      ids.push(id);
      ends.push(stop);
      first = stop;
    }
    return { ids, ends };
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
