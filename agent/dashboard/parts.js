// What all parts of the page are made of: elements, and words for what the agent tells.

export const byId = (id) => document.getElementById(id);

const ACTIVE = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** Text of others as it may be seen: nothing in it turns the direction of what stands beside it. As `foreign.rs` does. */
export const shown = (text) => (typeof text === "string" ? text.replace(ACTIVE, "\ufffd") : text);

/** What is read by people, of what an element may have. The value of a choice is for programs. */
const READ = ["title", "aria-label"];

/** An element with properties, and children that are elements or text: text never becomes markup, and is `shown`. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : READ.includes(name) ? shown(value) : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null && child !== "").map(shown));
  return element;
}

export const badge = (text, kind = "") => h("span", { class: "badge", "data-kind": kind }, text);

export function setBadge(id, text, kind = "") {
  byId(id).textContent = shown(text);
  byId(id).dataset.kind = kind;
}

export function say(text) {
  byId("say").textContent = shown(text);
}

export function complain(text) {
  byId("trouble-text").textContent = shown(text);
  byId("trouble").hidden = false;
}

/** Puts these elements, in this order, and leaves those that stay where they are: a focus is not lost. */
export function arrange(parent, wanted) {
  const kept = new Set(wanted);
  for (const element of [...parent.children]) if (!kept.has(element)) element.remove();
  let at = parent.firstElementChild;
  for (const element of wanted) {
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
}

/** A licence key opens the licence: of a long one, its end is shown. */
export function masked(holder, value) {
  if (holder !== "license_key") return value;
  const letters = [...value];
  return `…${letters.length >= 12 ? letters.slice(-4).join("") : ""}`;
}

export const number = (value) => Number(value).toLocaleString("en-US").replaceAll(",", "\u202f").replace("-", "−");
export const units = (value) => `${number(value)} ${Math.abs(value) === 1 ? "unit" : "units"}`;

export function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** A time in UTC, to the minute. */
export const minute = (at) => `${at.slice(0, 16).replace("T", " ")} UTC`;

const STATES = {
  open: ["waiting", ""], sealed: ["sealed", ""], sent: ["sent", "warn"], unknown: ["unknown", "warn"], held: ["held", "warn"],
  settled: ["settled", "good"], superseded: ["went on in others", ""], waived: ["given up", "bad"],
};

/** Where a row or a batch is. */
export const state = (it) => {
  const [text, kind] = STATES[it] ?? [it, ""];
  return badge(text, kind);
};
