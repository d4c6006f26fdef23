"""A foreign server: aiosmtpd that keeps each mail as a JSON file. argv[1] is {"port", "folder"}. Runs until killed."""

import base64
import json
import pathlib
import sys
import threading

from aiosmtpd.controller import Controller

orders = json.loads(sys.argv[1])
folder = pathlib.Path(orders["folder"])


class Keeper:
    def __init__(self):
        self.count = 0

    async def handle_DATA(self, server, session, envelope):
        kept = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "smtputf8": envelope.smtp_utf8,
            "options": envelope.mail_options,
            "content": base64.b64encode(envelope.original_content).decode(),
        }
        unfinished = folder / "unfinished"
        unfinished.write_text(json.dumps(kept))
        self.count += 1
        unfinished.rename(folder / f"{self.count}.json")
        return "250 2.0.0 kept"


Controller(
    Keeper(), hostname="127.0.0.1", port=orders["port"], enable_SMTPUTF8=True, data_size_limit=None
).start()
threading.Event().wait()
