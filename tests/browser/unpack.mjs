// Unpacks the Chromium of the package @sparticuz/chromium into a folder, with fonts: `node unpack.mjs PACKAGE FOLDER`.
//
// The package's own code would unpack into /tmp, where every user of the machine may have put another program.
import { createReadStream, createWriteStream, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const [from, into] = process.argv.slice(2).map((path) => resolve(path));
const { extract } = createRequire(`${from}/package.json`)("tar-fs");

const unpack = (name, target) =>
  pipeline(createReadStream(join(from, "bin", `${name}.br`)), createBrotliDecompress(), target);

mkdirSync(into, { recursive: true });
await Promise.all([
  unpack("chromium", createWriteStream(join(into, "chromium"), { mode: 0o755 })),
  // Libraries that a machine without a desktop lacks.
  unpack("al2023.tar", extract(into)),
  unpack("fonts.tar", extract(join(into, "fonts"))),
]);
// Texts have the same width on every machine. The fonts are like those of people's machines, where code is wider than text.
const ALIASES = { Inter: ["system-ui", "sans-serif"], "JetBrains Mono": ["ui-monospace", "monospace"] };
const alias = ([font, names]) => names.map((name) => `<match target="pattern"><test name="family"><string>${name}</string></test>
<edit name="family" mode="assign" binding="strong"><string>${font}</string></edit></match>`).join("\n");
const fonts = [join(into, "fonts"), join(from, "../../@expo-google-fonts")];
writeFileSync(
  join(into, "fonts.conf"),
  `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
${fonts.map((folder) => `<dir>${folder}</dir>`).join("\n")}
<cachedir>${join(into, "cache")}</cachedir>
${Object.entries(ALIASES).map(alias).join("\n")}
</fontconfig>
`,
);
