"""Buckets, users and policies of the farm's bucket, made with the ``minio`` client.

Least privilege by role: below the farm's prefix each role reads everything and writes its own part, nothing outside
that prefix is seen, and in a shared farm nobody deletes data or results.

    reader     reads everything of the farm
    ingester   reads everything; writes data, indexes, calendars, snapshots and refs
    submitter  reads everything; writes studies and the inbox
    worker     reads everything; writes results, and what it did in the lease records of a study
    owner      one person who does all of it in a bucket of their own, and may clean up

Immutability is the store's conditional put; a bucket policy cannot ask for it.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, MinioException, S3Error

from infra.minio.errors import MinioError

# Prefixes below the farm's own prefix, as farm/shard/layout.py and farm/results/catalog.py name them; each role reads
# them all.
WRITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "reader": (),
        "ingester": ("data/", "index/", "calendars/", "snapshots/", "refs/", "probe/"),
        "submitter": ("studies/", "inbox/", "probe/"),
        "worker": ("results/", "studies/", "probe/"),
        "owner": ("",),
    }
)
# The start-up probe of conditional puts cleans up after itself, and a finished submission leaves the inbox.
DELETES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"reader": (), "ingester": ("probe/",), "submitter": ("probe/", "inbox/"), "worker": ("probe/",), "owner": ("",)}
)
_REQUEST_SECONDS_MAX = 15.0


def role_policy(role: str, bucket: str, prefix: str = "") -> dict[str, Any]:
    """The policy document of a role on ``s3://bucket/prefix``. Errors: MinioError for an unknown role."""
    if role not in WRITES:
        raise MinioError(f"unknown role {role!r}", place="role", allowed=", ".join(WRITES))
    base = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    objects = f"arn:aws:s3:::{bucket}/{base}"
    statements: list[dict[str, Any]] = [
        _allow(["s3:GetBucketLocation"], [f"arn:aws:s3:::{bucket}"]),
        _allow(["s3:ListBucket"], [f"arn:aws:s3:::{bucket}"])
        | ({"Condition": {"StringLike": {"s3:prefix": [base + "*"]}}} if base else {}),
        _allow(["s3:GetObject"], [objects + "*"]),
    ]
    if WRITES[role]:
        # Aborting and listing parts belongs to a multipart upload, which a client chooses for large objects.
        actions = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        statements.append(_allow(actions, [f"{objects}{part}*" for part in WRITES[role]]))
    if DELETES[role]:
        statements.append(_allow(["s3:DeleteObject"], [f"{objects}{part}*" for part in DELETES[role]]))
    return {"Version": "2012-10-17", "Statement": statements}


class Administrator:
    """Administrative calls to one server with its root credentials; each call is idempotent."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, region: str) -> None:
        url = urllib.parse.urlsplit(endpoint)
        secure = url.scheme == "https"
        # The client's own pool retries for minutes; a server on loopback answers or it is not there.
        pool = urllib3.PoolManager(timeout=_REQUEST_SECONDS_MAX, retries=urllib3.Retry(total=2, backoff_factor=0.2))
        self._endpoint = endpoint
        self._client = Minio(url.netloc, access_key, secret_key, secure=secure, region=region, http_client=pool)
        self._admin = MinioAdmin(
            endpoint=url.netloc,
            credentials=StaticProvider(access_key, secret_key),
            region=region,
            secure=secure,
            http_client=pool,
        )

    def make_bucket(self, bucket: str) -> bool:
        """Make a bucket; False when it was there already."""
        try:
            self._client.make_bucket(bucket)
        except S3Error as error:
            if error.code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                return False
            raise self._refused(f"make bucket {bucket}", error) from error
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._refused(f"make bucket {bucket}", error) from error
        return True

    def buckets(self) -> list[str]:
        """The names of all buckets, sorted."""
        try:
            return sorted(bucket.name for bucket in self._client.list_buckets())
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise self._refused("list buckets", error) from error

    def make_user(self, access_key: str, secret_key: str, role: str, bucket: str, prefix: str = "") -> None:
        """Make a user, or give an existing one this secret, with the one policy of its role."""
        policy = "-".join(filter(None, ["farm", role, bucket, prefix.strip("/").replace("/", "-")]))
        document = role_policy(role, bucket, prefix)
        try:
            self._admin.policy_add(policy, policy=document)
            self._admin.user_add(access_key, secret_key)
            self._admin.policy_set(policy, user=access_key)
        except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._refused(f"make user {access_key}", error) from error

    def remove_user(self, access_key: str) -> None:
        """Remove a user: it, and every temporary credential that was given to it, is refused from then on."""
        try:
            self._admin.user_remove(access_key)
        except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError) as error:
            raise self._refused(f"remove user {access_key}", error) from error

    def make_service_account(self) -> tuple[str, str]:
        """Make keys that may do what these credentials may; return access key and secret key."""
        try:
            given = json.loads(self._admin.add_service_account(name="farm", description="of the farm"))["credentials"]
        except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError) as error:
            raise self._refused("make a service account", error) from error
        return given["accessKey"], given["secretKey"]

    def remove_service_account(self, access_key: str) -> None:
        """Remove such keys; from then on they are unknown."""
        try:
            self._admin.delete_service_account(access_key)
        except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError) as error:
            raise self._refused(f"remove service account {access_key}", error) from error

    def users(self) -> list[str]:
        """The access keys of all users but the root, sorted."""
        try:
            return sorted(json.loads(self._admin.user_list()))
        except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError) as error:
            raise self._refused("list users", error) from error

    def _refused(self, what: str, error: Exception) -> MinioError:
        return MinioError(
            f"cannot {what}: {error}",
            place=self._endpoint,
            hint="is the server up, and are these its root credentials?",
        )


def _allow(actions: Iterable[str], resources: Iterable[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
