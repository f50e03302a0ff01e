"""What tests put between Aerospike's client and a real server, to make happen what the server alone does not."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping

import aerospike_server

INFO, ADMIN, DATA = 1, 2, 3  # message types of the server's protocol
RESULT = 13  # where the result code of an answer to a data request is
HEADER = 30  # of a message and of a data request in it
DIGEST, LAST = 4, 1
AUTHENTICATE = 0
USER, CREDENTIAL, TOKEN = 0, 3, 5
UNKNOWN_USER, WRONG_PASSWORD = 60, 62


class Proxy:
    """Passes messages on, and when told to loses answers, refuses requests, or hangs up.

    A lost answer: the server has acted, the client hears nothing. `how` is "cut" (the connection breaks) or "silence"
    (it stays, and the client times out).
    """

    def __init__(self) -> None:
        self._listener = socket.create_server((aerospike_server.LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.server: tuple[str, int] = ("", 0)
        self.lost = 0
        self._how = "cut"
        self._to_lose = 0
        self._to_pass: int | None = None
        self._code = 0
        self.rate: float | None = None
        """Bytes a second on the way to the server."""
        self._link = threading.Lock()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, answers: int, how: str) -> None:
        """Lose the next `answers` answers to data requests."""
        self._how, self._to_lose, self.lost = how, answers, 0

    def hang_up_after(self, requests: int | None) -> None:
        """Pass the next `requests` data requests on, and then none any more; None: all again."""
        self._to_pass = requests

    def refuse(self, code: int) -> None:
        """Answer every data request with this result code, whatever the server says; 0: with what it says."""
        self._code = code

    def close(self) -> None:
        self._listener.close()

    def greet(self, client: socket.socket) -> socket.socket:
        """The connection to go on with; OSError to hang up."""
        return client

    def answer(self, request: bytes, server: socket.socket) -> bytes:
        if self.rate:
            with self._link:
                time.sleep(len(request) / self.rate)
        server.sendall(request)
        answer = read_message(server)
        while answer and request[1] == DATA and not (names_one_record(request) or is_last(answer)):
            more = read_message(server)
            answer = answer + more if more else b""
        return answer

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, self.greet(client) as peer, socket.create_connection(self.server) as server:
                while request := read_message(peer):
                    if request[1] == DATA and self._hangs_up():
                        return
                    answer = self.answer(request, server)
                    if request[1] == DATA and self._loses():
                        if self._how == "cut":
                            return
                        continue
                    if request[1] == DATA and self._code:
                        answer = answer[:RESULT] + bytes([self._code]) + answer[RESULT + 1 :]
                    peer.sendall(answer)
        except OSError:
            return  # either side hung up, as the tests make them do

    def _loses(self) -> bool:
        with self._lock:
            if self._to_lose == 0:
                return False
            self._to_lose -= 1
            self.lost += 1
            return True

    def _hangs_up(self) -> bool:
        with self._lock:
            if self._to_pass:
                self._to_pass -= 1
                return False
            return self._to_pass == 0


class Gate(Proxy):
    """Gives a Community server what only the Enterprise Edition has: TLS, and users that log in.

    `users`: who may log in, and the hash that the client sends for the password; None: the first that is given counts.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, users: dict[str, bytes | None] | None = None) -> None:
        self._tls = tls
        self._users = users
        self.certificates: set[str] = set()
        super().__init__()

    def greet(self, client: socket.socket) -> socket.socket:
        if self._tls is None:
            return client
        secured = self._tls.wrap_socket(client, server_side=True)
        certificate = secured.getpeercert() or {}
        self.certificates |= {value for names in certificate.get("subject", ()) for _, value in names}  # type: ignore[misc]
        return secured

    def answer(self, request: bytes, server: socket.socket) -> bytes:
        if request[1] == ADMIN and self._users is not None:
            return self._log_in(request)
        if self._tls is None or request[1] != INFO:
            return super().answer(request, server)
        answer = super().answer(renamed(request, b"-tls-", b"-clear-"), server)
        return renamed(answer, b"-clear-", b"-tls-")

    def _log_in(self, request: bytes) -> bytes:
        assert self._users is not None
        if request[10] == AUTHENTICATE:
            return admin_message(0)
        given = fields(request[24:])
        user = given[USER].decode()
        if user not in self._users:
            return admin_message(UNKNOWN_USER)
        self._users[user] = self._users[user] or given[CREDENTIAL]
        if self._users[user] != given[CREDENTIAL]:
            return admin_message(WRONG_PASSWORD)
        return admin_message(0, {TOKEN: b"token"})


def read_message(source: socket.socket) -> bytes:
    """One message of the protocol, header and body; empty at the end."""
    header = _read(source, 8)
    return header + _read(source, int.from_bytes(header[2:], "big")) if header else b""


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := source.recv(size - len(data))):
            return b""
        data += more
    return data


def names_one_record(request: bytes) -> bool:
    """Whether one message answers a data request; batches and scans get several."""
    at = HEADER
    for _ in range(int.from_bytes(request[26:28], "big")):
        if request[at + 4] == DIGEST:
            return True
        at += 4 + int.from_bytes(request[at : at + 4], "big")
    return False


def is_last(answer: bytes) -> bool:
    """Whether these messages to a batch or a scan are all."""
    at = 0
    while at < len(answer):
        end = at + 8 + int.from_bytes(answer[at + 2 : at + 8], "big")
        at += 8
        while at < end:
            if answer[at + 3] & LAST:
                return True
            fields_and_values = sum(struct.unpack_from(">HH", answer, at + 18))
            at += 22
            for _ in range(fields_and_values):
                at += 4 + int.from_bytes(answer[at : at + 4], "big")
    return False


def renamed(message: bytes, old: bytes, new: bytes) -> bytes:
    body = message[8:].replace(old, new)
    return message[:2] + len(body).to_bytes(6, "big") + body


def admin_message(result: int, given: Mapping[int, bytes] | None = None) -> bytes:
    body = bytes([0, result, 0, len(given or {})]) + bytes(12)
    body += b"".join(struct.pack(">IB", len(value) + 1, name) + value for name, value in (given or {}).items())
    return bytes([2, ADMIN]) + len(body).to_bytes(6, "big") + body


def fields(body: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while body:
        size, name = struct.unpack_from(">IB", body)
        found[name] = body[5 : 4 + size]
        body = body[4 + size :]
    return found
