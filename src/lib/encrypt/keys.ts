/** The keys that seal and open backups, and the fingerprints they are told apart by. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import {BackupError} from '../errors.ts';
import type {Secret} from '../secret.ts';

/** Namespaces of the wrapping keys in a sealed object; their names are fingerprints. */
export const keyNamespace = 'loma-backup';
export const recoveryNamespace = 'loma-backup-recovery';

/** A 256-bit key with its public fingerprint. */
export interface EncryptionKey {
  is?: 'key';
  /** The first 16 hex digits of the SHA-256 of the key: tells keys apart and gives nothing away. */
  fingerprint: string;
  /** Gives a copy of the 32 bytes to some work, and wipes it afterwards. */
  use<T>(work: (bytes: Buffer) => T): T;
}

/** The recovery key's public half: every data key is wrapped under it, too. */
export interface RecoveryPublicKey {
  /** The first 16 hex digits of the SHA-256 of the public key (DER, SubjectPublicKeyInfo). */
  fingerprint: string;
  publicKey: KeyObject;
}

/** Its private half, from the safe. */
export interface RecoveryPrivateKey {
  is: 'recovery';
  fingerprint: string;
  privateKey: KeyObject;
}

/** Whatever opens a backup. */
export type OpeningKey = EncryptionKey | RecoveryPrivateKey;

/** The keys at hand to read with. */
export interface ReadingKeys {
  /** Undefined where it is lost, and the recovery key stands in for it. */
  current?: EncryptionKey | undefined;
  previous: readonly EncryptionKey[];
  recovery?: RecoveryPrivateKey | undefined;
}

/** The keys in use: `current` seals and opens, `previous` only open. */
export interface Keyring extends ReadingKeys {
  current: EncryptionKey;
  /** Every data key is wrapped under this one, too. */
  recoveryPublic?: RecoveryPublicKey | undefined;
}

export function encryptionKey(hex: Secret): EncryptionKey {
  const use = <T>(work: (bytes: Buffer) => T): T => {
    const bytes = Buffer.from(hex.reveal(), 'hex');
    try {
      return work(bytes);
    } finally {
      bytes.fill(0);
    }
  };
  return {fingerprint: use((bytes) => createHash('sha256').update(bytes).digest('hex').slice(0, 16)), use};
}

/**
 * @param previous may name a key twice, or the current one: it is left out, because what is previous may be destroyed once
 * @param recoveryPem the recovery key's public half
 */
export function keyring(current: Secret, previous: readonly Secret[] = [], recoveryPem?: string | undefined): Keyring {
  const key = encryptionKey(current);
  const others = new Map(previous.map(encryptionKey).map((other) => [other.fingerprint, other]));
  others.delete(key.fingerprint);
  return {
    current: key,
    previous: [...others.values()],
    ...(recoveryPem === undefined ? {} : {recoveryPublic: recoveryPublicKey(recoveryPem)}),
  };
}

/** The recovery key's private half as it comes from the safe. */
export interface RecoveryKeyText {
  pem: Secret;
  passphrase?: Secret | undefined;
}

/**
 * The keys to read with: those of the settings, the recovery key, or both.
 * @throws BackupError CONFIGURATION_INVALID for a recovery key that is none
 */
export function readingKeys(
  settings: {current: Secret; previous: readonly Secret[]} | undefined,
  recovery: RecoveryKeyText | undefined,
): ReadingKeys {
  return {
    ...(settings ? keyring(settings.current, settings.previous) : {previous: []}),
    ...(recovery ? {recovery: recoveryPrivateKey(recovery.pem, recovery.passphrase)} : {}),
  };
}

/** A new key: 32 bytes of the system's random generator, as 64 hex characters. */
export function newEncryptionKey(): string {
  return randomBytes(32).toString('hex');
}

function fingerprintOf(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({type: 'spki', format: 'der'}))
    .digest('hex')
    .slice(0, 16);
}

/** @param pem as the settings hold it, where it was checked */
export function recoveryPublicKey(pem: string): RecoveryPublicKey {
  const publicKey = createPublicKey(pem);
  return {fingerprint: fingerprintOf(publicKey), publicKey};
}

/** @throws BackupError CONFIGURATION_INVALID for what is no RSA private key, or another passphrase */
export function recoveryPrivateKey(pem: Secret, passphrase: Secret | undefined): RecoveryPrivateKey {
  try {
    const privateKey = createPrivateKey({key: pem.reveal(), passphrase: passphrase?.reveal() ?? ''});
    if (privateKey.asymmetricKeyType !== 'rsa') throw new Error(`it is of type ${privateKey.asymmetricKeyType}`);
    return {is: 'recovery', fingerprint: fingerprintOf(createPublicKey(privateKey)), privateKey};
  } catch (error) {
    const isEncrypted = /ENCRYPTED/.test(pem.reveal().slice(0, 200));
    throw new BackupError('The recovery key cannot be used', {
      code: 'CONFIGURATION_INVALID',
      kind: 'configuration',
      reason: !isEncrypted
        ? 'it is no RSA private key in PEM form'
        : passphrase
          ? 'its passphrase is another one, or the file was altered'
          : 'it needs its passphrase, and none was given',
      hint: 'It begins with -----BEGIN PRIVATE KEY----- or -----BEGIN ENCRYPTED PRIVATE KEY-----; the passphrase is asked for, or LOMA_BACKUP_RECOVERY_PASSPHRASE.',
      cause: error,
    });
  }
}

/** All symmetric keys that may open something, the current one first. */
export function allKeys(keys: ReadingKeys): readonly EncryptionKey[] {
  return [...(keys.current ? [keys.current] : []), ...keys.previous];
}

export function fingerprintsOf(keys: ReadingKeys): string[] {
  return allKeys(keys).map(({fingerprint}) => fingerprint);
}

/** Everything that may open a sealed object. */
export function openingKeys(keys: ReadingKeys): readonly OpeningKey[] {
  return [...allKeys(keys), ...(keys.recovery ? [keys.recovery] : [])];
}

/**
 * The key that seals manifests, derived from the encryption key so that neither can stand for the other: HKDF-SHA-256
 * (RFC 5869), no salt, the given purpose as info.
 */
export function derivedKey(key: EncryptionKey, purpose: string): KeyObject {
  return key.use((bytes) => deriveFrom(bytes, purpose));
}

/**
 * The same from any 32 secret bytes, such as a data key. Node.js keeps what is in a KeyObject outside of its heap, and wipes it
 * when nobody holds it any more.
 */
export function deriveFrom(secret: Uint8Array, purpose: string): KeyObject {
  const bytes = Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), purpose, 32));
  const key = createSecretKey(bytes);
  bytes.fill(0);
  return key;
}
