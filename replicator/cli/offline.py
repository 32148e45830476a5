"""What the journals' pages say while no replicatord answers here. Reads only."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from replicator.cli.node import Node
from replicator.codec import naming
from replicator.codec.history import Catalog
from replicator.codec.page import OwnerBody, Page
from replicator.errors import TowlineError
from replicator.group.devices import catalog_volumes
from replicator.journal.journal import read_catalog
from replicator.journal.pages import read_statement
from replicator.seams.filedevice import DirectDevice
from replicator.status import (
    GroupStatus,
    SiteStatus,
    VerifiedSite,
    VerifyStatus,
    VolumeStatus,
    site_from_page,
    unseen_site,
    verified_site,
    verify_run_status,
)


def read_group_status(node: Node) -> GroupStatus:
    """Return what can be seen of the group without a daemon; every failure is in the values."""
    pages, failures, catalog = _read_pages(node)
    heads = [page.body.head for page in pages.values() if page.body.role == "primary"]
    head = max(heads, key=lambda point: point.position, default=None)
    sites: list[SiteStatus] = []
    for site in node.group.sites:
        if site.name not in pages:
            sites.append(unseen_site(site.name, failures[site.name]))
            continue
        others = [other.name for other in node.group.peers(site.name)]
        own = site.name == node.site.name
        sites.append(site_from_page(pages[site.name].body, others, head, own=own))
    return GroupStatus(
        group=node.group.name,
        site=node.site.name,
        at_ns=time.time_ns(),
        sites=tuple(sites),
        volumes=tuple(
            VolumeStatus(id=v.id, name=v.name, size_bytes=v.size_bytes) for v in node.group.volumes
        ),
        group_id=catalog.group_id.hex() if catalog else "",
        epoch=catalog.history.last.number if catalog else 0,
    )


def read_verify_status(node: Node) -> VerifyStatus:
    """Return what the pages say of verification; every failure is in the values."""
    pages, failures, catalog = _read_pages(node)
    volumes = catalog.volumes if catalog else catalog_volumes(node.group)
    names = {entry.id: entry.name for entry in volumes}
    runs = [page.body.verify_run for page in pages.values() if page.body.role == "primary"]
    run = next((run for run in runs if run is not None), None)
    return VerifyStatus(
        group=node.group.name,
        site=node.site.name,
        run=verify_run_status(run, volumes) if run else None,
        sites=tuple(
            verified_site(pages[part.name].body, names, "page")
            if part.name in pages
            else VerifiedSite(site=part.name, view="none", reason=failures[part.name])
            for part in node.group.sites
        ),
    )


def _read_pages(node: Node) -> tuple[dict[str, Page], dict[str, str], Catalog | None]:
    """Return the newest page of each site, why there is none, and a catalog if one was found."""
    pages: dict[str, Page] = {}
    failures: dict[str, str] = {}
    catalog: Catalog | None = None
    for site in node.group.sites:
        own = site.name == node.site.name
        path = (
            node.journal_path
            if own
            else naming.peer_journal_path(node.topology, node.group.name, site.name)
        )
        try:
            page, found = _read_page(path)
            _expect(page.body, node.group.name, site.name, path)
        except TowlineError as error:
            failures[site.name] = str(error)
            continue
        pages[site.name] = page
        catalog = catalog or found
    return pages, failures, catalog


def _read_page(path: str) -> tuple[Page, Catalog | None]:
    with contextlib.closing(DirectDevice(Path(path), writable=False)) as device:
        page = read_statement(device).newer
        return page, read_catalog(device, page)


def _expect(body: OwnerBody, group: str, site: str, path: str) -> None:
    if (body.group, body.site) != (group, site):
        raise TowlineError(
            f"{path}: journal of group {body.group} at site {body.site}, expected group {group} "
            f"at site {site}"
        )
