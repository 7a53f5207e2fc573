import type {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {type Backup, hasSamePatterns, isOpenedBy, isRegular} from '../catalog/backups.ts';
import {backupKey, backupsPrefix, manifestKey} from '../catalog/key-names.ts';
import {dataKeySeal, type Manifest, sealManifest} from '../catalog/manifest.ts';
import type {RetentionPolicy} from '../catalog/retention.ts';
import {codecs} from '../compress/codec.ts';
import type {CompressionName, KeySettings, StoreSettings} from '../config.ts';
import {totals} from '../dump/contents.ts';
import {brokenForeignKeys} from '../dump/foreign-keys.ts';
import {inspect, requireComplete} from '../dump/inspect.ts';
import {dumpEncoding, dumpError, dumpWarnings, startDump} from '../dump/pg-dump.ts';
import {withNewDataKey} from '../encrypt/data-key.ts';
import {type EncryptionKey, fingerprintsOf, type Keyring, keyring} from '../encrypt/keys.ts';
import {seal} from '../encrypt/seal.ts';
import {asBackupError, BackupError, interruption, messageAndReason, messageOf} from '../errors.ts';
import {asStep, collectWarnings, type Step} from '../observer.ts';
import type {Connection} from '../postgres/connection.ts';
import {type ServerFacts, serverFacts} from '../postgres/query.ts';
import {locatePgDump, type Tool} from '../postgres/tools.ts';
import {BlockPool} from '../streams/block-pool.ts';
import {measure} from '../streams/measure.ts';
import {together} from '../together.ts';
import {openStores} from '../upload/open-store.ts';
import {partSizeFor} from '../upload/part-size.ts';
import type {ObjectStore} from '../upload/store.ts';
import {dataKeySealingKey, loadManifest, manifestSealingKey, readCatalogAndStrays} from './catalog.ts';
import {type PruneResult, pruneStore} from './prune.ts';
import {type Runtime, sessionOf} from './runtime.ts';

export interface BackupSettings {
  database: Connection;
  store: StoreSettings;
  keys: KeySettings;
  compression: CompressionName;
  label: string;
  /** Never prune this one. */
  hold: boolean;
  /** Patterns of tables whose rows are left out. */
  excludeTableData: readonly string[];
  retention: RetentionPolicy;
  /** Delete old backups when this one is complete. */
  prune: boolean;
}

export interface BackupResult {
  key: string;
  database: string;
  startedAt: Date;
  durationMs: number;
  /** Of the plain dump. */
  dumpBytes: number;
  compressedBytes: number;
  /** Of the stored object. */
  sizeBytes: number;
  tables: number;
  rows: number;
  keyFingerprint: string;
  label: string;
  isHeld: boolean;
  retention: RetentionPolicy;
  /** Undefined when nothing was to be pruned, or when it seemed wrong to (see the warnings). */
  pruned: PruneResult | undefined;
  /** The database looks like the wrong one (see the warnings). The backup of it is complete. */
  isSuspicious: boolean;
  warnings: string[];
}

export const backupSteps: readonly Step[] = [
  {id: 'connect', title: 'Connect to PostgreSQL and to the store'},
  {id: 'dump', title: 'Dump (pg_dump)', group: 'Back up'},
  {id: 'compress', title: 'Compress', group: 'Back up'},
  {id: 'upload', title: 'Encrypt and upload', group: 'Back up'},
  {id: 'publish', title: 'Publish the manifest'},
  {id: 'catalog', title: 'Compare with earlier backups'},
  {id: 'delete', title: 'Delete old backups'},
  {id: 'uploads', title: 'Abort unfinished uploads'},
];

/**
 * A database that holds less than this share of the rows of the largest backup that is kept may be the wrong one. Not of
 * the last one: after a second night the wrong database would look usual, and retention would eat the good backups.
 */
const suspiciousShare = 0.5;

/**
 * Takes a backup: pg_dump, inspected, compressed, sealed and uploaded in one pass; the manifest is published last. When
 * anything fails, or `runtime.signal` is aborted, nothing of it stays in the store and nothing is pruned.
 * @throws BackupError of the kind that says what failed
 */
export async function backup(settings: BackupSettings, runtime: Runtime): Promise<BackupResult> {
  using stores = await openStores(settings.store);
  return await withNewDataKey((dataKey) => backupTo(stores.backups, dataKey, settings, runtime));
}

/** What is known before the first byte is dumped. */
interface Plan {
  key: string;
  startedAt: Date;
  server: ServerFacts;
  pgDump: Tool;
  partSizeBytes: number;
  keys: Keyring;
  /** Of this backup's object alone. */
  dataKey: Buffer;
}

async function backupTo(
  store: ObjectStore,
  dataKey: Buffer,
  settings: BackupSettings,
  runtime: Runtime,
): Promise<BackupResult> {
  const {observer} = runtime;
  const started = performance.now();
  const startedAt = runtime.now();
  const keys = keyring(settings.keys.current, settings.keys.previous, settings.keys.recoveryPublicKey);
  const {warnings, warn} = collectWarnings(observer, settings.database.warnings);

  const {server, pgDump} = await asStep(
    observer,
    'connect',
    () => connect(store, settings, runtime),
    (found) => `PostgreSQL ${found.server.version}, pg_dump ${found.pgDump.version.text}`,
  );
  const plan: Plan = {
    key: backupKey(startedAt, settings.compression),
    startedAt,
    server,
    pgDump,
    partSizeBytes: partSizeFor(server.sizeBytes),
    keys,
    dataKey,
  };
  const streamed = await streamDump(store, plan, settings, runtime);
  for (const text of streamed.warnings) warn(text);
  const manifest: Manifest = {
    version: '2.0',
    timestamp: startedAt.toISOString(),
    database: server.database,
    size: streamed.sizeBytes,
    compressed: true,
    encrypted: true,
    retentionDays: settings.retention.keepDays,
    compression: settings.compression,
    label: settings.label,
    hold: settings.hold,
    durationMs: Math.round(performance.now() - started),
    dumpBytes: streamed.dumpBytes,
    compressedBytes: streamed.compressedBytes,
    objects: [{key: plan.key, size: streamed.sizeBytes, sha256: streamed.sha256, partSize: plan.partSizeBytes}],
    serverVersion: server.version,
    encoding: dumpEncoding(server.encoding),
    serverEncoding: server.encoding,
    databaseBytes: server.sizeBytes,
    roles: server.roles,
    pgDumpVersion: pgDump.version.text,
    toolVersion: runtime.toolVersion,
    keyFingerprint: keys.current.fingerprint,
    excludedTableData: [...settings.excludeTableData],
    contents: streamed.contents,
  };
  await asStep(observer, 'publish', () =>
    publish(store, manifest, {key: keys.current, dataKey: plan.dataKey, etag: streamed.etag}, runtime.signal),
  );

  if (settings.excludeTableData.length > 0) await warnOfForeignKeys(streamed, settings, runtime, warn);

  const {tables, rows} = totals(manifest.contents);
  const {pruned, isSuspicious} = await compareAndPrune(store, manifest, keys, settings, runtime, warn);
  return {
    key: plan.key,
    database: server.database,
    startedAt,
    durationMs: manifest.durationMs,
    dumpBytes: manifest.dumpBytes,
    compressedBytes: manifest.compressedBytes,
    sizeBytes: manifest.size,
    tables,
    rows,
    keyFingerprint: manifest.keyFingerprint,
    label: manifest.label,
    isHeld: manifest.hold,
    retention: settings.retention,
    pruned,
    isSuspicious,
    warnings,
  };
}

/** More of them say nothing more. */
const mostForeignKeys = 5;

/** Rows that refer to rows which were left out stop a restore: its foreign keys are checked when they are made. */
async function warnOfForeignKeys(
  dump: Parameters<typeof brokenForeignKeys>[1],
  settings: BackupSettings,
  runtime: Runtime,
  warn: (message: string) => void,
): Promise<void> {
  try {
    const broken = await brokenForeignKeys(await sessionOf(settings.database, runtime), dump);
    if (broken.length === 0) return;
    const shown = broken
      .slice(0, mostForeignKeys)
      .map(({constraint, table, referenced}) => `${constraint} of ${table} refers to ${referenced}`);
    const more = broken.length > shown.length ? [`and ${broken.length - shown.length} more`] : [];
    warn(
      `the backup cannot be restored as it is if rows in it refer to rows that were left out. Foreign keys: ${[...shown, ...more].join('; ')}. ` +
        'Leave out the rows of both tables, or of neither.',
    );
  } catch (error) {
    warn(`it could not be asked which foreign keys refer to rows that were left out: ${messageOf(error)}`);
  }
}

/** Asks both ends, so that a wrong password or bucket is said before the work. */
async function connect(
  store: ObjectStore,
  settings: BackupSettings,
  runtime: Runtime,
): Promise<{server: ServerFacts; pgDump: Tool}> {
  const server = sessionOf(settings.database, runtime).then(serverFacts);
  const pgDump = locatePgDump(
    server.then(({major}) => major),
    runtime.environment.PATH ?? '',
  );
  const [facts, , tool] = await together([server, reach(store), pgDump]);
  return {server: facts, pgDump: tool};
}

/** By a listing, which also says that there is no such bucket; a HEAD of an object can't. */
async function reach(store: ObjectStore): Promise<void> {
  for await (const _ of store.list(backupsPrefix)) return;
}

/** The one pipeline of a backup. The upload is its last function: it sees an error, never a clean end, when a stage fails. */
async function streamDump(store: ObjectStore, plan: Plan, settings: BackupSettings, runtime: Runtime) {
  const {observer, signal, environment} = runtime;
  /** The blocks go round: pg_dump's output fills them, the compressor is the last to look at them. */
  const pool = new BlockPool();
  const options = {
    connection: settings.database,
    pgDump: plan.pgDump,
    inherited: environment,
    excludeTableData: settings.excludeTableData,
    encoding: dumpEncoding(plan.server.encoding),
    signal,
    pool,
  };
  const steps = ['dump', 'compress', 'upload'] as const;
  const progress = (step: (typeof steps)[number]) => (bytes: number) => observer({type: 'progress', step, bytes});
  for (const step of steps) observer({type: 'started', step});

  const dump = startDump(options);
  const inspector = inspect(progress('dump'));
  const compressed = measure({onBytes: progress('compress')});
  const sealed = measure({digest: true});
  let upload: ReturnType<ObjectStore['put']> | undefined;
  try {
    await pipeline(
      dump.stream,
      inspector,
      codecs[settings.compression].compress(pool),
      compressed,
      seal(
        plan.keys.current,
        {objectKey: plan.key, compression: settings.compression, content: 'postgresql-dump'},
        {recovery: plan.keys.recoveryPublic, dataKey: plan.dataKey},
      ),
      sealed,
      (body) => {
        upload = store.put(plan.key, body as unknown as Readable, {
          partSizeBytes: plan.partSizeBytes,
          signal,
          onBytes: progress('upload'),
        });
        return upload;
      },
      signal ? {signal} : {},
    );
  } catch (error) {
    await dump.stop();
    // The pipeline fails with the first error it sees, which may be what the upload destroyed its body with. The upload
    // says what it was, when it has cleaned up.
    const uploadFailure = await failureOf(upload);
    const failure = dumpError(error, options) ?? uploadFailure ?? error;
    throw interruption(signal) ?? asBackupError(failure);
  }
  const {inspection} = inspector;
  try {
    requireComplete(inspection);
  } catch (error) {
    await store.delete(plan.key);
    throw error;
  }
  for (const step of steps) observer({type: 'finished', step});
  return {
    warnings: dumpWarnings(await dump.remarks),
    contents: inspection.contents,
    tablesWithoutRows: inspection.tablesWithoutRows,
    dumpBytes: inspection.bytes,
    compressedBytes: compressed.bytes,
    sizeBytes: sealed.bytes,
    sha256: sealed.sha256,
    etag: (await upload)?.etag,
  };
}

/** What a promise was rejected with, when it is settled. */
function failureOf(promise: Promise<unknown> | undefined): Promise<unknown> | undefined {
  return promise?.then(
    () => undefined,
    (error: unknown) => error,
  );
}

function unreadableManifest(store: ObjectStore, reason: string): BackupError {
  return new BackupError('The manifest that was stored does not read back', {
    code: 'MANIFEST_INVALID',
    kind: 'storage',
    reason: `${store.description}: ${reason}`,
    hint: 'Does another program write to this bucket? The backup was removed: run it again.',
  });
}

function replacedMeanwhile(store: ObjectStore, key: string): BackupError {
  return new BackupError(`The object ${key} was replaced before its backup was complete`, {
    code: 'OBJECT_CHANGED',
    kind: 'storage',
    reason: `${store.description} holds another object of that name than the one that was stored`,
    hint: 'Is another backup running? Run the command again: the next one has another name.',
  });
}

/** Without its manifest a backup is not complete: if it can't be published and read back, the object goes too. */
export async function publish(
  store: ObjectStore,
  manifest: Manifest,
  {key, dataKey, etag}: {key: EncryptionKey; dataKey: Buffer; etag: string | undefined},
  signal: AbortSignal | undefined,
): Promise<void> {
  const [object] = manifest.objects;
  if (!object) throw new Error('a manifest names its object');
  const sealing = manifestSealingKey(key);
  const sealed = {...manifest, dataKeySeal: dataKeySeal(manifest, dataKeySealingKey(dataKey))};
  try {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    await store.create(manifestKey(object.key), Buffer.from(sealManifest(sealed, sealing)));
    const reading = await loadManifest(store, object.key, [sealing]);
    if (reading.is !== 'document') throw unreadableManifest(store, reading.is === 'invalid' ? reading.reason : '');
    // A prune that ran at the same time may have taken the object for one that was never finished.
    const stored = await store.head(object.key);
    if (stored?.sizeBytes !== object.size) throw unreadableManifest(store, 'the object that it describes is gone');
    if (stored.etag !== etag) throw replacedMeanwhile(store, object.key);
  } catch (error) {
    const failure = asBackupError(error);
    // Another run's manifest, of the same millisecond: what lies there is not ours to remove.
    if (failure.code === 'OBJECT_EXISTS') throw failure;
    await store.delete(manifestKey(object.key)).catch(() => undefined);
    // Nor is an object that took the place of ours.
    if (failure.code !== 'OBJECT_CHANGED') await store.delete(object.key).catch(() => undefined);
    throw failure;
  }
}

/**
 * The backup is complete: from here on nothing may make it a failed one but a delete that failed. An unusual backup is
 * said to be one, and then old backups are left alone: the wrong database gives a valid, small dump.
 */
async function compareAndPrune(
  store: ObjectStore,
  manifest: Manifest,
  keys: Keyring,
  settings: BackupSettings,
  runtime: Runtime,
  warn: (message: string) => void,
): Promise<{pruned: PruneResult | undefined; isSuspicious: boolean}> {
  const {observer} = runtime;
  try {
    const catalog = await asStep(observer, 'catalog', () => readCatalogAndStrays(store, keys, runtime.signal));
    const suspicion = suspicionOf(manifest, catalog.backups, fingerprintsOf(keys));
    if (suspicion) warn(suspicion);
    const why = suspicion ? 'this backup looks unusual' : settings.prune ? undefined : '--no-prune';
    if (why === undefined) {
      const pruned = await pruneStore(
        store,
        {...catalog, keys},
        {retention: settings.retention, dryRun: false},
        runtime,
      );
      return {pruned, isSuspicious: false};
    }
    for (const step of ['delete', 'uploads']) observer({type: 'skipped', step, note: why});
    if (suspicion && settings.prune) warn('old backups were not deleted, because this one looks unusual');
    return {pruned: undefined, isSuspicious: suspicion !== undefined};
  } catch (error) {
    const interrupted = interruption(runtime.signal);
    if (interrupted) throw interruptedAfter(manifest, interrupted);
    warn(`the backup is complete, but old backups could not be looked at: ${messageAndReason(error)}`);
  }
  return {pruned: undefined, isSuspicious: false};
}

function interruptedAfter(manifest: Manifest, {message, kind}: BackupError): BackupError {
  return new BackupError(message, {
    code: 'INTERRUPTED',
    kind,
    reason: `the backup is complete (${manifest.objects[0]?.key}), and old backups may not have been deleted`,
  });
}

/** What is odd about a backup, next to those of the same database that are kept. */
export function suspicionOf(
  manifest: Manifest,
  backups: readonly Backup[],
  keyFingerprints: readonly string[],
): string | undefined {
  const {database} = manifest;
  const {tables, rows} = totals(manifest.contents);
  if (tables === 0) return `the database ${database} holds no tables: is it the right one?`;
  const own = manifest.objects[0]?.key;
  const earlier = backups.filter((other) => other.key !== own && isRegular(other) && other.rows !== undefined);
  const ofDatabase = earlier.filter((other) => other.database === database);
  if (ofDatabase.length > 0 && ofDatabase.every((other) => isOpenedBy(other, keyFingerprints) === false)) {
    return otherKey(database, ofDatabase);
  }
  // Without the rows of a table there are fewer than with them.
  const comparable = ofDatabase.filter(
    (other) => manifest.excludedTableData.length === 0 || hasSamePatterns(manifest, other),
  );
  const [largest] = comparable.toSorted((a, b) => (b.rows ?? 0) - (a.rows ?? 0));
  if (largest?.rows && rows < largest.rows * suspiciousShare) {
    return (
      `the database holds ${rows} rows, and held ${largest.rows} in an earlier backup (${largest.key}): is it the right one? ` +
      'If it is, loma-backup prune deletes the old ones.'
    );
  }
  const [newest] = earlier;
  if (ofDatabase.length === 0 && newest) {
    return `the earlier backups in this bucket are of database ${newest.database}, this one is of ${database}`;
  }
  return undefined;
}

function otherKey(database: string, earlier: readonly Backup[]): string {
  const fingerprints = [...new Set(earlier.map(({keyFingerprint}) => keyFingerprint))];
  const keys = `${fingerprints.length === 1 ? 'key' : 'keys'} ${fingerprints.join(', ')}`;
  return (
    `the earlier backups of ${database} were sealed with ${keys}, and no configured key opens them: is PHI_ENCRYPTION_KEY the right one? ` +
    'If it is, add the earlier one to PHI_ENCRYPTION_KEYS_PREVIOUS.'
  );
}
