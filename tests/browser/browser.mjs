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

export const THEMES = ["light", "dark"];

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

/** A tab whose `problems` lists errors in the console, exceptions, failed requests, and requests to another origin. */
export async function open(browser, { script = true } = {}) {
  const context = await browser.createBrowserContext(), tab = await context.newPage();
  const problems = [];
  await tab.setJavaScriptEnabled(script);
  tab.on("pageerror", (error) => problems.push(`exception: ${error.message}`));
  tab.on("requestfailed", (request) => {
    // A page that is left ends its requests.
    if (request.failure()?.errorText !== "net::ERR_ABORTED") problems.push(`${request.url()}: ${request.failure()?.errorText}`);
  });
  tab.on("request", (request) => {
    const url = new URL(request.url());
    if (tab.home && url.protocol.startsWith("http") && url.origin !== tab.home) problems.push(`a request to ${url.origin}`);
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

/** Findings of Google's evaluator that are certain, and at least of medium severity. */
export function policyFindings(policy) {
  const found = new CspEvaluator(new CspParser(policy).csp).evaluate();
  return found.filter(({ severity }) => severity <= Severity.MEDIUM).map(({ directive, description }) => `${directive}: ${description}`);
}

/** Takes a picture if somebody asked for pictures. */
export async function picture(tab, name) {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await tab.screenshot({ path: join(process.env.SHOTS, `${name}.png`), fullPage: true });
}
