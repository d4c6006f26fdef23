"""An issuer of access tokens (keys by openssl, a JWKS by HTTPS), and a client that logs in by them with smtplib.

Orders are a JSON object in argv[1]. Says `serving` once the keys can be fetched, waits for a line, and then tries; prints a JSON object of what
was tried and the codes that came back."""

import base64
import hashlib
import hmac
import http.server
import json
import smtplib
import ssl
import subprocess
import sys
import tempfile
import threading
import time

orders = json.loads(sys.argv[1])
folder = tempfile.mkdtemp()


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def openssl(*arguments, octets=None):
    return subprocess.run(["openssl", *arguments], input=octets, capture_output=True, check=True).stdout


def make_key(name):
    path = f"{folder}/{name}.pem"
    openssl("genrsa", "-out", path, "2048")
    return path


def modulus(path):
    return bytes.fromhex(openssl("rsa", "-in", path, "-noout", "-modulus").decode().strip().split("=")[1])


ours, foreign = make_key("ours"), make_key("foreign")
jwks = {"keys": [{"kty": "RSA", "use": "sig", "kid": "k1", "n": b64(modulus(ours)), "e": "AQAB"}]}


def token(path=ours, header=None, **claims):
    header = {"alg": "RS256", "kid": "k1", "typ": "at+jwt"} | (header or {})
    now = int(time.time())
    claims = {
        "iss": orders["issuer"],
        "aud": "mail.demo.test",
        "scope": "openid mail.send",
        "email": orders["account"],
        "email_verified": True,
        "iat": now,
        "exp": now + 300,
    } | claims
    signed = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    match header["alg"]:
        case "RS256":
            signature = openssl("dgst", "-sha256", "-sign", path, octets=signed.encode())
        case "PS256":
            options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
            signature = openssl("dgst", "-sha256", *options, "-sign", path, octets=signed.encode())
        case "HS256":
            # The public key, as whoever mixes up kinds of keys would take it for a secret.
            public = openssl("rsa", "-in", path, "-pubout")
            signature = hmac.digest(public, signed.encode(), hashlib.sha256)
        case "none":
            signature = b""
    return f"{signed}.{b64(signature)}"


class Keys(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = json.dumps(jwks).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/jwk-set+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def log_in(mechanism, user, token):
    trust = ssl.create_default_context(cafile=orders["ca_file"])
    client = smtplib.SMTP_SSL("localhost", orders["port"], "client.test", timeout=60, context=trust)
    with client:
        client.ehlo()
        assert mechanism in client.esmtp_features["auth"].split(), client.esmtp_features
        answers = {
            "XOAUTH2": f"user={user}\1auth=Bearer {token}\1\1",
            "OAUTHBEARER": f"n,a={user},\1host=localhost\1port={orders['port']}\1auth=Bearer {token}\1\1",
        }
        answer = base64.b64encode(answers[mechanism].encode()).decode()
        code, said = client.docmd("AUTH", f"{mechanism} {answer}")
        if code == 334:
            why = json.loads(base64.b64decode(said))
            assert why["status"] and why["scope"] == "mail.send", why
            code, said = client.docmd("AQ==")
        if code == 235:
            content = f"From: {user}\r\nSubject: by {mechanism}\r\n\r\na\r\n"
            client.sendmail(user, [orders["to"]], content)
        return code


server = http.server.ThreadingHTTPServer(("127.0.0.1", orders["keys_port"]), Keys)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(orders["cert_file"], orders["key_file"])
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("serving", flush=True)
sys.stdin.readline()

past = int(time.time()) - 3600
tried = {
    "RS256": token(),
    "PS256": token(header={"alg": "PS256"}),
    "expired": token(exp=past),
    "early": token(nbf=int(time.time()) + 3600),
    "foreign key": token(path=foreign),
    "foreign issuer": token(iss="https://evil.test"),
    "foreign audience": token(aud="other.test"),
    "no scope": token(scope="openid"),
    "somebody else": token(email=orders["to"]),
    "unverified": token(email_verified=False),
    "none": token(header={"alg": "none"}),
    "HMAC": token(header={"alg": "HS256"}),
    "unknown key": token(header={"kid": "k2"}),
}
codes = {
    name: [log_in(mechanism, orders["account"], one) for mechanism in ("XOAUTH2", "OAUTHBEARER")]
    for name, one in tried.items()
}
print(json.dumps(codes))
