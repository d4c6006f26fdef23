"""Reads a mailbox over TLS as its owner does. argv[1] is {"imaps", "pop3s", "ca_file", "account", "password", "do"}; prints JSON.

"pop3" takes up to five mails away; "move" moves up to five from INBOX to Archive; "flag" sets flags of all in INBOX and leaves them;
"look" shows a "folder". Each prints the contents of the mails it was about.
"""

import base64
import imaplib
import json
import poplib
import ssl
import sys

AT_ONCE = 5
orders = json.loads(sys.argv[1])
tls = ssl.create_default_context(cafile=orders["ca_file"])
tls.check_hostname = False
found = []


def ok(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data


def pop3():
    client = poplib.POP3_SSL("127.0.0.1", orders["pop3s"], context=tls)
    client.user(orders["account"])
    client.pass_(orders["password"])
    for number in range(1, min(client.stat()[0], AT_ONCE) + 1):
        found.append(b"\r\n".join(client.retr(number)[1]) + b"\r\n")
        client.dele(number)
    client.quit()


def imap(do):
    client = imaplib.IMAP4_SSL("127.0.0.1", orders["imaps"], ssl_context=tls)
    ok(client.login(orders["account"], orders["password"]))
    client.create("Archive")
    ok(client.select(orders.get("folder", "INBOX"), readonly=do == "look"))
    uids = ok(client.uid("SEARCH", "ALL"))[0].split()
    for uid in uids if do != "move" else uids[:AT_ONCE]:
        uid = uid.decode()
        content = ok(client.uid("FETCH", uid, "(BODY.PEEK[])"))[0][1]
        if do == "flag":
            ok(client.uid("STORE", uid, "+FLAGS", r"(\Seen \Flagged)"))
        if do == "move":
            ok(client.uid("MOVE", uid, "Archive"))
        found.append(content)
    client.close()
    client.logout()


pop3() if orders["do"] == "pop3" else imap(orders["do"])
print(json.dumps([base64.b64encode(content).decode() for content in found]))
