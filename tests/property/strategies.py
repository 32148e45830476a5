"""What the property tests draw: records, batches, pages."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st

from replicator.codec.batch import LOG_START, Content, Context, Point, batch_length, build_batch
from replicator.codec.history import Epoch, History
from replicator.codec.page import CatalogRef, OwnerBody, Page, PeerNote, PullNote
from replicator.codec.records import CONTROL_KINDS, WITH_PAYLOAD, RecordKind
from replicator.model import BLOCK, SECTOR

GROUP_ID = bytes(range(16))
EPOCH_ID = bytes(range(16, 32))
HISTORY = History((Epoch(EPOCH_ID, 1, 0, bytes(16), "a"),))

digests = st.binary(min_size=16, max_size=16)
positions = st.integers(0, 1 << 50).map(lambda blocks: blocks * BLOCK)
times = st.integers(0, 1 << 62)
names = st.from_regex(r"[a-z][a-z0-9-]{0,14}", fullmatch=True)
points = st.builds(Point, positions, digests, st.integers(0, 1 << 60), times)


@st.composite
def contents(draw: st.DrawFn, kinds: Collection[RecordKind]) -> Content:
    """Return one record to be written, of one of ``kinds``."""
    kind = draw(st.sampled_from(sorted(kinds)))
    length = draw(st.integers(1, 8)) * SECTOR
    offset = draw(st.integers(0, 1 << 40)) * SECTOR
    volume_id = draw(st.integers(0, (1 << 16) - 1))
    if kind not in WITH_PAYLOAD:
        return kind, volume_id, offset, length, ()
    payload = draw(st.binary(min_size=16, max_size=16)) * (length // 16)
    cut = draw(st.integers(0, length))
    return kind, volume_id, offset, length, (payload[:cut], payload[cut:])


content_lists = st.one_of(
    st.lists(contents(CONTROL_KINDS), min_size=1, max_size=12),
    st.lists(contents(frozenset(RecordKind) - CONTROL_KINDS), min_size=0, max_size=12),
)


def written(records: list[Content], at: Point = LOG_START, time_ns: int = 1) -> bytearray:
    """Return the bytes of a batch at ``at`` in epoch EPOCH_ID."""
    payload = sum(len(buffer) for record in records for buffer in record[4])
    content = bytearray(batch_length(len(records), payload))
    context = Context(GROUP_ID, EPOCH_ID, at, time_ns, at.position)
    build_batch(context, records, memoryview(content))
    return content


peer_notes = st.builds(
    PeerNote,
    journal_id=digests,
    generation=st.integers(0, 1 << 60),
    received=st.tuples(positions, digests),
    restored=st.tuples(positions, digests),
)
pull_notes = st.builds(
    PullNote,
    source=names,
    interval_seconds=st.floats(0, 1e6),
    reason=st.text(max_size=40),
    records=st.integers(0, 1 << 40),
    bytes=st.integers(0, 1 << 40),
    at_ns=times,
)


@st.composite
def pages(draw: st.DrawFn) -> Page:
    """Return a page that an owner could write."""
    ring_size = draw(st.integers(256, 1 << 30)) * BLOCK
    head = draw(points)
    used = draw(st.integers(0, ring_size // BLOCK)) * BLOCK
    reclaim = max(0, head.position - used)
    restored = draw(points)
    restored = restored._replace(position=draw(st.sampled_from([reclaim, head.position])))
    body = OwnerBody(
        group=draw(names),
        site=draw(names),
        role=draw(st.sampled_from(["primary", "secondary"])),
        upstream=draw(st.none() | names),
        ring_offset=draw(st.integers(48, 1 << 20)) * BLOCK,
        ring_size=ring_size,
        batch_bound=min(4 << 20, ring_size // 8 // BLOCK * BLOCK),
        catalog=draw(
            st.none()
            | st.builds(CatalogRef, st.integers(0, 1 << 30), st.integers(0, 1 << 16), digests)
        ),
        head=head,
        restored=restored,
        reclaim=reclaim,
        marks=draw(st.dictionaries(names, st.text(max_size=60), max_size=3)),
        peers=draw(st.dictionaries(names, peer_notes, max_size=4)),
        pull=draw(st.none() | pull_notes),
    )
    return Page(draw(st.integers(1, 1 << 60)), draw(digests), draw(digests), draw(digests), body)
