// What is held, why, and the buttons that decide it.

import { name, status, time } from "./agent.js";
import { decide } from "./decide.js";
import { arrange, byId, h, minute, number, units } from "./parts.js";

const REASONS = {
  limit: "The limit would be passed.",
  undecidable: "Its answer was lost, and the total cannot tell whether the server has counted it.",
  late: "Its period is over, and such units are not sent unasked.",
  gone: "Its answer was lost, and the server no longer tells the total that would show whether it was counted.",
  copy: "The original may have sent it.",
};

const DECISIONS = {
  applied: ["It was counted", "The server has counted these units: they are settled, and never sent again. The vendor's activity log shows whether it has."],
  not_applied: ["It was not counted", "The server has not counted these units: they are sent. If it had, they are counted twice."],
  resend: ["Send it now", "The units are sent, whatever the server did before."],
  waive: ["Give it up", "The units are never sent, and nobody is charged for them."],
};

/** What can be said of it; of what a copy holds, all at once: what became of the original. */
const CHOICES = {
  undecidable: ["applied", "not_applied", "waive"],
  gone: ["applied", "not_applied", "waive"],
  copy: [],
};

const heldItems = new Map();
/** A batch that is held for another reason, or in part, is shown anew. */
const keyOf = ({ batch }) => JSON.stringify([batch.batch, batch.reason, batch.units, batch.since]);

export function showHeld() {
  const held = status.licenses.flatMap((license) => license.held.map((batch) => ({ license, batch })));
  byId("held-empty").hidden = held.length > 0;
  byId("held-count").textContent = held.length === 0 ? "" : units(held.reduce((sum, { batch }) => sum + batch.units, 0));
  const keys = new Set(held.map(keyOf));
  for (const key of heldItems.keys()) if (!keys.has(key)) heldItems.delete(key);
  arrange(byId("held"), held.map((it) => {
    const key = keyOf(it);
    if (!heldItems.has(key)) heldItems.set(key, heldItem(it.license, it.batch));
    const made = heldItems.get(key);
    made.next.textContent = nextStep(it.batch);
    return made.item;
  }));
}

/** What moves it on, as a sentence. */
function nextStep({ next_step: step, next_at: at }) {
  const [, people] = /^none: (.*)$/.exec(step) ?? [];
  const words = people ?? step;
  return `${words[0].toUpperCase()}${words.slice(1)}${at ? `, at ${minute(at)} at the latest` : ""}.`;
}

function heldItem(license, batch) {
  const choices = CHOICES[batch.reason] ?? ["resend", "applied", "waive"];
  const next = h("span", {});
  const buttons = choices.map((choice) => h("button", {
    type: "button", "aria-label": `${DECISIONS[choice][0]}: batch ${batch.batch}`,
    onclick: () => decideBatch(license, batch, choice),
  }, `${DECISIONS[choice][0]}…`));
  const item = h("li", { "data-batch": String(batch.batch) },
    h("h3", {}, `${units(batch.units)} of ${name(license)}`),
    h("p", { class: "soft" }, `batch ${batch.batch} · ${number(batch.rows)} ${batch.rows === 1 ? "consumption" : "consumptions"} on ${batch.hardware_id}`,
      batch.since ? " · since " : "", batch.since ? time(batch.since) : ""),
    h("p", { class: "why" }, REASONS[batch.reason] ?? `The server refuses it: ${batch.reason.replaceAll("_", " ")}.`, " ", next),
    choices.length > 0 ? h("div", { class: "row" }, ...buttons) : "");
  return { item, next };
}

function decideBatch(license, batch, choice) {
  const [title, means] = DECISIONS[choice];
  decide({
    title, means, isReasonNeeded: choice === "waive",
    what: `Batch ${batch.batch}: ${units(batch.units)} of ${name(license)}, product ${license.product}.`,
    path: `/v1/batches/${batch.batch}/resolve`, body: { decision: choice },
    said: `Batch ${batch.batch}: ${title}. The ledger says so.`,
    then: () => byId("held-title").closest("section").querySelector("button")?.focus(),
  });
}
