// Makes the pictures of README from the gallery: `make pictures`.
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import assert from "node:assert/strict";

import { dress, launch, open, visit } from "./browser.mjs";

const gallery = JSON.parse(readFileSync(process.env.NOFX_TEST_GALLERY, "utf8"));
const FOLDER = "../../docs/images";
const MAX_BYTES = 200_000;
/** Name of the picture, page of the gallery, theme, height in pixels. */
const PICTURES = [
  ["run", "run-running", "light", 860],
  ["failed", "step-uncovered", "light", 860],
  ["decision", "gate-release", "dark", 860],
  ["runs", "runs", "dark", 860],
];

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

for (const [name, page, theme, height] of PICTURES) {
  test(`${name}.webp shows the page ${page}`, async () => {
    const tab = await open(browser);
    await tab.setViewport({ width: 1280, height, deviceScaleFactor: 1.5 });
    await dress(tab, theme);
    const { path, status } = gallery.pages.find((known) => known.name === page);
    await visit(tab, gallery.url + path, status);
    mkdirSync(FOLDER, { recursive: true });
    const bytes = await tab.screenshot({ path: `${FOLDER}/${name}.webp`, type: "webp", quality: 85 });
    assert.ok(bytes.length < MAX_BYTES, `${bytes.length} bytes`);
    await tab.end();
  });
}
