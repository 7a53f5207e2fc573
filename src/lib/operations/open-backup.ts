/** From a stored backup to its plain dump: the first half of a restore, and of every check. */
import type {Readable, Transform} from 'node:stream';
import type {Backup} from '../catalog/backups.ts';
import type {Manifest} from '../catalog/manifest.ts';
import {codecs, decompressionError} from '../compress/codec.ts';
import {differences} from '../dump/contents.ts';
import {type Inspection, requireComplete} from '../dump/inspect.ts';
import {integrityError} from '../encrypt/frame-check.ts';
import {allKeys, type EncryptionKey, type Keyring} from '../encrypt/keys.ts';
import {authenticateLegacy, openLegacy} from '../encrypt/legacy.ts';
import {checkHeader, open, type SealContext} from '../encrypt/seal.ts';
import {BackupError, interruption} from '../errors.ts';
import {type Measure, measure} from '../streams/measure.ts';
import type {ObjectStore} from '../upload/store.ts';
import {catalogKeys, loadManifest, readObjectHeader} from './catalog.ts';

/** A backup that was found to be openable, before any of it is downloaded. */
export interface OpenableBackup {
  backup: Backup;
  /** Undefined for a backup of the older procedure. */
  manifest: Manifest | undefined;
  /** Undefined for a backup of the older procedure that was not authenticated yet. */
  context: SealContext;
}

/**
 * Looks at a backup's manifest and at the head of its object: whether they are whole, and whether a key of ours opens it.
 * @throws BackupError BACKUP_INCOMPLETE, MANIFEST_INVALID, WRONG_KEY or DECRYPTION_FAILED
 */
export async function checkOpenable(store: ObjectStore, backup: Backup, keys: Keyring): Promise<OpenableBackup> {
  const context = {objectKey: backup.key, compression: backup.compression, content: 'postgresql-dump'};
  if (backup.state === 'legacy') return {backup, manifest: undefined, context};
  if (backup.state !== 'complete') {
    const isDamaged = backup.state === 'damaged';
    throw new BackupError(`The backup ${backup.key} is ${backup.state}`, {
      code: isDamaged ? 'MANIFEST_INVALID' : 'BACKUP_INCOMPLETE',
      kind: 'integrity',
      ...(backup.problem === undefined ? {} : {reason: backup.problem}),
      hint: 'Choose another backup (loma-backup list), and keep this one for an investigation.',
    });
  }
  const header = await readObjectHeader(store, backup.key);
  if (!header) throw integrityError(backup.key, 'it does not begin as a sealed object does');
  checkHeader(header, allKeys(keys), context);
  const reading = await loadManifest(store, backup.key, catalogKeys(keys).manifest);
  if (reading.is !== 'document') throw manifestError(backup.key, 'it changed while it was read');
  if (reading.seal !== 'verified') {
    throw manifestError(backup.key, `it was sealed with key ${reading.sealedBy}, which is not at hand`);
  }
  return {backup, manifest: reading.document, context};
}

function manifestError(key: string, reason: string): BackupError {
  return new BackupError(`The manifest of ${key} cannot be trusted`, {
    code: 'MANIFEST_INVALID',
    kind: 'integrity',
    reason,
    hint: 'Choose another backup (loma-backup list), and keep this one for an investigation.',
  });
}

export interface PlainDump {
  /** Download, open, decompress: to be put at the start of a pipeline. */
  stages: [Readable, Measure, Transform, Transform];
  /**
   * Holds what flowed through the pipeline to what the manifest promises. To be called when all stages have ended well.
   * @throws BackupError CONTENTS_DIFFER or DUMP_UNREADABLE
   */
  check(inspection: Inspection): void;
  /** The error for a pipeline in which one of these stages failed; undefined if it was another. */
  translate(error: unknown): BackupError | undefined;
}

export interface OpenOptions {
  signal?: AbortSignal | undefined;
  /** Is told the running total of bytes that were downloaded. */
  onBytes?: (total: number) => void;
}

/** Opens a backup. One of the older procedure is read to its end first, to authenticate it. */
export async function openBackup(
  store: ObjectStore,
  {backup, manifest, context}: OpenableBackup,
  keys: Keyring,
  {signal, onBytes}: OpenOptions,
): Promise<PlainDump> {
  const legacyKey = manifest ? undefined : await authenticate(store, backup, allKeys(keys), signal);
  const download = measure({digest: true, ...(onBytes ? {onBytes} : {})});
  const opened = legacyKey ? openLegacy(legacyKey, backup.key) : open(allKeys(keys), context);
  return {
    stages: [store.get(backup.key, {signal}), download, opened, codecs[backup.compression].decompress()],
    check(inspection) {
      requireComplete(inspection);
      const promised = manifest?.objects[0];
      if (!manifest || !promised) return;
      if (promised.sha256 !== download.sha256 || promised.size !== download.bytes) {
        throw integrityError(backup.key, 'it is not the object that the manifest describes');
      }
      const [first, ...others] = differences(manifest.contents, inspection.contents);
      if (first === undefined) return;
      throw new BackupError('The backup is not what its manifest says', {
        code: 'CONTENTS_DIFFER',
        kind: 'integrity',
        reason: [first, ...others.slice(0, 9)].join('\n'),
        hint: 'Choose another backup (loma-backup list), and keep this one for an investigation.',
      });
    },
    translate: (error) => interruption(signal) ?? decompressionError(error, backup.key),
  };
}

async function authenticate(
  store: ObjectStore,
  backup: Backup,
  keys: readonly EncryptionKey[],
  signal: AbortSignal | undefined,
): Promise<EncryptionKey> {
  try {
    return await authenticateLegacy(store.get(backup.key, {signal}), keys, backup.key);
  } catch (error) {
    throw interruption(signal) ?? error;
  }
}
