// The fault lab: switches what the stub does wrong, and shows what arrives. No library, no other host.

const ROWS_MAX = 200;
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

const badge = (text, kind) => h("span", { class: "badge", "data-kind": kind }, text);

function say(text) {
  byId("say").textContent = text;
}

function complain(text) {
  byId("trouble-text").textContent = text;
  byId("trouble").hidden = false;
}

/** Asks the stub; a refusal is shown, and thrown. */
async function ask(method, path, body) {
  let response;
  try {
    response = await fetch(`/stub/v1/${path}`, {
      method,
      body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
    });
  } catch (error) {
    complain("The stub does not answer. Is it still running?");
    throw error;
  }
  const text = await response.text();
  if (!response.ok) {
    let message = text;
    try { message = JSON.parse(text).message; } catch { /* Not one of the stub's own refusals. */ }
    complain(message);
    throw new Error(message);
  }
  byId("trouble").hidden = true;
  return JSON.parse(text);
}

/** How often the stream has told of each thing. */
const heard = {};

/** Orders something and shows the answer, unless the stream has told of something newer meanwhile. */
async function order(kind, show, method, path, body) {
  const before = heard[kind];
  const answer = await ask(method, path, body);
  if (heard[kind] === before) show(answer);
}

/** Runs what a control does; `ask` has shown what went wrong. */
function act(work) {
  return async (event) => {
    try { await work(event); } catch (error) { console.warn(error.message); }
  };
}

// === the network ===

const number = (name, label, value, min = 0, max = 600000) => ({ name, label, value, min, max });
const STATES = [
  { state: "up", label: "Up", what: "everything arrives", fields: [] },
  { state: "gone", label: "Gone", what: "nothing arrives", fields: [] },
  { state: "slow", label: "Slow", what: "late, with jitter", fields: [
    number("delay_ms", "Delay (ms)", 800), number("jitter_ms", "Jitter (ms)", 400), number("seed", "Seed", 0)] },
  { state: "flapping", label: "Flapping", what: "comes and goes", fields: [
    number("up_ms", "Up (ms)", 3000, 10), number("down_ms", "Gone (ms)", 2000, 10),
    number("jitter_ms", "Jitter (ms)", 500), number("seed", "Seed", 0)] },
  { state: "captive_portal", label: "Captive portal", what: "a page, with 200", fields: [] },
  { state: "rate_limited", label: "Rate limit", what: "429 beyond it", fields: [
    number("requests", "Requests", 2, 0, 10000), number("window_ms", "In (ms)", 1000, 1),
    number("status", "Status", 429, 429, 503), number("retry_after", "Retry-After (s)", 2)] },
];
let network = { state: "up", reachable: true, affected: 0 };

function buildStates() {
  for (const spec of STATES) {
    byId("states").append(h("button", {
      type: "button", "data-state": spec.state, "aria-pressed": "false",
      onclick: act(() => orderNetwork(spec)),
    }, h("span", {}, spec.label), h("small", {}, spec.what)));
    const fields = spec.fields.map((field) => numberField(field, `${spec.state}-${field.name}`,
      act(() => network.state === spec.state && orderNetwork(spec))));
    byId("state-fields").append(
      h("div", { class: "fields", "data-fields": spec.state, hidden: true }, ...fields));
  }
}

function numberField({ label, value, min, max, placeholder }, id, onchange) {
  const range = { min: String(min), max: String(max) };
  return h("label", {}, label, h("input", { type: "number", id, ...range, value: String(value), placeholder, onchange }));
}

function textField({ label, value, placeholder }, id, onchange) {
  return h("label", {}, label, h("input", { type: "text", id, value, placeholder, onchange }));
}

async function orderNetwork(spec) {
  const wanted = { state: spec.state };
  for (const field of spec.fields) {
    const text = byId(`${spec.state}-${field.name}`).value;
    if (text !== "") wanted[field.name] = Number(text);
  }
  await order("network", showNetwork, "PUT", "network", wanted);
  say(`Network: ${spec.label}.`);
}

function showNetwork(report) {
  network = report;
  for (const button of byId("states").children) {
    button.setAttribute("aria-pressed", String(button.dataset.state === report.state));
  }
  for (const fields of byId("state-fields").children) {
    fields.hidden = fields.dataset.fields !== report.state;
  }
  const spec = STATES.find((it) => it.state === report.state);
  for (const field of spec.fields) {
    const input = byId(`${spec.state}-${field.name}`);
    if (report[field.name] !== undefined && input !== document.activeElement) input.value = report[field.name];
  }
  const kind = report.state === "up" ? "good" : report.reachable ? "warn" : "bad";
  const shown = byId("network-badge");
  shown.dataset.kind = kind;
  shown.textContent = report.state === "flapping" ? `flapping: ${report.reachable ? "up" : "gone"}` : spec.label.toLowerCase();
  const affected = report.affected === 1 ? "1 request was" : `${report.affected} requests were`;
  byId("network-line").textContent = report.state === "up" ? "Clients reach the server."
    : `${report.reachable ? "Clients reach the server" : "No client reaches the server"}; ${affected} affected so far.`;
}

// === faults ===

const ADD = ["/api/v4/add_consumption", "/api/v4/add_feature_consumption"];
const READ = ["/api/v4/check_license"];
const words = (name, label) => ({ name, label, text: true });
/** In the order in which they strike, and with the requests that they can strike where those are not all. */
const FAULTS = [
  { key: "roll-back", label: "Server put back from a backup", what: "The last requests are undone before this one is served: units, activity and kept answers.",
    is: (a) => a.roll_back !== undefined, fields: [number("roll_back", "Requests back", 1, 1, 10000)], action: (v) => ({ roll_back: v.roll_back }) },
  { key: "forget-keys", label: "Forgotten keys", what: "All idempotency keys are forgotten before the request is served.",
    is: (a) => a.forget_keys === true, action: () => ({ forget_keys: true }) },
  { key: "stale", label: "Stale read", paths: READ, what: "A read is answered as it would have been some time ago, with a fresh date.",
    is: (a) => a.stale_ms !== undefined, fields: [number("stale_ms", "Age (ms)", 60000, 1, 3600000)], action: (v) => ({ stale_ms: v.stale_ms }) },
  { key: "black-hole", label: "Black hole", what: "Nothing is applied and nothing answered; the connection stays open.",
    is: (a) => a.black_hole === true, action: () => ({ black_hole: true }) },
  { key: "late", label: "Late arrival", paths: ADD, what: "The connection is closed at once; the request is checked and applied later.",
    is: (a) => a.late_ms !== undefined, fields: [number("late_ms", "Later by (ms)", 5000)], action: (v) => ({ late_ms: v.late_ms }) },
  { key: "duplicate", label: "Sent twice", paths: ADD, what: "The request is applied twice, as where a gateway repeats it; the second answer is sent.",
    is: (a) => a.duplicate === true, action: () => ({ duplicate: true }) },
  { key: "refuse-after", label: "Refused after all", paths: ADD, what: "Applied, then refused: with a status, or with a code of the contract.",
    is: (a) => a.refuse_after !== undefined, fields: [{ ...words("refuse_after", "Status or code"), value: "429" }],
    action: (v) => ({ refuse_after: /^\d+$/.test(v.refuse_after) ? Number(v.refuse_after) : v.refuse_after }) },
  { key: "drop-after", label: "Lost acknowledgement", what: "Applied, then the connection is closed without an answer.",
    is: (a) => a.drop === "after", action: () => ({ drop: "after" }) },
  { key: "drop-before", label: "Lost request", what: "The connection is closed, nothing is applied.",
    is: (a) => a.drop === "before", action: () => ({ drop: "before" }) },
  { key: "status", label: "Error status", what: "Nothing is applied; the server says when to come back.", is: (a) => a.status !== undefined,
    fields: [number("status", "Status", 503, 400, 599), number("retry_after", "Retry-After (s)", 5)],
    action: (v) => (v.retry_after === undefined ? { status: v.status } : { status: v.status, retry_after: v.retry_after }) },
  { key: "truncate", label: "Half an answer", what: "Applied; the answer breaks off.", is: (a) => a.truncate !== undefined,
    fields: [number("truncate", "Bytes", 20, 0, 1000000)], action: (v) => ({ truncate: v.truncate }) },
  { key: "garbage", label: "Not the contract's answer", what: "Applied; a page in HTML is answered with 200.",
    is: (a) => a.garbage === true, action: () => ({ garbage: true }) },
  { key: "signature", label: "Forged signature", what: "Applied; the answer's LicenseSignature is wrong.",
    is: (a) => a.bad_signature === true, action: () => ({ bad_signature: true }) },
  { key: "delay", label: "Late answer", what: "Applied, and answered late.", is: (a) => a.delay_ms !== undefined,
    fields: [number("delay_ms", "Delay (ms)", 2000)], action: (v) => ({ delay_ms: v.delay_ms }) },
  { key: "date", label: "Wrong date", what: "The answer's Date is off.", is: (a) => a.skew_date !== undefined,
    fields: [number("skew_date", "Seconds", -3600, -315360000, 315360000)], action: (v) => ({ skew_date: v.skew_date }) },
];
/** Fault orders run one after the other: each replaces the whole list. */
let faultOrders = Promise.resolve();

function buildFaults() {
  for (const spec of FAULTS) {
    const change = act(() => spec.button.getAttribute("aria-checked") === "true" && orderFault(spec, true));
    const inputs = (spec.fields ?? []).map((field) =>
      (field.text ? textField : numberField)(field, `${spec.key}-${field.name}`, change));
    inputs.push(
      h("label", {}, "Requests", h("select", { id: `${spec.key}-path`, onchange: change },
        h("option", { value: "" }, { [ADD]: "all that consume", [READ]: "all that read" }[spec.paths ?? ""] ?? "all"),
        ...(spec.paths ?? [...ADD, ...READ]).map((path) => h("option", { value: path }, path.replace("/api/v4/", ""))))),
      textField({ label: "Device", placeholder: "every" }, `${spec.key}-device`, change),
      textField({ label: "API key", placeholder: "every" }, `${spec.key}-caller`, change),
      numberField({ label: "Times", value: "", min: 1, max: 1000000, placeholder: "always" }, `${spec.key}-times`, change),
      numberField({ label: "Chance (%)", value: 100, min: 0, max: 100 }, `${spec.key}-chance`, change));
    spec.button = h("button", { type: "button", role: "switch", class: "switch", "aria-checked": "false",
      "aria-labelledby": `fault-${spec.key}`, "aria-describedby": `about-${spec.key}`,
      onclick: act(() => orderFault(spec, spec.button.getAttribute("aria-checked") !== "true")) });
    spec.fired = badge("");
    spec.fired.hidden = true;
    spec.inputs = h("div", { class: "fields", hidden: true }, ...inputs);
    byId("faults").append(h("li", {}, spec.button,
      h("span", { class: "name" }, h("span", { id: `fault-${spec.key}` }, spec.label), spec.fired),
      h("span", { class: "what", id: `about-${spec.key}` }, spec.what), spec.inputs));
  }
}

function orderFault(spec, on) {
  const turn = faultOrders.then(() => replaceFaults(spec, on));
  faultOrders = turn.catch(() => {});
  return turn;
}

async function replaceFaults(spec, on) {
  const faults = await ask("GET", "faults");
  const text = (name) => byId(`${spec.key}-${name}`).value.trim();
  const read = (name) => (text(name) === "" ? undefined : Number(text(name)));
  const others = faults.filter((fault) => !spec.is(fault.action)).map(({ fired, ...fault }) => fault);
  if (on) {
    const values = Object.fromEntries((spec.fields ?? []).map((field) => [field.name, field.text ? text(field.name) : read(field.name)]));
    others.push({
      path: text("path") || null,
      hardware_id: text("device") || null,
      api_key: text("caller") || null,
      action: spec.action(values),
      times: read("times") ?? null,
      probability: (read("chance") ?? 100) / 100,
    });
  }
  // The fault that strikes first stands first.
  const rank = (fault) => FAULTS.findIndex((it) => it.is(fault.action));
  others.sort((one, other) => rank(one) - rank(other));
  await order("faults", showFaults, "PUT", "faults", others);
  say(`${spec.label}: ${on ? "on" : "off"}.`);
}

function showFaults(list) {
  for (const spec of FAULTS) {
    const ordered = list.filter((fault) => spec.is(fault.action));
    const on = ordered.length > 0;
    spec.button.setAttribute("aria-checked", String(on));
    spec.inputs.hidden = !on;
    const fired = ordered.reduce((sum, fault) => sum + fault.fired, 0);
    const over = on && ordered.every((fault) => fault.times !== null && fault.fired >= fault.times);
    spec.fired.hidden = !on;
    spec.fired.textContent = over ? `over: struck ${fired}×` : `struck ${fired}×`;
    spec.fired.dataset.kind = on && !over ? "warn" : "";
    if (on) fillFault(spec, ordered[0]);
  }
  const count = byId("faults-badge");
  count.textContent = String(list.length);
  count.dataset.kind = list.length > 0 ? "warn" : "good";
}

function fillFault(spec, fault) {
  const put = (name, value) => {
    const input = byId(`${spec.key}-${name}`);
    if (input !== document.activeElement) input.value = value ?? "";
  };
  for (const { name } of spec.fields ?? []) put(name, fault.action[name]);
  put("path", fault.path);
  put("device", fault.hardware_id);
  put("caller", fault.api_key);
  put("times", fault.times);
  put("chance", Math.round(fault.probability * 1000) / 10);
}

// === idempotency keys ===

function showKeys({ enabled }) {
  byId("keys-badge").textContent = enabled ? "kept" : "not kept";
  byId("keys").setAttribute("aria-checked", String(enabled));
}

function buildKeys() {
  byId("keys").addEventListener("click", act(async () => {
    const enabled = byId("keys").getAttribute("aria-checked") !== "true";
    await order("idempotency", showKeys, "PUT", "idempotency", { enabled });
    say(`Idempotency keys are ${enabled ? "kept" : "not kept"} from now on.`);
  }));
}

// === the clock ===

let clock = { at: Date.now(), read: performance.now() };

function showClock({ now, offset_ms }) {
  clock = { at: Date.parse(now), read: performance.now() };
  const offset = byId("offset");
  // Setting a clock takes some milliseconds, which are no difference to anybody.
  const same = Math.abs(offset_ms) < 1000;
  offset.textContent = same ? "this device's time" : `${span(Math.abs(offset_ms))} ${offset_ms > 0 ? "ahead" : "behind"}`;
  offset.dataset.kind = same ? "good" : "warn";
  byId("clock-back").disabled = same;
  tick();
}

function span(ms) {
  const parts = [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000]];
  const words = [];
  for (const [unit, length] of parts) {
    const count = Math.floor(ms / length);
    ms -= count * length;
    if (count > 0) words.push(`${count} ${unit}`);
  }
  return words.slice(0, 2).join(" ") ;
}

function tick() {
  const now = new Date(clock.at + performance.now() - clock.read).toISOString();
  byId("clock").textContent = `${now.slice(0, 10)} ${now.slice(11, 19)} UTC`;
  byId("clock").dateTime = now;
}

async function moveClock(change, words) {
  await order("clock", showClock, "PUT", "clock", change);
  say(words);
}

function buildClock() {
  for (const button of document.querySelectorAll("[data-seconds]")) {
    button.addEventListener("click", act(() =>
      moveClock({ advance_seconds: Number(button.dataset.seconds) }, `The clock went forward ${button.textContent}.`)));
  }
  for (const button of document.querySelectorAll("[data-period]")) {
    button.addEventListener("click", act(() => {
      const early = byId("before").checked;
      return moveClock({ next_period: button.dataset.period, ...(early ? { advance_ms: -10000 } : {}) },
        `The clock went to ${early ? "10 seconds before " : ""}the next ${button.textContent.toLowerCase()}.`);
    }));
  }
  byId("clock-back").addEventListener("click", act(() => moveClock({ now: new Date().toISOString() }, "The clock shows this device's time.")));
  setInterval(tick, 1000);
}

// === licences ===

const who = (license) => license.license_key ?? license.username;

function showLicenses(list) {
  const open = new Set([...document.querySelectorAll("details.edit[open]")].map((it) => it.dataset.id));
  const places = new Map([...byId("licenses").children].map((item) => [item.dataset.id, item]));
  const items = list.map((license) => {
    const id = String(license.id);
    const earlier = places.get(id);
    // While somebody edits a licence, only its bar moves.
    if (earlier && open.has(id)) {
      earlier.querySelector(".usage").replaceWith(usage(license));
      return earlier;
    }
    return licenseItem(license);
  });
  if (items.some((item, index) => byId("licenses").children[index] !== item) || items.length !== byId("licenses").children.length) {
    byId("licenses").replaceChildren(...items);
  }
  if (list.length === 0) byId("licenses").append(h("li", { class: "empty" }, "The seed has no licence."));
}

function licenseItem(license) {
  const bad = (license.license_enabled ? [] : ["disabled"]).concat(license.license_active ? [] : ["inactive"]);
  const period = license.reset_consumption && license.consumption_period ? `resets ${license.consumption_period}` : "never resets";
  return h("li", { "data-id": String(license.id) },
    h("div", { class: "head" }, h("h3", {}, who(license)),
      h("span", { class: "sub" }, `id ${license.id} · ${license.product} · ${period}`), ...bad.map((word) => badge(word, "bad"))),
    usage(license), editor(license));
}

function usage(license) {
  const { total_consumptions: total, max_consumptions: max } = license;
  const overage = !license.allow_overages ? 0 : license.max_overages === 0 ? Infinity : license.max_overages;
  const cap = license.allow_unlimited_consumptions ? Infinity : max + overage;
  const whole = Math.max(Number.isFinite(cap) ? cap : max, total, 1);
  const within = h("i");
  within.style.width = `${(Math.max(0, Math.min(total, max)) / whole) * 100}%`;
  const over = h("i", { class: "over" });
  over.style.width = `${(Math.max(0, total - max) / whole) * 100}%`;
  const limit = cap === Infinity ? (license.allow_unlimited_consumptions ? "no limit" : `${max}, overage without bound`)
    : overage > 0 ? `${max} + ${overage} overage` : String(max);
  const left = cap === Infinity ? "" : `${Math.max(0, cap - total)} left`;
  const features = license.features.map((feature) => `${feature.code}: ${feature.total_consumptions} of ${feature.max_consumption}`);
  return h("div", { class: "usage" }, h("div", { class: "bar", "aria-hidden": "true" }, within, over),
    h("div", { class: "bar-line" }, h("span", {}, h("strong", {}, String(total)), ` of ${limit}`), h("span", {}, left)),
    features.length > 0 ? h("p", { class: "sub" }, features.join(" · ")) : "");
}

function editor(license) {
  const name = (field) => `license-${license.id}-${field}`;
  const check = (field, label) => h("label", { class: "inline" },
    h("input", { type: "checkbox", id: name(field), checked: license[field] }), label);
  const count = (field, label, min) => numberField({ label, value: license[field], min, max: Number.MAX_SAFE_INTEGER }, name(field));
  const period = h("select", { id: name("consumption_period") }, ...["", "daily", "weekly", "monthly", "annually"].map((value) =>
    h("option", { value, selected: (license.reset_consumption ? license.consumption_period ?? "" : "") === value }, value || "never")));
  const devices = license.devices.map((device, index) => h("label", {}, h("span", { class: "mono" }, device.hardware_id),
    h("select", { id: name(`device-${index}`) }, ...["active", "inactive", "blacklisted"].map((state) =>
      h("option", { value: state, selected: device.state === state }, state)))));
  const save = act(async () => {
    const value = (field) => byId(name(field));
    await ask("PATCH", `licenses/${license.id}`, {
      license_enabled: value("license_enabled").checked,
      license_active: value("license_active").checked,
      allow_overages: value("allow_overages").checked,
      max_consumptions: Number(value("max_consumptions").value),
      max_overages: Number(value("max_overages").value),
      total_consumptions: Number(value("total_consumptions").value),
      reset_consumption: value("consumption_period").value !== "",
      consumption_period: value("consumption_period").value || null,
      devices: license.devices.map((device, index) => ({ ...device, state: value(`device-${index}`).value })),
    });
    details.open = false;
    showLicenses(await ask("GET", "licenses"));
    document.querySelector(`[data-id="${license.id}"] summary`).focus();
    say(`Licence ${who(license)} was changed.`);
  });
  const details = h("details", { class: "edit", "data-id": String(license.id) },
    h("summary", { "aria-label": `Edit licence ${who(license)}` }, "Edit"),
    h("div", { class: "fields" }, check("license_enabled", "Enabled"), check("license_active", "Active"), check("allow_overages", "Overage allowed")),
    h("div", { class: "fields" }, count("max_consumptions", "Limit", 0), count("max_overages", "Overage (0: no bound)", 0),
      count("total_consumptions", "Total", Number.MIN_SAFE_INTEGER), h("label", {}, "Resets", period)),
    devices.length > 0 ? h("div", { class: "devices" }, ...devices) : "",
    h("div", { class: "row" }, h("button", { type: "button", class: "primary", onclick: save }, "Save"),
      h("button", { type: "button", class: "quiet", onclick: act(async () => {
        details.open = false;
        showLicenses(await ask("GET", "licenses"));
      }) }, "Cancel")));
  // What changed meanwhile is read when the form is opened.
  details.addEventListener("toggle", act(async () => {
    if (!details.open) return;
    const current = await ask("GET", `licenses/${license.id}`);
    byId(name("total_consumptions")).value = current.total_consumptions;
  }));
  return details;
}

// === requests and activity ===

let seen = 0;
let counted = 0;
const clockTime = (at) => h("time", { datetime: at }, at.slice(11, 23));

function requestRow(entry, fresh) {
  const what = entry.path.replace("/api/v4/", "");
  const units = entry.body?.consumptions ?? (what === "check_license" ? null : 1);
  const words = [];
  if (entry.status === null) words.push(badge("no answer", "bad"));
  if (entry.network) words.push(badge(`network ${entry.network.replaceAll("_", " ")}`, "warn"));
  if (entry.fault) words.push(badge(`fault ${JSON.stringify(entry.fault).replace(/[{}"]/g, "").replaceAll(":", " ").replaceAll(",", ", ")}`, "warn"));
  if (entry.replayed) words.push(badge("replayed", ""));
  if (entry.applied) words.push(badge("counted", "good"));
  // A long code may be broken where its words end.
  if (entry.code) words.push(badge(entry.code.replaceAll("_", "_\u200b"), "bad"));
  // What the client saw of it: an answer that a fault cut off says so.
  const cut = entry.fault?.drop === "after" || entry.fault?.late_ms !== undefined ? "lost" : entry.fault?.truncate !== undefined ? "cut off" : "";
  if (cut) words.push(badge(`answer ${cut}`, "bad"));
  if (entry.fault?.refuse_after !== undefined) words.push(badge("answer replaced", "bad"));
  const answered = entry.status === null || cut === "lost" ? "–" : String(entry.status);
  const whole = h("tr", { class: "whole", "data-of": String(entry.seq), hidden: true });
  const open = h("button", { type: "button", class: "open mono", "aria-expanded": "false", onclick: () => {
    const show = whole.hidden;
    if (show && whole.children.length === 0) whole.append(h("td", { colspan: "5" }, exchange(entry)));
    whole.hidden = !show;
    open.setAttribute("aria-expanded", String(show));
  } }, units === null ? what : `${what} ${units}`);
  const row = h("tr", { class: fresh ? "fresh" : "", "data-seq": String(entry.seq), "data-status": String(entry.status) },
    h("td", {}, clockTime(entry.at)), h("td", {}, open),
    h("td", { class: "mono" }, entry.hardware_id ?? "–"), h("td", { class: "number" }, answered), h("td", {}, ...words));
  return [row, whole];
}

function exchange(entry) {
  const part = (title, value) => h("div", {}, h("h3", {}, title),
    h("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 1)));
  return h("div", { class: "exchange" },
    entry.body === null ? part("Query", entry.query.replaceAll("&", "\n")) : part("Body", entry.body),
    part("Answer", entry.answer ?? "none"), part("Idempotency-Key", entry.idempotency_key ?? "none"),
    part("API key", entry.api_key ?? "none"));
}

/** Puts rows where they belong, newest first: what ran side by side may be told out of order, or twice. */
function insert(rows, seq, ...added) {
  const of = (row) => Number(row.dataset.seq ?? row.dataset.of);
  let place = rows.firstElementChild;
  while (place && of(place) > seq) place = place.nextElementSibling;
  if (place && of(place) === seq) return;
  if (place) place.before(...added);
  else rows.append(...added);
}

function addRequest(entry, fresh = true) {
  seen = Math.max(seen, entry.seq);
  const rows = byId("request-rows");
  // A request that was cut off and arrives later is told again.
  const earlier = rows.querySelector(`tr[data-seq="${entry.seq}"]`);
  if (earlier && earlier.dataset.status !== String(entry.status)) {
    earlier.nextElementSibling.remove();
    earlier.remove();
  }
  insert(rows, entry.seq, ...requestRow(entry, fresh));
  // Two rows a request: its line, and the whole exchange.
  while (rows.children.length > 2 * ROWS_MAX) rows.lastElementChild.remove();
  countRows();
}

function addActivity(entry, fresh = true) {
  counted = Math.max(counted, entry.seq);
  const rows = byId("activity-rows");
  const event = entry.event === "offline_floating_consumptions_sync" ? "offline sync" : entry.event.replaceAll("_", " ");
  insert(rows, entry.seq, h("tr", { class: fresh ? "fresh" : "", "data-seq": String(entry.seq) }, h("td", {}, clockTime(entry.at)),
    h("td", {}, entry.feature === null ? `id ${entry.license_id}` : `id ${entry.license_id} · ${entry.feature}`),
    h("td", {}, h("span", { title: entry.event }, event)), h("td", { class: "number" }, String(entry.units)),
    h("td", { class: "number" }, String(entry.total)), h("td", { class: "mono" }, entry.hardware_id)));
  while (rows.children.length > ROWS_MAX) rows.lastElementChild.remove();
  countRows();
}

function countRows() {
  const words = (count, shown) => (count === 0 ? "" : count > shown ? `${count}, the newest ${shown} shown` : String(count));
  byId("requests-empty").hidden = seen > 0;
  byId("activity-empty").hidden = counted > 0;
  byId("requests-count").textContent = words(seen, ROWS_MAX);
  byId("activity-count").textContent = words(counted, ROWS_MAX);
}

function forgetActivity() {
  counted = 0;
  byId("activity-rows").replaceChildren();
}

function forgetRequests() {
  seen = 0;
  byId("request-rows").replaceChildren();
  countRows();
}

// === scenarios ===

let scenarios = [];

function showStory() {
  const chosen = scenarios[byId("scenario").selectedIndex];
  byId("story").textContent = chosen ? chosen.story.replaceAll("\n", " ") : "";
}

function showPlayed(played) {
  byId("stop").disabled = played?.state !== "running";
  if (!played) {
    byId("steps").replaceChildren();
    byId("played").textContent = "";
    return;
  }
  const index = scenarios.findIndex((it) => it.name === played.name);
  if (index >= 0 && played.state === "running") byId("scenario").selectedIndex = index;
  showStory();
  const ends = { running: "is being played", done: "was played to its end", stopped: "was stopped" };
  byId("played").textContent = `“${played.name}” ${ends[played.state]}.`;
  const words = { waiting: "waiting", done: "✓ done", yours: "yours", failed: "✗ refused" };
  byId("steps").replaceChildren(...played.steps.map((step) => h("li", { "data-state": step.state },
    h("span", { class: "at" }, step.at_ms === null ? "then" : offset(step.at_ms)),
    h("span", { class: "state" }, words[step.state]),
    h("span", {}, `${step.kind}: ${step.what}`, ...(step.result ? [" → ", ...result(step.result)] : [])))));
}

/** A time of a story. */
function offset(ms) {
  if (ms < 60_000) return `${ms / 1000} s`;
  const [minutes, seconds] = [Math.floor(ms / 60_000), (ms % 60_000) / 1000];
  return `${minutes} min${seconds > 0 ? ` ${seconds} s` : ""}`;
}

/** What a step came to; a time in it reads as elsewhere on the page, and in one line. */
function result(text) {
  return text.split(/(\d{4}-\d\d-\d\dT[\d:.]+Z)/).map((part, index) =>
    (index % 2 === 0 ? part : h("span", { class: "mono moment" }, `${part.slice(0, 19).replace("T", " ")} UTC`)));
}

function buildScenarios() {
  byId("scenario").addEventListener("change", () => {
    showStory();
  });
  byId("own").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", act(async () => {
    const [file] = byId("file").files;
    if (!file) return;
    scenarios.push({ name: file.name, story: "A file of your own.", text: await file.text() });
    byId("scenario").append(h("option", {}, file.name));
    byId("scenario").selectedIndex = scenarios.length - 1;
    byId("file").value = "";
    showStory();
    byId("play").focus();
  }));
  byId("play").addEventListener("click", act(async () => {
    const chosen = scenarios[byId("scenario").selectedIndex];
    await order("scenario", showPlayed, "PUT", "scenario", chosen.text);
    say(`${chosen.name} is being played.`);
  }));
  byId("stop").addEventListener("click", act(stopAll));
  byId("reset").addEventListener("click", act(stopAll));
}

async function stopAll() {
  await order("scenario", showPlayed, "DELETE", "scenario");
  await order("network", showNetwork, "GET", "network");
  await order("faults", showFaults, "GET", "faults");
  say("The network is up, and no fault is on.");
}

// === all of it ===

async function readEverything() {
  const paths = ["about", "network", "faults", "clock", "licenses", "requests", "activity", "scenario"];
  const [about, state, ordered, time, licenses, requests, activity, played] =
    await Promise.all(paths.map((path) => ask("GET", path)));
  byId("server-url").textContent = about.server_url;
  for (const place of document.querySelectorAll(".server-url")) place.textContent = about.server_url;
  showKeys({ enabled: about.idempotency });
  showNetwork(state);
  showFaults(ordered);
  showClock(time);
  showLicenses(licenses);
  forgetRequests();
  forgetActivity();
  for (const entry of requests.slice(-ROWS_MAX)) addRequest(entry, false);
  for (const entry of activity.slice(-ROWS_MAX)) addActivity(entry, false);
  countRows();
  showPlayed(played);
}

function listen() {
  const live = (text, kind) => {
    byId("live").textContent = text;
    byId("live").dataset.kind = kind;
  };
  const stream = new EventSource("/stub/v1/stream");
  // What happens while everything is read is shown after it: it may be newer than what was read.
  let waiting = [];
  const on = (name, show) => stream.addEventListener(name, (event) => {
    heard[name] = (heard[name] ?? 0) + 1;
    const turn = () => show(JSON.parse(event.data));
    if (waiting) waiting.push(turn);
    else turn();
  });
  const again = act(async () => {
    waiting = [];
    await readEverything();
    for (const turn of waiting) turn();
    waiting = null;
    live("live", "good");
  });
  stream.addEventListener("ready", again);
  stream.addEventListener("missed", again);
  on("network", showNetwork);
  on("faults", showFaults);
  on("clock", showClock);
  on("idempotency", showKeys);
  on("licenses", showLicenses);
  on("request", addRequest);
  on("requests_cleared", forgetRequests);
  on("activity", addActivity);
  on("scenario", showPlayed);
  stream.addEventListener("error", () => live("reconnecting", "bad"));
}

byId("trouble-close").addEventListener("click", () => { byId("trouble").hidden = true; });
byId("clear").addEventListener("click", act(async () => {
  await ask("DELETE", "requests");
  say("The requests were cleared.");
}));
buildStates();
buildFaults();
buildKeys();
buildClock();
buildScenarios();
act(async () => {
  scenarios = await ask("GET", "scenarios");
  byId("scenario").append(...scenarios.map((it) => h("option", {}, it.name)));
  showStory();
  listen();
})();
