"""An Aerospike URL says all that connecting needs, and no message says what is secret in it."""

from __future__ import annotations

import ssl
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aerospike
import aerospike_server
import pytest
from aerospike_front import Gate
from aerospike_server import Cluster

from foldpoint import FoldpointSaver
from foldpoint.engine.aerospike import AerospikeStore
from foldpoint.engine.aerospike.url import parse
from foldpoint.engine.records import RecordStore
from foldpoint.engine.url import open_store
from foldpoint.errors import StoreForbidden, StoreUnavailable
from foldpoint.settings import Settings, load_settings

SECRET = "geheim"
TLS_OPTIONS = {
    "cafile": "/ca file.pem",
    "capath": "/certificates",
    "certfile": "/c.pem",
    "keyfile": "/k.pem",
    "keyfile_pw": SECRET,
    "cipher_suite": "ALL:!NULL",
    "protocols": "-all +TLSv1.3",
    "crl_check": True,
    "for_login_only": False,
}


def url(text: str) -> str:
    return f"aerospike://{text}"


class TestParsing:
    def test_hosts_and_a_namespace_are_enough(self) -> None:
        assert parse(url("db/agents")) == {
            "hosts": [("db", 3000)],
            "namespace": "agents",
            "prefix": "fp",
            "user": None,
            "password": None,
            "tls": None,
            "policies": {},
            "config": {},
            "deadline": 10.0,
        }

    @pytest.mark.parametrize(
        ("hosts", "expected"),
        [
            ("a:1,b,10.0.0.1:65535", [("a", 1), ("b", 3000), ("10.0.0.1", 65535)]),
            ("[::1]:4000,[fe80::2]", [("::1", 4000), ("fe80::2", 3000)]),
            ("a:tls-a:4333,[::1]:tls-b:4333", [("a", 4333, "tls-a"), ("::1", 4333, "tls-b")]),
        ],
    )
    def test_hosts(self, hosts: str, expected: list[Any]) -> None:
        assert parse(url(f"{hosts}/agents?tls=true"))["hosts"] == expected

    @pytest.mark.parametrize(
        ("login", "user", "password"),
        [
            ("anna:p%40%3A%2F%3F%23%25@", "anna", "p@:/?#%"),
            ("we%40b:@", "we@b", ""),
            ("anna@", "anna", None),
            ("anna:a:b@", "anna", "a:b"),
        ],
    )
    def test_user_and_password_are_decoded(self, login: str, user: str, password: str | None) -> None:
        parsed = parse(url(f"{login}db/agents"))
        assert (parsed["user"], parsed["password"]) == (user, password)

    def test_options_of_tls_go_to_the_client_as_it_names_them(self) -> None:
        options = (
            "cafile=/ca%20file.pem&capath=/certificates&certfile=/c.pem&keyfile=/k.pem&keyfile_pw=geheim"
            "&cipher_suite=ALL:!NULL&protocols=-all%20%2BTLSv1.3&crl_check=true&for_login_only=false"
        )
        assert parse(url(f"db/agents?tls=true&{options}"))["tls"] == TLS_OPTIONS
        assert parse(url("db/agents?tls=true"))["tls"] == {}

    def test_options_of_the_client_and_policies_go_to_it_as_it_names_them(self) -> None:
        parsed = parse(
            url(
                "db/agents?prefix=p%20q&deadline=2.5&max_conns_per_node=50&max_socket_idle=0&connect_timeout=300"
                "&tend_interval=250&cluster_name=c&use_services_alternate=true&auth_mode=external&login_timeout_ms=9"
                "&read.max_retries=0&write.total_timeout=500&batch_read.socket_timeout=7&query.sleep_between_retries=1"
            )
        )
        assert (parsed["prefix"], parsed["deadline"]) == ("p q", 2.5)
        assert parsed["config"] == {
            "max_conns_per_node": 50,
            "max_socket_idle": 0,
            "connect_timeout": 300,
            "tend_interval": 250,
            "cluster_name": "c",
            "use_services_alternate": True,
            "policies": {"auth_mode": aerospike.AUTH_EXTERNAL, "login_timeout_ms": 9},
        }
        assert parsed["policies"] == {
            "read": {"max_retries": 0},
            "write": {"total_timeout": 500},
            "batch_read": {"socket_timeout": 7},
            "query": {"sleep_between_retries": 1},
        }

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            ("db", "expected aerospike://user:password@host:3000"),
            ("db/", "expected aerospike://"),
            ("/agents", "expected aerospike://"),
            ("db/agents/more", "expected aerospike://"),
            (f"anna:{SECRET}/{SECRET}@db/agents", "write / . # @ : in a user or a password as %2F"),
            (f"anna:{SECRET}#{SECRET}@db/agents", "%23"),
            (f"anna:{SECRET}?{SECRET}@db/agents", "%3F"),
            (f"anna:12/agents?x={SECRET}@db", "%40"),
            (f"anna:{SECRET}", "expected aerospike://"),
            (f":{SECRET}@db/agents", "without a user"),
            (f"db:{SECRET}/agents", "a port from 1 to 65535"),
            ("db:0/agents", "a port from 1 to 65535"),
            ("db:65536/agents", "a port from 1 to 65535"),
            ("db,,db2/agents", "expected hosts"),
            ("::1/agents", "expected hosts"),
            ("db:4333:name/agents", "host:tls-name:port"),
            ("db:name:4333/agents", "tls=true"),
            ("db/agents?cafile=/ca.pem", "tls=true"),
            ("db/agents?tls=false&cafile=/ca.pem", "tls=true"),
            ("db/agents?tls", "option tls: .*boolean"),
            ("db/agents?prefix=a&prefix=b", "option prefix is given twice"),
            ("db/agents?read.max_retries=1&read.max_retries=2", "option read.max_retries is given twice"),
            ("db/agents?prefx=a", r"no option prefx; there are .*\bprefix\b.*total_timeout"),
            ("db/agents?write.max_retries=3", "no option write.max_retries"),
            ("db/agents?scan.max_retries=3", "no option scan"),
            ("db/agents?read=3", "option read: "),
            ("db/agents?deadline=0", "option deadline: .*greater than 0"),
            ("db/agents?deadline=inf", "option deadline: .*finite"),
            ("db/agents?tend_interval=249", "option tend_interval: .*250"),
            ("db/agents?max_conns_per_node=-1", "option max_conns_per_node: .*greater than 0"),
            ("db/agents?read.total_timeout=1.5", "option read.total_timeout: .*integer"),
            ("db/agents?auth_mode=ldap", "option auth_mode: .*'external'"),
        ],
    )
    def test_a_malformed_url_says_what_is_wrong_and_nothing_secret(self, text: str, advice: str) -> None:
        with pytest.raises(ValueError, match=rf"url: .*{advice}") as caught:
            open_store(url(text))
        assert SECRET not in told(caught.value)

    @pytest.mark.parametrize(
        "text", [f"postgres://anna:{SECRET}@db/x?sslpassword={SECRET}", f"//a:{SECRET}@{SECRET}@d"]
    )
    def test_the_url_of_something_else_is_shown_without_what_is_secret(self, text: str) -> None:
        with pytest.raises(ValueError, match="expected memory:, sqlite:") as caught:
            open_store(text)
        assert SECRET not in told(caught.value)


class TestSecretsOfTheEnvironment:
    @pytest.fixture(autouse=True)
    def given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOLDPOINT_AEROSPIKE_PASSWORD", SECRET)
        monkeypatch.setenv("FOLDPOINT_AEROSPIKE_KEYFILE_PW", SECRET + "2")

    @pytest.fixture
    def connected(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """What the client was connected with."""
        seen: list[dict[str, Any]] = []

        def client(config: dict[str, Any]) -> None:
            seen.append(config)
            raise aerospike.exception.ConnectionError("as far as this test goes")

        monkeypatch.setattr(aerospike, "client", client)
        return seen

    def test_they_stand_in_for_those_that_the_url_leaves_out(self, connected: list[dict[str, Any]]) -> None:
        with pytest.raises(StoreUnavailable) as caught:
            FoldpointSaver.from_conn_string(url("anna@db/agents?tls=true&keyfile=/k.pem&certfile=/c.pem"))
        assert (connected[0]["user"], connected[0]["password"]) == ("anna", SECRET)
        assert connected[0]["tls"]["keyfile_pw"] == SECRET + "2"
        assert SECRET not in told(caught.value)

    def test_what_the_url_says_counts_more_and_where_it_names_nobody_they_count_for_nothing(
        self, connected: list[dict[str, Any]]
    ) -> None:
        for text in ("anna:@db/agents?tls=true&keyfile=/k.pem&keyfile_pw=mine", "db/agents?tls=true"):
            with pytest.raises(StoreUnavailable):
                open_store(url(text))
        assert (connected[0]["password"], connected[0]["tls"]["keyfile_pw"]) == ("", "mine")
        assert "password" not in connected[1]
        assert "keyfile_pw" not in connected[1]["tls"]

    def test_no_settings_show_them(self) -> None:
        shown = load_settings(url=url(f"anna:{SECRET}@db/agents"))
        assert SECRET not in repr(shown) + str(shown)

    @pytest.mark.parametrize(
        "wrong", [{"aerospike_password": [SECRET]}, {"aerospike_pasword": SECRET}, {"url": [SECRET]}, {"urll": SECRET}]
    )
    def test_a_wrong_setting_does_not_show_its_value_where_that_may_be_a_secret(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))) as caught:
            load_settings(**wrong)
        assert SECRET not in told(caught.value)


class TestConnecting:
    def test_a_user_logs_in_with_the_password_of_the_url_or_of_the_settings(self, own: Callable[..., Cluster]) -> None:
        gate = Gate(users={"we@b": None})
        gate.server = own(access_port=gate.port).hosts[0]
        hosts = [(aerospike_server.LOOPBACK, gate.port)]
        aerospike_server.connect(hosts, "test", user="we@b", password="p@:/").close()
        where = f"127.0.0.1:{gate.port}/test?prefix={aerospike_server.fresh_prefix()}"
        works(open_store(url(f"we%40b:p%40:%2F@{where}")))
        works(open_store(url(f"we%40b@{where}"), Settings(aerospike_password="p@:/")))
        for text in (f"we%40b:{SECRET}@{where}", f"{SECRET}:p%40:%2F@{where}"):
            with pytest.raises(StoreForbidden) as caught:
                open_store(url(text))
            assert SECRET not in told(caught.value)
        gate.close()

    def test_policies_of_the_url_are_those_of_the_calls(self) -> None:
        server = aerospike_server.target()
        [(host, port)] = server.hosts
        options = "write.total_timeout=501&batch_write.total_timeout=502&read.max_retries=3"
        store = open_store(url(f"{host}:{port}/{server.namespace}?{options}"))
        assert isinstance(store, AerospikeStore)
        assert store._policies["write"]["total_timeout"] == 501
        assert store._policies["batch_write"]["total_timeout"] == 502
        assert store._policies["read"]["max_retries"] == 3
        store.close()


class TestTls:
    """A Community server has no TLS; a gate in front of it has."""

    @pytest.fixture(scope="class")
    @classmethod
    def certificates(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """ca.pem, and of each of `cluster` (the server's TLS name) and `anna` a certificate and a key."""
        folder = tmp_path_factory.mktemp("certificates")
        key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256"
        for name in ("ca", "other"):
            openssl(folder, f"req -x509 {key} -nodes -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2")
        for name, protect in (("cluster", "-nodes"), ("anna", f"-passout pass:{SECRET}")):
            openssl(folder, f"req {key} {protect} -keyout {name}.key -out {name}.csr -subj /CN={name}")
            openssl(folder, f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial 1 -out {name}.pem -days 2")
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def gate(cls, certificates: Path) -> Iterator[Gate]:
        aerospike_server.require_asd()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "cluster.pem", certificates / "cluster.key")
        context.load_verify_locations(certificates / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        gate = Gate(context)
        server = aerospike_server.start_server(access_port=gate.port)
        gate.server = server.hosts[0]
        hosts = [(aerospike_server.LOOPBACK, gate.port, "cluster")]
        aerospike_server.connect(hosts, "test", tls={"cafile": str(certificates / "ca.pem")}).close()
        yield gate
        gate.close()
        server.stop()

    def test_a_cluster_is_reached_over_tls_by_its_tls_name(self, gate: Gate, certificates: Path) -> None:
        options = f"tls=true&cafile={certificates}/ca.pem&prefix={aerospike_server.fresh_prefix()}"
        works(open_store(url(f"127.0.0.1:cluster:{gate.port}/test?{options}")))
        assert gate.certificates == set()

    def test_a_client_shows_its_certificate(self, gate: Gate, certificates: Path) -> None:
        options = (
            f"tls=true&cafile={certificates}/ca.pem&certfile={certificates}/anna.pem&keyfile={certificates}/anna.key"
            f"&prefix={aerospike_server.fresh_prefix()}"
        )
        works(open_store(url(f"127.0.0.1:cluster:{gate.port}/test?{options}"), Settings(aerospike_keyfile_pw=SECRET)))
        assert gate.certificates == {"anna"}

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            (":other", "tls=true&cafile={}/ca.pem"),
            ("", "tls=true&cafile={}/ca.pem"),
            (":cluster", "tls=true&cafile={}/other.pem"),
            (":cluster", "tls=true&cafile={}/none.pem"),
            (":cluster", "tls=true&cafile={}/ca.pem&certfile={}/anna.pem&keyfile={}/anna.key&keyfile_pw=xgeheim"),
        ],
    )
    def test_what_is_not_as_the_certificates_say_is_not_connected(
        self, gate: Gate, certificates: Path, name: str, options: str
    ) -> None:
        with pytest.raises(StoreUnavailable, match=r"over TLS \(are the certificates and the TLS name right") as caught:
            open_store(url(f"127.0.0.1{name}:{gate.port}/test?{options.replace('{}', str(certificates))}"))
        assert SECRET not in told(caught.value)

    def test_a_port_with_tls_is_not_reached_without(self, gate: Gate) -> None:
        with pytest.raises(StoreUnavailable, match=r"no connection .* without TLS"):
            open_store(url(f"127.0.0.1:{gate.port}/test"))


def works(store: RecordStore) -> None:
    store.create([(b"k", b"v")], ttl=None)
    assert store.get_many([b"k"]) == [b"v"]
    store.close()


def told(error: BaseException) -> str:
    """All that a traceback shows, with causes."""
    return "".join(traceback.format_exception(error))


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
