"""The store on an Aerospike cluster. Log records are in set `<prefix>_log`, heads in `<prefix>_head`.

Hazards, each found on a server:

* A write that timed out may have been applied, or be applied later; a write that only its master has is lost with
  it. So whoever finds own bytes after a failed attempt touches the record: the touch is acknowledged by every
  replica, and its condition decides whose the record is.
* The client takes a key of type `bytes` for text that ends at the first zero byte. Keys are `bytearray`s.
* A filter is not evaluated where there is no record: a swap states EXISTS_UPDATE as well.
* A TTL that is not stated is the namespace's default. Every write states one.
* A removed record comes back when a node that still has it starts cold.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import aerospike
from aerospike import exception as client_errors
from aerospike import predicates
from aerospike_helpers import expressions
from aerospike_helpers.batch.records import BatchRecords, Write
from aerospike_helpers.operations import operations

from foldpoint.engine.aerospike import client as link
from foldpoint.engine.aerospike.client import Answer, Link, Policy, chunks, pieces
from foldpoint.engine.aerospike.config import Settings, examine, expires, largest_value, read_settings
from foldpoint.engine.aerospike.errors import CLUSTER_CHANGE, KEY_EXISTS, NODELESS_CAUSE, NOT_FOUND, Refusal, verb
from foldpoint.engine.records import (
    UNCHANGED,
    Capabilities,
    Finding,
    HeadRecord,
    check_partition,
    check_records,
    check_swap,
    check_ttl,
)
from foldpoint.errors import StoreBusy, StoreMismatch, StoreUnavailable

VALUE, REVISION, THREAD, THREAD_HASH = "v", "rev", "thread", "thash"
PARTITIONS = 4096
LONGEST_PREFIX = 40
LONGEST_TTL = 10 * 365 * 86_400  # the server's max; it refuses more
BATCH_READS = 256
PAGE = 1000
ANY_GENERATION = aerospike.POLICY_GEN_IGNORE  # stated, as all is, since a client that was given has its own defaults

log = logging.getLogger("foldpoint")
Key: TypeAlias = tuple[str, str, bytearray]


class AerospikeStore:
    """A `RecordStore` in one namespace.

    `client` is connected; it is closed with the store only if `owns_client`. `policies` changes the client's
    policies by kind (read, write, batch_read, batch_write, query; milliseconds). `deadline`: how long, in seconds
    after a first failure, a verb tries again; it should span a node's fail-over. StoreMismatch if there is no such
    namespace.
    """

    def __init__(
        self,
        client: Any,
        namespace: str,
        *,
        prefix: str = "fp",
        owns_client: bool = False,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        deadline: float = 10.0,
    ) -> None:
        # Anything else would be taken for more than a name by the command that makes the index.
        if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{LONGEST_PREFIX}}}", prefix):
            raise ValueError(f"prefix {prefix!r}: give 1 to {LONGEST_PREFIX} letters a to z, digits, '_', '-' or '.'")
        self._namespace = namespace
        self._log_set, self._head_set = f"{prefix}_log", f"{prefix}_head"
        self._index = f"{prefix}_thread"
        self._link = Link(client, namespace, link.merge_policies(policies), deadline, owned=owns_client)
        self._client, self._policies = client, self._link.policies
        settings = self._read_settings()
        self._capabilities = Capabilities(max_record=largest_value(settings), ordered=False, ttl=expires(settings))

    @classmethod
    def connect(
        cls,
        hosts: Sequence[tuple[str, int] | tuple[str, int, str]],
        namespace: str,
        *,
        prefix: str = "fp",
        user: str | None = None,
        password: str | None = None,
        tls: Mapping[str, Any] | None = None,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        deadline: float = 10.0,
    ) -> AerospikeStore:
        """A store with a client of its own. `tls` and `config` as the client's configuration has them."""
        client = link.connect(hosts, user=user, password=password, tls=tls, config=config)
        try:
            return cls(client, namespace, prefix=prefix, owns_client=True, policies=policies, deadline=deadline)
        except BaseException:
            client.close()
            raise

    def __str__(self) -> str:
        return f"Aerospike namespace {self._namespace!r}"

    @property
    def capabilities(self) -> Capabilities:
        self._link.require_open()
        return self._capabilities

    @verb
    def setup(self, *, ttl: bool = False) -> list[Finding]:
        """As the contract says. Creates the thread index if it is missing."""
        findings = examine(self._read_settings(), ttl=ttl)
        for finding in findings:
            log.warning("%s: %s", self, finding)
        if fatal := [str(finding) for finding in findings if finding.fatal]:
            raise StoreMismatch(f"{self} cannot be used: {'; '.join(fatal)}")
        self._create_index()
        return findings

    @verb
    def create(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> list[bool]:
        check_records(records, self._capabilities.max_record)
        expiry = self._expiry(ttl)
        if len(records) == 1:
            return [self._create_one(*records[0], expiry)]
        first: dict[bytes, bytes] = {}
        for key, value in records:
            first.setdefault(key, value)
        created: dict[bytes, bool] = {}
        for chunk in chunks(first.items()):
            created |= self._create_all(chunk, expiry)
        return [created.pop(key, False) for key, _ in records]

    @verb
    def create_all(self, records: Sequence[tuple[bytes, bytes]], *, ttl: int | None) -> bool:
        return False  # they lie on several nodes

    @verb
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if len(keys) == 1:
            bins = self._link.agreed(lambda: self._get(self._log_key(keys[0]), self._policies["read"]))
            return [None if bins is None else self._value(keys[0], bins)]
        values: list[bytes | None] = []
        for start in range(0, len(keys), BATCH_READS):
            values += self._read_all(keys[start : start + BATCH_READS])
        return values

    @verb
    def get_head(self, key: bytes) -> HeadRecord | None:
        bins = self._link.agreed(lambda: self._get(self._head_key(key), self._policies["read"]))
        return None if bins is None else self._head(key, bins)

    @verb
    def swap(self, head: HeadRecord, *, expected: int | None, ttl: int | None) -> bool:
        """As the contract says; after a lost answer True only if the head is (still) exactly this one."""
        check_swap(head, expected, ttl)
        expiry = int(aerospike.TTL_DONT_UPDATE) if ttl == UNCHANGED else self._expiry(ttl)
        in_doubt = False

        def attempt() -> bool:
            nonlocal in_doubt
            doubted, in_doubt = in_doubt, True
            if self._write_head(head, expected, expiry):
                return True
            return doubted and self._is_ours(self._head_key(head.key), _is_head(head), expiry)

        return self._link.agreed(attempt)

    def heads(self, thread: bytes | None = None, *, partition: tuple[int, int] = (0, 1)) -> Iterator[HeadRecord]:
        """As the contract says. While data migrates, the query may miss a head for a moment."""
        self._link.require_open()
        check_partition(partition)
        where = None if thread is None else predicates.equals(THREAD_HASH, _hash(thread))
        found = (self._head(key, bins) for key, bins in self._scan(self._head_set, partition, where, {}))
        return (head for head in found if thread is None or head.thread == thread)

    @verb
    def extend(self, keys: Iterable[bytes], *, heads: Iterable[bytes] = (), ttl: int | None) -> None:
        policy = {"ttl": self._expiry(ttl), "commit_level": aerospike.POLICY_COMMIT_LEVEL_ALL, "gen": ANY_GENERATION}
        for name, wanted in ((self._log_key, keys), (self._head_key, heads)):
            for some in pieces(wanted):
                self._send_all(some, name, operations.touch(), policy)

    @verb
    def remove_many(self, keys: Iterable[bytes]) -> None:
        for some in pieces(keys):
            self._remove_all(some)

    @verb
    def empty_many(self, keys: Iterable[bytes]) -> None:
        policy = {
            "ttl": aerospike.TTL_DONT_UPDATE,
            "exists": aerospike.POLICY_EXISTS_UPDATE,
            "commit_level": aerospike.POLICY_COMMIT_LEVEL_ALL,
            "gen": ANY_GENERATION,
        }
        for some in pieces(keys):
            self._send_all(some, self._log_key, operations.write(VALUE, bytearray()), policy)

    def keys(self, *, partition: tuple[int, int] = (0, 1)) -> Iterator[bytes]:
        self._link.require_open()
        check_partition(partition)
        return (key for key, _ in self._scan(self._log_set, partition, None, {"nobins": True}))

    def incarnation(self) -> object:
        """The cluster's key, which changes whenever a node joins or leaves: as it was at most a moment ago.

        Asked for with every put, and twice: so what was heard lately is answered without a call of the client.
        """
        self._link.require_open()
        return self._link.agreement.known() or self._cluster()

    @verb
    def _cluster(self) -> object:
        return self._link.persist(self._link.agreement.cluster)

    @verb
    def settled(self) -> bytes:
        """The cluster's key, which changes whenever a node joins or leaves, once all nodes agree and nothing migrates.

        A node that is away for good, with the only copies of some records, is not noticed here.
        """
        command = f"cluster-stable:namespace={self._namespace};ignore-migrations=false"

        def attempt() -> bytes:
            answers: dict[str, tuple[object, str]] = dict(self._client.info_all(command))
            if not answers:
                raise StoreUnavailable(f"{self}: {NODELESS_CAUSE}")
            keys = {text for _, text in answers.values()}
            if len(keys) != 1 or any(error for error, _ in answers.values()):
                raise Refusal(CLUSTER_CHANGE, f"the nodes do not agree on who is in the cluster ({answers})")
            return keys.pop().strip().encode()

        try:
            return self._link.persist(attempt)
        except (client_errors.ClusterChangeError, Refusal) as error:
            raise StoreBusy(f"{self}: nodes come or go, or data migrates; try again when that is over") from error

    def reclaim(self) -> int:
        """Nothing to do, always 0: the server defragments its devices and removes expired records by itself."""
        self._link.require_open()
        return 0

    def close(self) -> None:
        self._link.close()

    @verb
    def _read_settings(self) -> list[Settings]:
        return self._link.persist(lambda: read_settings(self._client, self._namespace))

    def _expiry(self, ttl: int | None) -> int:
        check_ttl(ttl)
        if ttl is None:
            return int(aerospike.TTL_NEVER_EXPIRE)
        if not self._capabilities.ttl:
            raise ValueError(f"{self} does not expire records; set nsup-period in the server's configuration")
        if ttl > LONGEST_TTL:
            raise ValueError(f"ttl is {ttl}: Aerospike takes at most {LONGEST_TTL} seconds (10 years)")
        return ttl

    def _log_key(self, key: bytes) -> Key:
        return (self._namespace, self._log_set, bytearray(key))

    def _head_key(self, key: bytes) -> Key:
        return (self._namespace, self._head_set, bytearray(key))

    def _create_index(self) -> None:
        """The info command answers at once also where the index exists; the client's own call waits 2 s even then."""
        target = f"namespace={self._namespace};set={self._head_set};indexname={self._index}"
        command = f"sindex-create:{target};bin={THREAD_HASH};type=numeric"
        args = (self._namespace, self._head_set, THREAD_HASH, aerospike.INDEX_NUMERIC, self._index)

        def attempt() -> None:
            try:
                self._client.info_random_node(command)
            except client_errors.InvalidRequest:  # a server before 8 spells the command otherwise
                self._client.index_single_value_create(*args)

        self._link.persist(attempt)

    def _create_one(self, key: bytes, value: bytes, expiry: int) -> bool:
        """One plain write, cheaper than a batch of one; what follows a failure is the batch's to sort out."""
        policy = {**self._policies["write"], "ttl": expiry}
        try:
            self._link.create(self._log_key(key), [operations.write(VALUE, value)], policy)
        except client_errors.RecordExistsError:
            return False
        except (client_errors.AerospikeError, Refusal) as error:
            if not self._link.is_transient(error):
                raise
            sent = not isinstance(error, Refusal)
            return self._create_all({key: value}, expiry, again=sent)[key]
        return True

    def _create_all(self, values: Mapping[bytes, bytes], expiry: int, again: bool = False) -> dict[bytes, bool]:
        """Whether each was created. `again`: an attempt went before, so what exists may be its doing."""
        fixed = self._policies["write"]
        policy = {name: fixed[name] for name in ("key", "commit_level", "gen")}
        policy |= {"exists": aerospike.POLICY_EXISTS_CREATE, "ttl": expiry}
        created: dict[bytes, bool] = {}

        def send(keys: Sequence[bytes]) -> BatchRecords:
            in_time = self._link.creates_in_time()
            creates = [(self._log_key(key), [operations.write(VALUE, values[key]), in_time]) for key in keys]
            size = sum(len(values[key]) for key in keys)
            return self._link.write([Write(key, create, policy=policy) for key, create in creates], size)

        def note(answers: Iterable[Answer], repeated: bool) -> None:
            for key, code, _, _ in answers:
                if code == 0:
                    created[key] = True
                elif code == KEY_EXISTS:
                    in_doubt = again or repeated
                    created[key] = in_doubt and self._is_ours(self._log_key(key), _is_value(values[key]), expiry)

        self._link.settle(list(values), send, (0, KEY_EXISTS), note)
        return created

    def _write_head(self, head: HeadRecord, expected: int | None, expiry: int) -> bool:
        bins = {REVISION: head.revision, VALUE: head.value, THREAD: head.thread, THREAD_HASH: _hash(head.thread)}
        policy: Policy = {**self._policies["write"], "ttl": expiry}
        writes = [operations.write(name, value) for name, value in bins.items()]
        if expected is not None:
            return self._link.change(self._head_key(head.key), writes, policy, only=_is_revision(expected))
        try:
            self._link.create(self._head_key(head.key), writes, policy)
        except client_errors.RecordExistsError:
            return False
        return True

    def _is_ours(self, key: Key, condition: Any, expiry: int) -> bool:
        """Whether the record is as `condition` says; if so every replica has it when this returns."""
        return self._link.change(key, [operations.touch()], {**self._policies["write"], "ttl": expiry}, only=condition)

    def _read_all(self, keys: Sequence[bytes]) -> list[bytes | None]:
        policy = self._policies["batch_read"]
        found: dict[bytes, bytes] = {}

        def send(some: Sequence[bytes]) -> BatchRecords:
            return self._client.batch_read([self._log_key(key) for key in some], None, policy)

        def note(answers: Iterable[Answer], repeated: bool) -> None:
            found.update({answer.key: self._value(answer.key, answer.bins) for answer in answers if answer.code == 0})

        self._link.settle(keys, send, (0, NOT_FOUND), note)
        return [found.get(key) for key in keys]

    def _send_all(self, keys: Sequence[bytes], name: Callable[[bytes], Key], change: Any, policy: Policy) -> None:
        """The same change to many records, where they are there. `name`: what the store calls one."""

        def send(some: Sequence[bytes]) -> BatchRecords:
            timely = {**policy, "expressions": self._link.changes_in_time()}
            return self._link.write([Write(name(key), [change], policy=timely) for key in some])

        self._link.settle(keys, send, (0, NOT_FOUND))

    def _remove_all(self, keys: Sequence[bytes]) -> None:
        def send(some: Sequence[bytes]) -> BatchRecords:
            keys = [self._log_key(key) for key in some]
            return self._client.batch_remove(
                keys,
                self._policies["batch_write"],
                {"expressions": self._link.changes_in_time(), "gen": ANY_GENERATION},
            )

        self._link.settle(keys, send, (0, NOT_FOUND))

    def _get(self, key: Key, policy: Policy) -> dict[str, Any] | None:
        try:
            return cast("dict[str, Any]", self._client.get(key, policy)[2])
        except client_errors.RecordNotFound:
            return None

    def _value(self, key: bytes, bins: Mapping[str, Any]) -> bytes:
        try:
            return bytes(bins[VALUE])
        except (KeyError, TypeError) as error:
            raise self._foreign(self._log_set, key) from error

    def _head(self, key: bytes, bins: Mapping[str, Any]) -> HeadRecord:
        try:
            return HeadRecord(key, bytes(bins[THREAD]), int(bins[REVISION]), bytes(bins[VALUE]))
        except (KeyError, TypeError) as error:
            raise self._foreign(self._head_set, key) from error

    def _foreign(self, name: str, key: bytes) -> StoreMismatch:
        return StoreMismatch(f"{self}: record {key.hex()} of set {name!r} was not written by Foldpoint; use a prefix")

    def _scan(
        self, name: str, partition: tuple[int, int], where: Any, options: Policy
    ) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """(key, bins) of a set's records in the share's partitions, a page at a time."""
        begin, end = (PARTITIONS * (partition[0] + step) // partition[1] for step in (0, 1))
        if begin == end:
            return
        query = self._client.query(self._namespace, name)
        query.max_records = PAGE
        query.paginate()
        if where is not None:
            query.where(where)
        policy = {**self._policies["query"], "partition_filter": {"begin": begin, "count": end - begin}}
        while True:
            for (_, _, key, _), _, bins in self._scan_page(query, policy, options):
                if key is None:
                    raise self._foreign(name, b"")
                yield bytes(key), bins or {}
            if query.is_done():
                return

    @verb
    def _scan_page(self, query: Any, policy: Policy, options: Policy) -> list[Any]:
        """The next page. Only a missing index is tried again here: a page that broke off may have lost its records."""
        self._link.persist(self._link.agreement.require)
        try:
            return list(query.results(policy, options))
        except (client_errors.IndexNotFound, client_errors.IndexNotReadable):
            self._create_index()

        def is_index_coming(error: BaseException) -> bool:
            return isinstance(error, (client_errors.IndexNotFound, client_errors.IndexNotReadable))

        return list(self._link.persist(lambda: query.results(policy, options), is_index_coming))


def _is_value(value: bytes) -> Any:
    return expressions.Eq(expressions.BlobBin(VALUE), value)


def _is_revision(revision: int) -> Any:
    return expressions.Eq(expressions.IntBin(REVISION), revision)


def _is_head(head: HeadRecord) -> Any:
    return expressions.And(_is_revision(head.revision), _is_value(head.value))


def _hash(thread: bytes) -> int:
    """What the index holds: 64 bits of a thread, as an index takes no text over 2 KiB. The reader compares the rest."""
    return int.from_bytes(hashlib.blake2b(thread, digest_size=8).digest(), "big", signed=True)
