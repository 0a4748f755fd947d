#!/usr/bin/env python3
"""How Python's email package reads what tests/differences feeds it.

Each line of standard input is a kind (list, header, mime), a blank, and the octets in hexadecimal. Each line
of the answer is JSON: the addresses of a list, name and value of each field, or the contents of all leaves,
octets in hexadecimal; null where it fails.
"""

import email
import email.parser
import email.policy
import email.utils
import json
import sys


def hexadecimal(text):
    # Octets that are no text are lone surrogates to Python.
    return text.encode("utf-8", "surrogateescape").hex()


def addresses(octets):
    found = email.utils.getaddresses([octets.decode("utf-8", "surrogateescape")])
    return [hexadecimal(address) for _, address in found if address]


def fields(octets):
    parser = email.parser.BytesHeaderParser(policy=email.policy.compat32)
    return [[hexadecimal(name), hexadecimal(value)] for name, value in parser.parsebytes(octets).raw_items()]


def leaves(part):
    # As it stands: get_payload() would decode it by its charset.
    content = part._payload
    if isinstance(content, list):
        return [leaf for each in content for leaf in leaves(each)]
    return [hexadecimal(content or "")]


READERS = {
    "list": addresses,
    "header": fields,
    "mime": lambda octets: leaves(email.message_from_bytes(octets, policy=email.policy.compat32)),
}

for line in sys.stdin:
    kind, _, text = line.strip().partition(" ")
    try:
        answer = READERS[kind](bytes.fromhex(text))
    except Exception as error:  # whatever it stumbles over is its answer
        print(f"{kind} {text}: {error!r}", file=sys.stderr)
        answer = None
    print(json.dumps(answer))
