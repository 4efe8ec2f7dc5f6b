"""What stands between a feed and a broker in its place of work: TLS that asks for a certificate, and a user and password. The
broker of the tests has neither; this gate ends TLS, answers the SASL requests itself, and passes on everything else."""

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading

import trustme

METADATA, FIND_COORDINATOR, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 3, 10, 17, 18, 36
AUTHENTICATION_FAILED = 58


def receive(stream):
    """One frame; none at the end."""
    head = exactly(stream, 4)
    return None if head is None else exactly(stream, struct.unpack(">i", head)[0])


def exactly(stream, count):
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def send(stream, frame):
    stream.sendall(struct.pack(">i", len(frame)) + frame)


class Scram:
    """The server's side of SCRAM."""

    def __init__(self, algorithm, password):
        self.algorithm, self.password = algorithm, password

    def step(self, message):
        """The answer; none when the proof is wrong. Whether that is all is said second."""
        fields = dict(part.split("=", 1) for part in message.decode().removeprefix("n,,").split(",") if "=" in part)
        if "p" not in fields:
            self.first_bare = message.decode().removeprefix("n,,")
            self.nonce, self.salt = fields["r"] + base64.b64encode(os.urandom(12)).decode(), os.urandom(16)
            self.first = f"r={self.nonce},s={base64.b64encode(self.salt).decode()},i=4096"
            return self.first.encode(), False
        mac = lambda key, data: hmac.new(key, data, self.algorithm).digest()
        salted = hashlib.pbkdf2_hmac(self.algorithm, self.password.encode(), self.salt, 4096)
        key = mac(salted, b"Client Key")
        said = f"{self.first_bare},{self.first},{message.decode().rsplit(',p=', 1)[0]}".encode()
        proof = bytes(a ^ b for a, b in zip(key, mac(hashlib.new(self.algorithm, key).digest(), said)))
        if fields["r"] != self.nonce or base64.b64decode(fields["p"]) != proof:
            return None, True
        return b"v=" + base64.b64encode(mac(mac(salted, b"Server Key"), said)), True


class Gate:
    """`with Gate(port of the broker, user, password) as gate:`"""

    def __init__(self, broker_port, user, password):
        self.broker_port, self.user, self.password = broker_port, user, password
        self.authority = trustme.CA()
        self.ours = self.authority.issue_cert("127.0.0.1")
        self.theirs = self.authority.issue_cert("bigpeer.example")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ours.configure_cert(self.context)
        self.authority.configure_trust(self.context)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.mechanisms = set()

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def tls(self):
        """What a feed has to know."""
        key = self.theirs.private_key_pem.bytes().decode()
        chain = "".join(pem.bytes().decode() for pem in self.theirs.cert_chain_pems)
        return {"ca": self.authority.cert_pem.bytes().decode(), "certificate": chain, "key": key}

    def accept(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(plain,), daemon=True).start()

    def serve(self, plain):
        try:
            with self.context.wrap_socket(plain, server_side=True) as client:
                with socket.create_connection(("127.0.0.1", self.broker_port)) as broker:
                    self.pass_on(client, broker)
        except (OSError, ssl.SSLError):
            plain.close()

    def pass_on(self, client, broker):
        let_in, exchange = False, None
        while (request := receive(client)) is not None:
            key, version, correlation = struct.unpack(">hhi", request[:8])
            if key == SASL_HANDSHAKE:
                after = 10 + max(struct.unpack(">h", request[8:10])[0], 0)
                length = struct.unpack(">h", request[after : after + 2])[0]
                mechanism = request[after + 2 : after + 2 + length].decode()
                scram = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}.get(mechanism)
                exchange = Scram(scram, self.password) if scram else None
                self.mechanisms.add(mechanism)
                name = mechanism.encode()
                send(client, struct.pack(">ihih", correlation, 0, 1, len(name)) + name)
            elif key == SASL_AUTHENTICATE:
                after = 10 + max(struct.unpack(">h", request[8:10])[0], 0)
                answer, done = self.check(exchange, request[after + 4 :])
                let_in = answer is not None and done
                error, answer = (0, answer) if answer is not None else (AUTHENTICATION_FAILED, b"")
                send(client, struct.pack(">ihhi", correlation, error, -1, len(answer)) + answer)
            elif key == API_VERSIONS or let_in:
                send(broker, request)
                send(client, self.changed(key, version, receive(broker)))
            else:
                return

    def check(self, exchange, message):
        if exchange is not None:
            return exchange.step(message)
        _, user, password = message.split(b"\0")
        return (b"" if (user.decode(), password.decode()) == (self.user, self.password) else None), True

    def changed(self, key, version, answer):
        """An answer of the broker as one of the gate: its port, and that it knows SASL."""
        if key in (METADATA, FIND_COORDINATOR):
            return answer.replace(struct.pack(">i", self.broker_port), struct.pack(">i", self.port))
        if key != API_VERSIONS or answer[4:6] != b"\0\0":
            return answer
        known = ((SASL_HANDSHAKE, 1), (SASL_AUTHENTICATE, 0))
        if version >= 3:
            entries, width = answer[6] - 1, 7
            rest = answer[7:]
        else:
            entries, width = struct.unpack(">i", answer[6:10])[0], 6
            rest = answer[10:]
        kept = [rest[place * width : (place + 1) * width] for place in range(entries)]
        kept = [entry for entry in kept if struct.unpack(">h", entry[:2])[0] not in (SASL_HANDSHAKE, SASL_AUTHENTICATE)]
        kept += [struct.pack(">hhh", key, 0, most) + b"\0" * (width - 6) for key, most in known]
        count = bytes([len(kept) + 1]) if version >= 3 else struct.pack(">i", len(kept))
        return answer[:6] + count + b"".join(kept) + rest[entries * width :]
