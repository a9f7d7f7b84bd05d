// The files of the site: fetched, checked against the manifest, unpacked.

import { Failure } from "./failure.js";

const FORMAT = 2;
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
  if (!sealed) return null;
  const bytes = await fetched(`${path}?${sealed.sha256.slice(0, 8)}`); // no cache gives the file of another export
  if (bytes.byteLength !== sealed.bytes || !(await isSealed(bytes, sealed.sha256))) throw damaged(path);
  const [first, second] = new Uint8Array(bytes, 0, 2);
  return first === 0x1f && second === 0x8b ? unpacked(bytes) : bytes;
}

/** A file as JSON. */
export async function readJson(name) {
  return JSON.parse(new TextDecoder().decode(await read(name)));
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

async function isSealed(bytes, sha256) {
  if (!globalThis.crypto?.subtle) return true; // over plain http only localhost may compute sums
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

function unpacked(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

function damaged(path) {
  return new Failure("This site is damaged", `${path} is not what was exported. Copy the site to its host again.`);
}
