/**
 * A backup of the older form, sealed anew: downloaded, authenticated, opened, inspected, compressed, sealed and uploaded in
 * one pass, under the rules of a backup. It gets the name of a zstd backup of the same time, so nothing is overwritten and
 * its age stays what it is. The old object is deleted when the new one was read back and found to hold the same dump.
 */
import type {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import type {Backup} from '../catalog/backups.ts';
import {backupKey, manifestKey} from '../catalog/key-names.ts';
import type {Manifest} from '../catalog/manifest.ts';
import {defaultRetention} from '../catalog/retention.ts';
import {codecs} from '../compress/codec.ts';
import {inspect} from '../dump/inspect.ts';
import {withNewDataKey} from '../encrypt/data-key.ts';
import type {Keyring} from '../encrypt/keys.ts';
import {seal} from '../encrypt/seal.ts';
import {asBackupError, BackupError, interruption} from '../errors.ts';
import {measure} from '../streams/measure.ts';
import {partSizeFor} from '../upload/part-size.ts';
import type {ObjectStore} from '../upload/store.ts';
import {publish} from './backup.ts';
import {findBackup, isPublished} from './catalog.ts';
import {checkOpenable, openBackup, readWhole} from './open-backup.ts';
import type {Runtime} from './runtime.ts';

const compression = 'zstd';

/** The name of a backup of the older form once it is sealed anew. */
export function resealedKey({startedAt}: Pick<Backup, 'startedAt'>): string {
  return backupKey(startedAt, compression);
}

/**
 * @param backups all of the bucket: the new one may be there, whole or not, from a run that was ended
 * @returns the key of the new backup
 */
export async function resealLegacy(
  store: ObjectStore,
  backup: Backup,
  backups: readonly Backup[],
  keys: Keyring,
  runtime: Runtime,
  {dryRun}: {dryRun: boolean},
): Promise<string> {
  const key = resealedKey(backup);
  const earlier = backups.find((other) => other.key === key);
  if (dryRun) return key;
  // Another run may have published it since the listing.
  const isThere = earlier?.state === 'complete' || (earlier?.state === 'incomplete' && (await isPublished(store, key)));
  // Its upload was complete, and its manifest was not published: nothing relies on it.
  if (earlier?.state === 'incomplete' && !isThere) await store.delete(key);
  if (!isThere) await withNewDataKey((dataKey) => copy(store, backup, {key, keys, dataKey}, runtime));
  await check(store, key, keys, runtime);
  // The check took as long as a download does.
  if (!(await isPublished(store, key))) throw goneMeanwhile(store, key);
  for (const name of backup.objectKeys) await store.delete(name);
  return key;
}

function goneMeanwhile({description}: ObjectStore, key: string): BackupError {
  return new BackupError('The backup that was sealed anew is not whole any more', {
    code: 'OBJECT_CHANGED',
    kind: 'storage',
    reason: `something in ${description} deleted what belongs to ${key}; the older one was kept`,
    hint: 'Does a prune run at the same time, or is something else at work in the bucket? Run it again.',
  });
}

async function copy(
  store: ObjectStore,
  backup: Backup,
  {key, keys, dataKey}: {key: string; keys: Keyring; dataKey: Buffer},
  {observer, signal, toolVersion}: Runtime,
): Promise<void> {
  const started = performance.now();
  const partSizeBytes = partSizeFor(backup.sizeBytes * 2);
  const dump = await openBackup(store, await checkOpenable(store, {backup}, keys), keys, {
    signal,
    onBytes: (bytes) => observer({type: 'progress', step: 'reseal', bytes, totalBytes: backup.sizeBytes}),
  });
  const inspector = inspect();
  const encoding = encodingTap();
  const compressed = measure({});
  const sealed = measure({digest: true});
  let upload: ReturnType<ObjectStore['put']> | undefined;
  try {
    await pipeline(
      [
        ...dump.stages,
        encoding.look,
        inspector,
        codecs[compression].compress(),
        compressed,
        seal(
          keys.current,
          {objectKey: key, compression, content: 'postgresql-dump'},
          {recovery: keys.recoveryPublic, dataKey},
        ),
        sealed,
        (body: unknown) => {
          upload = store.put(key, body as Readable, {partSizeBytes, signal});
          return upload;
        },
      ],
      signal ? {signal} : {},
    );
  } catch (error) {
    throw interruption(signal) ?? dump.translate(error) ?? asBackupError(error);
  }
  const {inspection} = inspector;
  try {
    dump.check(inspection);
  } catch (error) {
    await store.delete(key);
    throw error;
  }
  const manifest: Manifest = {
    version: '2.0',
    timestamp: backup.startedAt.toISOString(),
    database: backup.database ?? '',
    size: sealed.bytes,
    compressed: true,
    encrypted: true,
    retentionDays: defaultRetention.keepDays,
    compression,
    label: 'legacy',
    hold: backup.isHeld,
    durationMs: Math.round(performance.now() - started),
    dumpBytes: inspection.bytes,
    compressedBytes: compressed.bytes,
    objects: [{key, size: sealed.bytes, sha256: sealed.sha256, partSize: partSizeBytes}],
    serverVersion: inspection.versions.server ?? '',
    encoding: encoding.found(),
    // Not known: a restore asks the target for none.
    roles: [],
    pgDumpVersion: inspection.versions.pgDump ?? '',
    toolVersion,
    keyFingerprint: keys.current.fingerprint,
    excludedTableData: [],
    contents: inspection.contents,
  };
  await publish(store, manifest, {key: keys.current, dataKey, etag: (await upload)?.etag}, signal);
}

/** Reads `SET client_encoding`, which is among the first lines of a dump. */
function encodingTap() {
  let head = '';
  async function* look(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      if (head.length < 4096) head += chunk.toString('latin1', 0, 4096);
      yield chunk;
    }
  }
  return {look, found: () => /^SET client_encoding = '(\w+)';$/m.exec(head)?.[1] ?? 'UTF8'};
}

/** Downloads and opens what was stored, with the current key alone, and holds it to its manifest. */
async function check(store: ObjectStore, key: string, keys: Keyring, {signal}: Runtime): Promise<void> {
  const current = {current: keys.current, previous: []};
  const openable = await checkOpenable(store, await findBackup(store, {by: 'key', key}, current), current);
  await readWhole(store, openable, current, {signal});
  if (openable.manifest) return;
  throw new BackupError('The backup was not sealed', {
    code: 'UNEXPECTED',
    kind: 'unexpected',
    reason: manifestKey(key),
  });
}
