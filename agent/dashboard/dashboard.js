// The dashboard: shows what the agent on this device knows, as it changes. No library, no other host.

import { act, ask, link, listen, name, now, passed, silentSince, status } from "./agent.js";
import { doubts } from "./doubts.js";
import { showHeld } from "./held.js";
import { offerLicenses, readBatches, readRows, showBatches, showQueue, showRows, whenChosen } from "./ledger.js";
import { drawCharts, showLicenses } from "./licenses.js";
import { ago, byId, h, say, setBadge, units } from "./parts.js";

/** Under load, tables and charts are read again no more often than this. */
const PAUSE_MS = 1000;

/** A silence of less is not worth a word: the agent ends each stream now and then. */
const SILENCE_MS = 2500;

// === the state ===

function showStatus() {
  byId("version").textContent = status.version;
  showHead();
  showAttention();
  showLicenses();
  showHeld();
  showQueue();
  offerLicenses();
  readLists();
}

let wasTried = false;

/** What changes with time alone is shown again each second. */
function showHead() {
  if (!status) return;
  const { connection } = status;
  wasTried ||= connection.next_try_ms !== null || connection.last_answer_ms !== null;
  const server = {
    online: ["reached", "good"], offline: ["off for a drill", "warn"],
    unreachable: wasTried ? ["not reached", "bad"] : ["not asked yet", ""],
    refused: [`refuses the credentials (${connection.refused})`, "bad"], other_server: ["another than before", "bad"],
  }[connection.state] ?? [connection.state, ""];
  setBadge("server", ...server);
  const heard = connection.last_answer_ms === null ? (wasTried ? "never heard" : "") : `heard ${ago(connection.last_answer_ms + passed())} ago`;
  const wait = connection.next_try_ms === null ? 0 : connection.next_try_ms - passed();
  byId("heard").textContent = wait > 1000 ? `${heard}, next try in ${ago(wait)}` : heard;
  setBadge("clock", ...(status.time_proven ? ["confirmed", "good"] : ["not confirmed yet", "warn"]));
  byId("time").textContent = `${now().toISOString().slice(0, 19).replace("T", " ")} UTC`;
  setBadge("ledger", ...(status.storage_advice ? ["cannot be written", "bad"] : isTampered() ? ["was tampered with", "bad"] : status.copy ? ["is a copy", "warn"] : ["sound", "good"]));
  const owed = status.licenses.reduce((sum, { conservation: it }) => sum + it.pending + it.in_flight + it.unknown, 0);
  setBadge("owed", ...(status.synced ? ["nothing", "good"] : [units(owed), "warn"]));
  const isOff = connection.network === "offline";
  byId("network").setAttribute("aria-pressed", String(isOff));
  byId("network").textContent = isOff ? "Drill: go online" : "Drill: go offline";
}

/** A copy explains some of what a start finds changed. */
const isTampered = () => status.evidence > (status.copy?.explains ?? 0);

function showAttention() {
  const words = [];
  if (status.storage_advice) words.push(`Nothing is recorded: ${status.storage_advice}.`);
  words.push(...doubts());
  if (isTampered()) words.push("The ledger was changed behind the agent's back. `tally verify` says where it shows.");
  if (status.connection.state === "refused") words.push(`The server refuses the credentials (${status.connection.refused}). Recording goes on; nothing is sent.`);
  if (status.connection.state === "other_server") {
    const before = status.connection.owed_to === "loopback" ? "a server on this device" : status.connection.owed_to;
    words.push(`What is owed was recorded for ${before}, and ${status.server} is set now. Recording goes on; nothing is sent. Set the former address again; or, if it is the same server, type: tally resolve --server-moved; or give up what it is owed: tally resolve BATCH --waive REASON.`);
  }
  const deciding = status.licenses.flatMap((license) => license.held).filter((batch) => batch.next_step.startsWith("none") && batch.reason !== "copy");
  if (deciding.length > 0) {
    words.push(h("a", { href: "#held-title" }, `${deciding.length === 1 ? "One batch waits" : `${deciding.length} batches wait`} for a decision, below under “Held”.`));
  }
  for (const license of status.licenses) if (license.refused) words.push(`The server refuses ${name(license)} of ${license.product}: ${license.refused.replaceAll("_", " ")}.`);
  byId("attention").hidden = words.length === 0;
  const text = words.map((it) => it.textContent ?? it).join("\n");
  // Left alone while it says the same: a focus is not lost, and nothing is read out again.
  if (byId("attention").dataset.text === text) return;
  byId("attention").dataset.text = text;
  byId("attention-list").replaceChildren(...words.map((it) => h("li", {}, h("span", {}, it))));
}

// === whether the agent is heard ===

const LINKS = {
  connecting: ["connecting", "warn"], live: ["live", "good"], silent: ["reconnecting", "warn"],
  closed: ["not let in", "bad"], crowded: ["waiting", "warn"],
};

/** What has happened where nothing is heard, and what comes next. */
const OLD = {
  silent: ["The agent does not answer; it may have ended.", "This page goes on by itself when it answers again."],
  closed: ["The agent does not let this page in any more: it was started anew, or twelve hours are over.",
    "Run `tally dashboard`; this page then goes on by itself."],
  crowded: ["More pages are open than the agent feeds.", "This one goes on by itself when another is closed."],
};
let silence = null;

function showLink() {
  setBadge("live", ...LINKS[link]);
  clearTimeout(silence);
  silence = null;
  if (link === "silent") silence = setTimeout(showSilence, SILENCE_MS);
  else showSilence();
  if (link === "live") readLists(0);
}

/** Says that what stands here is old, and from when it is. */
function showSilence() {
  const isOld = link in OLD;
  document.body.dataset.old = String(isOld);
  for (const id of ["sync", "network"]) byId(id).disabled = isOld;
  const since = silentSince ? ` What stands here is from ${silentSince.toISOString().slice(11, 19)} UTC.` : "";
  byId("old").hidden = !isOld;
  const [what, next] = OLD[link] ?? ["", ""];
  byId("old").textContent = isOld ? `${what}${since} ${next}` : "";
}

// === reading ===

let due = null;
let reading = false;

/** Reads the tables and charts again soon, however often it is asked to. */
function readLists(pause = PAUSE_MS) {
  if (link !== "live") return;
  if (reading) { due ??= true; return; }
  if (due !== null) {
    if (pause > 0) return;
    clearTimeout(due);
  }
  due = setTimeout(act(async () => {
    due = null;
    reading = true;
    try {
      const [rows, batches] = await Promise.all([readRows(), readBatches(), drawCharts()]);
      showRows(rows);
      showBatches(batches);
    } finally {
      reading = false;
      if (due === true) { due = null; readLists(); }
    }
  }), wasRead ? pause : 0);
  wasRead = true;
}
let wasRead = false;

whenChosen(() => readLists(0));

// === what is done here ===

byId("trouble-close").addEventListener("click", () => { byId("trouble").hidden = true; });
byId("sync").addEventListener("click", act(async () => {
  byId("sync").setAttribute("aria-busy", "true");
  byId("sync").textContent = "Syncing…";
  try {
    const { synced } = await (await ask("POST", "/v1/sync", {})).json();
    say(synced ? "Nothing is left to send but what is held." : "Not everything could be sent.");
  } finally {
    byId("sync").removeAttribute("aria-busy");
    byId("sync").textContent = "Sync now";
  }
}));
byId("network").addEventListener("click", act(async () => {
  const mode = status?.connection.network === "offline" ? "online" : "offline";
  await ask("PUT", "/v1/network", { mode });
  say(`The agent's network is ${mode === "online" ? "on" : "off"}.`);
}));

byId("origin").textContent = location.host;
listen(showStatus, showLink);
setInterval(() => { if (status) readLists(); }, 60_000);
setInterval(showHead, 1000);
