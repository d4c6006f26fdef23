"""Submits a file with smtplib. Orders are a JSON object in argv[1]; refusals are shown as smtplib raises them."""

import json
import pathlib
import smtplib
import ssl
import sys

orders = json.loads(sys.argv[1])
content = pathlib.Path(orders["file"]).read_bytes()
trust = ssl.create_default_context(cafile=orders["ca_file"])
if orders["tls"] == "implicit":
    client = smtplib.SMTP_SSL("localhost", orders["port"], "client.test", timeout=60, context=trust)
else:
    client = smtplib.SMTP("localhost", orders["port"], "client.test", timeout=60)
try:
    with client:
        if orders["tls"] == "start":
            client.starttls(context=trust)
        if orders["account"]:
            client.login(orders["account"], orders["password"])
        options = ["BODY=8BITMIME"] if client.has_extn("8BITMIME") else []
        if not all(address.isascii() for address in orders["to"]):
            options.append("SMTPUTF8")
        refused = client.sendmail(orders["from"], orders["to"], content, options)
        assert not refused, refused
except smtplib.SMTPException as error:
    sys.exit(f"{type(error).__name__} {error}")
