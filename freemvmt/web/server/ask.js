// Asking the server: what it answers, or a Failure that says in words why there is no answer.

import { make, milliseconds } from "./hits.js";

export class Failure extends Error {
  /** `wait`: seconds after which to ask again; null: asking again would not help; `reference`: the request's id. */
  constructor(title, message, { status = 0, wait = null, reference = "" } = {}) {
    super(message);
    Object.assign(this, { title, status, wait, reference });
  }
}

/** The JSON that is answered to a POST of `body`, or to a GET without one. Throws a Failure, or an AbortError. */
export async function ask(path, signal, body) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const request = { method: body ? "POST" : "GET", headers, body: JSON.stringify(body), signal };
  const answer = await fetch(path, request).catch(unreachable);
  const data = await answer.json().catch((error) => { if (error.name === "AbortError") throw error; });
  if (answer.ok && data) return data;
  throw refusal(answer, data?.error ?? {});
}

/** Keep the token that the server asks for until the tab is closed. */
export function useToken(token) {
  sessionStorage.setItem("token", token);
}

/** What is said of the time that an answer took, on the server and with its way. */
export const timing = (took, roundTrip) => `server ${milliseconds(took)} · round trip ${milliseconds(roundTrip)}`;

/** What the first page says beside the counts. */
export const about = () => make("p", {}, make("a", { href: "docs" }, "The same over HTTP"));

function refusal({ status, headers }, { message = `The server answered ${status}.`, request_id: reference = "" }) {
  const busy = status === 503;
  const wait = busy ? Number(headers.get("Retry-After")) || 1 : null;
  return new Failure(busy ? "The server is busy" : "That did not work", message, { status, wait, reference });
}

function unreachable(error) {
  if (error.name === "AbortError") throw error;
  const [title, message] = navigator.onLine
    ? ["The server does not answer", "It may be stopped or starting. The page tries again on its own."]
    : ["You are offline", "The page goes on as soon as there is a network."];
  throw new Failure(title, message, { wait: 1 });
}
