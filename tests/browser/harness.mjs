// What every browser test needs: servers of its own on free ports, a browser, and a page that is watched.
//
//   const lab = await world(test, { licenses: [...] });   // a stub; `agent: true` adds an agent
//   const page = await lab.open(lab.stub.url);            // fails the test on console errors and foreign requests
//   await checkAccessible(page);                          // axe-core

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after } from "node:test";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const { BROWSER_MODULES, CHROMIUM, TALLY_BIN } = process.env;
assert.ok(BROWSER_MODULES && CHROMIUM && TALLY_BIN, "run this by tests/browser/run");
const require = createRequire(join(BROWSER_MODULES, "package.json"));
const { chromium } = require("playwright-core");
const axeSource = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Longer than anything on a page takes on a busy machine. */
const PATIENCE_MS = 15000;

export const KEYS = { api_key: "browser-key", shared_key: "browser-shared-key" };
export const LICENSE = {
  id: 1, product: "inspect", license_key: "AAAA-BBBB-CCCC-DDDD", max_consumptions: 100,
  devices: [{ hardware_id: "device-1" }],
};

/** Starts a program, and waits for `ready URL`. */
async function start(args, environment, folder) {
  const [program, ...rest] = args;
  const child = spawn(join(TALLY_BIN, program), rest, {
    env: { ...process.env, ...environment, XDG_CONFIG_HOME: folder }, stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (chunk) => { said += chunk; });
  const url = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => line.startsWith("ready ") && resolve(line.slice(6)));
    child.on("exit", (code) => reject(new Error(`${program} ended with ${code}: ${said}`)));
  });
  return {
    url,
    said: () => said,
    /** Ends it, gently unless another signal is given. */
    stop: (signal) => new Promise((resolve) => {
      child.on("exit", resolve);
      child.removeAllListeners("error");
      if (!child.kill(signal)) resolve();
    }),
  };
}

/** A browser of its own, with further flags. */
export function launch(...flags) {
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", ...flags] });
}

/** One browser for all tests of a file; each page has a context of its own. */
let browser;
function launched() {
  browser ??= launch();
  return browser;
}
after(async () => { await (await browser)?.close(); });

/** A stub, an agent where one is wanted, and a browser; all of it ends with the test. */
export async function world(test, { licenses = [LICENSE], stubArgs = [], agent: withAgent = false, settleWait = "300ms" } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "tally-browser-"));
  const endings = [() => rmSync(folder, { recursive: true, force: true })];
  test.after(async () => {
    const wrong = [];
    // All of it ends, whatever one of them complains of.
    for (const end of endings.reverse()) await Promise.resolve().then(end).catch((error) => wrong.push(error));
    if (wrong.length > 0) throw wrong[0];
  });

  const seed = join(folder, "seed.json");
  const products = [...new Set(licenses.map((license) => license.product))].map((code) => ({ code }));
  writeFileSync(seed, JSON.stringify({ api_keys: [KEYS], products, licenses }));
  const stub = await start(["tally-stub", "run", "--listen", "127.0.0.1:0", "--seed", seed, ...stubArgs], {}, folder);
  endings.push(() => stub.stop());

  let agent;
  if (withAgent) {
    const dataDir = join(folder, "data");
    const environment = { TALLY_SERVER_API_KEY: KEYS.api_key, TALLY_SERVER_SHARED_KEY: KEYS.shared_key };
    const run = (listen) => start(["tally", "run", "--listen", listen, "--data-dir", dataDir, "--server-url", stub.url,
      "--sync-interval", "50ms", "--settle-wait", settleWait], environment, folder);
    agent = await run("127.0.0.1:0");
    endings.push(() => agent.stop());
    agent.dataDir = dataDir;
    /** Starts it again where it was, after it was stopped. */
    agent.restart = async () => {
      const { said, stop } = await run(new URL(agent.url).host);
      Object.assign(agent, { said, stop });
    };
    /** Runs a command of the agent's command line; JSON comes back parsed. */
    agent.tally = (...args) => {
      const run = spawnSync(join(TALLY_BIN, "tally"), [...args, "--data-dir", dataDir, "--json"], { encoding: "utf8" });
      assert.equal(run.status, 0, run.stderr);
      return JSON.parse(run.stdout);
    };
  }

  const browser = await launched();

  /** Opens a page. Whatever it complains of, or asks another host for, fails the test. */
  async function open(url, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, reducedMotion: "reduce", ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const wrong = [];
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(message.text()));
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("request", (request) => {
      const { origin, protocol } = new URL(request.url());
      if (origin !== new URL(url).origin && protocol !== "data:") wrong.push(`asked ${request.url()}`);
    });
    page.wrong = wrong;
    endings.push(async () => {
      await context.close();
      assert.deepEqual(wrong, [], "the page complained, or asked another host");
    });
    await page.goto(url);
    return page;
  }
  return { stub, agent, open, folder };
}

/** Sends a request of the License API as an application does; the answer's status and body. */
export async function consume(url, fields = {}, keys = KEYS) {
  // Signed by the server's own clock, as a client does that has corrected its own.
  const date = (await fetch(`${url}/healthz`)).headers.get("date");
  const signature = createHmac("sha256", keys.shared_key).update(`licenseSpring\ndate: ${date}`).digest("base64");
  const body = { license_key: LICENSE.license_key, product: LICENSE.product, hardware_id: "device-1", ...fields };
  const response = await fetch(`${url}/api/v4/add_consumption`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      Date: date,
      Authorization: `algorithm="hmac-sha256",headers="date",signature="${signature}",apikey="${keys.api_key}"`,
    },
    body: JSON.stringify(body),
  });
  return { status: response.status, text: await response.text() };
}

/** Reads or writes JSON of a control surface. */
export async function control(method, url, body) {
  const response = await fetch(url, { method, body: body === undefined ? undefined : JSON.stringify(body) });
  assert.ok(response.ok, `${method} ${url}: ${response.status} ${await response.clone().text()}`);
  return response.json();
}

/** Labels, roles, contrast and order, by axe-core: nothing of WCAG 2.2 A and AA, and no best practice, is violated. */
export async function checkAccessible(page) {
  // By the debugger, which a page's content security policy does not bind.
  const session = await page.context().newCDPSession(page);
  await session.send("Runtime.evaluate", { expression: axeSource });
  const violations = await page.evaluate(async () => {
    const found = await window.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    });
    return found.violations.map(({ id, help, nodes }) =>
      `${id}: ${help}: ${nodes.map((node) => `${node.target} ${node.failureSummary ?? ""}`).join(" | ")}`);
  });
  assert.deepEqual(violations, []);
}

/** A picture of the page for the documents, where the run was asked for them. */
export async function picture(page, name) {
  const folder = process.env.UPDATE_IMAGES ? "docs/images" : join(BROWSER_MODULES, "images");
  await page.evaluate(() => document.activeElement?.blur());
  await page.mouse.move(0, 0);
  await page.screenshot({ path: join(folder, `${name}.png`), animations: "disabled" });
}
