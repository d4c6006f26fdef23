"""Hands one mail to the queue, as an MSA does for an account. Its exit status is that of sysexits.h."""
import argparse
import os
import sys
import time

import google_crc32c
import grpc

from channel import open_channel
from postroad.queue.v1 import queue_pb2, queue_pb2_grpc, types_pb2

CHUNK = 64 << 10
OK, REFUSED, TRY_AGAIN = 0, 69, 75
# The fate of a mail whose answer did not come is not known; these say that it was not taken.
FOR_GOOD = (grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED)


def new_queue_id(now_ms):
    """A UUID of version 7 (RFC 9562)."""
    octets = bytearray(now_ms.to_bytes(6, "big") + os.urandom(10))
    octets[6] = octets[6] & 0x0F | 0x70
    octets[8] = octets[8] & 0x3F | 0x80
    return bytes(octets)


def envelope_of(account, recipients):
    now = int(time.time() * 1000)
    return types_pb2.Envelope(
        queue_id=new_queue_id(now),
        reverse_path=account,
        recipients=[types_pb2.Recipient(index=i, address=to) for i, to in enumerate(recipients)],
        tenant="default",
        account=account,
        received_at_ms=now,
        origin=types_pb2.Origin(protocol="internal", account=account),
    )


def parts(envelope, content):
    yield queue_pb2.SubmitRequest(begin=envelope)
    for at in range(0, len(content), CHUNK):
        yield queue_pb2.SubmitRequest(chunk=content[at : at + CHUNK])
    end = queue_pb2.Completion(size=len(content), crc32c=google_crc32c.value(content))
    yield queue_pb2.SubmitRequest(end=end)


def submit(stub, envelope, content, patience):
    """The same mail under the same id, until the queue has answered."""
    deadline, pause = time.monotonic() + patience, 0.05
    while True:
        try:
            return stub.Submit(parts(envelope, content), timeout=30, wait_for_ready=False)
        except grpc.RpcError as error:
            if error.code() in FOR_GOOD or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("target", help="unix:/PATH or HOST:PORT")
    arguments.add_argument("account")
    arguments.add_argument("recipient", nargs="+")
    arguments.add_argument("--tls", help="folder with agents-ca.pem, agent.pem, agent.key")
    arguments.add_argument("--patience", type=float, default=60, help="seconds")
    given = arguments.parse_args()
    content = sys.stdin.buffer.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    stub = queue_pb2_grpc.QueueStub(open_channel(given.target, given.tls))
    try:
        accepted = submit(stub, envelope_of(given.account, given.recipient), content, given.patience)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return REFUSED if error.code() in FOR_GOOD else TRY_AGAIN
    print(accepted.queue_id.hex())
    return OK


if __name__ == "__main__":
    sys.exit(main())
