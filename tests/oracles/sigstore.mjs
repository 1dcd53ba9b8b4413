// Checks DSSE envelopes with @sigstore/verify, each as a Sigstore bundle with a public key that is trusted.
//
// `node sigstore.mjs DIR`: DIR has node_modules. Reads [{"pem": the public key, "envelope": the envelope}] from standard input. Prints the type of
// each predicate. Fails if one is refused, or if one with a changed byte is accepted.
import assert from "node:assert/strict";
import { createHash, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.argv[2], "package.json"));
const { bundleFromJSON } = require("@sigstore/bundle");
const { toSignedEntity, toTrustMaterial, Verifier } = require("@sigstore/verify");

const NOTHING = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };

/** The statement, or an exception. */
function verified(pem, envelope) {
  const rawBytes = createPublicKey(pem).export({ type: "spki", format: "der" });
  const keyid = createHash("sha256").update(rawBytes).digest("hex");
  const bundle = bundleFromJSON({
    mediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
    verificationMaterial: { publicKey: { hint: envelope.signatures[0].keyid }, tlogEntries: [] },
    dsseEnvelope: envelope,
  });
  const verifier = new Verifier(toTrustMaterial(NOTHING, { [keyid]: { rawBytes } }), {
    tlogThreshold: 0,
    ctlogThreshold: 0,
    timestampThreshold: 0,
  });
  verifier.verify(toSignedEntity(bundle));
  return JSON.parse(Buffer.from(envelope.payload, "base64"));
}

function changed(envelope) {
  const [copy, bytes] = [structuredClone(envelope), Buffer.from(envelope.payload, "base64")];
  bytes[bytes.length >> 1] ^= 1;
  copy.payload = bytes.toString("base64");
  return copy;
}

const given = JSON.parse(readFileSync(0));
const types = given.map(({ pem, envelope }) => {
  const { predicateType } = verified(pem, envelope);
  assert.throws(() => verified(pem, changed(envelope)), `a changed ${predicateType} is accepted`);
  return predicateType;
});
console.log(JSON.stringify(types));
