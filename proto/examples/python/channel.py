"""A channel to the queue: a Unix socket, or TCP with mutual TLS."""
import pathlib

import grpc


# A queue that hangs is noticed; what it was told may be lost, and is told again.
OPTIONS = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 20_000)]


def open_channel(target, tls=None):
    if tls is None:
        return grpc.insecure_channel(target, [*OPTIONS, ("grpc.default_authority", "localhost")])
    folder = pathlib.Path(tls)
    authority, key, certificate = (
        (folder / name).read_bytes() for name in ("agents-ca.pem", "agent.key", "agent.pem")
    )
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authority, key, certificate), OPTIONS)
