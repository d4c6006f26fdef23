"""Does one thing with a mailbox over IMAP. argv[1] is {"port", "account", "password", "do", …}; prints JSON."""

import base64
import imaplib
import json
import sys

orders = json.loads(sys.argv[1])


def ok(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data


client = imaplib.IMAP4("127.0.0.1", orders["port"])
ok(client.login(orders["account"], orders["password"]))
ok(client.select("INBOX"))
numbers = ok(client.search(None, "ALL"))[0].split()


def with_subject(subject):
    found = ok(client.search(None, "SUBJECT", f'"{subject}"'))[0].split()
    assert len(found) == 1, (subject, found)
    return found[0].decode()


if orders["do"] == "fetch":
    result = []
    for number in numbers:
        envelope, content = ok(client.fetch(number.decode(), "(FLAGS BODY.PEEK[])"))[0]
        flags = [flag.decode() for flag in imaplib.ParseFlags(envelope)]
        result.append({"flags": flags, "content": base64.b64encode(content).decode()})
elif orders["do"] == "flag":
    ok(client.store(with_subject(orders["subject"]), "+FLAGS", r"(\Seen \Flagged)"))
    result = True
elif orders["do"] == "move":
    client.create("Archive")
    number = with_subject(orders["subject"])
    ok(client.copy(number, "Archive"))
    ok(client.store(number, "+FLAGS", r"(\Deleted)"))
    ok(client.expunge())
    result = True
client.close()
client.logout()
print(json.dumps(result))
