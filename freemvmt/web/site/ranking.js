// The best of many scores, and the fusion of two rankings into one: as the server does both.

const { fround } = Math;

/** The `k` best, best first, of equal ones the lower row first: {rows, scores}. `rows` null: scores of all rows;
 *  `scores` is a Float32Array, whose sort goes by value. */
export function best(rows, scores, k) {
  const least = scores.length > k ? scores.slice().sort()[scores.length - k] : -Infinity;
  const found = [];
  for (let place = 0; place < scores.length; place++) if (scores[place] >= least) found.push(place);
  const rowOf = rows ? (place) => rows[place] : (place) => place;
  found.sort((a, b) => scores[b] - scores[a] || rowOf(a) - rowOf(b));
  found.length = Math.min(found.length, k);
  return { rows: found.map(rowOf), scores: found.map((place) => scores[place]) };
}

/** The convex sum of two rankings, each scaled by its own extremes; `least`: what the last of the lexical one has. */
export function fused(dense, lexical, weight, least, k) {
  const sums = new Map();
  scaled(dense.scores).forEach((score, place) => sums.set(dense.rows[place], fround(fround(weight) * score)));
  scaled(lexical.scores, least).forEach((score, place) => {
    const row = lexical.rows[place];
    sums.set(row, fround((sums.get(row) ?? 0) + fround(fround(1 - weight) * score)));
  });
  return best([...sums.keys()], Float32Array.from(sums.values()), k);
}

/** The place of the last of `sorted` that is not above `value`; -1 where all are. */
export function lastAtMost(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Scores between 0 (the last) and 1 (the first); a list of equals is all first. */
function scaled(scores, least = scores.at(-1)) {
  const span = fround(scores[0] - least);
  return scores.map((score) => (span > 0 ? fround(fround(score - least) / span) : 1));
}
