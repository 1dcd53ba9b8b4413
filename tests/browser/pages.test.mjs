// Every page of the gallery, in each theme, wide and narrow.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { COLOURS, launch, open, overflow, picture, policyFindings, THEMES, violations, visit } from "./browser.mjs";

const gallery = JSON.parse(readFileSync(process.env.NOFX_TEST_GALLERY, "utf8"));
const WIDTHS = process.env.SHOTS ? [390, 1280, 1920] : [390, 1280];
/** What a page may weigh before its data, in bytes. */
const MAX_BYTES = 60_000;
/** Links of one shape that are followed from a page. */
const OF_A_SHAPE = 2;

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const followed = new Set();

/** Addresses that a page links, a few of each shape. */
async function links(tab) {
  const found = await tab.$$eval("a[href], form[action], [formaction]", (all) =>
    all.map((one) => ({ href: one.formAction && one.hasAttribute("formaction") ? "" : (one.href || ""), rel: one.rel || "" })));
  const here = new URL(tab.url()), shapes = new Map(), fragments = [], others = [];
  for (const { href, rel } of found.filter((one) => one.href)) {
    const url = new URL(href);
    if (url.origin !== here.origin) {
      assert.match(rel, /noreferrer|noopener/, `${href} leads to another site without rel`);
      continue;
    }
    if (url.pathname + url.search === here.pathname + here.search && url.hash) fragments.push(decodeURIComponent(url.hash.slice(1)));
    const address = url.pathname + url.search, shape = address.replace(/[0-9a-f]{8}-[0-9a-f-]{27}|\d+/g, "*");
    shapes.set(shape, (shapes.get(shape) ?? 0) + 1);
    if (shapes.get(shape) <= OF_A_SHAPE && !followed.has(address)) {
      followed.add(address);
      others.push(address);
    }
  }
  const missing = await tab.evaluate((ids) => ids.filter((id) => id && !document.getElementById(id)), fragments);
  return { missing, others };
}

/** The texts of a page's headings, buttons and links that can be seen. */
const seen = (tab) =>
  tab.$$eval("h1, h2, main a, main button", (all) =>
    all.filter((one) => one.checkVisibility() && !one.closest("[role=status], dialog")).map((one) => one.textContent.trim()));

/** What can be seen only with JavaScript. The buttons that copy a value and the one for help are of no use without it. */
async function lostWithoutScript(tab) {
  const plain = await open(browser, { script: false });
  try {
    await visit(plain, tab.url());
    const left = new Set(await seen(plain)), lost = (await seen(tab)).filter((text) => !left.has(text) && !/^(copy|\?)$/i.test(text));
    return [...plain.problems, ...lost.map((text) => `only with JavaScript: ${text}`)];
  } finally {
    await plain.end();
  }
}

describe("pages", { concurrency: 2 }, () => {
  for (const { name, path, status } of gallery.pages) {
    test(name, async () => {
      const tab = await open(browser), wrong = [];
      try {
        for (const width of WIDTHS) {
          await tab.setViewport({ width, height: width < 500 ? 844 : 800 });
          const answer = await visit(tab, gallery.url + path, status);
          assert.deepEqual(policyFindings(answer.headers()["content-security-policy"] ?? "none"), [], "the policy of the page");
          const wide = await overflow(tab);
          if (wide) wrong.push(`${width} px: ${wide}`);
          for (const theme of THEMES) {
            await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }, { name: "prefers-reduced-motion", value: "reduce" }]);
            for (const one of await violations(tab, theme === THEMES[0] ? undefined : COLOURS)) wrong.push(`${width} px, ${theme}: ${one}`);
            await picture(tab, `${name}-${width}-${theme}`);
          }
        }
        if (status === 200) wrong.push(...(await lostWithoutScript(tab)));
        const { missing, others } = await links(tab);
        if (missing.length > 0) wrong.push(`links to missing parts of the page: ${missing}`);
        for (const address of others) {
          const answer = await fetch(gallery.url + address, { redirect: "manual" });
          await answer.arrayBuffer();
          // An error page may link what is not there.
          if (answer.status >= 400 && status === 200) wrong.push(`the link ${address} answers ${answer.status}`);
        }
        assert.deepEqual([...wrong, ...tab.problems], [], `${gallery.url}${path}`);
      } finally {
        await tab.end();
      }
    });
  }
  for (const { name } of gallery.missing) test(name, { skip: "the console has no route for it" });
});

test("a page without data weighs less than 60 KB", async () => {
  const tab = await open(browser);
  try {
    const answers = [];
    tab.on("response", (answer) => answers.push(answer));
    await visit(tab, gallery.url + gallery.pages.find((page) => page.name === "runs-empty").path);
    const sizes = await Promise.all(answers.map(async (answer) => (await answer.buffer()).length));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    assert.ok(answers.length >= 3, "the page, its style and its script");
    assert.ok(bytes < MAX_BYTES, `${bytes} bytes`);
  } finally {
    await tab.end();
  }
});
