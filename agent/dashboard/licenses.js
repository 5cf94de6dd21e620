// The licences: what is used of each, where all units are, how far the limit could be passed, and a chart.

import { act, ask, name, now, status, time } from "./agent.js";
import { arrange, badge, byId, h, minute, number, units } from "./parts.js";
import { remember } from "./ledger.js";

/** More licences than this are shown closed, so that all can be seen. */
const OPEN_MAX = 4;

const cards = new Map();
const keyOf = (license) => JSON.stringify([license.product, license.holder_value, license.id, license.feature]);

/** Only what somebody can see is drawn, or is about to see. */
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.target.dataset.visible = String(entry.isIntersecting);
  if (entries.some((entry) => entry.isIntersecting)) redraw();
}, { rootMargin: "600px" });

function card(license) {
  const made = {
    badges: h("span", { class: "row" }), big: h("span", { class: "big" }), of: h("span", { class: "soft" }),
    used: h("i", { class: "used" }), pending: h("i", { class: "pending" }), held: h("i", { class: "held" }),
    over: h("span", { class: "over", title: "overage" }), legend: h("p", { class: "legend" }),
    holds: h("span", {}), sum: h("p", { class: "sum" }), exposure: h("p", { class: "exposure" }),
    picture: h("div", { class: "picture" }), series: h("p", { class: "legend" }), drawn: null,
    details: h("details"), isChosen: false,
  };
  made.item = h("li", { class: "card" },
    h("div", { class: "head" }, h("h3", {}, name(license)), h("span", { class: "soft of" }, `${license.product} · id ${license.id}`), made.badges),
    h("p", {}, made.big, " ", made.of),
    h("div", { class: "bar" }, h("div", { class: "fill" }, made.used, made.pending, made.held), made.over),
    made.legend,
    made.details);
  made.details.append(
    h("summary", { "aria-label": `Units, exposure and chart of ${name(license)}`, onclick: () => { made.isChosen = true; } }, "Units, exposure and chart"),
    h("div", { class: "units" }, h("p", { class: "units-head" }, h("span", { class: "soft" }, "Where all recorded units are"), made.holds), made.sum),
    made.exposure, made.picture, made.series);
  watcher.observe(made.picture);
  return made;
}

export function showLicenses() {
  byId("licenses-empty").hidden = status.licenses.length > 0;
  byId("spans").hidden = status.licenses.length === 0;
  byId("licenses-count").textContent = status.licenses.length > 1 ? String(status.licenses.length) : "";
  const keys = new Set(status.licenses.map(keyOf));
  for (const [key, made] of cards) {
    if (keys.has(key)) continue;
    watcher.unobserve(made.picture);
    cards.delete(key);
  }
  arrange(byId("licenses"), status.licenses.map((license) => {
    const key = keyOf(license);
    if (!cards.has(key)) cards.set(key, card(license));
    const made = cards.get(key);
    // Open or closed as somebody has chosen, or as there is room.
    if (!made.isChosen) made.details.open = status.licenses.length <= OPEN_MAX;
    showLicense(made, license);
    return made.item;
  }));
}

function showLicense(made, license) {
  const { cap, total, uncounted, unlimited, conservation: sums, max_consumptions: max } = license;
  const held = Math.min(Math.max(sums.held, 0), Math.max(uncounted, 0));
  const pending = uncounted - held;
  const used = total - uncounted;
  made.badges.replaceChildren(...[
    license.refused && badge(license.refused.replaceAll("_", " "), "bad"),
    license.period && badge(`resets ${license.period}`),
    license.shared && badge("shared with other devices"),
  ].filter(Boolean));
  made.big.textContent = number(total);
  made.of.textContent = unlimited ? "used, without a limit"
    : cap === null ? `of ${number(max)} used, with overage without bound`
      : `of ${number(cap)} used, ${number(Math.max(cap - total, 0))} left`;
  const whole = Math.max(cap ?? (unlimited ? 0 : max), total, 1);
  const width = (value) => `${Math.min((100 * Math.max(value, 0)) / whole, 100)}%`;
  made.used.style.width = width(used);
  made.pending.style.width = width(pending);
  made.held.style.width = width(held);
  const hasOverage = !unlimited && (cap === null || cap > max || total > max);
  made.over.hidden = !hasOverage || max >= whole;
  made.over.style.left = width(max);
  const part = (of, text) => h("span", { "data-of": of }, text);
  made.legend.replaceChildren(
    part("used", `${number(used)} counted by the server`), part("pending", `${number(pending)} not counted yet`),
    ...(held > 0 ? [part("held", `${number(held)} held`)] : []),
    ...(hasOverage ? [part("over", cap === null ? `overage from ${number(max)} on` : `overage from ${number(max)} to ${number(Math.max(cap, max))}`)] : []),
    ...(hasOverage && total > max ? [h("strong", { class: "beyond" }, `${number(total - max)} beyond the limit`)] : []),
    ...(license.resets_at ? [h("span", {}, `next reset ${minute(license.resets_at)}`)] : []));
  showSum(made, sums);
  showExposure(made.exposure, license);
}

function showSum(made, sums) {
  const parts = [["settled", sums.settled], ["pending", sums.pending], ["in flight", sums.in_flight], ["unknown", sums.unknown], ["held", sums.held], ["waived", sums.waived]];
  const sum = parts.reduce((before, [, value]) => before + value, 0);
  // Numbers beyond 2^53 are rounded on their way here.
  const holds = Math.abs(sum - sums.recorded) <= Math.abs(sums.recorded) * Number.EPSILON * parts.length;
  const term = (op, word, value) => h("span", { class: value === 0 ? "term none" : "term" },
    op ? h("span", {}, `${op} `) : "", h("span", { class: "part" }, h("b", {}, number(value)), ` ${word} `));
  made.holds.replaceChildren(holds ? badge("every unit accounted for", "good") : badge("the sum does not hold", "bad"));
  made.sum.replaceChildren(term("", "recorded", sums.recorded), ...parts.map(([word, value], index) => term(index > 0 ? "+" : holds ? "=" : "≠", word, value)));
}

function showExposure(place, { cap, exposure, shared, refreshed_at: told }) {
  if (cap === null) {
    place.replaceChildren("Exposure: none, since there is no limit.");
    return;
  }
  if (exposure.now === 0 && exposure.at_worst === 0) {
    place.replaceChildren("Exposure: none, since nothing is left to grant here.");
    return;
  }
  const seen = shared ? "Other devices are known to consume of it." : "No other device was seen to consume of it so far.";
  place.replaceChildren("Exposure: ", h("strong", {}, units(exposure.now)), " granted here could be beyond the limit now, and at most ",
    h("strong", {}, units(exposure.at_worst)), " before this device stops by itself, if other devices have used up the rest since the server told its total at ",
    time(told), `. ${seen}`);
}

// === charts ===

let span = "day";

/** Draws those charts that somebody sees, where they have changed. */
export const drawCharts = () => Promise.all((status?.licenses ?? []).map(drawChart));
const redraw = act(drawCharts);

async function drawChart(license) {
  const made = cards.get(keyOf(license));
  if (made?.picture.dataset.visible !== "true") return;
  const width = made.picture.clientWidth;
  // Once a minute the time moves on by a step, though nothing else may.
  const version = JSON.stringify([span, width, license.conservation.recorded, now().toISOString().slice(0, 16)]);
  if (made.drawn === version) return;
  made.drawn = version;
  const query = new URLSearchParams({ product: license.product, license: license.holder_value, id: license.id, span, width });
  if (license.feature) query.set("feature", license.feature);
  let text;
  try {
    text = await (await ask("GET", `/v1/usage.svg?${query}`)).text();
  } catch (error) {
    made.drawn = null;
    throw error;
  }
  // Something else was asked for meanwhile.
  if (made.drawn !== version) return;
  const drawing = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  const series = [...drawing.querySelectorAll("metadata")];
  made.series.replaceChildren(...series.map((it) => h("span", { "data-of": it.dataset.colour }, `${it.textContent} ${number(it.dataset.units)}`)));
  for (const it of series) if (it.dataset.one) remember(it.textContent);
  made.picture.replaceChildren(document.importNode(drawing, true));
}

for (const button of byId("spans").children) {
  button.addEventListener("click", () => {
    span = button.dataset.span;
    for (const other of byId("spans").children) other.setAttribute("aria-pressed", String(other === button));
    redraw();
  });
}

let resized = null;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(redraw, 200);
});
