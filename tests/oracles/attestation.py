"""Checks attestations with securesystemslib (DSSE) and in-toto-attestation (statements and predicates).

Reads {"pem": the public key, "envelope": the envelope} from standard input, and prints a JSON object: what the attestation says, and
the positions at which a changed character of the envelope was not noticed. `attestation.py key` prints a new private key instead,
and `attestation.py statement` checks a statement with another predicate than a test's result.
"""

import hashlib
import json
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey


def verified(text, key):
    """The payload, or an exception."""
    envelope = Envelope.from_dict(json.loads(text))
    envelope.verify([key], 1)
    if envelope.payload_type != "application/vnd.in-toto+json":
        raise ValueError(envelope.payload_type)
    return envelope.payload


def accepts(text, key):
    try:
        verified(text, key)
        return True
    except Exception:
        return False


def unnoticed(text, key):
    """Positions of characters that can be replaced by their neighbours in ASCII, by A or by a blank."""
    found = set()
    for index, old in enumerate(text):
        for new in {chr(ord(old) ^ 1), chr(ord(old) ^ 2), "A", " "} - {old}:
            if accepts(text[:index] + new + text[index + 1 :], key):
                found.add(index)
    return sorted(found)


def of_statement(message, keyid, unnoticed):
    """What a seal or a provenance says."""
    said = {
        "keyid": keyid,
        "predicate_type": message.predicate_type,
        "subjects": [dict(subject.digest) for subject in message.subject],
        "unnoticed": unnoticed,
    }
    if message.predicate_type == "https://slsa.dev/provenance/v1":
        # The reader refuses unknown fields and times that are none.
        made = json_format.ParseDict(json_format.MessageToDict(message.predicate), Provenance())
        said["builder"] = made.run_details.builder.id
        said["invocation"] = made.run_details.metadata.invocation_id
        said["started"] = made.run_details.metadata.started_on.ToJsonString()
        said["made_from"] = [dict(one.digest) for one in made.build_definition.resolved_dependencies]
        said["byproducts"] = [one.name for one in made.run_details.byproducts]
    return said


def main():
    if sys.argv[1:] == ["key"]:
        key = ec.generate_private_key(ec.SECP256R1())
        pkcs8 = serialization.PrivateFormat.PKCS8
        print(key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()).decode())
        return
    given = json.load(sys.stdin)
    public = serialization.load_pem_public_key(given["pem"].encode())
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    keyid = hashlib.sha256(der).hexdigest()
    key = SSlibKey.from_crypto(public, keyid=keyid)

    payload = verified(given["envelope"], key)
    # Both readers refuse unknown fields.
    message = json_format.Parse(payload, StatementMessage())
    Statement.copy_from_pb(message).validate()
    if sys.argv[1:] == ["statement"]:
        print(json.dumps(of_statement(message, keyid, unnoticed(given["envelope"], key))))
        return
    result = json_format.ParseDict(json_format.MessageToDict(message.predicate), TestResult())
    print(
        json.dumps(
            {
                "keyid": keyid,
                "predicate_type": message.predicate_type,
                "subjects": [dict(subject.digest) for subject in message.subject],
                "result": result.result,
                "configuration": [descriptor.name for descriptor in result.configuration],
                "passed": list(result.passed_tests),
                "warned": list(result.warned_tests),
                "failed": list(result.failed_tests),
                "unnoticed": unnoticed(given["envelope"], key),
            }
        )
    )


main()
