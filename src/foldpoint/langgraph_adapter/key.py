"""The key that the environment names, for the `foldpoint` command and for LangGraph's server."""

from __future__ import annotations

import os

from foldpoint.codecs.envelope import Cipher
from foldpoint.engine.keyring import Keyring
from foldpoint.settings import Settings

KEY_VARIABLE = "LANGGRAPH_AES_KEY"
"""LangGraph's own name of it."""
_KEY_BYTES = (16, 24, 32)


def cipher_of(settings: Settings) -> Cipher | None:
    """Seals with the key of LANGGRAPH_AES_KEY, and opens with FOLDPOINT_PREVIOUS_AES_KEY too; None where there is none.

    Raises ValueError where pycryptodome is missing, or the key is not valid.
    """
    if KEY_VARIABLE not in os.environ:
        return None
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

    try:
        now = EncryptedSerializer.from_pycryptodome_aes().cipher
        if settings.previous_aes_key is None:
            return now
        key = settings.previous_aes_key.get_secret_value().encode()
        if len(key) not in _KEY_BYTES:
            raise ValueError(f"FOLDPOINT_PREVIOUS_AES_KEY must be 16, 24 or 32 bytes long, and has {len(key)}")
        return Keyring(now, EncryptedSerializer.from_pycryptodome_aes(key=key).cipher)
    except ImportError as error:
        raise ValueError(
            f"{KEY_VARIABLE} is set, and pycryptodome is missing: pip install foldpoint[encryption]"
        ) from error
