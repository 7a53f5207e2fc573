/** Reading the catalog: what backups a bucket holds, and which one is meant. */
import type {KeyObject} from 'node:crypto';
import pMap from 'p-map';
import {
  type Backup,
  type BackupObjects,
  describeBackup,
  groupObjects,
  isRestorable,
  type ListedObject,
  preRestoreLabel,
  strayVerifications,
} from '../catalog/backups.ts';
import {choiceWarnings, partialWarning} from '../catalog/choice.ts';
import {backupsPrefix, manifestKey, parseBackupKey, parseTimestamp, verificationKey} from '../catalog/key-names.ts';
import {
  type DocumentReading,
  dataKeySealPurpose,
  type Manifest,
  manifestSealPurpose,
  mostManifestBytes,
  readManifest,
  type SealingKey,
} from '../catalog/manifest.ts';
import {
  mostVerificationBytes,
  readVerification,
  type VerificationSummary,
  verificationSealPurpose,
} from '../catalog/verification.ts';
import {
  allKeys,
  derivedKey,
  deriveFrom,
  type EncryptionKey,
  fingerprintsOf,
  type ReadingKeys,
} from '../encrypt/keys.ts';
import {longestHeader, magic, parseHeader} from '../encrypt/message-header.ts';
import {BackupError, interruption, messageOf} from '../errors.ts';
import {type ObjectStore, readSmall} from '../upload/store.ts';

/** Manifests read at the same time. */
const concurrency = 16;

export function manifestSealingKey(key: EncryptionKey): SealingKey {
  return {fingerprint: key.fingerprint, key: derivedKey(key, manifestSealPurpose)};
}

/** The key that seals a manifest for those who can open its object. */
export function dataKeySealingKey(dataKey: Uint8Array): KeyObject {
  return deriveFrom(dataKey, dataKeySealPurpose);
}

export function verificationSealingKey(key: EncryptionKey): SealingKey {
  return {fingerprint: key.fingerprint, key: derivedKey(key, verificationSealPurpose)};
}

/** The keys that the documents in a bucket may be sealed with; none when no key is at hand. */
export interface CatalogKeys {
  manifest: SealingKey[];
  verification: SealingKey[];
}

export function catalogKeys(keys: ReadingKeys | undefined): CatalogKeys {
  const all = keys ? allKeys(keys) : [];
  return {manifest: all.map(manifestSealingKey), verification: all.map(verificationSealingKey)};
}

/** Reads and checks the manifest of a backup. */
export async function loadManifest(
  store: ObjectStore,
  key: string,
  keys: readonly SealingKey[],
): Promise<DocumentReading<Manifest>> {
  try {
    return readManifest(await readSmall(store, manifestKey(key), mostManifestBytes), key, keys);
  } catch (error) {
    if (error instanceof RangeError) return {is: 'invalid', reason: error.message};
    throw error;
  }
}

/** What an object is by its first bytes. Older backups begin with random ones. */
async function bodyKindOf(store: ObjectStore, key: string): Promise<'sealed' | 'legacy'> {
  const head = await readSmallHead(store, key, magic.length);
  return head.equals(magic) ? 'sealed' : 'legacy';
}

async function readSmallHead(store: ObjectStore, key: string, length: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of store.get(key, {length})) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** The header of a sealed object, or undefined when the object is of the older form. */
export async function readObjectHeader(store: ObjectStore, key: string) {
  const reading = parseHeader(await readSmallHead(store, key, longestHeader));
  return reading.is === 'header' ? reading.header : undefined;
}

/** A backup, and its manifest as it was read. */
export interface FoundBackup {
  backup: Backup;
  reading: DocumentReading<Manifest> | undefined;
}

/** Everything that is known of one backup. */
async function inspectBackup(store: ObjectStore, objects: BackupObjects, keys: CatalogKeys): Promise<FoundBackup> {
  const reading = objects.manifest && (await loadManifest(store, objects.key, keys.manifest));
  const needsBody = objects.body && (!reading || reading.is === 'legacy');
  const bodyKind = needsBody ? await bodyKindOf(store, objects.key) : undefined;
  const verification = objects.verification && (await loadVerification(store, objects.key, keys));
  return {backup: describeBackup(objects, reading, bodyKind, verification), reading};
}

/** The last verification of a backup; one that cannot be believed counts as none. */
async function loadVerification(
  store: ObjectStore,
  key: string,
  keys: CatalogKeys,
): Promise<VerificationSummary | undefined> {
  try {
    const bytes = await readSmall(store, verificationKey(key), mostVerificationBytes);
    const reading = readVerification(bytes, key, keys.verification);
    // Without a key at hand it is shown as it stands; with one, it must have been sealed by a key that is.
    if (reading.is !== 'document' || (reading.seal === 'unchecked' && keys.verification.length > 0)) return undefined;
    return {at: new Date(reading.document.verifiedAt), isProved: reading.document.result === 'proved'};
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** A backup may be pruned between the listing and the look at it: then there is none. */
async function inspectUnlessGone(
  store: ObjectStore,
  objects: BackupObjects,
  keys: CatalogKeys,
): Promise<Backup | undefined> {
  try {
    return (await inspectBackup(store, objects, keys)).backup;
  } catch (error) {
    if (error instanceof BackupError && error.code === 'OBJECT_NOT_FOUND') return undefined;
    throw error;
  }
}

async function listObjects(store: ObjectStore): Promise<BackupObjects[]> {
  return groupObjects(await allObjects(store));
}

async function allObjects(store: ObjectStore): Promise<ListedObject[]> {
  const objects = [];
  for await (const {key, sizeBytes, modifiedAt} of store.list(backupsPrefix)) {
    objects.push({key, sizeBytes, modifiedAt});
  }
  return objects;
}

/** Whether both objects of a backup are there. The manifest, which goes first when a backup is deleted, is looked at last. */
export async function isPublished(store: ObjectStore, key: string): Promise<boolean> {
  return Boolean((await store.head(key)) && (await store.head(manifestKey(key))));
}

/** Every backup in the bucket, newest first. */
export async function readCatalog(
  store: ObjectStore,
  keys: ReadingKeys | undefined,
  signal?: AbortSignal | undefined,
): Promise<Backup[]> {
  return (await readCatalogAndStrays(store, keys, signal)).backups;
}

export interface CatalogAndStrays {
  backups: Backup[];
  /** Keys of backups of which nothing but the result of a verification is in the bucket. */
  strays: string[];
}

/** The same, from one listing with what is no backup any more. */
export async function readCatalogAndStrays(
  store: ObjectStore,
  keys: ReadingKeys | undefined,
  signal: AbortSignal | undefined,
): Promise<CatalogAndStrays> {
  try {
    const objects = await allObjects(store);
    const backups = await inspectAll(store, groupObjects(objects), keys, signal);
    return {backups, strays: strayVerifications(objects)};
  } catch (error) {
    throw interruption(signal) ?? error;
  }
}

async function inspectAll(
  store: ObjectStore,
  listed: readonly BackupObjects[],
  keys: ReadingKeys | undefined,
  signal: AbortSignal | undefined,
): Promise<Backup[]> {
  const sealing = catalogKeys(keys);
  const backups = await pMap(listed, (objects) => inspectUnlessGone(store, objects, sealing), {
    concurrency,
    ...(signal ? {signal} : {}),
  });
  return backups.filter((backup) => backup !== undefined);
}

/** Which backup is meant: by its key (or the timestamp in it), the newest, or the newest at a time. */
export type BackupChoice = {by: 'key'; key: string} | {by: 'latest'} | {by: 'time'; at: Date};

/**
 * Finds the backup that is meant.
 * @param warn is told of newer ones that are passed over because they are incomplete or damaged, of rows that are not in it, and
 * of other databases that it might have been of
 * @param options.catalog when every backup was looked at already
 * @throws BackupError BACKUP_NOT_FOUND
 */
export async function findBackup(
  store: ObjectStore,
  choice: BackupChoice,
  keys: ReadingKeys | undefined,
  warn: (message: string) => void = () => undefined,
  {signal, catalog}: {signal?: AbortSignal | undefined; catalog?: readonly Backup[]} = {},
): Promise<FoundBackup> {
  const listed = await listObjects(store);
  const sealing = catalogKeys(keys);
  if (choice.by === 'key') {
    const time = parseTimestamp(choice.key)?.getTime();
    const named = listed.filter(({key, startedAt}) => key === choice.key || startedAt.getTime() === time);
    const found = await firstRestorable(store, named, sealing);
    if (found) {
      const warning = partialWarning(found.backup);
      if (warning !== undefined) warn(warning);
      return found;
    }
    throw notFound(
      store,
      listed,
      `no backup ${JSON.stringify(choice.key)}${parseBackupKey(choice.key) || time !== undefined ? '' : ' (and that is no key of a backup)'}`,
    );
  }
  let newestPreRestore: string | undefined;
  for (const [index, objects] of listed.entries()) {
    if (choice.by === 'time' && objects.startedAt > choice.at) continue;
    const found = await inspectBackup(store, objects, sealing);
    const {key, state, problem, label} = found.backup;
    if (!isRestorable(found.backup)) warn(`a newer backup is passed over, because it is ${state}: ${key}: ${problem}`);
    else if (label !== preRestoreLabel) {
      const others = listed.slice(index + 1);
      const keysOfOthers = new Set(others.map((other) => other.key));
      const older = async () =>
        catalog?.filter((other) => keysOfOthers.has(other.key)) ?? inspectAll(store, others, keys, signal);
      for (const warning of await warningsOf(found.backup, older, keys, signal)) warn(warning);
      return found;
    } else newestPreRestore ??= key;
  }
  const which = choice.by === 'latest' ? 'no backup' : `no backup from before ${choice.at.toISOString()}`;
  if (newestPreRestore !== undefined) throw onlyPreRestore(store, which, newestPreRestore);
  throw notFound(store, listed, `${which} that is complete`);
}

/** What to say of the newest backup, beside the older ones. What can't be read of those is no reason to restore nothing. */
async function warningsOf(
  taken: Backup,
  older: () => Promise<readonly Backup[]>,
  keys: ReadingKeys | undefined,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  try {
    // The recovery key may open what the others do not.
    return choiceWarnings(taken, await older(), keys && !keys.recovery ? fingerprintsOf(keys) : undefined);
  } catch (error) {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    const warning = partialWarning(taken);
    return [...(warning === undefined ? [] : [warning]), `older backups could not be looked at: ${messageOf(error)}`];
  }
}

function onlyPreRestore(store: ObjectStore, which: string, key: string): BackupError {
  return new BackupError('Backup not found in R2', {
    code: 'BACKUP_NOT_FOUND',
    kind: 'storage',
    reason: `${store.description} holds ${which} that is complete, but for those that were taken before a restore; the newest of them is ${key}`,
    hint: `They hold what a restore overwrote, and are restored only by their key: loma-backup restore ${key}`,
  });
}

/**
 * The first that can be restored, or the first of all. Of one time there are two while a backup of the older form is sealed
 * anew, and after a run that was killed in it.
 */
async function firstRestorable(
  store: ObjectStore,
  listed: readonly BackupObjects[],
  keys: CatalogKeys,
): Promise<FoundBackup | undefined> {
  let first: FoundBackup | undefined;
  for (const objects of listed) {
    const found = await inspectBackup(store, objects, keys);
    if (isRestorable(found.backup)) return found;
    first ??= found;
  }
  return first;
}

function notFound(store: ObjectStore, listed: readonly BackupObjects[], what: string): BackupError {
  const newest = listed[0] ? `; the newest of ${listed.length} is ${listed[0].key}` : '; it holds no backup at all';
  return new BackupError('Backup not found in R2', {
    code: 'BACKUP_NOT_FOUND',
    kind: 'storage',
    reason: `${store.description} holds ${what}${newest}`,
    hint: 'See what there is: loma-backup list. Is it the right bucket (CLOUDFLARE_R2_BUCKET_BACKUPS)?',
  });
}
