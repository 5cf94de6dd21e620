// What a person decides: one dialog that says what it means and asks why, and then tells the agent.

import { act, ask } from "./agent.js";
import { byId, say, shown } from "./parts.js";

let deciding = null;

/** Asks whether it shall be so. `said` is read out once `body`, with the reason, was taken at `path`. */
export function decide({ title, what, means, isReasonNeeded = false, path, body = {}, said, then }) {
  deciding = { path, body, said, then };
  byId("decide-title").textContent = shown(`${title}?`);
  byId("decide-what").textContent = shown(what);
  byId("decide-means").textContent = shown(means);
  byId("decide-need").textContent = isReasonNeeded ? "(needed)" : "(optional)";
  byId("decide-reason").value = "";
  byId("decide-reason").required = isReasonNeeded;
  byId("decide").returnValue = "";
  byId("decide").showModal();
}

byId("decide").addEventListener("close", act(async () => {
  if (byId("decide").returnValue !== "yes" || !deciding) return;
  const { path, body, said, then } = deciding;
  deciding = null;
  const reason = byId("decide-reason").value.trim();
  await ask("POST", path, { ...body, ...(reason ? { reason } : {}) });
  say(said);
  then?.();
}));
