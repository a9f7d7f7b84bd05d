// The files of the site: fetched, checked against the manifest, unpacked.

import { Failure } from "./failure.js";

const FORMAT = 3;
const DIGEST = 16; // digits of a piece's SHA-256 in the manifest
const ROOT = new URL("../", import.meta.url); // wherever the site lies

let manifest = null;

/** What manifest.json says. */
export function readManifest() {
  manifest ??= fetched("manifest.json", { cache: "no-cache" }).then(understood);
  manifest.catch(() => { manifest = null; }); // so that "Try again" tries
  return manifest;
}

function understood(bytes) {
  try {
    const told = JSON.parse(new TextDecoder().decode(bytes));
    if (told.two_towers_site === FORMAT) return told;
  } catch { /* no JSON: said below */ }
  throw damaged("manifest.json");
}

/** The bytes of a file in data/, as they were before they were packed; null for one that this site does not have. */
export async function read(name) {
  const path = `data/${name}`;
  const sealed = (await readManifest()).files[path];
  return sealed ? checked(path, sealed.sha256, sealed.bytes) : null;
}

/** A file as JSON. */
export async function readJson(name) {
  return JSON.parse(new TextDecoder().decode(await read(name)));
}

/** The files of a folder in data/, each fetched once, when it is first wanted; `parse` makes of its bytes what is kept. */
export class Pieces {
  constructor(kind, parse) {
    Object.assign(this, { kind, parse });
    this.kept = new Map(); // number -> a promise
  }

  get(number) {
    if (!this.kept.has(number)) {
      const loading = this.load(number);
      loading.catch(() => this.kept.delete(number)); // to be tried again
      this.kept.set(number, loading);
    }
    return this.kept.get(number);
  }

  async load(number) {
    const digests = (await readManifest()).pieces[this.kind];
    const path = `data/${this.kind}/${String(number).padStart(5, "0")}.bin`;
    return this.parse(await checked(path, digests.slice(DIGEST * number, DIGEST * (number + 1))));
  }
}

/** The bytes of a file whose SHA-256 begins with `digest`, unpacked. */
async function checked(path, digest, size = null) {
  const bytes = await fetched(`${path}?${digest.slice(0, 8)}`); // no cache gives the file of another export
  if ((size !== null && bytes.byteLength !== size) || !(await isSealed(bytes, digest))) throw damaged(path);
  const [first, second] = new Uint8Array(bytes, 0, 2);
  return first === 0x1f && second === 0x8b ? unpacked(bytes) : bytes;
}

async function fetched(path, options = {}) {
  const answer = await fetch(new URL(path, ROOT), options).catch(() => null);
  const bytes = answer?.ok ? await answer.arrayBuffer().catch(() => null) : null;
  if (bytes) return bytes;
  const file = path.split("?")[0];
  if (answer && !answer.ok) {
    throw new Failure("A file of this site is missing", `${file} could not be loaded: the host answered ${answer.status}.`);
  }
  const why = navigator.onLine ? "the host does not answer" : "you are offline";
  throw new Failure("The site could not be loaded", `${file} could not be loaded: ${why}.`);
}

async function isSealed(bytes, start) {
  if (!globalThis.crypto?.subtle) return true; // over plain http only localhost may compute sums
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("").startsWith(start);
}

function unpacked(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

function damaged(path) {
  return new Failure("This site is damaged", `${path} is not what was exported. Copy the site to its host again.`);
}
