// The checks themselves: each notices what it is for.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { COLOURS, dress, launch, open, overflow, policyFindings, setWidth, violations, visit } from "./browser.mjs";

const STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'";
const page = (body) => `<!DOCTYPE html><html lang="en"><head><meta name="viewport" content="width=device-width"><title>A page</title>
<link rel="stylesheet" href="/style.css"></head><body><main><h1>A page</h1>${body}</main></body></html>`;
const STYLE = `.pale { color: #aaa; background: #fff } @media (prefers-color-scheme: dark) { .dim { color: #444; background: #000 } }
.wide { width: 600px }`;

let server, url, browser, policy = STRICT, body = "";
before(async () => {
  server = createServer((request, answer) => {
    const [type, text] = request.url === "/style.css" ? ["text/css", STYLE] : ["text/html", page(body)];
    answer.writeHead(request.url === "/missing" ? 404 : 200, { "content-type": type, "content-security-policy": policy }).end(text);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${server.address().port}/`;
  browser = await launch();
});
after(async () => {
  await browser.close();
  server.close();
});

/** What a tab notices on a page with this body. */
async function noticed(html, look = async () => [], itsPolicy = STRICT) {
  [body, policy] = [html, itsPolicy];
  const tab = await open(browser);
  await setWidth(tab, 390);
  await dress(tab, "light");
  await visit(tab, url);
  const found = [...(await look(tab)), ...tab.problems];
  await tab.end();
  return found.join("\n");
}

test("a good page has no problem", async () => {
  const all = async (tab) => [...(await violations(tab)), ...(await violations(tab, COLOURS)), await overflow(tab)].filter(Boolean);
  assert.equal(await noticed("<p>Text</p>", all), "");
});
test("an inline script is a report of the policy", async () => {
  assert.match(await noticed("<script>1</script>"), /console: .*inline script/);
});
test("an exception is a problem", async () => {
  assert.match(await noticed("<script>throw new Error('no')</script>", undefined, "script-src 'unsafe-inline'"), /exception: no/);
});
test("an image of another site is a problem", async () => {
  assert.match(await noticed("<img alt='' src='http://127.0.0.1:1/a.png'>", undefined, "img-src *"), /a request to http:\/\/127\.0\.0\.1:1/);
});
test("a missing image is a problem", async () => {
  assert.match(await noticed("<img alt='' src='/missing'>", undefined, "img-src *"), /console: .*404/);
});
test("a weak policy is a problem", async () => {
  assert.match(await noticed("", undefined, "script-src 'unsafe-inline' *"), /policy of \/: script-src/);
  assert.notDeepEqual(policyFindings({}), []);
});
test("an image without a text is a violation", async () => {
  assert.match(await noticed("<img src='data:,'>", violations, `${STRICT}; img-src data:`), /image-alt/);
});
test("pale text is a violation", async () => {
  assert.match(await noticed("<p class='pale'>Text</p>", violations), /color-contrast/);
});
test("text that is dim only in the dark is a violation there", async () => {
  const inTheDark = async (tab) => {
    assert.deepEqual(await violations(tab), []);
    await dress(tab, "dark");
    return violations(tab, COLOURS);
  };
  assert.match(await noticed("<p class='dim'>Text</p>", inTheDark), /color-contrast/);
});
test("a page wider than its window is named", async () => {
  assert.match(await noticed("<p class='wide'>Text</p>", async (tab) => [await overflow(tab)]), /by 2\d\d px: <p class="wide">/);
});
