// Measures the console on the gallery: `make measure-console`. It prints a JSON line for each number, and judges nothing.
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { launch, open, setWidth, visit } from "./browser.mjs";

const gallery = JSON.parse(readFileSync(process.env.NOFX_TEST_GALLERY, "utf8"));
const at = (name) => gallery.url + gallery.pages.find((page) => page.name === name).path;
const TIMES = 11;
const middle = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const print = (what, numbers) => console.log(JSON.stringify({ what, ...numbers }));

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

/** The middle of some loads of a page in a new tab, in milliseconds: the first byte, all of it painted. */
async function load(url) {
  const first = [], painted = [];
  let bytes = 0, elements = 0;
  for (let time = 0; time < TIMES; time += 1) {
    const tab = await open(browser);
    await setWidth(tab, 1280);
    const answer = await visit(tab, url);
    const numbers = await tab.evaluate(async () => {
      // The frame after the next one shows everything that the load has laid out.
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const [navigation] = performance.getEntriesByType("navigation");
      return { first: navigation.responseStart, painted: performance.now(), elements: document.querySelectorAll("*").length };
    });
    bytes = (await answer.buffer()).length;
    ({ elements } = numbers);
    first.push(numbers.first);
    painted.push(numbers.painted);
    await tab.end();
  }
  return { first_byte_ms: Math.round(middle(first)), painted_ms: Math.round(middle(painted)), html_bytes: bytes, elements };
}

test("pages load", async () => {
  for (const name of ["runs", "run-running", "run-large", "run-large-failed", "run-long-timeline", "step-uncovered", "gate-release"]) {
    print(`load of ${name}`, await load(at(name)));
  }
});

test("a page of a run with 1,000 steps stays usable", async () => {
  const tab = await open(browser);
  await setWidth(tab, 1280);
  await visit(tab, at("run-large"));
  const key = await tab.evaluate(async () => {
    const times = [];
    for (let time = 0; time < 20; time += 1) {
      const start = performance.now();
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      times.push(performance.now() - start);
    }
    return times;
  });
  const refresh = await tab.evaluate(async () => {
    const start = performance.now();
    const html = await (await fetch(document.getElementById("live").dataset.fragment)).text();
    const answered = performance.now();
    const page = new DOMParser().parseFromString(html, "text/html");
    document.getElementById("live").replaceWith(page.getElementById("live"));
    document.body.getBoundingClientRect();
    return { answer_ms: Math.round(answered - start), laid_out_ms: Math.round(performance.now() - answered), bytes: html.length };
  });
  print("key j to the next frame, 1,000 steps", { median_ms: Math.round(middle(key)), most_ms: Math.round(Math.max(...key)) });
  print("live refresh of everything, 1,000 steps", refresh);
  await tab.end();
});

test("the timeline of 100,000 events pages", async () => {
  const path = at("run-long-timeline");
  for (const [place, query] of [["newest", ""], ["before 99,000", "?before=99000"], ["before 50,000", "?before=50000"], ["before 200", "?before=200"], ["the first", "?after=0"], ["problems before 50,000", "?kind=problems&before=50000"], ["one step before 50,000", "?step=3&before=50000"], ["a kind that no event has", "?kind=writes"]]) {
    const times = [];
    let bytes = 0;
    for (let time = 0; time < TIMES; time += 1) {
      const start = performance.now();
      const answer = await fetch(path + query);
      bytes = (await answer.arrayBuffer()).byteLength;
      if (answer.status !== 200) throw new Error(`${query}: ${answer.status}`);
      times.push(performance.now() - start);
    }
    print(`timeline of 100,000 events, ${place}`, { median_ms: Math.round(middle(times)), most_ms: Math.round(Math.max(...times)), bytes });
  }
});
