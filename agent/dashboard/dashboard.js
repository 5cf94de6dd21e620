// The dashboard: shows what the agent on this device knows, as it changes. No library, no other host.

const ROWS_MAX = 100;
/** Under load, tables and charts are read again no more often than this. */
const PAUSE_MS = 1000;
const byId = (id) => document.getElementById(id);

/** An element with properties, and children that are elements or text: text never becomes markup. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return element;
}

const badge = (text, kind = "") => h("span", { class: "badge", "data-kind": kind }, text);

function setBadge(id, text, kind = "") {
  byId(id).textContent = text;
  byId(id).dataset.kind = kind;
}

function say(text) {
  byId("say").textContent = text;
}

function complain(text) {
  byId("trouble-text").textContent = text;
  byId("trouble").hidden = false;
}

/** Asks the agent; a refusal is shown, and thrown. */
async function ask(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    complain("The agent does not answer. Is it still running?");
    throw error;
  }
  if (response.status === 401) {
    complain("This page was let in for twelve hours, and they are over. Run `tally dashboard` again.");
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

const read = async (path) => (await ask("GET", path)).json();

/** What goes wrong was shown already. */
const act = (work) => async (...args) => {
  try { await work(...args); } catch (error) { console.info(String(error)); }
};

/** Puts these elements, in this order, and leaves those that stay where they are: a focus is not lost. */
function arrange(parent, wanted) {
  let at = parent.firstElementChild;
  for (const element of wanted) {
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
  while (at) {
    const next = at.nextElementSibling;
    at.remove();
    at = next;
  }
}

// === words ===

/** A licence key opens the licence: of a long one, its end is shown. */
function masked(holder, value) {
  if (holder !== "license_key") return value;
  const letters = [...value];
  return `…${letters.length >= 12 ? letters.slice(-4).join("") : ""}`;
}

/** Which licence, in a line. Batches and rows carry no `holder` of their own where all are keys. */
function name(of) {
  const feature = of.feature ? ` · ${of.feature}` : "";
  return `${masked(of.holder ?? holderOf(of), of.holder_value)}${feature}`;
}

function holderOf({ product, holder_value: value }) {
  const found = status?.licenses.find((it) => it.product === product && it.holder_value === value);
  return found ? found.holder : "license_key";
}

const number = (value) => Number(value).toLocaleString("en-US").replaceAll(",", "\u202f");
const units = (value) => `${number(value)} ${value === 1 ? "unit" : "units"}`;

function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** A time of day today, else the day as well; in UTC, as the ledger has it. */
function time(at) {
  const short = at.slice(0, 10) === now().toISOString().slice(0, 10) ? at.slice(11, 19) : `${at.slice(5, 10)} ${at.slice(11, 16)}`;
  return h("time", { datetime: at, title: `${at.replace("T", " ").replace("Z", "")} UTC` }, short);
}

const STATES = {
  open: ["waiting", ""], sealed: ["sealed", ""], sent: ["sent", "warn"], unknown: ["unknown", "warn"], held: ["held", "warn"],
  settled: ["settled", "good"], superseded: ["went on in others", ""], waived: ["given up", "bad"],
};
const state = (it) => {
  const [text, kind] = STATES[it] ?? [it, ""];
  return badge(text, kind);
};

const REASONS = {
  limit: "The limit would be passed.",
  undecidable: "Its answer was lost, and the total cannot tell whether the server has counted it.",
  late: "Its period is over, and such units are not sent unasked.",
};

// === the state ===

let status = null;
/** When the status came, by this page's clock: the times in it go on from there. */
let came = 0;
const passed = () => performance.now() - came;
const now = () => new Date((status ? Date.parse(status.time) : Date.now()) + (status ? passed() : 0));

function showStatus(told) {
  status = told;
  came = performance.now();
  byId("version").textContent = `· version ${status.version}`;
  showHead();
  showAttention();
  showLicenses();
  showHeld();
  readLists();
}

/** What changes with time alone is shown again each second. */
function showHead() {
  if (!status) return;
  const { connection } = status;
  const server = {
    online: ["reached", "good"], offline: ["switched off for a drill", "warn"], unreachable: ["not reached", "bad"],
    refused: [`refuses the credentials (${connection.refused})`, "bad"],
  }[connection.state] ?? [connection.state, ""];
  setBadge("server", ...server);
  const heard = connection.last_answer_ms === null ? "never heard" : `heard ${ago(connection.last_answer_ms + passed())} ago`;
  const wait = connection.next_try_ms === null ? 0 : connection.next_try_ms - passed();
  byId("heard").textContent = wait > 1000 ? `${heard}, next try in ${ago(wait)}` : heard;
  setBadge("clock", ...(status.time_proven ? ["confirmed", "good"] : ["not confirmed yet", "warn"]));
  byId("time").textContent = `${now().toISOString().slice(0, 19).replace("T", " ")} UTC`;
  setBadge("ledger", ...(status.storage_advice ? ["cannot be written", "bad"] : status.evidence > 0 ? ["was tampered with", "bad"] : ["sound", "good"]));
  const owed = status.licenses.reduce((sum, { conservation: it }) => sum + it.pending + it.in_flight + it.unknown, 0);
  setBadge("owed", ...(status.synced ? ["nothing", "good"] : [units(owed), "warn"]));
  const isOff = connection.network === "offline";
  byId("network").setAttribute("aria-pressed", String(isOff));
  byId("network").textContent = isOff ? "Drill: go online" : "Drill: go offline";
}

function showAttention() {
  const words = [];
  if (status.storage_advice) words.push(`Nothing is recorded: ${status.storage_advice}.`);
  if (status.evidence > 0) words.push("The ledger was changed behind the agent's back. `tally verify` says where it shows.");
  if (status.connection.state === "refused") words.push(`The server refuses the credentials (${status.connection.refused}). Recording goes on; nothing is sent.`);
  const deciding = status.licenses.flatMap((license) => license.held).filter((batch) => batch.next_step.startsWith("none"));
  if (deciding.length > 0) words.push(`${deciding.length === 1 ? "One batch waits" : `${deciding.length} batches wait`} for a decision, below under “Held”.`);
  for (const license of status.licenses) if (license.refused) words.push(`The server refuses ${name(license)} of ${license.product}: ${license.refused}.`);
  byId("attention").hidden = words.length === 0;
  byId("attention-list").replaceChildren(...words.map((it) => h("li", {}, h("span", {}, it))));
}

// === licences ===

const cards = new Map();
const keyOf = (license) => JSON.stringify([license.product, license.holder_value, license.id, license.feature]);

/** Only what somebody can see is drawn. */
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.target.dataset.visible = String(entry.isIntersecting);
  if (entries.some((entry) => entry.isIntersecting)) readLists();
});

function card(license) {
  const made = {
    title: h("h3", {}, name(license)), badges: h("span", {}), big: h("span", { class: "big" }), of: h("span", { class: "soft" }),
    used: h("i", { class: "used" }), pending: h("i", { class: "pending" }), held: h("i", { class: "held" }),
    limit: h("span", { class: "limit", title: "the limit; beyond it is overage" }), legend: h("p", { class: "legend" }),
    sum: h("p", { class: "sum" }), exposure: h("p", { class: "exposure" }),
    picture: h("div", { class: "picture" }), series: h("p", { class: "legend" }), drawn: null,
  };
  made.item = h("li", { class: "card" },
    h("div", { class: "head" }, made.title, h("span", { class: "soft" }, `${license.product} · id ${license.id}`), made.badges),
    h("p", {}, made.big, " ", made.of),
    h("div", { class: "bar" }, h("div", { class: "fill" }, made.used, made.pending, made.held), made.limit),
    made.legend, made.sum, made.exposure, made.picture, made.series);
  watcher.observe(made.item);
  return made;
}

function showLicenses() {
  byId("licenses-empty").hidden = status.licenses.length > 0;
  byId("spans").hidden = status.licenses.length === 0;
  const keys = new Set(status.licenses.map(keyOf));
  for (const [key, made] of cards) {
    if (keys.has(key)) continue;
    watcher.unobserve(made.item);
    cards.delete(key);
  }
  const items = status.licenses.map((license) => {
    const key = keyOf(license);
    if (!cards.has(key)) cards.set(key, card(license));
    const made = cards.get(key);
    showLicense(made, license);
    return made.item;
  });
  arrange(byId("licenses"), items);
  const chosen = byId("by-license").value;
  const options = status.licenses.filter((license) => !license.feature);
  if (byId("by-license").options.length !== options.length + 1) {
    byId("by-license").replaceChildren(h("option", { value: "" }, "all"), ...options.map((license) =>
      h("option", { value: JSON.stringify([license.product, license.holder_value]) }, `${license.product} ${name(license)}`)));
    byId("by-license").value = chosen;
  }
}

function showLicense(made, license) {
  const { cap, total, uncounted, conservation: sums } = license;
  const heldNow = Math.min(sums.held, Math.max(uncounted, 0));
  const pending = Math.max(uncounted - heldNow, 0);
  const used = Math.max(total - Math.max(uncounted, 0), 0);
  made.badges.replaceChildren(...[
    license.refused && badge(license.refused.replaceAll("_", " "), "bad"),
    license.period && badge(`resets ${license.period}`),
    license.shared && badge("shared with other devices"),
  ].filter(Boolean));
  made.big.textContent = number(total);
  made.of.textContent = cap === null ? "used, without a limit" : `of ${number(cap)} used, ${number(Math.max(cap - total, 0))} left`;
  const whole = Math.max(cap ?? total, total, 1);
  const width = (value) => `${(100 * Math.max(value, 0)) / whole}%`;
  made.used.style.width = width(used);
  made.pending.style.width = width(pending);
  made.held.style.width = width(heldNow);
  const hasOverage = cap === null || cap > license.max_consumptions;
  made.limit.hidden = !hasOverage || license.max_consumptions >= whole;
  made.limit.style.left = width(license.max_consumptions);
  const part = (of, text) => h("span", { "data-of": of }, text);
  made.legend.replaceChildren(
    part("used", `${number(used)} counted by the server`), part("pending", `${number(pending)} not counted yet`),
    ...(heldNow > 0 ? [part("held", `${number(heldNow)} held`)] : []),
    ...(hasOverage && cap !== null ? [h("span", {}, `limit ${number(license.max_consumptions)}, with overage ${number(cap)}`)] : []),
    ...(license.resets_at ? [h("span", {}, `next reset ${license.resets_at.slice(0, 16).replace("T", " ")} UTC`)] : []));
  const parts = [["settled", sums.settled], ["pending", sums.pending], ["in flight", sums.in_flight], ["unknown", sums.unknown], ["held", sums.held], ["waived", sums.waived]];
  const holds = parts.reduce((sum, [, value]) => sum + value, 0) === sums.recorded;
  made.sum.replaceChildren(h("span", {}, h("b", {}, number(sums.recorded)), " recorded"), h("span", { class: "op" }, holds ? "=" : "≠"),
    ...parts.flatMap(([word, value], index) => [
      ...(index > 0 ? [h("span", { class: "op" }, "+")] : []), h("span", {}, h("b", {}, number(value)), ` ${word}`)]),
    holds ? badge("every unit accounted for", "good") : badge("the sum does not hold", "bad"));
  showExposure(made.exposure, license);
}

function showExposure(place, { cap, exposure, shared }) {
  if (cap === null) {
    place.replaceChildren("Exposure: none, since there is no limit.");
    return;
  }
  if (exposure.now === 0 && exposure.at_worst === 0) {
    place.replaceChildren("Exposure: none, since nothing is left to grant here.");
    return;
  }
  const seen = shared ? "Other devices are known to consume of it." : "No other device was seen to consume of it so far.";
  place.replaceChildren("Exposure: should other devices have used up the rest, ", h("strong", {}, units(exposure.now)),
    " granted here could be beyond the limit now, and at most ", h("strong", {}, units(exposure.at_worst)), ` before this device stops by itself. ${seen}`);
}

// === charts ===

let span = "day";

async function drawChart(license) {
  const made = cards.get(keyOf(license));
  if (!made || made.item.dataset.visible !== "true") return;
  // Once a minute the time moves on by a step, though nothing else may.
  const version = JSON.stringify([span, license.conservation.recorded, now().toISOString().slice(0, 16)]);
  if (made.drawn === version) return;
  const query = new URLSearchParams({ product: license.product, license: license.holder_value, id: license.id, span });
  if (license.feature) query.set("feature", license.feature);
  const text = await (await ask("GET", `/v1/usage.svg?${query}`)).text();
  const drawing = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  made.drawn = version;
  const series = [...drawing.querySelectorAll("metadata")];
  made.series.replaceChildren(...series.map((it) => h("span", { "data-of": it.dataset.colour }, `${it.textContent} ${number(it.dataset.units)}`)));
  for (const it of series) remember(it.textContent);
  made.picture.replaceChildren(document.importNode(drawing, true));
}

for (const button of byId("spans").children) {
  button.addEventListener("click", () => {
    span = button.dataset.span;
    for (const other of byId("spans").children) other.setAttribute("aria-pressed", String(other === button));
    readLists(0);
  });
}

// === held ===

const DECISIONS = {
  applied: ["It was counted", "The server has counted these units: they are settled, and never sent again. The vendor's activity log shows whether it has."],
  not_applied: ["It was not counted", "The server has not counted these units: they are sent. If it had, they are counted twice."],
  resend: ["Send it now", "The units are sent, whatever the server did before."],
  waive: ["Give it up", "The units are never sent, and nobody is charged for them."],
};
const heldItems = new Map();

function showHeld() {
  const held = status.licenses.flatMap((license) => license.held.map((batch) => ({ license, batch })));
  byId("held-empty").hidden = held.length > 0;
  byId("held-count").textContent = held.length === 0 ? "" : units(held.reduce((sum, { batch }) => sum + batch.units, 0));
  const numbers = new Set(held.map(({ batch }) => batch.batch));
  for (const no of heldItems.keys()) if (!numbers.has(no)) heldItems.delete(no);
  arrange(byId("held"), held.map(({ license, batch }) => {
    if (!heldItems.has(batch.batch)) heldItems.set(batch.batch, heldItem(license, batch));
    const made = heldItems.get(batch.batch);
    made.next.textContent = `Next step: ${batch.next_step}${batch.next_at ? `, at ${batch.next_at.slice(0, 16).replace("T", " ")} UTC at the latest` : ""}.`;
    return made.item;
  }));
}

function heldItem(license, batch) {
  const choices = batch.reason === "undecidable" ? ["applied", "not_applied", "waive"] : ["resend", "applied", "waive"];
  const next = h("span", {});
  const buttons = choices.map((choice, index) => h("button", {
    type: "button", class: index === 0 ? "" : "quiet", "aria-label": `${DECISIONS[choice][0]}: batch ${batch.batch}`,
    onclick: () => decide(license, batch, choice),
  }, `${DECISIONS[choice][0]}…`));
  const item = h("li", { "data-batch": String(batch.batch) },
    h("h3", {}, `${units(batch.units)} of ${name(license)}`),
    h("p", { class: "soft" }, `batch ${batch.batch} · ${batch.rows} ${batch.rows === 1 ? "consumption" : "consumptions"} on ${batch.hardware_id}`,
      batch.since ? " · since " : "", batch.since ? time(batch.since) : ""),
    h("p", { class: "why" }, REASONS[batch.reason] ?? `The server refuses it: ${batch.reason}.`, " ", next),
    h("div", { class: "row" }, ...buttons));
  return { item, next };
}

let deciding = null;

function decide(license, batch, choice) {
  deciding = { batch: batch.batch, choice };
  const [title, means] = DECISIONS[choice];
  byId("decide-title").textContent = `${title}?`;
  byId("decide-what").textContent = `Batch ${batch.batch}: ${units(batch.units)} of ${name(license)}, product ${license.product}.`;
  byId("decide-means").textContent = means;
  byId("decide-need").textContent = choice === "waive" ? "(needed)" : "(optional)";
  byId("decide-reason").value = "";
  byId("decide-reason").required = choice === "waive";
  byId("decide").returnValue = "";
  byId("decide").showModal();
}

byId("decide").addEventListener("close", act(async () => {
  if (byId("decide").returnValue !== "yes" || !deciding) return;
  const { batch, choice } = deciding;
  deciding = null;
  const reason = byId("decide-reason").value.trim();
  await ask("POST", `/v1/batches/${batch}/resolve`, { decision: choice, ...(reason ? { reason } : {}) });
  say(`Batch ${batch}: ${DECISIONS[choice][0]}. The ledger says so.`);
  byId("held-title").closest("section").querySelector("button")?.focus();
}));

// === batches and rows ===

function showBatches(batches) {
  byId("batches-empty").hidden = batches.length > 0;
  byId("batches-count").textContent = batches.length === 0 ? "" : `the newest ${batches.length}`;
  byId("batch-rows").replaceChildren(...batches.map((batch) => h("tr", {},
    h("td", { class: "number" }, String(batch.batch)),
    h("td", {}, state(batch.state), batch.reason ? ` ${batch.reason}` : ""),
    h("td", { class: "mono" }, name(batch)), h("td", { class: "number" }, number(batch.units)),
    h("td", { class: "number" }, number(batch.rows)), h("td", { class: "number" }, `${batch.attempts}×`),
    h("td", {}, batch.sent_at ? time(batch.sent_at) : "–"))));
}

const rowItems = new Map();
let isFirst = true;

const apps = new Set();
function remember(app) {
  if (!app || apps.has(app) || / others$/.test(app)) return;
  apps.add(app);
  byId("apps").append(h("option", { value: app }));
}

const filters = () => ({ app: byId("by-app").value.trim(), license: byId("by-license").value, state: byId("by-state").value });

async function readRows() {
  const { app, license, state: wanted } = filters();
  const query = new URLSearchParams({ limit: ROWS_MAX });
  const [product, holder] = license ? JSON.parse(license) : [];
  if (app) query.set("app", app);
  if (license) { query.set("product", product); query.set("license", holder); }
  if (wanted) query.set("state", wanted);
  const isChosen = (row) => (!app || row.app === app) && (!license || (row.product === product && row.holder_value === holder));
  const [rows, refusals] = await Promise.all([
    wanted === "refused" ? [] : read(`/v1/events?${query}`),
    wanted === "" || wanted === "refused" ? read("/v1/refusals") : [],
  ]);
  const all = [...rows, ...refusals.filter(isChosen)];
  // Newest first; of one moment, in the order of their numbers.
  all.sort((a, b) => (a.at < b.at ? 1 : a.at > b.at ? -1 : (b.seq ?? 0) - (a.seq ?? 0)));
  return all.slice(0, ROWS_MAX);
}

function showRows(rows) {
  byId("rows-empty").hidden = rows.length > 0;
  byId("rows-count").textContent = rows.length === ROWS_MAX ? `the newest ${ROWS_MAX}` : rows.length === 0 ? "" : String(rows.length);
  const keys = new Set(rows.map((row) => String(row.seq ?? row.refusal)));
  for (const key of rowItems.keys()) if (!keys.has(key)) rowItems.delete(key);
  arrange(byId("ledger-rows"), rows.flatMap((row) => {
    const key = String(row.seq ?? row.refusal);
    if (!rowItems.has(key)) rowItems.set(key, rowItem(key, row, !isFirst));
    const made = rowItems.get(key);
    if (made.state !== row.state) made.outcome.replaceChildren(...outcome(row));
    made.state = row.state;
    remember(row.kind === "consumption" ? row.app : "");
    return [made.row, made.whole];
  }));
  isFirst = false;
}

function outcome(row) {
  if (row.refusal) return [badge("refused", "bad")];
  return [state(row.state), row.late ? badge("late", "warn") : ""].filter(Boolean);
}

function rowItem(key, row, isFresh) {
  const whole = h("tr", { class: "whole", hidden: true });
  const open = h("button", { type: "button", class: "open mono", "aria-expanded": "false", "aria-label": `Row ${key}: why`, onclick: act(async () => {
    whole.hidden = !whole.hidden;
    open.setAttribute("aria-expanded", String(!whole.hidden));
    if (whole.hidden) return;
    const explained = row.refusal ? row : { ...(await read(`/v1/events/${row.seq}`)) };
    whole.replaceChildren(h("td", { colspan: "7" }, why(explained)));
  }) }, key);
  const isOwn = row.kind !== undefined && row.kind !== "consumption";
  const cell = h("td", {});
  const made = {
    whole, outcome: cell, state: null,
    row: h("tr", { class: isFresh ? "fresh" : "", "data-key": key }, h("td", {}, open), h("td", {}, time(row.at), row.time_proven ? "" : "?"),
      h("td", {}, isOwn ? row.kind : row.app), h("td", { class: "mono" }, row.holder_value ? name(row) : "–"),
      h("td", { class: "number" }, isOwn ? "" : number(row.units)), h("td", { class: "number" }, isOwn || row.refusal ? "" : number(row.total)), cell),
  };
  return made;
}

/** What a consumption was judged by, in words. */
function why(explained) {
  const row = explained.row ?? explained;
  const judged = explained.judged_by;
  const lines = [];
  if (row.note) return h("div", { class: "why-lines" }, h("p", { class: "mono" }, JSON.stringify(maskedNote(row.note))));
  if (row.refusal) lines.push(`Refused with ${row.code}: ${row.message}.`);
  if (judged) {
    const limit = judged.cap === null ? "no limit" : `a limit of ${number(judged.cap)}${judged.cap === judged.max_consumptions ? "" : `, overage included`}`;
    lines.push(`Judged by a total of ${number(judged.total_before)} (${number(judged.counted)} counted by the server, ${number(judged.uncounted)} granted here and not counted yet) and ${limit}.`);
    lines.push(`The server had said ${number(judged.server_total)} at ${judged.server_total_at.slice(0, 19).replace("T", " ")} UTC${judged.counted === judged.server_total ? "" : "; the period turned since"}.`);
  } else if (!row.refusal) lines.push("What it was judged by is not known: the row is older than this record.");
  lines.push(`On ${row.hardware_id}, ${row.time_proven ? "by a clock that the server had confirmed" : "by a clock that the server had not confirmed"}${row.batch ? `, in batch ${row.batch}` : ""}.`);
  return h("div", { class: "why-lines" }, ...lines.map((line) => h("p", {}, line)));
}

const maskedNote = (note) => (note.holder_value ? { ...note, holder_value: masked(note.holder, note.holder_value) } : note);

// === reading ===

let due = null;
let reading = false;

/** Reads the tables and charts again soon, however often it is asked to. */
function readLists(pause = PAUSE_MS) {
  if (reading) { due ??= true; return; }
  if (due !== null) {
    if (pause > 0) return;
    clearTimeout(due);
  }
  due = setTimeout(act(async () => {
    due = null;
    reading = true;
    try {
      const [rows, batches] = await Promise.all([readRows(), read("/v1/batches?limit=50"), ...(status?.licenses ?? []).map(drawChart)]);
      showRows(rows);
      showBatches(batches);
    } finally {
      reading = false;
      if (due === true) { due = null; readLists(); }
    }
  }), isFirst ? 0 : pause);
}

for (const id of ["by-license", "by-state"]) byId(id).addEventListener("change", () => readLists(0));
byId("by-app").addEventListener("input", () => readLists(0));

function listen() {
  const stream = new EventSource("/v1/stream");
  stream.addEventListener("status", (event) => {
    setBadge("live", "live", "good");
    showStatus(JSON.parse(event.data));
  });
  stream.addEventListener("error", () => {
    const isOver = stream.readyState === EventSource.CLOSED;
    setBadge("live", isOver ? "ended" : "reconnecting", isOver ? "bad" : "warn");
    if (isOver) {
      complain("The agent no longer lets this page in, or has ended. Run `tally dashboard` again.");
    }
  });
}

byId("trouble-close").addEventListener("click", () => { byId("trouble").hidden = true; });
byId("sync").addEventListener("click", act(async () => {
  byId("sync").disabled = true;
  byId("sync").textContent = "Syncing…";
  try {
    const { synced } = await (await ask("POST", "/v1/sync", {})).json();
    say(synced ? "Nothing is left to send but what is held." : "Not everything could be sent.");
  } finally {
    byId("sync").disabled = false;
    byId("sync").textContent = "Sync now";
  }
}));
byId("network").addEventListener("click", act(async () => {
  const mode = status?.connection.network === "offline" ? "online" : "offline";
  await ask("PUT", "/v1/network", { mode });
  say(`The agent's network is ${mode === "online" ? "on" : "off"}.`);
}));

byId("origin").textContent = location.host;
listen();
setInterval(() => { showHead(); if (status) readLists(); }, 60_000);
setInterval(showHead, 1000);
