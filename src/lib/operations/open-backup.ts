/** From a stored backup to its plain dump: the first half of a restore, and of every check. */
import {type Duplex, type Readable, Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import type {Backup} from '../catalog/backups.ts';
import {type DocumentReading, fitsDataKeySeal, type Manifest} from '../catalog/manifest.ts';
import {codecs, decompressionError} from '../compress/codec.ts';
import {differences} from '../dump/contents.ts';
import {type Inspection, inspect, requireComplete} from '../dump/inspect.ts';
import {withUnwrappedDataKey} from '../encrypt/data-key.ts';
import {integrityError, wrongKey} from '../encrypt/frame-check.ts';
import {allKeys, type EncryptionKey, openingKeys, type ReadingKeys} from '../encrypt/keys.ts';
import {authenticateLegacy, openLegacy} from '../encrypt/legacy.ts';
import {type MessageHeader, type WrappedKey, wrappingKeyName} from '../encrypt/message-header.ts';
import {checkHeader, open, type SealContext} from '../encrypt/seal.ts';
import {BackupError, interruption} from '../errors.ts';
import {limit} from '../streams/limit.ts';
import {type Measure, measure} from '../streams/measure.ts';
import type {ObjectStore} from '../upload/store.ts';
import {catalogKeys, dataKeySealingKey, type FoundBackup, loadManifest, readObjectHeader} from './catalog.ts';

/** A backup that was found to be openable, before any of it is downloaded. */
export interface OpenableBackup {
  backup: Backup;
  /** Undefined for a backup of the older procedure. */
  manifest: Manifest | undefined;
  /** What the object must say about itself; a backup of the older procedure says nothing. */
  context: SealContext;
  /** The key that authenticated a backup of the older procedure, once it was read to its end. */
  authenticatedBy?: EncryptionKey;
}

/**
 * Looks at a backup's manifest and at the head of its object: whether they are whole, and whether a key of ours opens it.
 * @param found with the manifest, if it was read with the same keys already
 * @throws BackupError BACKUP_INCOMPLETE, MANIFEST_INVALID, WRONG_KEY or DECRYPTION_FAILED
 */
export async function checkOpenable(
  store: ObjectStore,
  {backup, reading: known}: {backup: Backup; reading?: FoundBackup['reading']},
  keys: ReadingKeys,
): Promise<OpenableBackup> {
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
  const reading = known ?? (await loadManifest(store, backup.key, catalogKeys(keys).manifest));
  if (reading.is !== 'document') throw manifestError(backup.key, 'it changed while it was read');
  checkHeader(header, openingKeys(keys), context, keptKeys(reading.document));
  if (reading.seal !== 'verified') await checkDataKeySeal(header, reading, keys, backup.key);
  return {backup, manifest: reading.document, context};
}

/** The wrapped data keys that a manifest keeps. */
export function keptKeys({wrappedKeys = []}: Manifest): WrappedKey[] {
  return wrappedKeys.map(({namespace, providerInfo, wrappedKey}) => {
    const info = Buffer.from(providerInfo, 'hex');
    return {namespace, name: wrappingKeyName(namespace, info), info, wrapped: Buffer.from(wrappedKey, 'hex')};
  });
}

/**
 * Without the key that sealed the manifest, its other seal is looked at, if the recovery key opens the object. A previous
 * PHI key alone is not enough: after a rotation it is not to be relied on.
 */
async function checkDataKeySeal(
  header: MessageHeader,
  {document, json, sealedBy}: Extract<DocumentReading<Manifest>, {is: 'document'}>,
  keys: ReadingKeys,
  what: string,
): Promise<void> {
  if (!keys.recovery) throw wrongKey(`the manifest of ${what}`, sealedBy, openingKeys(keys));
  const wrapped = {header, keys: openingKeys(keys), more: keptKeys(document), what};
  const sealing = await withUnwrappedDataKey(wrapped, dataKeySealingKey);
  if (!fitsDataKeySeal(json, sealing)) {
    throw manifestError(what, 'it was altered: its seal under the data key does not fit');
  }
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
  /** Download, open, decompress, no more than was promised: to be put at the start of a pipeline. */
  stages: [Readable, Measure, ...Duplex[]];
  /** Of a backup of the older procedure: see `OpenableBackup`. */
  authenticatedBy: EncryptionKey | undefined;
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
  {backup, manifest, context, authenticatedBy}: OpenableBackup,
  keys: ReadingKeys,
  {signal, onBytes}: OpenOptions,
): Promise<PlainDump> {
  const legacyKey = manifest
    ? undefined
    : (authenticatedBy ?? (await authenticate(store, backup, allKeys(keys), signal)));
  const download = measure({digest: true, ...(onBytes ? {onBytes} : {})});
  const opened = legacyKey
    ? openLegacy(legacyKey, backup.key)
    : open(openingKeys(keys), context, manifest && keptKeys(manifest));
  return {
    stages: [
      store.get(backup.key, {signal}),
      download,
      opened,
      codecs[backup.compression].decompress(),
      ...(manifest ? [limit(manifest.dumpBytes, () => contentsDiffer(tooLong(manifest)))] : []),
    ],
    authenticatedBy: legacyKey,
    check(inspection) {
      requireComplete(inspection);
      const promised = manifest?.objects[0];
      if (!manifest || !promised) return;
      if (promised.sha256 !== download.sha256 || promised.size !== download.bytes) {
        throw integrityError(backup.key, 'it is not the object that the manifest describes');
      }
      const found = differences(manifest.contents, inspection.contents);
      if (found.length > 0) throw contentsDiffer(found.slice(0, 10).join('\n'));
    },
    translate: (error) => interruption(signal) ?? decompressionError(error, backup.key),
  };
}

function contentsDiffer(reason: string): BackupError {
  return new BackupError('The backup is not what its manifest says', {
    code: 'CONTENTS_DIFFER',
    kind: 'integrity',
    reason,
    hint: 'Choose another backup (loma-backup list), and keep this one for an investigation.',
  });
}

const tooLong = ({dumpBytes}: Manifest) => `it holds more than the ${dumpBytes} bytes that its manifest promises`;

/**
 * Reads a whole backup, and holds every byte of it to what the manifest promises.
 * @throws BackupError DECRYPTION_FAILED, CONTENTS_DIFFER, DUMP_UNREADABLE, one of the store, or the interruption
 */
export async function readWhole(
  store: ObjectStore,
  openable: OpenableBackup,
  keys: ReadingKeys,
  options: OpenOptions,
): Promise<Inspection> {
  const dump = await openBackup(store, openable, keys, options);
  const inspector = inspect();
  const sink = new Writable({highWaterMark: 4 << 20, write: (_chunk, _encoding, done) => done()});
  try {
    await pipeline([...dump.stages, inspector, sink], options.signal ? {signal: options.signal} : {});
  } catch (error) {
    throw dump.translate(error) ?? error;
  }
  dump.check(inspector.inspection);
  return inspector.inspection;
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
