"""Changing the key that records are sealed with."""

from __future__ import annotations

from contextlib import suppress

from foldpoint.codecs.envelope import NOT_DECRYPTED, Cipher


class Keyring:
    """A cipher that seals with the first of several, and opens what any of them sealed.

    REQUIRES ciphers that authenticate: they refuse what another one sealed.

        EncryptedSerializer(Keyring(new.cipher, old.cipher))
    """

    def __init__(self, first: Cipher, *earlier: Cipher) -> None:
        """Raises ValueError for what is no cipher."""
        self._ciphers = (first, *earlier)
        for cipher in self._ciphers:
            if not (hasattr(cipher, "encrypt") and hasattr(cipher, "decrypt")):
                raise ValueError(f"expected ciphers, such as the .cipher of a serializer, got {type(cipher).__name__}")

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return self._ciphers[0].encrypt(plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """Raises what the last of them raises."""
        for cipher in self._ciphers[:-1]:
            with suppress(*NOT_DECRYPTED):
                return cipher.decrypt(ciphername, ciphertext)
        return self._ciphers[-1].decrypt(ciphername, ciphertext)
