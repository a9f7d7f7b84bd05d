// Rows of numbers kept as one byte each, with a scale for each row; and products with them.

export class Rows {
  /** From a file of float32 scales and then int8 numbers, row by row. */
  constructor(bytes, dim) {
    this.dim = dim;
    this.count = bytes.byteLength / (4 + dim);
    this.scales = new Float32Array(bytes, 0, this.count);
    this.numbers = new Int8Array(bytes, 4 * this.count);
  }

  /** The sum of rows. */
  sum(rows) {
    const { dim, numbers, scales } = this;
    const total = new Float64Array(dim);
    for (const row of rows) {
      const scale = scales[row];
      for (let place = 0, at = row * dim; place < dim; place++, at++) total[place] += numbers[at] * scale;
    }
    return total;
  }

  /** The product of row `number` with `vector`. */
  product(number, vector) {
    const { dim, numbers } = this;
    let total = 0;
    for (let place = 0, at = number * dim; place < dim; place++, at++) total += numbers[at] * vector[place];
    return total * this.scales[number];
  }

  /** The product of every row with `vector`. */
  products(vector) {
    const { dim, numbers, scales, count } = this;
    const found = new Float32Array(count);
    for (let row = 0, at = 0; row < count; row++) {
      let one = 0, other = 0;
      const end = at + dim;
      for (let place = 0; at + 1 < end; at += 2, place += 2) { // two sums: the next need not wait for the last
        one += numbers[at] * vector[place];
        other += numbers[at + 1] * vector[place + 1];
      }
      if (at < end) one += numbers[at++] * vector[dim - 1];
      found[row] = (one + other) * scales[row];
    }
    return found;
  }
}

/** `vector` at length 1, float32; zeros stay zeros. */
export function normalized(vector) {
  const length = Math.max(Math.hypot(...vector), 1e-12);
  return Float32Array.from(vector, (value) => value / length);
}
