// The fault lab's page, as a tester uses it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { LICENSE, checkAccessible, consume, control, picture, world } from "./harness.mjs";

const LICENSES = [
  { ...LICENSE, max_consumptions: 250, allow_overages: true, max_overages: 50,
    devices: [{ hardware_id: "device-1" }, { hardware_id: "van-7" }] },
  { id: 2, product: "inspect", username: "field@example.com", max_consumptions: 100, reset_consumption: true,
    consumption_period: "monthly", total_consumptions: 62, devices: [{ hardware_id: "tablet-3" }] },
];

/** The lab on a stub of its own, when it shows what is live. */
async function lab(t, options = {}, page = {}) {
  const opened = await world(t, { licenses: LICENSES, ...options });
  const view = await opened.open(opened.stub.url, page);
  await view.locator("#live", { hasText: "live" }).waitFor();
  return { ...opened, page: view, at: (path) => `${opened.stub.url}/stub/v1/${path}` };
}

const row = (page, table, seq) => page.locator(`#${table}-rows tr[data-seq="${seq}"]`);

describe("the fault lab", { concurrency: false }, () => {
  test("shows what there is, and says what to do where there is nothing", async (t) => {
    const { page, stub } = await lab(t);
    assert.equal(await page.locator("h1").textContent(), "Fault lab");
    assert.equal(await page.locator("#server-url").textContent(), stub.url);
    assert.equal(await page.locator("#licenses > li").count(), 2);
    assert.match(await page.locator("#requests-empty").textContent(), /Point a client at http/);
    assert.equal(await page.locator("#scenario option").count(), 40);
  });

  test("a fault is switched, strikes, and says how often", async (t) => {
    const { page, stub, at } = await lab(t);
    const fault = page.getByRole("switch", { name: "Error status" });
    await fault.click();
    await page.locator('#faults .switch[aria-checked="true"]').waitFor();
    const [ordered] = await control("GET", at("faults"));
    assert.deepEqual(ordered.action, { status: 503, retry_after: 5 });
    assert.equal((await consume(stub.url)).status, 503);
    await page.getByText("struck 1×").waitFor();
    await page.locator("#status-times").fill("3");
    await page.locator("#status-times").press("Enter");
    await page.waitForFunction(async () => (await (await fetch("/stub/v1/faults")).json())[0]?.times === 3);
    await fault.press("Space");
    await page.locator('#faults .switch[aria-checked="true"]').waitFor({ state: "detached" });
    assert.deepEqual(await control("GET", at("faults")), []);
  });

  test("faults that are switched at once are all on", async (t) => {
    const { page, at } = await lab(t);
    for (const name of ["Lost request", "Forged signature", "Wrong date"]) await page.getByRole("switch", { name }).click();
    await page.locator("#faults-badge", { hasText: "3" }).waitFor();
    assert.equal((await control("GET", at("faults"))).length, 3);
  });

  test("faults that change what is counted are offered, with devices and applications of their own", async (t) => {
    const { page, stub, at } = await lab(t);
    const turn = (name) => page.getByRole("switch", { name, exact: true }).click();
    await turn("Sent twice");
    await page.locator("#duplicate-device").fill("device-1");
    await page.locator("#duplicate-device").press("Enter");
    await page.waitForFunction(async () => (await (await fetch("/stub/v1/faults")).json())[0]?.hardware_id === "device-1");
    await consume(stub.url, { consumptions: 3 });
    await row(page, "activity", 2).getByText("6", { exact: true }).waitFor();
    await turn("Sent twice");
    await turn("Refused after all");
    await page.locator("#refuse-after-refuse_after").fill("license_expired");
    await page.locator("#refuse-after-refuse_after").press("Enter");
    await page.waitForFunction(async () => (await (await fetch("/stub/v1/faults")).json())[0]?.action.refuse_after === "license_expired");
    assert.match((await consume(stub.url)).text, /license_expired/);
    await row(page, "request", 3).getByText("answer replaced").waitFor();
    await turn("Refused after all");
    await turn("Late arrival");
    await page.locator("#late-late_ms").fill("50");
    await page.locator("#late-late_ms").press("Enter");
    await page.waitForFunction(async () => (await (await fetch("/stub/v1/faults")).json())[0]?.action.late_ms === 50);
    await assert.rejects(consume(stub.url));
    await row(page, "request", 4).getByText("counted").waitFor();
    await turn("Late arrival");
    await turn("Server put back from a backup");
    await page.waitForFunction(async () => (await (await fetch("/stub/v1/faults")).json())[0]?.action.roll_back === 1);
    await consume(stub.url, { consumptions: 40 });
    await page.locator("#activity-rows").getByText("40", { exact: true }).waitFor();
    assert.equal((await control("GET", at("activity"))).length, 4, "one was undone, one came");
  });

  test("what strikes first stands first in the list", async (t) => {
    const { page, at } = await lab(t);
    for (const name of ["Wrong date", "Lost acknowledgement", "Forgotten keys"]) await page.getByRole("switch", { name, exact: true }).click();
    await page.locator("#faults-badge", { hasText: "3" }).waitFor();
    const actions = (await control("GET", at("faults"))).map((fault) => Object.keys(fault.action)[0]);
    assert.deepEqual(actions, ["forget_keys", "drop", "skew_date"]);
  });

  test("idempotency keys are switched off and on", async (t) => {
    const { page, at } = await lab(t);
    await page.getByRole("switch", { name: "Keep idempotency keys" }).click();
    await page.locator("#keys-badge", { hasText: "not kept" }).waitFor();
    assert.deepEqual(await control("GET", at("idempotency")), { enabled: false });
    await control("PUT", at("idempotency"), { enabled: true });
    await page.locator("#keys-badge", { hasText: /^kept$/ }).waitFor();
  });

  test("requests that come side by side are all shown, newest first", async (t) => {
    const { page, stub } = await lab(t);
    await Promise.all(Array.from({ length: 30 }, () => consume(stub.url)));
    const shown = (table) => page.locator(`#${table}-rows tr[data-seq]`).evaluateAll((rows) => rows.map((it) => Number(it.dataset.seq)));
    const right = Array.from({ length: 30 }, (_, index) => 30 - index);
    await page.waitForFunction(() => document.querySelectorAll("#activity-rows tr[data-seq]").length === 30);
    assert.deepEqual([await shown("request"), await shown("activity")], [right, right]);
    await page.locator(".bar-line strong", { hasText: /^30$/ }).waitFor();
  });

  test("a request and what it counted arrive while somebody looks", async (t) => {
    const { page, stub } = await lab(t);
    await consume(stub.url, { consumptions: 30 });
    await row(page, "request", 1).getByText("counted").waitFor({ timeout: 2000 });
    await row(page, "activity", 1).getByText("30").first().waitFor({ timeout: 2000 });
    await page.locator(".bar-line strong", { hasText: "30" }).waitFor();
    await row(page, "request", 1).getByRole("button").press("Enter");
    await page.getByText('"license_key": "AAAA-BBBB-CCCC-DDDD"').waitFor();
    await page.getByRole("button", { name: "Clear" }).click();
    await page.locator("#requests-empty").waitFor();
  });

  test("the network goes and comes back", async (t) => {
    const { page, stub, at } = await lab(t);
    await page.getByRole("button", { name: "Gone" }).click();
    await page.locator("#network-badge", { hasText: "gone" }).waitFor();
    await assert.rejects(consume(stub.url));
    await row(page, "request", 1).getByText("network gone").waitFor();
    await page.getByRole("button", { name: "Slow" }).click();
    await page.locator("#slow-delay_ms").fill("25");
    await page.locator("#slow-delay_ms").press("Enter");
    await page.waitForFunction(async () => (await (await fetch("/stub/v1/network")).json()).delay_ms === 25);
    await page.getByRole("button", { name: "End all trouble" }).click();
    await page.locator("#network-badge", { hasText: "up" }).waitFor();
    assert.equal((await control("GET", at("network"))).state, "up");
    assert.equal((await consume(stub.url)).status, 200);
  });

  test("the clock goes over the turn of a period, and totals return to zero", async (t) => {
    const { page, at } = await lab(t);
    await control("PUT", at("clock"), { now: "2031-05-05T12:00:00Z" });
    await page.getByText("2031-05-05").waitFor();
    await page.locator("[data-period=monthly]").click();
    await page.getByText("2031-06-01").waitFor();
    await page.locator('#licenses li[data-id="2"] strong', { hasText: /^0$/ }).waitFor();
    await page.getByRole("button", { name: "Back to device's time" }).click();
    await page.getByText("this device's time", { exact: true }).waitFor();
  });

  test("a licence is edited", async (t) => {
    const { page, stub, at } = await lab(t);
    await page.getByLabel("Edit licence AAAA-BBBB-CCCC-DDDD").click();
    await page.locator("#license-1-max_consumptions").fill("7");
    await page.locator("#license-1-allow_overages").uncheck();
    await page.locator("#license-1-device-1").selectOption("blacklisted");
    // Somebody consumes meanwhile; the form stays, and its numbers are kept.
    await consume(stub.url, { consumptions: 2 });
    await row(page, "activity", 1).waitFor();
    assert.equal(await page.locator("#license-1-max_consumptions").inputValue(), "7");
    await page.locator("#license-1-total_consumptions").fill("2");
    await page.locator('#licenses li[data-id="1"]').getByRole("button", { name: "Save" }).click();
    await page.getByText("5 left").waitFor();
    const license = await control("GET", at("licenses/1"));
    assert.deepEqual([license.max_consumptions, license.total_consumptions, license.devices[1].state], [7, 2, "blacklisted"]);
    assert.match((await consume(stub.url, { consumptions: 6 })).text, /license_not_enough_consumptions/);
  });

  test("what the stub refuses is said, and goes away", async (t) => {
    const { page } = await lab(t);
    await page.getByRole("button", { name: "Slow" }).click();
    page.wrong.length = 0;
    await page.locator("#slow-delay_ms").fill("900000");
    await page.locator("#slow-delay_ms").press("Enter");
    await page.getByRole("alert").getByText("`delay_ms` must be between").waitFor();
    assert.equal(page.wrong.length, 2, "the refused request, and the page's own line about it");
    page.wrong.length = 0;
    await page.getByRole("button", { name: "Up", exact: false }).first().click();
    await page.locator("#trouble").waitFor({ state: "hidden" });
  });

  test("a scenario is played, step by step, and stopped", async (t) => {
    const { page, stub, at } = await lab(t);
    await page.locator("#scenario").selectOption("Lost acknowledgements");
    assert.match(await page.locator("#story").textContent(), /Three answers in a row are lost/);
    await page.getByRole("button", { name: "Play" }).click();
    await page.locator('#steps li[data-state="done"]', { hasText: "drop after" }).waitFor();
    await page.locator('#steps li[data-state="yours"]').first().waitFor();
    await assert.rejects(consume(stub.url, { consumptions: 3 }));
    await row(page, "request", 1).getByText("fault drop after").waitFor();
    await row(page, "request", 1).getByText("counted").waitFor();
    await row(page, "request", 1).getByText("answer lost").waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await page.locator("#faults-badge", { hasText: "0" }).waitFor();
    assert.equal((await control("GET", at("scenario"))).state, "stopped");
  });

  test("a scenario of one's own is opened and played, and a mistake in it is said with its line", async (t) => {
    const { page } = await lab(t);
    await openScenario(page, "own.toml", SHIFT);
    await page.getByRole("button", { name: "Play" }).click();
    await page.getByText("“Evening shift” is being played").waitFor();
    await page.locator("#network-badge", { hasText: "slow" }).waitFor();
    await openScenario(page, "wrong.toml", "name = 3");
    await page.getByRole("button", { name: "Play" }).click();
    await page.getByRole("alert").getByText("line 1").waitFor();
    page.wrong.length = 0;
  });

  test("everything can be done by the keyboard", async (t) => {
    const { page } = await lab(t);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the requests");
    await page.getByRole("button", { name: "Captive portal" }).focus();
    await page.keyboard.press("Enter");
    await page.locator("#network-badge", { hasText: "captive portal" }).waitFor();
    const reached = await page.evaluate(() => [...document.querySelectorAll("main button, main select, main input, main summary")]
      .filter((it) => it.checkVisibility() && it.tabIndex < 0).length);
    assert.equal(reached, 0, "controls that Tab does not reach");
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`labels and contrast hold in ${colorScheme}, quiet and busy`, async (t) => {
      const { page, stub, at } = await lab(t, {}, { colorScheme, viewport: { width: 1320, height: 940 } });
      await checkAccessible(page);
      await busy({ page, stub, at });
      await checkAccessible(page);
      await page.evaluate(() => window.scrollTo(0, 0));
      await picture(page, `lab-${colorScheme}`);
      await page.locator("#faults-title").evaluate((title) => title.closest("section").scrollIntoView());
      await picture(page, `lab-faults-${colorScheme}`);
      await page.getByLabel("Edit licence AAAA-BBBB-CCCC-DDDD").click();
      await checkAccessible(page);
    });
  }

  test("nothing is cut off on a small screen", async (t) => {
    const { page, stub, at } = await lab(t, {}, { viewport: { width: 390, height: 844 } });
    await busy({ page, stub, at });
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wider, 0, "the page scrolls sideways");
    await checkAccessible(page);
    await picture(page, "lab-small");
  });
});

/** Opens a file as a tester does; it is chosen when it was read. */
async function openScenario(page, name, text) {
  await page.locator("#file").setInputFiles({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
  await page.waitForFunction((chosen) => document.querySelector("#scenario").selectedOptions[0]?.textContent === chosen, name);
}

/** A scenario that goes on for longer than a test. */
const SHIFT = `
name = "Evening shift"
story = "The cell is full when the shift ends, and the server is late."
[[world.licenses]]
id = 1
product = "inspect"
license_key = "AAAA-BBBB-CCCC-DDDD"
devices = [{ hardware_id = "device-1" }]
[[steps]]
at = "0s"
network = { state = "slow", delay_ms = 40, jitter_ms = 20 }
[[steps]]
clock = { next_period = "daily", advance_ms = -7200000 }
[[steps]]
consume = { times = 40, units = 3, every = "250ms" }
[[steps]]
at = "10m"
network = { state = "up" }
`;

/** A lab in which much is going on. */
async function busy({ page, stub, at }) {
  await consume(stub.url, { consumptions: 120 });
  await consume(stub.url, { consumptions: 60, hardware_id: "van-7" });
  await consume(stub.url, { consumptions: 90, event: ["offline_floating_consumptions_sync"] });
  await consume(stub.url, { consumptions: 200 });
  await consume(stub.url, { consumptions: 5, license_key: undefined, username: "field@example.com", hardware_id: "tablet-3" });
  await openScenario(page, "evening_shift.toml", SHIFT);
  await page.getByRole("button", { name: "Play" }).click();
  await page.locator('#steps li[data-state="yours"]').waitFor();
  await control("PUT", at("faults"), [
    { action: { drop: "after" }, path: "/api/v4/add_consumption", times: 1 },
    { action: { status: 503, retry_after: 5 }, times: 1, probability: 1 },
  ]);
  await assert.rejects(consume(stub.url, { consumptions: 4 }));
  await consume(stub.url, { consumptions: 8 });
  await consume(stub.url, { consumptions: 8, hardware_id: "stranger" });
  await control("PUT", at("faults"), [
    { action: { drop: "after" }, path: "/api/v4/add_consumption", probability: 0.3 },
    { action: { delay_ms: 1500 } },
  ]);
  await control("PATCH", at("licenses/2"), { license_enabled: false });
  await row(page, "request", 8).waitFor();
  await page.getByText("disabled", { exact: true }).waitFor();
}
