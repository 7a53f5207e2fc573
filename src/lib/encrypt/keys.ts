/** The keys that seal and open backups, and the fingerprints they are told apart by. */
import {createHash, hkdfSync} from 'node:crypto';
import type {Secret} from '../secret.ts';

/** A 256-bit key with its public fingerprint. */
export interface EncryptionKey {
  /** The first 16 hex digits of the SHA-256 of the key: tells keys apart and gives nothing away. */
  fingerprint: string;
  /** A fresh copy of the 32 bytes; whoever takes it may wipe it. */
  bytes(): Buffer;
}

/** The keys in use: `current` seals and opens, `previous` only open. */
export interface Keyring {
  current: EncryptionKey;
  previous: readonly EncryptionKey[];
}

export function encryptionKey(hex: Secret): EncryptionKey {
  const copy = () => Buffer.from(hex.reveal(), 'hex');
  return {fingerprint: createHash('sha256').update(copy()).digest('hex').slice(0, 16), bytes: copy};
}

export function keyring(current: Secret, previous: readonly Secret[] = []): Keyring {
  return {current: encryptionKey(current), previous: previous.map(encryptionKey)};
}

/** All keys that may open something, the current one first. */
export function allKeys(keys: Keyring): readonly EncryptionKey[] {
  return [keys.current, ...keys.previous];
}

/**
 * The key that seals manifests, derived from the encryption key so that neither can stand for the other: HKDF-SHA-256
 * (RFC 5869), no salt, the given purpose as info.
 */
export function derivedKey(key: EncryptionKey, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key.bytes(), Buffer.alloc(0), purpose, 32));
}
