// What went wrong, in words for the page.

export class Failure extends Error {
  /** `wait`: seconds after which to ask again; null: asking again would not help. */
  constructor(title, message, { wait = null } = {}) {
    super(message);
    Object.assign(this, { title, status: 0, wait, reference: "" });
  }
}
