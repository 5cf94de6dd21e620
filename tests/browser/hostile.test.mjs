// A hostile page in a real browser: whatever it tries against the agent, nothing is recorded and nothing can be read.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { describe, test } from "node:test";

import { LICENSE, control, launch, world } from "./harness.mjs";

/** A name that somebody else owns and has pointed at this device. */
const REBOUND = "rebound.example";

/** What the page tries, in the page. `base` is the agent; each attempt says what it could read. */
async function attack({ base, product, licenseKey }) {
  const body = JSON.stringify({ product, license_key: licenseKey, hardware_id: "device-1", consumptions: 1 });
  const consume = `${base}/api/v4/add_consumption`;
  const patience = (ms) => new Promise((resolve) => { setTimeout(() => resolve("nothing"), ms); });
  const within = (promise) => Promise.race([promise.catch((error) => `failed: ${error}`), patience(2000)]);
  const read = async (url, options) => {
    const answer = await fetch(url, options);
    return answer.type === "opaque" ? "opaque" : `READ ${answer.status} ${await answer.text()}`;
  };
  const element = (tag, url, attributes = {}) => new Promise((resolve) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.onload = () => {
      // What a frame shows can be read only where it is of this page's own origin.
      let seen = "opaque";
      if (tag === "img") seen = made.naturalWidth > 0 ? "READ an image" : "opaque";
      if (tag === "iframe") try { seen = made.contentDocument?.body?.innerText ? `READ ${made.contentDocument.body.innerText}` : "opaque"; } catch { seen = "opaque"; }
      resolve(seen);
    };
    made.onerror = () => resolve("failed");
    made[tag === "link" ? "href" : "src"] = url;
    document.body.append(made);
  });
  const form = (enctype, fields) => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { name: `f${Math.random()}` });
    const made = Object.assign(document.createElement("form"), { method: "post", action: consume, enctype, target: frame.name });
    for (const [name, value] of Object.entries(fields)) made.append(Object.assign(document.createElement("input"), { name, value, type: "hidden" }));
    document.body.append(frame, made);
    frame.onload = () => {
      let seen = "opaque";
      try { seen = frame.contentDocument?.body?.innerText ? `READ ${frame.contentDocument.body.innerText}` : "opaque"; } catch { seen = "opaque"; }
      if (frame.contentWindow.location.href === undefined) seen = "opaque";
      resolve(seen);
    };
    made.submit();
    setTimeout(() => resolve("nothing"), 1500);
  });
  const attempts = {
    "fetch a status": read(`${base}/v1/status`),
    "fetch with the cookie": read(`${base}/v1/status`, { credentials: "include" }),
    "fetch without cors": read(`${base}/v1/status`, { mode: "no-cors", credentials: "include" }),
    "post JSON": read(consume, { method: "POST", headers: { "content-type": "application/json" }, body }),
    "post text without cors": read(consume, { method: "POST", mode: "no-cors", credentials: "include", headers: { "content-type": "text/plain" }, body }),
    "post a sync without cors": read(`${base}/v1/sync`, { method: "POST", mode: "no-cors", credentials: "include", body: "{}" }),
    "make a licence known without cors": read(`${base}/v1/licenses`, { method: "POST", mode: "no-cors", credentials: "include", body: JSON.stringify({ product, license_key: licenseKey, hardware_id: "device-1" }) }),
    "switch the network": read(`${base}/v1/network`, { method: "PUT", credentials: "include", headers: { "content-type": "application/json" }, body: JSON.stringify({ mode: "offline" }) }),
    "a header of its own": read(`${base}/v1/status`, { headers: { "x-mine": "1", authorization: "Bearer guess" } }),
    "keepalive": read(consume, { method: "POST", mode: "no-cors", keepalive: true, body }),
    "a beacon": Promise.resolve(navigator.sendBeacon(consume, new Blob([body], { type: "text/plain" })) && "sent"),
    "an image": element("img", `${base}/v1/status`),
    "a script": element("script", `${base}/v1/status`),
    "a style sheet": element("link", `${base}/v1/status`, { rel: "stylesheet" }),
    "a frame of the dashboard": element("iframe", `${base}/`),
    "a frame of the status": element("iframe", `${base}/v1/status`),
    "an object": element("embed", `${base}/v1/status`),
    "a form": form("application/x-www-form-urlencoded", { product, license_key: licenseKey, consumptions: "1" }),
    "a form of plain text": form("text/plain", { [body.slice(0, -1) + ',"x":"']: '"}' }),
    "a form with files": form("multipart/form-data", { product }),
    "a web socket": new Promise((resolve) => {
      const socket = new WebSocket(`${base.replace("http", "ws")}/v1/stream`);
      socket.onopen = () => resolve("READ an open socket");
      socket.onerror = () => resolve("failed");
    }),
    "an event source": new Promise((resolve) => {
      const source = new EventSource(`${base}/v1/events`, { withCredentials: true });
      source.onopen = () => resolve("READ a stream");
      source.onerror = () => { source.close(); resolve("failed"); };
    }),
    "a worker": Promise.resolve().then(() => { new Worker(`${base}/`); return "started"; }),
    "a module": import(`${base}/v1/status`).then(() => "READ a module"),
  };
  const names = Object.keys(attempts);
  const results = await Promise.all(names.map((name) => within(attempts[name])));
  return Object.fromEntries(names.map((name, no) => [name, results[no]]));
}

/** A page of somebody else's, on a port of its own. */
async function hostile(t) {
  const server = createServer((_, answer) => {
    answer.writeHead(200, { "content-type": "text/html" });
    answer.end("<!doctype html><title>a page</title><body>hello</body>");
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  t.after(() => { server.closeAllConnections(); server.close(); });
  return server.address().port;
}

describe("a hostile page", { concurrency: false }, () => {
  for (const lured of [false, true]) {
    test(`reads nothing and records nothing${lured ? ", in a browser that was let in" : ""}`, async (t) => {
      const { agent, stub } = await world(t, { agent: true });
      agent.tally("license", "add", "--product", LICENSE.product, "--license-key", LICENSE.license_key, "--hardware-id", "device-1");
      const port = await hostile(t);
      const agentPort = new URL(agent.url).port;
      const browser = await launch(`--host-resolver-rules=MAP ${REBOUND} 127.0.0.1`);
      t.after(() => browser.close());
      const context = await browser.newContext();
      if (lured) {
        const { url } = agent.tally("dashboard", "--print");
        const own = await context.newPage();
        await own.goto(url);
        assert.ok((await context.cookies()).some((cookie) => cookie.httpOnly && cookie.sameSite === "Strict"));
      }
      const before = JSON.stringify(agent.tally("log"));
      const requests = async () => JSON.stringify(await control("GET", `${stub.url}/stub/v1/requests`));
      const asked = await requests();
      // Another port of the device's own name and address, and a name that leads here.
      for (const origin of [`http://127.0.0.1:${port}`, `http://localhost:${port}`, `http://${REBOUND}:${port}`]) {
        for (const base of [`http://127.0.0.1:${agentPort}`, `http://localhost:${agentPort}`, `http://${REBOUND}:${agentPort}`]) {
          const page = await context.newPage();
          await page.goto(origin);
          const seen = await page.evaluate(attack, { base, product: LICENSE.product, licenseKey: LICENSE.license_key });
          for (const [what, result] of Object.entries(seen)) {
            assert.ok(!String(result).includes("READ"), `${origin} against ${base}: ${what}: ${result}`);
          }
          await page.close();
        }
      }
      // The name that was rebound is the page's own origin: the browser protects nobody, the agent does.
      const page = await context.newPage();
      const answer = await page.goto(`http://${REBOUND}:${agentPort}/v1/status`);
      assert.equal(answer.status(), 403);
      const status = agent.tally("status");
      assert.equal(status.connection.network, "online");
      assert.equal(status.licenses[0].conservation.recorded, 0);
      assert.equal(JSON.stringify(agent.tally("log")), before);
      assert.equal(await requests(), asked, "nobody made the agent ask its server");
    });
  }
});
