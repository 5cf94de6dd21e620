// The agent's dashboard, as whoever looks after a device uses it.

import assert from "node:assert/strict";
import { cpSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { LICENSE, checkAccessible, consume, control, picture, world } from "./harness.mjs";

const KEY = LICENSE.license_key;
const USER = "field@example.com";
const LICENSES = [
  { ...LICENSE, max_consumptions: 500, allow_overages: true, max_overages: 100, devices: [{ hardware_id: "device-1" }, { hardware_id: "van-7" }] },
  { id: 2, product: "inspect", username: USER, max_consumptions: 1000, reset_consumption: true, consumption_period: "daily",
    total_consumptions: 62, devices: [{ hardware_id: "device-1" }] },
];

/** A stub, an agent with what it needs, and its page, let in by a link. */
async function dashboard(t, { known = true, ...options } = {}, page = {}) {
  const opened = await world(t, { licenses: LICENSES, agent: true, ...options });
  const { agent, stub } = opened;
  if (known) {
    agent.tally("license", "add", "--product", "inspect", "--license-key", KEY, "--hardware-id", "device-1");
    agent.tally("license", "add", "--product", "inspect", "--username", USER, "--hardware-id", "device-1");
  }
  const keys = {};
  for (const app of ["inspector", "kiosk"]) keys[app] = agent.tally("app", "add", app, "--unsigned-answers");
  const view = await opened.open(agent.tally("dashboard", "--print").url, page);
  await view.locator("#live", { hasText: "live" }).waitFor();
  return {
    ...opened, page: view, stubAt: (path) => `${stub.url}/stub/v1/${path}`,
    /** Consumes as an application of this device. */
    use: (fields = {}, app = "inspector") => consume(agent.url, fields, keys[app]),
  };
}

const ofUser = { license_key: undefined, username: USER };
const card = (page, index = 0) => page.locator("#licenses > li").nth(index);
const row = (page, key) => page.locator(`#ledger-rows tr[data-key="${key}"]`);
/** Closes a page that complains rightly: its agent is away. */
async function forget(page) {
  await page.close();
  page.wrong.length = 0;
}

const settled = (page) => page.locator("#owed", { hasText: "nothing" }).waitFor();

/** Loses the answer to a batch, and hides the total until another device has consumed: nobody but a person can know. */
async function undecidable({ page, agent, stub, stubAt, use }) {
  agent.tally("network", "offline");
  await use({ consumptions: 7 });
  await control("PUT", stubAt("faults"), [
    { action: { drop: "after" }, path: "/api/v4/add_consumption", times: 1 },
    { action: { drop: "before" }, path: "/api/v4/check_license" },
  ]);
  agent.tally("network", "online");
  await page.waitForFunction(async () => (await (await fetch("/v1/batches")).json()).some((batch) => batch.state === "unknown"));
  assert.equal((await consume(stub.url, { consumptions: 3, hardware_id: "van-7" })).status, 200);
  await control("PUT", stubAt("faults"), []);
  await page.locator("#held > li").waitFor();
}

describe("the dashboard", { concurrency: false }, () => {
  test("is shown to who was let in, and says to others how to get in", async (t) => {
    const { agent, open, page } = await dashboard(t);
    assert.equal(await page.title(), "Tally on this device");
    const policy = (await page.reload()).headers()["content-security-policy"];
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'/);
    assert.doesNotMatch(policy, /unsafe|\*|https?:|data:/);
    const other = await open(`${agent.url}/`);
    assert.match(await other.locator("body").textContent(), /`tally dashboard` opens its page here/);
    assert.equal((await fetch(`${agent.url}/v1/stream`)).status, 401);
    assert.equal((await fetch(`${agent.url}/v1/usage?product=inspect&license=${KEY}`)).status, 401);
  });

  test("where nothing is known yet, it says what to do", async (t) => {
    const { page } = await dashboard(t, { known: false });
    assert.match(await page.locator("#licenses-empty").textContent(), /tally license add/);
    await page.locator("#held-empty").waitFor();
    await page.locator("#rows-empty").waitFor();
  });

  test("a consumption shows within two seconds, and again when the server has counted it", async (t) => {
    const { page, use } = await dashboard(t);
    await use({ consumptions: 30 });
    await card(page).locator(".big", { hasText: /^30$/ }).waitFor({ timeout: 2000 });
    await row(page, 1).getByText("inspector").waitFor({ timeout: 2000 });
    await row(page, 1).getByText("settled").waitFor();
    await card(page).getByText("30 counted by the server").waitFor();
    await card(page).getByText("every unit accounted for").waitFor();
    await page.locator("#batch-rows tr", { hasText: "settled" }).waitFor();
    await card(page).locator("svg title", { hasText: "inspector 30" }).first().waitFor({ state: "attached" });
  });

  test("rows are chosen by application, licence and outcome, and say what they were judged by", async (t) => {
    const { page, use } = await dashboard(t);
    await use({ consumptions: 5 });
    await use({ consumptions: 6 }, "kiosk");
    await use({ ...ofUser, consumptions: 7 }, "kiosk");
    assert.equal((await use({ consumptions: 900 })).status, 400);
    await row(page, "r1").getByText("refused").waitFor();
    await settled(page);
    const shown = () => page.locator("#ledger-rows tr[data-key]").evaluateAll((rows) => rows.map((it) => it.dataset.key));
    const choose = async (expected) => {
      await page.waitForFunction((keys) => [...document.querySelectorAll("#ledger-rows tr[data-key]")].map((it) => it.dataset.key).join() === keys, expected.join());
    };
    assert.deepEqual(await shown(), ["r1", "3", "2", "1"]);
    await page.getByLabel("Application").fill("kiosk");
    await choose(["3", "2"]);
    await page.getByLabel("Licence", { exact: true }).selectOption({ label: `inspect ${USER}` });
    await choose(["3"]);
    await page.getByLabel("Application").fill("");
    await page.getByLabel("Licence", { exact: true }).selectOption({ label: "all" });
    await page.getByLabel("Outcome").selectOption("refused");
    await choose(["r1"]);
    await page.getByRole("button", { name: "Row r1: why" }).press("Enter");
    await page.getByText("Judged by a total of 11").waitFor();
    await page.getByLabel("Outcome").selectOption("settled");
    await choose(["3", "2", "1"]);
    await page.getByRole("button", { name: "Row 2: why" }).click();
    await page.getByText("Judged by a total of 5").waitFor();
  });

  test("what nobody but a person can know is decided here, and stands in the ledger", async (t) => {
    const opened = await dashboard(t, { stubArgs: ["--no-idempotency"], settleWait: "2s" });
    const { page, agent } = opened;
    await undecidable(opened);
    await page.locator("#attention", { hasText: "One batch waits for a decision" }).waitFor();
    await page.getByRole("button", { name: /^It was counted/ }).click();
    await page.getByRole("dialog").getByText("settled, and never sent again").waitFor();
    await page.locator("#decide-reason").fill("the vendor's log shows it");
    await page.getByRole("button", { name: "Decide so" }).click();
    await page.locator("#held > li").waitFor({ state: "detached" });
    await page.locator("#ledger-rows").getByText("decision").waitFor();
    const [license] = agent.tally("status").licenses;
    assert.deepEqual([license.conservation.settled, license.conservation.held], [7, 0]);
    const decided = agent.tally("log").find((it) => it.kind === "decision");
    assert.deepEqual([decided.note.decision, decided.note.by, decided.note.reason], ["applied", "person", "the vendor's log shows it"]);
  });

  test("a decision that did not reach the agent is not taken for one that did", async (t) => {
    const opened = await dashboard(t, { stubArgs: ["--no-idempotency"], settleWait: "2s" });
    const { page, agent } = opened;
    await undecidable(opened);
    await agent.stop("SIGKILL");
    await page.getByRole("button", { name: /^It was counted/ }).click();
    await page.getByRole("button", { name: "Decide so" }).click();
    await page.locator("#trouble", { hasText: "The agent does not answer" }).waitFor();
    await page.locator("#held > li").waitFor();
    await agent.restart();
    assert.equal(agent.tally("status").licenses[0].conservation.held, 7);
    await forget(page);
  });

  test("giving units up needs a reason, and can be thought better of", async (t) => {
    const opened = await dashboard(t, { stubArgs: ["--no-idempotency"], settleWait: "2s" });
    const { page, agent } = opened;
    await undecidable(opened);
    const give = page.getByRole("button", { name: /^Give it up/ });
    await give.click();
    await page.getByRole("button", { name: "Decide so" }).click();
    assert.ok(await page.locator("#decide").evaluate((dialog) => dialog.open), "a decision without its reason was taken");
    await page.keyboard.press("Escape");
    assert.equal(agent.tally("status").licenses[0].conservation.held, 7);
    await give.click();
    await page.locator("#decide-reason").fill("demo device");
    await page.getByRole("button", { name: "Decide so" }).click();
    await page.locator("#held > li").waitFor({ state: "detached" });
    assert.equal(agent.tally("status").licenses[0].conservation.waived, 7);
  });

  test("a total that does not fit is told with its amount, until somebody has looked into it", async (t) => {
    const { page, agent, stubAt, use } = await dashboard(t, { stubArgs: ["--no-idempotency"] });
    await use({ consumptions: 3 });
    await row(page, 1).getByText("settled").waitFor();
    await control("PUT", stubAt("faults"), [{ path: "/api/v4/add_consumption", action: { duplicate: true }, times: 1 }]);
    await use({ consumptions: 10 });
    const told = page.locator("#attention li", { hasText: "is 23, and 13 was expected: 10 units more than this device sent" });
    await told.waitFor();
    await page.locator("#ledger-rows tr", { hasText: "finding" }).getByText("counted more than once").waitFor();
    assert.ok(!(await told.textContent()).includes(KEY), "a key is shown");
    await checkAccessible(page);
    await page.getByRole("button", { name: /^It was looked into: finding/ }).click();
    await page.getByRole("dialog").getByText("It is shown no more").waitFor();
    await checkAccessible(page);
    await page.locator("#decide-reason").fill("the vendor took it off");
    await page.getByRole("button", { name: "Decide so" }).click();
    await page.locator("#attention").waitFor({ state: "hidden" });
    await page.locator("#say", { hasText: "was looked into" }).waitFor({ state: "attached" });
    assert.deepEqual(agent.tally("status").findings, []);
    const decided = agent.tally("log").find((it) => it.kind === "decision");
    assert.deepEqual([decided.note.decision, decided.note.by, decided.note.reason], ["seen", "person", "the vendor took it off"]);
  });

  for (const [device, button, sums] of [
    ["moved", "The original is gone…", { settled: 12, waived: 0, held: 0 }], ["new", "The original lives on…", { settled: 5, waived: 7, held: 0 }],
  ]) {
    test(`a ledger that is a copy says so, and holds what the original may have sent, until a person says that it is ${device}`, async (t) => {
      const opened = await dashboard(t, { stubArgs: ["--no-idempotency"] });
      const { agent, open, stubAt, use } = opened;
      await use({ consumptions: 5 });
      await settled(opened.page);
      agent.tally("network", "offline");
      await use({ consumptions: 7 });
      await agent.stop();
      await forget(opened.page);
      // Put back from a backup: the same content in other files.
      const aside = `${agent.dataDir}.aside`;
      renameSync(agent.dataDir, aside);
      cpSync(aside, agent.dataDir, { recursive: true, preserveTimestamps: true });
      await agent.restart();
      const page = await open(agent.tally("dashboard", "--print").url);
      await page.locator("#attention li", { hasText: /^This ledger is a copy of .*7 units of it, which the original may have sent, are held/ }).waitFor();
      await page.locator("#ledger", { hasText: "is a copy" }).waitFor();
      const held = page.locator("#held > li");
      await held.getByText("The original may have sent it. This ledger is a copy").waitFor();
      assert.equal(await held.getByRole("button").count(), 0, "one batch of a copy is decided alone");
      await checkAccessible(page);
      await page.getByRole("button", { name: button }).click();
      await page.getByRole("button", { name: "Decide so" }).click();
      await page.locator("#attention").waitFor({ state: "hidden" });
      await page.locator("#ledger", { hasText: "sound" }).waitFor();
      await settled(page);
      const { settled: counted, waived, held: left } = agent.tally("status").licenses[0].conservation;
      assert.deepEqual({ settled: counted, waived, held: left }, sums);
      assert.equal((await control("GET", stubAt("licenses/1"))).total_consumptions, sums.settled);
    });
  }

  test("a drill takes the network away; recording goes on, and everything is owed until it is back", async (t) => {
    const { page, use } = await dashboard(t);
    await page.getByRole("button", { name: "Drill: go offline" }).click();
    await page.locator("#server", { hasText: "off for a drill" }).waitFor();
    await use({ consumptions: 12 });
    await card(page).getByText("12 not counted yet").waitFor();
    await page.locator("#owed", { hasText: "12 units" }).waitFor();
    await card(page).getByText("12 units granted here could be beyond the limit now").waitFor();
    await page.getByRole("button", { name: "Drill: go online" }).click();
    await settled(page);
    await page.getByRole("button", { name: "Sync now" }).click();
    await page.locator("#say", { hasText: "Nothing is left to send" }).waitFor({ state: "attached" });
  });

  test("a server that is gone shows, and that it is back", async (t) => {
    const { page, stubAt, use } = await dashboard(t);
    await control("PUT", stubAt("network"), { state: "gone" });
    await use({ consumptions: 2 });
    await page.locator("#server", { hasText: "not reached" }).waitFor();
    await control("PUT", stubAt("network"), { state: "up" });
    await page.getByRole("button", { name: "Sync now" }).click();
    await page.locator("#server", { hasText: /^reached/ }).waitFor();
    await settled(page);
  });

  test("the chart shows who consumed, over the span that is asked for, and when the period turns", async (t) => {
    const { page, use } = await dashboard(t);
    await use({ ...ofUser, consumptions: 9 });
    await use({ ...ofUser, consumptions: 4 }, "kiosk");
    const title = (text) => card(page, 1).locator("svg title", { hasText: text }).first().waitFor({ state: "attached" });
    await title("inspector 9, kiosk 4");
    await title("the total returns to zero");
    const legend = card(page, 1).locator(".legend").nth(1);
    assert.equal(await legend.textContent(), "inspector 9kiosk 4");
    for (const span of ["Hour", "Week", "Month"]) {
      const before = await card(page, 1).locator("svg > title").textContent();
      await page.getByRole("button", { name: span, exact: true }).click();
      await page.waitForFunction((old) => document.querySelectorAll(".picture svg > title")[1]?.textContent !== old, before);
      await title("inspector 9, kiosk 4");
    }
  });

  test("licence keys are masked wherever they would stand", async (t) => {
    const { page, use } = await dashboard(t);
    await use({ consumptions: 3 });
    await use({ consumptions: 900 });
    await row(page, "r1").waitFor();
    await page.getByRole("button", { name: "Row 1: why" }).click();
    await page.getByText("Judged by a total of").waitFor();
    assert.ok(!(await page.locator("body").innerHTML()).replaceAll(/value="[^"]*"/g, "").includes(KEY), "a key stands in the page");
    assert.ok(!(await page.locator("body").innerText()).includes(KEY), "a key is shown");
  });

  test("an agent that was killed is missed; the page takes up again when its browser is let in anew", async (t) => {
    const { page, agent, use } = await dashboard(t);
    await use({ consumptions: 5 });
    await row(page, 1).waitFor();
    await agent.stop("SIGKILL");
    await page.locator("#live", { hasText: "reconnecting" }).waitFor();
    await page.locator("#old", { hasText: /^The agent does not answer.* What stands here is from \d/ }).waitFor();
    assert.ok(await page.getByRole("button", { name: "Sync now" }).isDisabled(), "what cannot be done is offered");
    await checkAccessible(page);
    await agent.restart();
    // A session ends with the agent's process.
    await page.locator("#old", { hasText: "Run `tally dashboard`; this page then goes on by itself" }).waitFor();
    await use({ consumptions: 6 });
    const other = await page.context().newPage();
    await other.goto(agent.tally("dashboard", "--print").url);
    await other.close();
    await page.locator("#live", { hasText: "live" }).waitFor();
    await row(page, 2).waitFor();
    await page.locator("#old").waitFor({ state: "hidden" });
    page.wrong.length = 0;
  });

  test("a page too many waits for its place", async (t) => {
    const { page, agent } = await dashboard(t);
    const Authorization = `Bearer ${readFileSync(join(agent.dataDir, "admin_token"), "utf8").trim()}`;
    const others = new AbortController();
    await Promise.all(Array.from({ length: 15 }, () => fetch(`${agent.url}/v1/stream`, { headers: { Authorization }, signal: others.signal })));
    const late = await page.context().newPage();
    await late.goto(agent.url);
    await late.locator("#old", { hasText: "goes on by itself when another is closed" }).waitFor();
    others.abort();
    await late.locator("#live", { hasText: "live" }).waitFor();
    await late.locator("#old").waitFor({ state: "hidden" });
  });

  test("the agent's end does not wait for the page", async (t) => {
    const { page, agent } = await dashboard(t);
    await agent.stop();
    assert.ok(!/unanswered/.test(agent.said()), agent.said());
    await page.locator("#live", { hasText: "reconnecting" }).waitFor();
    await forget(page);
  });

  test("a session that is over says so, and lists are shown again with a new one", async (t) => {
    const { page, agent } = await dashboard(t);
    await page.context().clearCookies();
    await page.getByRole("button", { name: "Sync now" }).click();
    await page.locator("#trouble", { hasText: "Run `tally dashboard` again" }).waitFor();
    await page.goto(agent.tally("dashboard", "--print").url);
    await page.locator("#live", { hasText: "live" }).waitFor();
    page.wrong.length = 0;
  });

  test("names that are markup stay names", async (t) => {
    const username = `<img src=x onerror="document.title='taken'">'"&</script>`;
    const hostile = { id: 9, product: "<b>inspect</b>", username, max_consumptions: 50, devices: [{ hardware_id: "<i>device</i>" }] };
    const { page, agent, use } = await dashboard(t, { known: false, licenses: [hostile] });
    agent.tally("license", "add", "--product", hostile.product, "--username", username, "--hardware-id", "<i>device</i>");
    const fields = { license_key: undefined, product: hostile.product, username, hardware_id: "<i>device</i>" };
    assert.equal((await use({ ...fields, consumptions: 3 })).status, 200);
    assert.equal((await use({ ...fields, consumptions: 99 })).status, 400);
    await page.getByRole("button", { name: "Row 1: why" }).click();
    await page.getByRole("button", { name: "Row r1: why" }).click();
    await page.getByText(`for ${username} of <b>inspect</b>, on <i>device</i>`).nth(1).waitFor();
    assert.equal(await card(page).locator("h3").textContent(), username);
    assert.equal(await page.locator("main img, main b > b, main i > i").count(), 0);
    assert.equal(await page.title(), "Tally on this device");
  });

  test("names that turn the direction of text, or that no screen shows, are only shown", async (t) => {
    const active = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/u;
    const of = (name) => `${name}\u202e\u2066\u2028\u200f\u001b[2J\u{e0041}`;
    const shown = (name) => `${name}\ufffd\ufffd\ufffd\ufffd\ufffd[2J\ufffd`;
    const hostile = { id: 9, product: of("inspect"), username: of("user"), max_consumptions: 50, devices: [{ hardware_id: of("device") }] };
    const { page, agent, use } = await dashboard(t, { known: false, licenses: [hostile] });
    const fields = { license_key: undefined, product: of("inspect"), username: of("user"), hardware_id: of("device") };
    agent.tally("license", "add", "--product", fields.product, "--username", fields.username, "--hardware-id", fields.hardware_id);
    assert.equal((await use({ ...fields, consumptions: 3 })).status, 200);
    assert.equal((await use({ ...fields, consumptions: 99 })).status, 400);
    await page.getByRole("button", { name: "Row 1: why" }).click();
    await page.getByRole("button", { name: "Row r1: why" }).click();
    await page.getByText(`for ${shown("user")} of ${shown("inspect")}, on ${shown("device")}`).nth(1).waitFor();
    assert.equal(await card(page).locator("h3").textContent(), shown("user"));
    await card(page).locator("svg").first().waitFor({ state: "attached" });
    const read = await page.evaluate(() => [...document.querySelectorAll("body, body *")].flatMap((it) => [
      ...[...it.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data),
      it.title ?? "", it.ariaLabel ?? "",
    ]));
    assert.deepEqual(read.filter((text) => active.test(text)), []);
  });

  test("a thousand consumptions leave the page quick, and none is missing", async (t) => {
    const { page, agent } = await dashboard(t, { licenses: [{ ...LICENSES[0], max_consumptions: 5000 }, LICENSES[1]] });
    const keys = agent.tally("app", "add", "flood", "--unsigned-answers");
    await page.evaluate(() => {
      window.longest = 0;
      let before = performance.now();
      const frame = (now) => {
        window.longest = Math.max(window.longest, now - before);
        before = now;
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    });
    const one = async () => { for (let n = 0; n < 125; n += 1) assert.equal((await consume(agent.url, { consumptions: 1 }, keys)).status, 200); };
    await Promise.all(Array.from({ length: 8 }, one));
    await card(page).locator(".big", { hasText: /^1.000$/ }).waitFor({ timeout: 2000 });
    await row(page, 1000).waitFor();
    await settled(page);
    await card(page).locator("svg title", { hasText: "flood 1000" }).first().waitFor({ state: "attached" });
    assert.equal(await page.locator("#ledger-rows tr[data-key]").count(), 100);
    const longest = await page.evaluate(() => window.longest);
    assert.ok(longest < 1000, `the page stood still for ${longest} ms`);
  });

  test("twenty licences fit: each opens when it is wanted", async (t) => {
    const many = Array.from({ length: 20 }, (_, index) => (
      { id: index + 1, product: "inspect", username: `van-${index + 1}@example.com`, max_consumptions: 10, devices: [{ hardware_id: "device-1" }] }));
    const { page, agent } = await dashboard(t, { known: false, licenses: many });
    for (const { username } of many) agent.tally("license", "add", "--product", "inspect", "--username", username, "--hardware-id", "device-1");
    const last = card(page, 19);
    await last.waitFor();
    assert.equal(await page.locator("#licenses details[open]").count(), 0);
    assert.equal(await last.locator("svg").count(), 0);
    await last.getByText("Units, exposure and chart").click();
    await last.locator("svg").getByText("nothing consumed").waitFor();
  });

  test("a search that did not come to the oldest row says so", async (t) => {
    const { page, use } = await dashboard(t);
    await use({ consumptions: 5 });
    await row(page, 1).waitFor();
    const note = page.getByText("rows were looked through");
    assert.equal(await note.isVisible(), false);
    // As the agent answers where its ledger is longer.
    await page.route(/\/v1\/events\?.*app=inspector/, async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, headers: { ...response.headers(), "tally-searched": "200000" } });
    });
    await page.getByLabel("Application").fill("inspector");
    await note.waitFor();
    assert.match(await note.textContent(), /newest 200.000 rows/);
    await page.getByLabel("Application").fill("");
    await note.waitFor({ state: "hidden" });
  });

  test("everything can be done by the keyboard", async (t) => {
    const { page } = await dashboard(t);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the licences");
    await page.getByRole("button", { name: "Drill: go offline" }).focus();
    await page.keyboard.press("Enter");
    await page.locator("#server", { hasText: "drill" }).waitFor();
    const reached = await page.evaluate(() => [...document.querySelectorAll("button, select, input")]
      .filter((it) => it.checkVisibility() && it.tabIndex < 0).length);
    assert.equal(reached, 0, "controls that Tab does not reach");
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`labels and contrast hold in ${colorScheme}: empty, busy, and offline with held items`, async (t) => {
      const view = { colorScheme, viewport: { width: 1440, height: 1100 } };
      const empty = await dashboard(t, { known: false }, { ...view, viewport: { width: 1440, height: 720 } });
      await empty.page.locator("#rows-empty").waitFor();
      await checkAccessible(empty.page);
      if (colorScheme === "light") await picture(empty.page, "dashboard-empty-light");

      const opened = await dashboard(t, { stubArgs: ["--no-idempotency"], settleWait: "2s" }, view);
      await aDay(opened);
      await checkAccessible(opened.page);
      await picture(opened.page, `dashboard-${colorScheme}`);

      await undecidable(opened);
      await opened.page.getByRole("button", { name: "Drill: go offline" }).click();
      await opened.page.locator("#server", { hasText: "drill" }).waitFor();
      await opened.use({ consumptions: 21 }, "kiosk");
      await card(opened.page).getByText("21 not counted yet").waitFor();
      await opened.page.getByRole("button", { name: /^Row \d+: why/ }).first().click();
      await opened.page.getByText("Judged by a total of").waitFor();
      await checkAccessible(opened.page);
      await picture(opened.page, `dashboard-offline-${colorScheme}`);
      await opened.page.getByRole("button", { name: /^It was counted/ }).click();
      await checkAccessible(opened.page);
    });
  }

  test("nothing is cut off on a small screen", async (t) => {
    const opened = await dashboard(t, {}, { viewport: { width: 390, height: 1200 } });
    await opened.use({ consumptions: 40 });
    await row(opened.page, 1).waitFor();
    const wider = await opened.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wider, 0, "the page scrolls sideways");
    await checkAccessible(opened.page);
    await picture(opened.page, "dashboard-small");
  });
});

/** A day on the device, by the server's clock, which the agent follows. */
async function aDay({ page, agent, stubAt, use }) {
  const now = Date.parse((await control("GET", stubAt("clock"))).now);
  for (let hour = 0; hour < 14; hour += 1) {
    await control("PUT", stubAt("clock"), { now: new Date(now + hour * 3600_000).toISOString() });
    agent.tally("sync");
    for (let turn = 0; turn < 2 + ((hour * 5) % 4); turn += 1) {
      const consumptions = 1 + ((hour * 7 + turn * 5) % 9);
      await use({ consumptions }, turn % 3 === 1 ? "kiosk" : "inspector");
      await use({ ...ofUser, consumptions }, turn % 2 === 0 ? "kiosk" : "inspector");
    }
  }
  agent.tally("sync");
  assert.equal((await use({ consumptions: 900 }, "kiosk")).status, 400);
  await row(page, "r1").waitFor();
  await settled(page);
  await page.locator("#batch-rows").getByText("settled").first().waitFor();
}
