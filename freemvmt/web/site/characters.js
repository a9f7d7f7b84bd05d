// Sets of characters and what becomes of them, from the tables that the export has asked of the libraries.

/** Membership in stretches of code points: [first, last, first, last, …]. */
export class Ranges {
  constructor(bounds) {
    this.bounds = Int32Array.from(bounds);
  }

  has(code) {
    let low = 0;
    let high = this.bounds.length; // the number of bounds <= code is searched
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.bounds[middle] <= code) low = middle + 1;
      else high = middle;
    }
    return low % 2 === 1 || this.bounds[low - 1] === code;
  }
}

export const REPLACEMENT = 0xfffd; // what half of a surrogate pair counts as

/** The code point at `place`, and how many units it takes. */
export function codeAt(text, place) {
  const code = text.codePointAt(place);
  return code >= 0xd800 && code < 0xe000 ? [REPLACEMENT, 1] : [code, code > 0xffff ? 2 : 1];
}
