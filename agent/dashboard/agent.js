// The agent: what it told last, and how it is asked. Times go on from what it told, since this page's clock may be
// another one.

import { byId, complain, h, masked } from "./parts.js";

/** So long after the stream was refused it is asked for again. */
const RETRY_MS = 2000;

/** What the agent told last; `null` before the first time. */
export let status = null;
/** When it came, by this page's clock. */
let came = 0;

/**
 * `connecting`, `live`, `silent` where the agent does not answer, `closed` where it does not let this page in, or
 * `crowded` where too many listen already.
 */
export let link = "connecting";
/** Since when it is not live, by the agent's time. */
export let silentSince = null;

/** Milliseconds since the status came; none pass for whoever does not hear. */
export const passed = () => (link === "live" ? performance.now() - came : 0);
export const now = () => new Date(status ? Date.parse(status.time) + passed() : Date.now());

/** Which licence, in a line. Batches carry no `holder` of their own. */
export function name(of) {
  const feature = of.feature ? ` · ${of.feature}` : "";
  return `${masked(of.holder || holderOf(of), of.holder_value)}${feature}`;
}

function holderOf({ product, holder_value: value }) {
  const found = status?.licenses.find((it) => it.product === product && it.holder_value === value);
  return found ? found.holder : "license_key";
}

/** A time of day today, else the day as well; in UTC, as the ledger has it. */
export function time(at) {
  const short = at.slice(0, 10) === now().toISOString().slice(0, 10) ? at.slice(11, 19) : `${at.slice(5, 10)} ${at.slice(11, 16)}`;
  return h("time", { datetime: at, title: `${at.replace("T", " ").replace("Z", "")} UTC` }, short);
}

/** Asks the agent; a refusal is shown, and thrown. */
export async function ask(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    // What is only read is missed by nobody: the head of the page says so where the stream has ended as well.
    if (link === "live" || method !== "GET") complain("The agent does not answer. Is it still running?");
    throw error;
  }
  if (response.status === 401) {
    complain("The agent does not let this page in any more. Run `tally dashboard` again.");
    throw new Error("the session is over");
  }
  if (!response.ok) {
    const text = await response.text();
    let message = text;
    try { message = JSON.parse(text).message; } catch { /* Not one of the agent's own refusals. */ }
    complain(message);
    throw new Error(message);
  }
  byId("trouble").hidden = true;
  return response;
}

export const read = async (path) => (await ask("GET", path)).json();

/** What goes wrong was shown already. */
export const act = (work) => async (...args) => {
  try { await work(...args); } catch (error) { console.info(String(error)); }
};

/** Listens for ever: tells of each status, and whenever the link to the agent changes. */
export function listen(onStatus, onLink) {
  const turn = (state) => {
    if (link === state) return;
    if (link === "live") silentSince = now();
    link = state;
    onLink();
  };
  const stream = new EventSource("/v1/stream");
  stream.addEventListener("status", (event) => {
    const told = JSON.parse(event.data);
    // Another version of the agent has another page.
    if (status && status.version !== told.version) location.reload();
    status = told;
    came = performance.now();
    turn("live");
    onStatus();
  });
  stream.addEventListener("error", async () => {
    if (stream.readyState !== EventSource.CLOSED) {
      // The browser goes on trying.
      turn("silent");
      return;
    }
    const answer = await fetch("/v1/status").catch(() => null);
    turn(answer?.ok ? "crowded" : answer?.status === 401 ? "closed" : "silent");
    setTimeout(() => listen(onStatus, onLink), RETRY_MS);
  });
}
