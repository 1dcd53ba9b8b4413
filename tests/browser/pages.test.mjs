// Every page of the gallery, in each theme, wide and narrow.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { launch, look, open, policyFindings, visit } from "./browser.mjs";

const gallery = JSON.parse(readFileSync(process.env.NOFX_TEST_GALLERY, "utf8"));
/** What a page may weigh before its data, in bytes. */
const MAX_BYTES = 60_000;
/** Links of one shape that are followed from a page. */
const OF_A_SHAPE = 2;

let browser;
/** Tabs that no test uses. A new tab for each test would need a new process. */
const tabs = [], plainTabs = [];
before(async () => { browser = await launch(); });
after(() => browser.close());

/** Calls `use` with a tab, and returns the problems that the tab has noticed, then those that `use` returns. */
async function withTab(free, options, use) {
  const tab = free.pop() ?? (await open(browser, { ...options, store: gallery.store }));
  tab.problems.length = 0;
  const found = await use(tab);
  const problems = [...tab.problems, ...found];
  free.push(tab);
  return problems;
}

/** The texts of a page's headings, buttons and links that can be seen, without their numbers and durations, which may grow. */
const seen = (tab) =>
  tab.$$eval("h1, h2, main a, main button", (all) =>
    all.filter((one) => one.checkVisibility() && !one.closest("[role=status], dialog")).map((one) => one.textContent.trim().replace(/(?:[\d.,]+\s*(?:ms|s|min|h|d)(?![a-z])\s*)+|[\d.,]+/g, "1")));

/** What can be seen only with JavaScript. The buttons that copy a value are of no use without it. */
const lostWithoutScript = (tab) =>
  withTab(plainTabs, { script: false }, async (plain) => {
    await plain.setViewport(tab.viewport());
    await visit(plain, tab.url());
    const left = new Set(await seen(plain));
    return (await seen(tab)).filter((text) => !left.has(text) && !/^copy$/i.test(text)).map((text) => `only with JavaScript: ${text}`);
  });

const followed = new Set();

/** Follows the links of a page, a few of each shape. Returns those that lead nowhere. */
async function deadLinks(tab) {
  const found = await tab.$$eval("a[href], form[action], [formaction]", (all) =>
    all.flatMap((one) =>
      ["href", "action", "formaction"].filter((name) => one.hasAttribute(name)).map((name) => ({
        href: new URL(one.getAttribute(name), document.baseURI).href,
        rel: one.getAttribute("rel") ?? "",
        isForm: name !== "href",
      }))));
  const here = new URL(tab.url()), shapes = new Map(), ids = [], wrong = [];
  for (const { href, rel, isForm } of found) {
    const { origin, pathname, search, hash } = new URL(href), address = pathname + search;
    if (origin !== here.origin) {
      if (!/noreferrer|noopener/.test(rel)) wrong.push(`${href} leads to another site without rel`);
      continue;
    }
    if (address === here.pathname + here.search && hash && hash !== "#top") ids.push(decodeURIComponent(hash.slice(1)));
    const shape = address.replace(/[0-9a-f]{8}-[0-9a-f-]{27}|\d+/g, "*");
    shapes.set(shape, (shapes.get(shape) ?? 0) + 1);
    if (shapes.get(shape) > OF_A_SHAPE || followed.has(address)) continue;
    followed.add(address);
    // Nothing is sent to a form: another method than its own shows that there is one.
    const answer = await fetch(gallery.url + address, { redirect: "manual" });
    await answer.arrayBuffer();
    const works = answer.status < 400 || (isForm && answer.status === 405);
    if (!works) wrong.push(`the link ${address} answers ${answer.status}`);
  }
  const missing = await tab.evaluate((ids) => ids.filter((id) => !document.getElementById(id)), ids);
  return [...wrong, ...missing.map((id) => `the link #${id} leads to no part of the page`)];
}

describe("pages", { concurrency: 2 }, () => {
  for (const page of gallery.pages) {
    test(page.name, async () => {
      const wrong = await withTab(tabs, {}, async (tab) => {
        const found = await look(tab, page.name, () => visit(tab, gallery.url + page.path, page.status));
        // An error page may link what is not there.
        if (page.status === 200) found.push(...(await lostWithoutScript(tab)), ...(await deadLinks(tab)));
        return found;
      });
      assert.deepEqual(wrong, [], gallery.url + page.path);
    });
  }
});

describe("pages without data", () => {
  for (const { name, path, status } of gallery.pages.filter((page) => page.bare)) {
    test(`${name} weighs less than 60 KB`, async () => {
      const tab = await open(browser);
      const answers = [];
      tab.on("response", (answer) => answers.push(answer));
      await visit(tab, gallery.url + path, status);
      const sizes = await Promise.all(answers.map(async (answer) => (await answer.buffer()).length));
      const bytes = sizes.reduce((sum, size) => sum + size, 0);
      assert.ok(answers.length >= 3, "the page, its style and its script");
      assert.ok(bytes < MAX_BYTES, `${bytes} bytes`);
      await tab.end();
    });
  }
});

test("the answer of every route has a strict policy", async () => {
  assert.ok(gallery.routes.length > 10, "the routes of the console");
  for (const { method, path } of gallery.routes) {
    const answer = await fetch(gallery.url + path, { method, redirect: "manual" });
    await answer.arrayBuffer();
    const policy = answer.headers.get("content-security-policy");
    assert.deepEqual(policyFindings({ "content-security-policy": policy }), [], `${method} ${path}`);
  }
});
