"""What a store can keep beyond an object, and a bucket that lets nothing go."""

import hashlib
from uuid import uuid4

from minio import Minio
from minio.commonconfig import GOVERNANCE
from minio.objectlockconfig import DAYS, ObjectLockConfig

from storage.holdings import Holding
from storage.objects import ObjectStore
from tests.stores.servers import Server


async def put(objects: ObjectStore, key: str, body: bytes = b"stray") -> None:
    await objects.put(key, [body], len(body), hashlib.md5(body).digest(), 30)


async def plant(objects: ObjectStore, key: str) -> None:
    """Put beside an object all that a store can keep of it."""
    await put(objects, key, b"a second version, or the only one")
    await put(objects, key + "-hidden")
    # Where versions are kept this hides it only, under a mark of deletion.
    await objects.remove([Holding(key + "-hidden", "object")])
    await put(objects, key + "-beside")
    for _ in range(2):
        await objects._bucket.call("POST", {"uploads": ""}, key=key)


async def locked_bucket(server: Server) -> ObjectStore:
    """A new bucket that lets nothing be deleted for a day."""
    bucket = f"test-{uuid4()}"
    host = server.endpoint.removeprefix("http://")
    client = Minio(host, server.access_key, server.secret_key, secure=False, region="us-east-1")
    client.make_bucket(bucket, object_lock=True)
    client.set_object_lock_config(bucket, ObjectLockConfig(GOVERNANCE, 1, DAYS))
    return await server.connect(bucket)
