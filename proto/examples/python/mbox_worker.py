"""Takes local mail out of the queue and files it into mboxes (RFC 4155, quoted as mboxrd), each mail exactly once."""
import argparse
import os
import pathlib
import queue
import re
import signal
import socket
import threading
import time

import grpc

from channel import open_channel
from postroad.queue.v1 import queue_pb2, queue_pb2_grpc, types_pb2

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5


class Mboxes:
    """One mbox per address, and a ledger: a line per filed mail, with the length of the mbox behind it.

    What a crash left behind the last length is cut off; what the ledger has is never filed again.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.filed, lengths = set(), {}
        path = self.folder / "LEDGER"
        whole = path.read_bytes() if path.exists() else b""
        for line in whole.splitlines(keepends=True):
            fields = line.decode().split()
            if not line.endswith(b"\n") or len(fields) != 4:
                break
            mail, index, length, address = fields
            self.filed.add((mail, index))
            lengths[address] = int(length)
        self.ledger = path.open("ab", buffering=0)
        self.ledger.truncate(whole.rfind(b"\n") + 1)
        self.ledger.seek(0, os.SEEK_END)
        for mbox in self.folder.glob("*.mbox"):
            os.truncate(mbox, lengths.get(mbox.stem, 0))

    def file(self, lease, recipient, content):
        """Durable when it returns."""
        mail = (lease.envelope.queue_id.hex(), str(recipient.index))
        if mail in self.filed:
            return
        address = recipient.address.lower().replace("/", "_")
        header = f"Return-Path: <{lease.envelope.reverse_path}>\r\nDelivered-To: {recipient.address}\r\n"
        text = header.encode() + edited(content, lease.envelope.header_edits)
        text = re.sub(rb"(?m)^(>*From )", rb">\1", text.replace(b"\r\n", b"\n"))
        stamp = time.asctime(time.gmtime())
        sender = lease.envelope.reverse_path or "MAILER-DAEMON"
        with (self.folder / f"{address}.mbox").open("ab", buffering=0) as mbox:
            before = mbox.tell()
            append(mbox, f"From {sender} {stamp}\n".encode() + text.rstrip(b"\n") + b"\n\n")
            try:
                append(self.ledger, " ".join((*mail, str(mbox.tell()), address)).encode() + b"\n")
            except OSError:
                mbox.truncate(before)
                raise
        self.filed.add(mail)


def append(file, octets):
    """All of it, durably, or nothing."""
    before = file.tell()
    try:
        while octets:
            octets = octets[file.write(octets) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        file.seek(before)
        raise


def edited(content, edits):
    """The content with what agents added to its header and took from it."""
    header, separator, body = content.partition(b"\r\n\r\n")
    fields = re.findall(rb"[^\r\n][^\r]*(?:\r\n[ \t][^\r]*)*(?:\r\n|$)", header + b"\r\n")
    for edit in edits:
        if edit.HasField("add"):
            fields.insert(len(fields) if edit.add.at_bottom else 0, edit.add.field)
            continue
        name = edit.remove.name.lower().encode()
        found = [i for i, field in enumerate(fields) if field.split(b":")[0].strip().lower() == name]
        if edit.remove.HasField("occurrence"):
            found = found[edit.remove.occurrence :][:1]
        fields = [field for i, field in enumerate(fields) if i not in found]
    return b"".join(fields) + b"\r\n" + (body if separator else b"")


class Worker:
    def __init__(self, stub, mboxes, credits):
        self.stub, self.mboxes, self.credits = stub, mboxes, credits
        self.unsettled = {}  # settlements the queue has not confirmed, by their lease
        self.up, self.busy = None, False
        self.leaving = threading.Event()

    def run(self):
        pause = FIRST_PAUSE
        while not self.leaving.is_set():
            try:
                self.converse()
                pause = FIRST_PAUSE
            except grpc.RpcError as error:
                print(f"lost the queue: {error.code().name}: {error.details()}", flush=True)
            self.leaving.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def converse(self):
        self.up = queue.SimpleQueue()
        held = [settlement.lease for settlement in self.unsettled.values()]
        hello = queue_pb2.WorkUp.Hello(
            agent=f"mbox@{socket.gethostname()}", version="1", host=socket.gethostname(),
            classes=[types_pb2.ROUTE_CLASS_LOCAL], held=held,
        )
        self.say(hello=hello)
        try:
            for message in self.stub.Work(iter(self.up.get, None)):
                self.busy = True
                self.hear(message)
                self.busy = False
                self.leave_if_done()
        finally:
            self.busy = False
            self.up.put(None)

    def leave(self, *_):
        self.leaving.set()
        self.leave_if_done()

    def leave_if_done(self):
        if self.leaving.is_set() and not self.busy and not self.unsettled and self.up:
            self.say(drained=queue_pb2.WorkUp.Drained())
            self.up.put(None)

    def say(self, **message):
        self.up.put(queue_pb2.WorkUp(**message))

    def hear(self, message):
        kind = message.WhichOneof("message")
        if kind == "welcome":
            self.resume(message.welcome.resumed)
            if not self.leaving.is_set():
                self.say(credits=self.credits)
        elif kind == "lease" and self.leaving.is_set():
            back = queue_pb2.HandBack(lease=message.lease.lease, reason="leaving")
            self.say(hand_back=back)
        elif kind == "lease":
            self.deliver(message.lease)
        elif kind == "settled":
            self.unsettled.pop(message.settled.lease.SerializeToString(deterministic=True), None)
            if not self.leaving.is_set():
                self.say(credits=1)
        elif kind == "drain":
            self.leaving.set()

    def resume(self, resumed):
        """Results of leases that go on are offered again, under their new names; the others are somebody else's now."""
        kept = {entry.old.SerializeToString(deterministic=True): entry.new for entry in resumed if entry.HasField("new")}
        before, self.unsettled = self.unsettled, {}
        for name, settlement in before.items():
            if name in kept:
                settlement.lease.CopyFrom(kept[name])
                self.settle(settlement)

    def deliver(self, lease):
        content, started = lease.content, int(time.time() * 1000)
        if not lease.HasField("content"):
            request = queue_pb2.ReadRequest(queue_id=lease.envelope.queue_id)
            content = b"".join(part.chunk for part in self.stub.Read(request))
        settlement = queue_pb2.Settlement(lease=lease.lease, started_at_ms=started)
        for recipient in lease.envelope.recipients:
            action, status, text = types_pb2.ACTION_DELIVERED, "2.1.5", "filed"
            try:
                self.mboxes.file(lease, recipient, content)
            except OSError as error:
                action, status, text = types_pb2.ACTION_DELAYED, "4.3.0", error.strerror
            outcome = types_pb2.Outcome(action=action, status=status, text=text)
            settlement.outcomes.add(index=recipient.index, outcome=outcome)
        self.settle(settlement)

    def settle(self, settlement):
        self.unsettled[settlement.lease.SerializeToString(deterministic=True)] = settlement
        self.say(settle=settlement)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("target", help="unix:/PATH or HOST:PORT")
    arguments.add_argument("folder", help="where the mboxes are")
    arguments.add_argument("--tls", help="folder with agents-ca.pem, agent.pem, agent.key")
    arguments.add_argument("--credits", type=int, default=8, help="mails at once")
    given = arguments.parse_args()
    stub = queue_pb2_grpc.QueueStub(open_channel(given.target, given.tls))
    worker = Worker(stub, Mboxes(given.folder), given.credits)
    signal.signal(signal.SIGTERM, worker.leave)
    worker.run()


if __name__ == "__main__":
    main()
