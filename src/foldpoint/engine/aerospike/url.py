"""What an `aerospike://` URL says. Only parsed here, not connected; no message here shows what may be a secret.

aerospike://user:password@host:3000,host2:tls-name:4333/namespace?prefix=fp&deadline=20&read.total_timeout=500
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote

import aerospike
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

FORM = "aerospike://user:password@host:3000,host2:3000/namespace?prefix=fp"
_URL = re.compile(
    r"aerospike://(?:(?P<user>[^:/?#]*)(?::(?P<password>[^/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]+)/(?P<namespace>[^@/?#]+)/?(?:\?(?P<query>[^@#]*))?"
)
_HOST = re.compile(r"(?P<name>\[[^][]+]|[^][:]+)(?::(?P<tls_name>[^:]+)(?=:))?(?::(?P<port>[0-9]{1,5}))?")
_AUTH_MODES = {
    "internal": aerospike.AUTH_INTERNAL,
    "external": aerospike.AUTH_EXTERNAL,
    "external_insecure": aerospike.AUTH_EXTERNAL_INSECURE,
    "pki": aerospike.AUTH_PKI,
}


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Writes(_Options):
    """Milliseconds. A write's retries are the store's own."""

    total_timeout: PositiveInt | None = None
    socket_timeout: PositiveInt | None = None


class _Reads(_Writes):
    max_retries: NonNegativeInt | None = None
    sleep_between_retries: NonNegativeInt | None = None


class _Client(_Options):
    """The client's own names and units: milliseconds, but seconds for `max_socket_idle`."""

    max_conns_per_node: PositiveInt | None = None
    max_socket_idle: NonNegativeInt | None = None
    connect_timeout: PositiveInt | None = None
    tend_interval: Annotated[int, Field(ge=250)] | None = None
    cluster_name: str | None = None
    use_services_alternate: bool | None = None


class _Login(_Options):
    auth_mode: Literal["internal", "external", "external_insecure", "pki"] | None = None
    login_timeout_ms: PositiveInt | None = None


class _Tls(_Options):
    cafile: str | None = None
    capath: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    keyfile_pw: str | None = None
    cipher_suite: str | None = None
    protocols: str | None = None
    crl_check: bool | None = None
    for_login_only: bool | None = None


class _Query(_Client, _Login, _Tls):
    prefix: str = "fp"
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    tls: bool = False
    read: _Reads = _Reads()
    write: _Writes = _Writes()
    batch_read: _Reads = _Reads()
    batch_write: _Writes = _Writes()
    query: _Reads = _Reads()


_KINDS = ("read", "write", "batch_read", "batch_write", "query")


def parse(url: str, *, password: str | None = None, keyfile_pw: str | None = None) -> dict[str, Any]:
    """The arguments of `AerospikeStore.connect` that `url` stands for.

    password, keyfile_pw: where the URL gives a user, or a keyfile, without one. Raises ValueError for a malformed URL
    or option.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError(f"url: expected {FORM}; write / ? # @ : in a user or a password as %2F %3F %23 %40 %3A")
    query = _read_query(parts["query"] or "")
    hosts = [_read_host(text) for text in parts["hosts"].split(",")]
    if not query.tls and (_given(query, _Tls) or any(len(host) == 3 for host in hosts)):
        raise ValueError("url: it has a TLS name or an option of TLS, but not tls=true")
    return {
        "hosts": hosts,
        "namespace": unquote(parts["namespace"]),
        "prefix": query.prefix,
        "tls": _tls(query, keyfile_pw) if query.tls else None,
        "policies": {kind: given for kind in _KINDS if (given := getattr(query, kind).model_dump(exclude_unset=True))},
        "config": _config(query),
        "deadline": query.deadline,
        **_credentials(parts["user"], parts["password"], password),
    }


def _read_query(text: str) -> _Query:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        kind, _, policy = name.rpartition(".")
        group = options.setdefault(kind, {}) if kind else options
        if not isinstance(group, dict) or policy in group:
            raise ValueError(f"url: option {name} is given twice")
        group[policy] = value
    try:
        return _Query.model_validate(options)
    except ValidationError as error:
        raise ValueError(f"url: {'; '.join(_explain(problem) for problem in error.errors())}") from error


def _explain(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"there is no option {name}; there are {_names()}"
    return f"option {name}: {problem['msg']}"


def _names() -> str:
    plain = [name for name in _Query.model_fields if name not in _KINDS]
    return f"{', '.join(plain)}; {', '.join(_KINDS)}, each with a dot and {' or '.join(_Reads.model_fields)}"


def _read_host(text: str) -> tuple[str, int] | tuple[str, int, str]:
    parts = _HOST.fullmatch(text)
    port = int(parts["port"] or 3000) if parts else 0
    if parts is None or not 0 < port < 65536:
        raise ValueError("url: expected hosts as host, host:port or host:tls-name:port, with a port from 1 to 65535")
    name = parts["name"].strip("[]")
    return (name, port, parts["tls_name"]) if parts["tls_name"] else (name, port)


def _credentials(user: str | None, given: str | None, password: str | None) -> dict[str, str | None]:
    if user is None:
        return {"user": None, "password": None}
    if not user:
        raise ValueError("url: there is a password, or an @, without a user before it")
    return {"user": unquote(user), "password": password if given is None else unquote(given)}


def _given(query: _Query, group: type[_Options]) -> dict[str, Any]:
    return query.model_dump(include=set(group.model_fields), exclude_unset=True)


def _tls(query: _Query, keyfile_pw: str | None) -> dict[str, Any]:
    tls = _given(query, _Tls)
    if "keyfile" in tls and keyfile_pw is not None:
        tls.setdefault("keyfile_pw", keyfile_pw)
    return tls


def _config(query: _Query) -> dict[str, Any]:
    login = _given(query, _Login)
    if "auth_mode" in login:
        login["auth_mode"] = _AUTH_MODES[login["auth_mode"]]
    return {**_given(query, _Client), **({"policies": login} if login else {})}
