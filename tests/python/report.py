"""Takes a delivery status notification apart with the email package. argv[1] is {"file": …}; prints JSON."""

import email
import email.policy
import json
import pathlib
import sys

mail = email.message_from_bytes(
    pathlib.Path(json.loads(sys.argv[1])["file"]).read_bytes(), policy=email.policy.default
)
assert not any(part.defects for part in mail.walk()), [part.defects for part in mail.walk()]
text, status, returned = mail.get_payload()
groups = [dict(group.items()) for group in status.get_payload()]
returned_header = (
    returned.get_payload()[0]
    if returned.get_content_type() == "message/rfc822"
    else email.message_from_string(returned.get_content() if returned.get_content_maintype() == "text" else returned.get_payload())
)
print(
    json.dumps(
        {
            "type": mail.get_content_type(),
            "report_type": mail["Content-Type"].params.get("report-type"),
            "header": {name.lower(): value for name, value in mail.items()},
            "text_type": text.get_content_type(),
            "text": text.get_content(),
            "status_type": status.get_content_type(),
            "mail": groups[0],
            "recipients": groups[1:],
            "returned_type": returned.get_content_type(),
            "returned_subject": returned_header["Subject"],
        }
    )
)
