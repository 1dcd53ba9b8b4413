// The keyboard and the live refresh, on the gallery.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";

import { api, launch, leads, open, setWidth, visit } from "./browser.mjs";

const gallery = JSON.parse(readFileSync(process.env.NOFX_TEST_GALLERY, "utf8"));
const at = (name) => gallery.url + gallery.pages.find((page) => page.name === name).path;

let browser, tab;
before(async () => { browser = await launch(); });
after(() => browser.close());
beforeEach(async () => {
  tab = await open(browser);
  await setWidth(tab, 1280);
});
afterEach(async () => {
  assert.deepEqual(tab.problems, []);
  await tab.end();
});

const press = async (...keys) => { for (const key of keys) await tab.keyboard.press(key); };
const focused = () => tab.evaluate(() => document.activeElement.textContent.trim());
const focusedId = () => tab.evaluate(() => document.activeElement.id);
const path = () => new URL(tab.url()).pathname;
/** These keys lead to an address. */
async function lead(keys, expected) {
  await leads(tab, () => press(...keys));
  assert.match(path(), expected);
}

/** A run that waits for a person, and the address of its page. */
async function blockedRun(goal) {
  const steps = [
    { name: "ask", tool: "manual:release", inputs: { reason: "May this go on?" } },
    { name: "go on", tool: "echo", inputs: { text: "done" } },
  ];
  const { id } = await api(gallery.url, "/runs", { plan: { goal, steps } });
  await visit(tab, `${gallery.url}/ui/runs/${id}`);
  await tab.waitForSelector("[data-go=primary]");
  return { id, page: `${gallery.url}/ui/runs/${id}` };
}

describe("keyboard", () => {
  test("j and k go through rows, and Enter opens one", async () => {
    await visit(tab, at("runs"));
    const rows = await tab.$$eval("[data-row] a:first-of-type", (links) => links.map((link) => link.textContent.trim()));
    await press("j", "j", "j");
    assert.equal(await focused(), rows[2]);
    await press("k");
    assert.equal(await focused(), rows[1]);
    await lead(["Enter"], /^\/ui\/runs\/[0-9a-f-]{36}$/);
    assert.equal(await tab.$eval("h1", (title) => title.textContent), rows[1]);
  });

  test("r opens the decision that a run waits for, and u leads back", async () => {
    await visit(tab, at("run-blocked"));
    await lead(["r"], /^\/ui\/gates\//);
    await lead(["u"], /^\/ui\/runs\//);
    await lead(["u"], /^\/ui\/runs$/);
  });

  test("f leads to the first problem", async () => {
    await visit(tab, at("run-failed-coverage"));
    const problem = await tab.$eval("[data-go=problem]", (link) => new URL(link.href).pathname);
    await lead(["f"], new RegExp(`^${problem}$`));
  });

  test("g and a letter lead to each part", async () => {
    await visit(tab, at("runs"));
    for (const [key, part] of [["i", "inbox"], ["p", "policy"], ["w", "rules"], ["h", "health"], ["r", "runs"]]) {
      await lead(["g", key], new RegExp(`^/ui/${part}$`));
    }
    await lead(["n"], /^\/ui\/new$/);
  });

  test("a slash starts a search, in which letters are text", async () => {
    await visit(tab, at("runs"));
    await press("/");
    assert.equal(await tab.$eval("[data-search]", (field) => field === document.activeElement), true);
    await tab.keyboard.type("jn?");
    assert.equal(await tab.$eval("[data-search]", (field) => field.value), "jn?");
    await press("Escape", "j");
    assert.notEqual(await focused(), "", "a row has the focus");
  });

  test("the help opens with a question mark, and takes the keys until it closes", async () => {
    await visit(tab, at("runs"));
    const isOpen = () => tab.$eval("#help", (help) => help.open);
    await tab.keyboard.type("?");
    assert.equal(await isOpen(), true);
    await tab.keyboard.type("n");
    await press("Escape");
    assert.equal(await isOpen(), false);
    assert.match(path(), /^\/ui\/runs$/);
  });

  test("the first Tab offers to skip to the content", async () => {
    await visit(tab, at("runs"));
    await press("Tab");
    assert.equal(await focused(), "Skip to the content");
    await press("Enter");
    assert.equal(new URL(tab.url()).hash, "#main");
  });

  test("keys with a modifier are the browser's", async () => {
    await visit(tab, at("runs"));
    await tab.keyboard.down("Control");
    await press("j");
    await tab.keyboard.up("Control");
    assert.equal(await tab.$(".here"), null);
  });

  test("no key decides, and neither does Enter in the field for the name", async () => {
    await visit(tab, at("gate-write"));
    for (const letter of "abcdefhlmopqstvwxyz") await press(letter);
    await tab.focus("#actor");
    await tab.keyboard.type("ann");
    await press("Enter");
    const gate = await api(gallery.url, path().replace("/ui", ""));
    assert.equal(gate.status, "pending");
    assert.equal(path(), new URL(at("gate-write")).pathname);
  });

  test("Control and Enter check a plan", async () => {
    await visit(tab, at("new"));
    await tab.focus("#plan");
    await leads(tab, async () => {
      await tab.keyboard.down("Control");
      await press("Enter");
      await tab.keyboard.up("Control");
    });
    assert.match(path(), /^\/ui\/new\/check$/);
  });
});

describe("live refresh", () => {
  test("a decision elsewhere changes the page without a reload", async () => {
    const { id, page } = await blockedRun("follow me");
    await tab.evaluate(() => { window.isTheSamePage = true; });
    const [gate] = await api(gallery.url, `/runs/${id}/gates`);
    await api(gallery.url, `/gates/${gate.id}/approve`, { actor: "ann" });
    await tab.waitForFunction(() => document.title.startsWith("succeeded"));
    assert.deepEqual(await tab.evaluate(() => [window.isTheSamePage, document.querySelector("#announcer").textContent]), [true, "Now: succeeded."]);
    assert.equal(tab.url(), page);
    // The page is as the server would show it now.
    const main = () => tab.$eval("main", (main) => main.innerText.replace(/\d+ (second|minute)s? ago|live|Now: \w+\./g, "").replace(/\s+/g, " ").trim());
    const shown = await main();
    await visit(tab, page);
    assert.equal(shown, await main());
  });

  test("a decision elsewhere reaches the page of its gate, and what was typed stays", async () => {
    const { id } = await blockedRun("decide with me");
    const [gate] = await api(gallery.url, `/runs/${id}/gates`);
    await visit(tab, `${gallery.url}/ui/gates/${gate.id}`);
    await tab.type("#reason", "I was still thinking");
    await api(gallery.url, `/gates/${gate.id}/approve`, { actor: "ann" });
    await tab.waitForFunction(() => !document.querySelector("main form"));
    const shown = await tab.$eval("main", (main) => main.innerText.replace(/\s+/g, " "));
    for (const words of ["Approved: the release", "ann approved", "What you wrote was not sent: I was still thinking", "What waited for this"]) {
      assert.ok(shown.includes(words), `${words}: ${shown}`);
    }
  });

  test("a retry elsewhere reaches the page of a run that has failed", async () => {
    const { id, page } = await blockedRun("try again");
    const [gate] = await api(gallery.url, `/runs/${id}/gates`);
    await api(gallery.url, `/gates/${gate.id}/reject`, { actor: "ann", reason: "no" });
    await visit(tab, page);
    assert.match(await tab.title(), /^failed/);
    await api(gallery.url, `/runs/${id}/retry`, { actor: "ben" });
    await tab.waitForFunction(() => !document.title.startsWith("failed"));
    await tab.waitForSelector("[data-go=primary]");
  });

  test("a page says when the server cannot be reached, and goes on afterwards", async () => {
    await blockedRun("mind the gap");
    await tab.setOfflineMode(true);
    await tab.waitForSelector("#live.stale");
    assert.equal(await tab.$eval("#announcer", (toast) => toast.textContent), "The server cannot be reached. Retrying.");
    await tab.setOfflineMode(false);
    await tab.waitForSelector("#live:not(.stale)");
    // The failed requests are what this test is about.
    tab.problems.splice(0);
  });
});
