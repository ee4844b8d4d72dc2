"""Names of indexes: nobody who knows a tenant's id can say which index is that tenant's without the key."""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from medkg.contracts.errors import ConfigurationError

MIN_KEY_BYTES: Final = 16
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,30}")
_INDEX_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_TENANT_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class IndexNames:
    """The aliases under which the indexes of tenants are known: ``PREFIX-`` and 40 hexadecimal digits.

    The digits are HMAC-SHA-256 of tenant and index name under ``key``: another key means other names, so it is kept for
    as long as the indexes are.
    """

    key: bytes = field(repr=False)
    prefix: str = "medkg"

    def __post_init__(self) -> None:
        if len(self.key) < MIN_KEY_BYTES:
            raise ConfigurationError(
                f"naming the indexes in OpenSearch: the key has {len(self.key)} bytes; set MEDKG_OPENSEARCH_INDEX_KEY "
                f"to at least {MIN_KEY_BYTES}, such as the output of `openssl rand -hex 32`, and keep it"
            )
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigurationError(
                f"naming the indexes in OpenSearch: the prefix {self.prefix!r} must be a lower case letter, then up to "
                "30 lower case letters and digits"
            )

    def alias(self, tenant_id: str, index: str) -> str:
        """The name that stands for a tenant's index, whichever physical index is behind it.

        Raises:
            ConfigurationError: the tenant id is empty or over 1,000 characters, or the index name is not lower case
                letters, digits and hyphens.
        """
        if not 0 < len(tenant_id) <= _MAX_TENANT_CHARACTERS or not _INDEX_NAME.fullmatch(index):
            raise ConfigurationError(
                f"opening index {index[:80]!r} of tenant {tenant_id[:80]!r}: a tenant id has 1 to "
                f"{_MAX_TENANT_CHARACTERS} characters, an index name consists of lower case letters, digits and hyphens"
            )
        # an index name holds no NUL: the two parts cannot be read in another way
        message = index.encode() + b"\x00" + tenant_id.encode("utf-8", "surrogatepass")
        return f"{self.prefix}-{hmac.new(self.key, message, hashlib.sha256).hexdigest()[:40]}"

    @property
    def pattern(self) -> str:
        """What every physical index of ours matches."""
        return f"{self.prefix}-*"
