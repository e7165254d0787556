"""The stores, for the tests in this directory."""

from tests.stores.servers import (  # noqa: F401
    object_server,
    object_store,
    rclone_server,
    rclone_store,
    rgw_server,
    rgw_store,
)
