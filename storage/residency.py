"""What a store says of where it keeps the bucket: its region, and the rules by which it copies.

A server that does not know a question is not one that answers no: some say 404 or 501, some deny
the right to ask, and rclone answers with the list of the bucket's objects.
"""

import re
from xml.etree.ElementTree import Element

from archive.residency import Copy, Seen
from storage.s3 import Bucket, StoreError, parse

UNKNOWN = (400, 403, 404, 405, 501)
"""Statuses of a server that does not answer such a question, or not to us."""

NO_RULES = "ReplicationConfigurationNotFoundError"


async def look(bucket: Bucket) -> Seen:
    """Ask all three questions. Raises StoreError when the store is away."""
    headers, _ = await bucket.call("HEAD")
    region = headers.get("x-amz-bucket-region")
    said = {region} if region else set()
    answer = await _ask(bucket, "location", "LocationConstraint")
    if isinstance(answer, Element):
        said.add((answer.text or "").strip())
    regions = frozenset(map(_name, said)) if said else None
    return Seen(bucket.host, regions, await _copies(bucket))


async def _copies(bucket: Bucket) -> tuple[Copy, ...] | None:
    """Where each rule copies to, also one that is switched off: what it has copied is still there.

    None: the store does not tell.
    """
    answer = await _ask(bucket, "replication", "ReplicationConfiguration")
    if isinstance(answer, Element):
        return tuple(_copy(rule) for rule in answer.iter("Rule"))
    return () if answer == NO_RULES else None


async def _ask(bucket: Bucket, question: str, root: str) -> Element | str:
    """The answer to a question, or the store's word for why there is none."""
    try:
        _, content = await bucket.call("GET", {question: ""})
    except StoreError as error:
        if error.status in UNKNOWN:
            return error.code
        raise
    try:
        answer = parse(content)
    except StoreError:
        return ""
    return answer if answer.tag == root else ""


def _copy(rule: Element) -> Copy:
    """A rule's bucket is a name, or an ARN, in which some servers name the region as well."""
    target = (rule.findtext("Destination/Bucket") or "").strip()
    parts = target.split(":")
    if len(parts) < 6:
        return Copy(_name(target))
    return Copy(_name(parts[-1]), _name(parts[3]))


def _name(text: str) -> str:
    """A name as it can be printed: what a server says may hold anything."""
    return re.sub(r"[^\w./-]", "?", text, flags=re.ASCII)[:64]
