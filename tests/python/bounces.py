"""Finds whom a report is about, as Mailman does. argv[1] is {"file": …}; prints JSON."""

import email
import json
import pathlib
import sys

from flufl.bounce import all_failures

mail = email.message_from_bytes(pathlib.Path(json.loads(sys.argv[1])["file"]).read_bytes())
temporary, permanent = all_failures(mail)
names = lambda found: sorted(one.decode() if isinstance(one, bytes) else one for one in found)
print(json.dumps({"temporary": names(temporary), "permanent": names(permanent)}))
