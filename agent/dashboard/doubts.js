// What does not fit: totals of the server that this ledger does not expect, and a ledger that is a copy. Each until a
// person has said what it is.

import { name, status } from "./agent.js";
import { decide } from "./decide.js";
import { byId, h, minute, number, units } from "./parts.js";

/** So many findings are shown one by one, newest first. */
const FINDINGS_SHOWN = 5;

const LOOK = "Look for the units in the vendor's activity log";
const FINDINGS = {
  counted_more_than_once: [
    (it) => `The server's total of ${it.name} is ${it.found}, and ${it.expected} was expected: ${it.units} more than this device sent. A request may have been counted more than once.`,
    `${LOOK}: a gateway may have sent the request twice, or another device uses the licence.`],
  refused_but_counted: [
    (it) => `The server refused ${it.units} of ${it.name}, and its total moved by exactly that, from ${it.expected} to ${it.found}: they may be counted.`,
    `${LOOK}, then decide about the held batch.`],
  total_fell: [
    (it) => `The server's total of ${it.name} fell from ${it.expected} to ${it.found}: it counts ${it.units} fewer than before.`,
    "Ask the vendor: the total was lowered by hand, or the server was put back from a backup."],
  replay_did_not_count: [
    (it) => `The server says that it counted units of ${it.name} before, and its total is ${it.found} where ${it.expected} was expected: ${it.units} are missing there.`,
    "Ask the vendor: the server remembers the request, and its total does not hold the units."],
};

const ORIGINALS = {
  moved: ["The original is gone", "This device goes on in its place: what the server has not counted of it is sent."],
  new: ["The original lives on", "This is another device: what the original owes is given up here, and never sent."],
};

/** What stands under “Needs a person”. */
export function doubts() {
  return [...copy(), ...findings()];
}

function matter(text, ...buttons) {
  return h("div", {}, h("p", {}, text), h("div", { class: "row" }, ...buttons));
}

function copy() {
  const found = status.copy;
  if (!found) return [];
  const of = found.host && found.path ? `${found.path} on ${found.host}` : "an earlier one";
  const what = found.what === "older_copy"
    ? "This ledger is a copy of an earlier state of itself, put back."
    : `This ledger is a copy of ${of}${found.written_at ? `, written last at ${minute(found.written_at)}` : ""}: started elsewhere, or put back.`;
  const held = found.held === 0 ? "" : ` ${units(found.held)} of it, which the original may have sent, ${found.held === 1 ? "is" : "are"} held.`;
  const choice = (device) => {
    const [title, means] = ORIGINALS[device];
    return h("button", { type: "button", onclick: () => decide({
      title, what, means, path: "/v1/device", body: { device }, said: `${title}. The ledger says so.`, then: leave }) }, `${title}…`);
  };
  return [matter(`${what}${held} What became of the original?`, choice("moved"), choice("new"))];
}

function findings() {
  const newest = [...status.findings].reverse();
  const shown = newest.slice(0, FINDINGS_SHOWN).map((finding) => {
    const [words, next] = FINDINGS[finding.finding];
    const what = words({ name: name(finding), found: number(finding.found), expected: number(finding.expected), units: units(finding.units) });
    return matter(`${what} ${next}`, h("button", {
      type: "button", "aria-label": `It was looked into: finding ${finding.no}`,
      onclick: () => decide({
        title: "It was looked into", what: `Finding ${finding.no}: ${what}`,
        means: "It is shown no more. It stays in the ledger, and nothing is sent or taken back for it.",
        path: `/v1/findings/${finding.no}/seen`, said: `Finding ${finding.no} was looked into. The ledger says so.`, then: leave }),
    }, "It was looked into…"));
  });
  const more = newest.length - shown.length;
  return more > 0 ? [...shown, `The server's totals do not fit in ${number(more)} more findings. \`tally verify\` lists all of them.`] : shown;
}

/** What was decided is shown no more: the focus goes on from the next that is. */
function leave() {
  (byId("attention").querySelector("button") ?? byId("licenses-title")).focus();
}
