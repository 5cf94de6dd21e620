// The batches, what is owed first, and the newest rows of the ledger, chosen by filters.

import { act, ask, name, read, status, time } from "./agent.js";
import { arrange, badge, byId, h, masked, number, state, units } from "./parts.js";

const ROWS_MAX = 100;
const BATCHES_MAX = 50;

// === batches ===

/** What is owed, however old it is, and then the newest of the others. */
export async function readBatches() {
  const [owed, newest] = await Promise.all([
    read(`/v1/batches?limit=${BATCHES_MAX}&owed=true`), read(`/v1/batches?limit=${BATCHES_MAX}`),
  ]);
  const numbers = new Set(owed.map((batch) => batch.batch));
  return [...owed, ...newest.filter((batch) => !numbers.has(batch.batch))].slice(0, BATCHES_MAX);
}

export function showBatches(batches) {
  byId("batches-empty").hidden = batches.length > 0;
  byId("batches-count").textContent = batches.length === BATCHES_MAX ? `${BATCHES_MAX} of them` : batches.length === 0 ? "" : String(batches.length);
  byId("batch-rows").replaceChildren(...batches.map((batch) => h("tr", {},
    h("td", { class: "number" }, String(batch.batch)),
    h("td", {}, h("span", { class: "row" }, state(batch.state), batch.reason ? h("span", { class: "soft" }, batch.reason.replaceAll("_", " ")) : "")),
    named(batch), h("td", { class: "number" }, number(batch.units)),
    h("td", { class: "number" }, number(batch.rows)), h("td", { class: "number" }, `${batch.attempts}×`),
    h("td", {}, batch.sent_at ? time(batch.sent_at) : "–"))));
}

/** Where everything is that the server has not counted. */
export function showQueue() {
  const sum = (part) => status.licenses.reduce((before, { conservation }) => before + conservation[part], 0);
  const parts = [["pending", "waiting to be sent"], ["in_flight", "sent, and not answered yet"], ["unknown", "sent, and the answer was lost"], ["held", "held"]];
  const words = parts.map(([part, text]) => [sum(part), text]).filter(([value]) => value !== 0).map(([value, text]) => `${units(value)} ${text}`);
  const isNew = sum("recorded") === 0 && words.length === 0;
  byId("queue").textContent = isNew ? "" : words.length === 0 ? "The queue is empty: the server has counted everything." : `In the queue: ${words.join(", ")}.`;
}

/** A licence in a table: what is too long is cut off, and stands in the title. */
function named(of) {
  const text = of.holder_value ? name(of) : "–";
  return h("td", { class: "mono cut", title: text }, text);
}

// === rows ===

const rowItems = new Map();
let isFirst = true;

const apps = new Set();

/** Offers an application in the filter. */
export function remember(app) {
  if (!app || apps.has(app)) return;
  apps.add(app);
  byId("apps").append(h("option", { value: app }));
}

let offered = "";

/** Offers the licences in the filter. */
export function offerLicenses() {
  const options = status.licenses.filter((license) => !license.feature)
    .map((license) => [JSON.stringify([license.product, license.holder_value]), `${license.product} ${name(license)}`]);
  if (offered === JSON.stringify(options)) return;
  offered = JSON.stringify(options);
  const chosen = byId("by-license").value;
  byId("by-license").replaceChildren(h("option", { value: "" }, "all"), ...options.map(([value, text]) => h("option", { value }, text)));
  byId("by-license").value = chosen;
}

const filters = () => ({ app: chosenApp, license: byId("by-license").value, state: byId("by-state").value });
let chosenApp = "";

/** Calls this whenever other rows are chosen. */
export function whenChosen(call) {
  for (const id of ["by-license", "by-state"]) byId(id).addEventListener("change", call);
  const choose = () => {
    chosenApp = byId("by-app").value.trim();
    call();
  };
  // A name that is half typed is no choice yet.
  byId("by-app").addEventListener("input", () => {
    const text = byId("by-app").value.trim();
    if (text === "" || apps.has(text)) choose();
  });
  byId("by-app").addEventListener("change", choose);
}

export async function readRows() {
  const { app, license, state: wanted } = filters();
  const query = new URLSearchParams({ limit: ROWS_MAX });
  const [product, holder] = license ? JSON.parse(license) : [];
  if (app) query.set("app", app);
  if (license) { query.set("product", product); query.set("license", holder); }
  if (wanted) query.set("state", wanted);
  const isChosen = (row) => (!app || row.app === app) && (!license || (row.product === product && row.holder_value === holder));
  const [[rows, searched], refusals] = await Promise.all([
    wanted === "refused" ? [[], null] : readEvents(query),
    wanted === "" || wanted === "refused" ? read("/v1/refusals") : [],
  ]);
  const all = [...rows, ...refusals.filter(isChosen)];
  // Newest first; of one moment, in the order of their numbers.
  all.sort((a, b) => (a.at < b.at ? 1 : a.at > b.at ? -1 : (b.seq ?? 0) - (a.seq ?? 0)));
  return { rows: all.slice(0, ROWS_MAX), searched };
}

/** The rows; and how many of the newest were looked through, where older ones may be wanted as well. */
async function readEvents(query) {
  const answer = await ask("GET", `/v1/events?${query}`);
  return [await answer.json(), answer.headers.get("tally-searched")];
}

/** Refusals are counted anew whenever the agent starts. */
const keyOf = (row) => (row.refusal ? `${row.refusal} ${row.at}` : String(row.seq));

export function showRows({ rows, searched }) {
  const isChosen = Object.values(filters()).some((it) => it !== "");
  byId("rows-empty").hidden = rows.length > 0;
  byId("rows-empty").textContent = isChosen ? "No row is of this kind." : "Nothing has been recorded yet.";
  byId("rows-searched").hidden = searched === null;
  byId("rows-searched-count").textContent = number(Number(searched));
  byId("rows-count").textContent = rows.length === ROWS_MAX ? `the newest ${ROWS_MAX}` : rows.length === 0 ? "" : String(rows.length);
  const keys = new Set(rows.map(keyOf));
  for (const key of rowItems.keys()) if (!keys.has(key)) rowItems.delete(key);
  arrange(byId("ledger-rows"), rows.flatMap((row) => {
    const key = keyOf(row);
    if (!rowItems.has(key)) rowItems.set(key, rowItem(row, !isFirst));
    const made = rowItems.get(key);
    if (made.state !== row.state) made.outcome.replaceChildren(...outcome(row));
    made.state = row.state;
    remember(row.kind === "consumption" || row.refusal ? row.app : "");
    return [made.row, made.whole];
  }));
  isFirst = false;
}

function outcome(row) {
  if (row.refusal) return [badge("refused", "bad")];
  if (row.kind === "finding") return [badge(row.note.finding.replaceAll("_", " "), "warn")];
  return [state(row.state), row.late ? badge("late", "warn") : ""].filter(Boolean);
}

function rowItem(row, isFresh) {
  const no = row.refusal ?? String(row.seq);
  const whole = h("tr", { class: "whole", hidden: true });
  const open = h("button", { type: "button", class: "open mono", "aria-expanded": "false", "aria-label": `Row ${no}: why`, onclick: act(async () => {
    whole.hidden = !whole.hidden;
    open.setAttribute("aria-expanded", String(!whole.hidden));
    if (whole.hidden) return;
    const explained = row.refusal || isOwn ? { row } : await read(`/v1/events/${row.seq}`);
    whole.replaceChildren(h("td", { colspan: "7" }, why(explained.row, explained.judged_by ?? row.judged_by)));
  }) }, no);
  const isOwn = row.kind !== undefined && row.kind !== "consumption";
  const cell = h("td", {});
  const app = isOwn ? row.kind : row.app;
  return {
    whole, outcome: cell, state: null,
    row: h("tr", { class: isFresh ? "fresh" : "", "data-key": no }, h("td", {}, open),
      h("td", {}, time(row.at), row.time_proven ? "" : h("abbr", { title: "by a clock that the server had not confirmed" }, "?")),
      h("td", { class: "cut", title: app }, app), named(row),
      h("td", { class: "number" }, isOwn ? "" : number(row.units)), h("td", { class: "number" }, isOwn || row.refusal ? "" : number(row.total)), cell),
  };
}

/** What a consumption was judged by, in words. */
function why(row, judged) {
  if (row.note) return h("dl", { class: "note" }, ...Object.entries(row.note).filter(([, value]) => value !== null).flatMap(([word, value]) => [
    h("dt", {}, word.replaceAll("_", " ")), h("dd", {}, noted(row.note, word, value))]));
  const lines = [];
  if (row.refusal) lines.push(`Refused with ${row.code}: ${row.message}.`);
  if (judged) {
    const limit = judged.cap === null ? "no limit" : `a limit of ${number(judged.cap)}${judged.cap === judged.max_consumptions ? "" : `, overage included`}`;
    lines.push(`Judged by a total of ${number(judged.total_before)} (${number(judged.counted)} counted by the server, ${number(judged.uncounted)} granted here and not counted yet) and ${limit}.`);
    lines.push(`The server had said ${number(judged.server_total)} at ${judged.server_total_at.slice(0, 19).replace("T", " ")} UTC${judged.counted === judged.server_total ? "" : "; the period turned since"}.`);
  } else if (!row.refusal) lines.push("What it was judged by is not known: the row is older than this record.");
  lines.push(`By ${row.app} for ${name(row)} of ${row.product}, on ${row.hardware_id}${row.batch ? `, in batch ${row.batch}` : ""}, by a clock that the server had ${row.time_proven ? "" : "not "}confirmed.`);
  return h("div", { class: "why-lines" }, ...lines.map((line) => h("p", {}, line)));
}

function noted(note, word, value) {
  if (word === "holder_value") return masked(note.holder, value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
