"""interim"""

import hashlib
import hmac
import time
from collections.abc import Mapping


def sign(sha256: str, secret: bytes, ttl: float) -> str:
    expires = int(time.time() + ttl)
    mac = hmac.new(secret, f"{sha256}.{expires}".encode(), hashlib.sha256).hexdigest()
    return f"expires={expires}&signature={mac}"


def verify(sha256: str, query: Mapping[str, str], secret: bytes) -> bool:
    mac = hmac.new(secret, f"{sha256}.{query.get('expires')}".encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(mac, query.get("signature", "")) and int(query["expires"]) > time.time()
