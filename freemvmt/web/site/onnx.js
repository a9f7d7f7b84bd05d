// The recurrent query tower, run by onnxruntime-web where the export has brought it along.

import * as runtime from "./runtime/ort.wasm.min.mjs";

runtime.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
runtime.env.wasm.numThreads = 1; // more would need headers that a plain host does not send

/** A function from token ids to the vector of a query, from the bytes of its graph. */
export async function open(graph) {
  const session = await runtime.InferenceSession.create(new Uint8Array(graph));
  const tensor = (numbers) => new runtime.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
  return async (ids) => {
    const { embedding } = await session.run({ input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) });
    return embedding.data;
  };
}
