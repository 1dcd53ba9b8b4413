// What a person does in the console, from a change that fails its gate to a verified artifact. It needs a whole stack, so the
// e2e suite runs it.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { launch, leads, look, open, visit } from "./browser.mjs";

const { NOFX_TEST_URL: url, NOFX_TEST_FOLDER: folder, NOFX_TEST_WORKSPACE: workspace } = process.env;
const ATTEMPT = readFileSync("../../examples/code-attempt.yaml", "utf8");
/** Real gates install dependencies and run compilers and tests. */
const WITH_GATES = { timeout: 180_000 };
const MENDED = `
it("charges smaller orders", () => {
  expect(shipping(money(4_999))).toEqual(money(495));
});
`;

let browser, tab;
before(async () => {
  browser = await launch();
  tab = await open(browser);
});
after(() => browser.close());

const text = (selector) => tab.$eval(selector, (one) => one.innerText.replace(/\s+/g, " ").trim());
const click = (selector) => leads(tab, () => tab.click(selector));

/** Writes text into the editor as a paste does: the keyboard would take seconds. */
async function edit(plan) {
  await tab.$eval("#plan", (editor, plan) => { editor.value = plan; }, plan);
}

/** The page that this tab shows has not been loaded again since `stays` was called. */
const stays = () => tab.evaluate(() => { window.isTheSamePage = true; });
/** Waits until the page tells this state by itself. */
async function becomes(status) {
  await tab.waitForFunction((status) => document.title.startsWith(`${status}:`), WITH_GATES, status);
  assert.equal(await tab.evaluate(() => window.isTheSamePage), true, "without a reload");
  assert.equal(await text("#announcer"), `Now: ${status}.`);
}

/** Opens the evidence of a gate from the page of its run, and returns what the page says about the signature. */
async function signatureOf(gate) {
  await click(`[data-region=artifacts] a ::-p-text(gate-${gate}.json)`);
  return text("main .notice");
}

/** Saves a file as the browser does for this link, and returns its bytes. */
async function download(selector) {
  const session = await browser.target().createCDPSession();
  await session.send("Browser.setDownloadBehavior", {
    behavior: "allowAndName",
    browserContextId: tab.browserContext().id,
    downloadPath: folder,
    eventsEnabled: true,
  });
  const saved = new Promise((resolve, reject) => {
    session.on("Browser.downloadProgress", ({ guid, state }) => {
      if (state === "completed") resolve(guid);
      if (state === "canceled") reject(new Error("the download was cancelled"));
    });
  });
  await tab.click(selector);
  const bytes = readFileSync(join(folder, await saved));
  await session.detach();
  return bytes;
}

test("a change fails its gate, is mended, approved, and verified", { timeout: 540_000 }, async () => {
  await visit(tab, `${url}/ui/runs`);
  await click("[data-go=new]");
  // The wrong plan starts nothing, and the page says where it is wrong.
  await edit(ATTEMPT.replace("gate:unit", "gate:units"));
  await click("#check");
  assert.match(await text("main"), /gate:units/);
  await edit(ATTEMPT);
  await (await tab.$("#workspace-file")).uploadFile(workspace);
  await tab.type("#new-actor", "ann");
  await click("main button.primary[type=submit]");

  // The page follows the run until the gate has failed.
  assert.match(new URL(tab.url()).pathname, /^\/ui\/runs\/[0-9a-f-]{36}$/);
  const first = tab.url();
  await stays();
  await becomes("failed");
  assert.match(await text(".next"), /^Failed at unit: unit: 3 of 4 changed lines are covered/);
  assert.deepEqual(await look(tab, "story-failed"), []);

  // The line that no test ran, in its source.
  await click(".next [data-go=problem]");
  assert.equal(await text("#main h1"), "unit");
  assert.equal(await text(".file .line.bad"), "8 − never ran: return money(495, subtotal.currency);");
  assert.match(await text(".file"), /src\/shipping\.ts.* 7 \} .* 9 \}/);
  await visit(tab, first);
  assert.match(await signatureOf("unit"), /signature of this evidence is valid.*The gate says FAILED/);

  // The same plan with a test more, and a person at its end.
  await visit(tab, first);
  await click("main .head a[href*='new?from=']");
  const { plan } = JSON.parse(await tab.$eval("#plan", (editor) => editor.value));
  plan.goal = "delivery costs for the shop, mended";
  plan.steps[0].inputs.files["test/shipping.test.ts"] += MENDED;
  plan.steps.push({ name: "release", tool: "manual:release", inputs: { reason: "May delivery costs go live?" } });
  await edit(JSON.stringify({ plan }));
  await click("main button.primary[type=submit]");
  const second = tab.url();
  await stays();
  await becomes("blocked");
  assert.match(await text(".next"), /release/);

  // A decision with its reason, and the page of the run goes on by itself.
  await click(".next [data-go=primary]");
  assert.match(await text("#main"), /May delivery costs go live\?/);
  assert.deepEqual(await look(tab, "story-decision"), []);
  assert.equal(await tab.$eval("#actor", (field) => field.value), "ann", "the browser remembers the name");
  await tab.type("#reason", "Every changed line ran");
  await click("#decide [formaction$='/approve']");
  assert.equal(new URL(tab.url()).pathname, new URL(second).pathname);
  await tab.waitForFunction(() => document.title.startsWith("succeeded:"), WITH_GATES);
  assert.match(await text("[data-region=timeline]"), /ann approved manual:release.*Every changed line ran/);

  // What came out is what the page says it is.
  await visit(tab, second);
  assert.match(await signatureOf("unit"), /signature of this evidence is valid.*The gate says PASSED/);
  const sha256 = await tab.$eval("[aria-labelledby=facts] [data-copy]", (button) => button.dataset.copy);
  assert.match(sha256, /^[0-9a-f]{64}$/);
  assert.match(await text("main"), /The bytes match the recorded sha256/);
  assert.deepEqual(tab.problems, []);
  const bytes = await download("main [data-go=primary]");
  assert.equal(createHash("sha256").update(bytes).digest("hex"), sha256);
  assert.equal(JSON.parse(bytes).verdict, "passed");
});
