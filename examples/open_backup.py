#!/usr/bin/env python3
"""Opens a backup of loma-backup without loma-backup.

It needs Python 3.9 and its package cryptography (Debian: python3-cryptography), and was written from docs/FORMAT.md and
AWS's "AWS Encryption SDK message format reference", not from the program.

    export PHI_ENCRYPTION_KEY=...                     # 64 hex characters; several, separated by commas, are all tried
    python3 open_backup.py --manifest MANIFEST OBJECT_KEY OBJECT | gunzip >dump.sql      # or: | zstd -d >dump.sql
    python3 open_backup.py --manifest MANIFEST OBJECT_KEY                                # only checks the manifest

OBJECT_KEY is the name that the object has in the bucket (database-backups/...). OBJECT and MANIFEST are files. What comes
out may be used only if the exit code is 0: an object that was cut off is noticed at its end. Use `set -o pipefail`.
"""
import argparse
import hashlib
import hmac
import json
import os
import re
import sys
from struct import unpack

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC = b"\x02\x04\x78"  # message format version 2, algorithm suite 0x0478
AES_NAMESPACE, RSA_NAMESPACE = "loma-backup", "loma-backup-recovery"
CHUNK = 1 << 20


def refuse(reason):
    sys.exit(f"Refused: {reason}")


def key_of(text):
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        refuse(f"PHI_ENCRYPTION_KEY must be 64 hex characters; one has {len(text)}, or others than hex")
    return bytes.fromhex(text)


def fingerprint(key):
    return hashlib.sha256(key).hexdigest()[:16]


def derive(hash_, key, salt, info):
    return HKDF(hash_, 32, salt, info).derive(key)


class Recorder:
    """Reads exactly, digests everything, and keeps the header's bytes: they are authenticated as a whole."""

    def __init__(self, stream):
        self.stream, self.sha256, self.size, self.kept = stream, hashlib.sha256(), 0, b""

    def take(self, length, keep=False):
        data = self.stream.read(length)
        if len(data) != length:
            refuse("the object is cut off")
        self.sha256.update(data)
        self.size += length
        if keep:
            self.kept += data
        return data

    def number(self, length):
        return int.from_bytes(self.take(length, keep=True), "big")

    def counted(self):
        return self.take(self.number(2), keep=True)


# --- the manifest ---------------------------------------------------------------------------------------------------------


def canonical(document):
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def seal_of(document, key, purpose):
    return hmac.new(derive(hashes.SHA256(), key, None, purpose), canonical(document), hashlib.sha256).hexdigest()


def check_manifest(manifest, phi_keys, object_key):
    """Checks the seal under a PHI key; gives the fingerprint of the key that it was checked with, if there was one."""
    try:
        seal = manifest.pop("seal", None)
        described = manifest["objects"][0]["key"]
        key = seal and phi_keys.get(seal["keyFingerprint"])
        value = seal and seal["value"]
    except (AttributeError, IndexError, KeyError, TypeError):
        refuse("that is no manifest of loma-backup")
    if described != object_key:
        refuse(f"the manifest belongs to another backup ({described})")
    if not key:
        return None
    if not hmac.compare_digest(seal_of(manifest, key, b"loma-backup manifest 2.0"), str(value)):
        refuse("the manifest was altered: its seal does not fit")
    return seal["keyFingerprint"]


def check_data_key_seal(manifest, data_key):
    """The other seal, which whoever can open the object can check."""
    value = manifest.get("dataKeySeal")
    rest = {name: member for name, member in manifest.items() if name != "dataKeySeal"}
    if value and hmac.compare_digest(seal_of(rest, data_key, b"loma-backup manifest 2.0 data key"), value):
        return
    refuse("no key at hand fits the manifest's seals")


# --- the sealed object ----------------------------------------------------------------------------------------------------


def parse_context(data):
    if not data:
        return {}
    fields, at = [], 2
    for _ in range(2 * unpack(">H", data[:2])[0]):
        length = unpack(">H", data[at : at + 2])[0]
        fields.append(data[at + 2 : at + 2 + length].decode())
        at += 2 + length
    return dict(zip(fields[::2], fields[1::2]))


def unwrap(wrapped_keys, context_bytes, phi_keys, private_key):
    """The data key, by the first wrapped key that a key at hand opens; none, if none does."""
    for namespace, info, wrapped in wrapped_keys:
        try:
            if namespace == AES_NAMESPACE:
                # Provider info: name, tag length in bits (4 bytes), IV length (4), IV.
                name, iv = info[:-20].decode(), info[-12:]
                if name in phi_keys and unpack(">II", info[-20:-12]) == (128, 12):
                    return AESGCM(phi_keys[name]).decrypt(iv, wrapped, context_bytes)
            if namespace == RSA_NAMESPACE and private_key:
                oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
                return private_key.decrypt(wrapped, oaep)
        except (InvalidTag, ValueError):
            print(f"a data key wrapped in {namespace} does not open", file=sys.stderr)
    return None


def open_sealed(source, out, object_key, phi_keys, private_key, manifest, is_checked):
    if source.take(3, keep=True) != MAGIC:
        refuse("it does not begin as a sealed object does (a legacy one? try --legacy)")
    message_id = source.take(32, keep=True)
    context_bytes = source.counted()
    context = parse_context(context_bytes)
    if context.get("format") != "2" or context.get("object-key") != object_key:
        refuse(f"it was written as {context.get('object-key')}")
    wrapped = [(source.counted().decode(), source.counted(), source.counted()) for _ in range(source.number(2))]
    more = manifest.get("wrappedKeys", []) if manifest else []
    wrapped += [
        (each["namespace"], bytes.fromhex(each["providerInfo"]), bytes.fromhex(each["wrappedKey"])) for each in more
    ]
    data_key = unwrap(wrapped, context_bytes, phi_keys, private_key)
    if data_key is None:
        names = ", ".join((info[:-20] if space == AES_NAMESPACE else info).decode() for space, info, _ in wrapped)
        refuse(f"it is encrypted with key {names}; you have {', '.join(phi_keys) or 'none'}")
    if source.number(1) != 2:
        refuse("it is not framed")
    frame_length = source.number(4)
    commitment = source.take(32, keep=True)
    if not hmac.compare_digest(derive(hashes.SHA512(), data_key, message_id, b"COMMITKEY"), commitment):
        refuse("the key commitment does not fit")
    cipher = AESGCM(derive(hashes.SHA512(), data_key, message_id, MAGIC[1:] + b"DERIVEKEY"))
    header = source.kept
    decrypt(cipher, bytes(12), source.take(16), header, "the header")
    if manifest and not is_checked:
        check_data_key_seal(manifest, data_key)

    expected, is_final = 1, False
    while not is_final:
        number = unpack(">I", source.take(4))[0]
        is_final = number == 0xFFFFFFFF
        if is_final:
            number = unpack(">I", source.take(4))[0]
        if number != expected:
            refuse("its frames are out of order")
        iv = source.take(12)
        length = unpack(">I", source.take(4))[0] if is_final else frame_length
        if length > frame_length:
            refuse("its last frame claims to be too long")
        label = b"AWSKMSEncryptionClient Final Frame" if is_final else b"AWSKMSEncryptionClient Frame"
        aad = message_id + label + number.to_bytes(4, "big") + length.to_bytes(8, "big")
        out.write(decrypt(cipher, iv, source.take(length + 16), aad, f"frame {number}"))
        expected += 1
    if source.stream.read(1):
        refuse("something was appended after its end")
    if manifest:
        promised = manifest["objects"][0]
        if (promised["size"], promised["sha256"]) != (source.size, source.sha256.hexdigest()):
            refuse("it is not the object that the manifest describes")


def decrypt(cipher, iv, data, aad, what):
    try:
        return cipher.decrypt(iv, data, aad)
    except InvalidTag:
        refuse(f"{what} was altered")


# --- the form of the procedure before loma-backup ---------------------------------------------------------------------------


def open_legacy(file, out, phi_keys):
    """IV, ciphertext, tag. Nothing is authentic before the end: read once to authenticate, and once to write."""
    size = os.fstat(file.fileno()).st_size
    if size < 32:
        refuse("it is too short to be a backup")

    def run(key, sink):
        file.seek(size - 16)
        tag = file.read(16)
        file.seek(0)
        decryptor = Cipher(algorithms.AES(key), modes.GCM(file.read(16), tag)).decryptor()
        left = size - 32
        while left:
            chunk = file.read(min(left, CHUNK))
            left -= len(chunk)
            sink(decryptor.update(chunk))
        decryptor.finalize()

    for key in phi_keys.values():
        try:
            run(key, lambda plaintext: None)
        except InvalidTag:
            continue
        return run(key, out.write)
    refuse("it was altered, cut off, or encrypted with another key than " + ", ".join(phi_keys))


# --- the command line -------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description="Opens a backup of loma-backup without loma-backup.")
    parser.add_argument("object_key", help="the object's name in the bucket: database-backups/...")
    parser.add_argument("object", nargs="?", help="the file that holds the object")
    parser.add_argument("--manifest", help="the file that holds the manifest: checked, and compared with the object")
    parser.add_argument("--recovery-key", help="a file with the RSA private key, PEM; passphrase: LOMA_BACKUP_RECOVERY_PASSPHRASE")
    parser.add_argument("--legacy", action="store_true", help="a backup of the procedure before loma-backup")
    arguments = parser.parse_args()

    texts = [text.strip() for text in os.environ.get("PHI_ENCRYPTION_KEY", "").split(",") if text.strip()]
    phi_keys = {fingerprint(key): key for key in map(key_of, texts)}
    private_key = None
    if arguments.recovery_key:
        passphrase = os.environ.get("LOMA_BACKUP_RECOVERY_PASSPHRASE", "").encode() or None
        with open(arguments.recovery_key, "rb") as file:
            try:
                private_key = serialization.load_pem_private_key(file.read(), passphrase)
            except (TypeError, ValueError) as error:
                refuse(f"the recovery key cannot be read (LOMA_BACKUP_RECOVERY_PASSPHRASE?): {error}")
    if not phi_keys and not private_key:
        refuse("there is no key: set PHI_ENCRYPTION_KEY")

    manifest, checked_with = None, None
    if arguments.manifest:
        with open(arguments.manifest, "rb") as file:
            try:
                manifest = json.load(file)
            except ValueError as error:
                refuse(f"the manifest is not JSON: {error}")
        checked_with = check_manifest(manifest, phi_keys, arguments.object_key)
    if not arguments.object:
        if not checked_with:
            refuse("no key at hand fits the manifest's seal")
        print(f"The manifest is as it was sealed, with key {checked_with}.")
        return
    with open(arguments.object, "rb") as file:
        if arguments.legacy:
            open_legacy(file, sys.stdout.buffer, phi_keys)
        else:
            open_sealed(
                Recorder(file), sys.stdout.buffer, arguments.object_key, phi_keys, private_key, manifest, bool(checked_with)
            )
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        refuse(error)
