// The pinned browser, and a tab that notices everything that goes wrong on a page.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const variable = (name) => process.env[name] || assert.fail(`${name} is not set: run these tests with make test-browser`);
const require = createRequire(join(variable("NOFX_TEST_BROWSER_DIR"), "package.json"));
const puppeteer = require("puppeteer-core");
const { CspEvaluator } = require("csp_evaluator/dist/evaluator.js");
const { CspParser } = require("csp_evaluator/dist/parser.js");
const { Severity } = require("csp_evaluator/dist/finding.js");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const THEMES = ["light", "dark"];
/** A picture shows a page as it is after it was opened at this width. */
const isForPictures = Boolean(process.env.SHOTS);
const WIDTHS = isForPictures ? [1280, 390, 1920] : [1280, 390];

/** Starts the browser. */
export function launch() {
  const executablePath = variable("NOFX_TEST_CHROMIUM"), folder = dirname(executablePath);
  const own = { LD_LIBRARY_PATH: join(folder, "lib"), FONTCONFIG_FILE: join(folder, "fonts.conf") };
  return puppeteer.launch({
    executablePath,
    headless: "shell",
    env: { ...(process.env.NOFX_CHROMIUM ? {} : own), ...process.env },
    // As root, Chromium has no sandbox. It only opens our own pages.
    args: ["--no-sandbox", "--no-zygote", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb", "--font-render-hinting=none"],
  });
}

/**
 * A tab whose `problems` lists errors in the console, reports of the policy, exceptions, failed requests, requests to
 * another origin, and answers with a weak policy. Images may come from `store`, the origin of the artifacts: the policy of
 * a page decides whether they may.
 */
export async function open(browser, { script = true, store } = {}) {
  const context = await browser.createBrowserContext(), tab = await context.newPage();
  const problems = [];
  await tab.setJavaScriptEnabled(script);
  tab.on("pageerror", (error) => problems.push(`exception: ${error.message}`));
  tab.on("requestfailed", (request) => {
    // A page that is left ends its requests.
    if (request.failure()?.errorText !== "net::ERR_ABORTED") problems.push(`${request.url()}: ${request.failure()?.errorText}`);
  });
  tab.on("request", (request) => {
    const url = new URL(request.url()), isPicture = url.origin === store && request.resourceType() === "image";
    if (tab.home && url.protocol.startsWith("http") && url.origin !== tab.home && !isPicture) problems.push(`a request to ${url.origin}`);
  });
  tab.on("response", (answer) => {
    const { origin, pathname } = new URL(answer.url());
    if (origin === tab.home) problems.push(...policyFindings(answer.headers()).map((finding) => `policy of ${pathname}: ${finding}`));
  });
  tab.on("console", (message) => {
    // The browser reports the status of an error page, which is what the test expects of it.
    const isStatus = message.location().url === tab.errorPage && message.text().startsWith("Failed to load resource");
    if (["error", "warn"].includes(message.type()) && !isStatus) problems.push(`console: ${message.text()}`);
  });
  return Object.assign(tab, { problems, end: () => context.close() });
}

/** Goes to an address, which must answer with this status. */
export async function visit(tab, url, status = 200) {
  tab.home = new URL(url).origin;
  tab.errorPage = status >= 400 ? url : undefined;
  const answer = await tab.goto(url, { waitUntil: "load" });
  assert.equal(answer.status(), status, url);
  return answer;
}

/** Shows a page in this theme, without motion. */
export const dress = (tab, theme) =>
  tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }, { name: "prefers-reduced-motion", value: "reduce" }]);

export const setWidth = (tab, width) => tab.setViewport({ width, height: width < 500 ? 844 : 800 });

/** Rules whose result depends on the theme. */
export const COLOURS = ["color-contrast", "link-in-text-block"];

/** What axe finds, of any impact: with all rules, or with these. */
export async function violations(tab, rules) {
  const options = { resultTypes: ["violations"], ...(rules ? { runOnly: { type: "rule", values: rules } } : {}) };
  const session = await tab.createCDPSession();
  // Not through the page, whose policy allows no such script.
  await session.send("Runtime.evaluate", { expression: axe });
  const found = await session.send("Runtime.evaluate", {
    expression: `axe.run(document, ${JSON.stringify(options)}).then((found) => found.violations)`,
    awaitPromise: true,
    returnByValue: true,
  });
  await session.detach();
  assert.equal(found.exceptionDetails, undefined, JSON.stringify(found.exceptionDetails));
  return found.result.value.map(({ id, impact, nodes }) => {
    const places = nodes.slice(0, 4).map((node) => `  ${node.target.join(" ")}: ${node.failureSummary.replace(/\s+/g, " ")}`);
    return [`${id} (${impact}), ${nodes.length} times`, ...places].join("\n");
  });
}

/** By how many pixels a page is wider than its window, and the first elements that stick out. Empty if none does. */
export const overflow = (tab) =>
  tab.evaluate(() => {
    const page = document.documentElement, by = page.scrollWidth - page.clientWidth;
    if (by <= 0) return "";
    const out = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > page.clientWidth + 1);
    const names = out.slice(0, 4).map((one) => `<${one.localName} class="${one.getAttribute("class") ?? ""}"> ${one.textContent.trim().slice(0, 40)}`);
    return `scrolls sideways by ${by} px: ${names.join("; ")}`;
  });

/**
 * Findings of Google's evaluator about an answer's policy that are certain, and at least of medium severity. The store of a
 * test has no TLS, so it is judged as if it had.
 */
export function policyFindings(headers) {
  const policy = (headers["content-security-policy"] ?? "").replace(/http:\/\/127\.0\.0\.1:\d+/g, "https://store.example");
  if (policy === "") return ["there is none"];
  if (!known.has(policy)) {
    const found = new CspEvaluator(new CspParser(policy).csp).evaluate().filter(({ severity }) => severity <= Severity.MEDIUM);
    known.set(policy, found.map(({ directive, value, description }) => `${directive} ${value ?? ""}: ${description}`));
  }
  return known.get(policy);
}
const known = new Map();

/**
 * What is wrong with a page at each width and in each theme. `load` opens the page; without it the tab shows it already.
 * Takes pictures with this name if somebody asked for pictures.
 */
export async function look(tab, name, load = async () => {}) {
  const wrong = [];
  for (const [index, width] of WIDTHS.entries()) {
    await setWidth(tab, width);
    await dress(tab, THEMES[0]);
    if (index === 0 || isForPictures) await load();
    const wide = await overflow(tab);
    if (wide) wrong.push(`${width} px: ${wide}`);
    for (const theme of THEMES) {
      await dress(tab, theme);
      for (const one of await violations(tab, theme === THEMES[0] ? undefined : COLOURS)) wrong.push(`${width} px, ${theme}: ${one}`);
      if (isForPictures) await picture(tab, `${name}-${width}-${theme}`);
    }
  }
  return wrong;
}

async function picture(tab, name) {
  mkdirSync(process.env.SHOTS, { recursive: true });
  await tab.screenshot({ path: join(process.env.SHOTS, `${name}.png`), fullPage: true });
}

/** Waits for the page that this leads to. */
export async function leads(tab, act) {
  await Promise.all([tab.waitForNavigation({ waitUntil: "load" }), act()]);
}

/** Asks the API below this URL. The answer must be 2xx. */
export async function api(url, path, body) {
  const answer = await fetch(url + path, body && { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  const text = await answer.text();
  assert.ok(answer.ok, `${path}: ${answer.status} ${text}`);
  return JSON.parse(text);
}
