/** What lies in the backups bucket, made of a listing of its objects: pure functions, without the bucket. */

import type {CompressionName} from '../config.ts';
import {type BackupName, parseBackupKey, partOf} from './key-names.ts';
import type {DocumentReading, Manifest, SealState} from './manifest.ts';
import type {VerificationSummary} from './verification.ts';

/** An object of the listing. */
export interface ListedObject {
  key: string;
  sizeBytes: number;
  /** When it was written, or its upload was begun, by the store's clock. */
  modifiedAt?: Date;
}

/** The objects of one backup. */
export interface BackupObjects extends BackupName {
  key: string;
  body: ListedObject | undefined;
  manifest: ListedObject | undefined;
  verification: ListedObject | undefined;
}

/** Gathers a listing into backups, newest first. Objects that are none of ours are left out, and what `strayVerifications` finds. */
export function groupObjects(objects: Iterable<ListedObject>): BackupObjects[] {
  return gather(objects).filter(({body, manifest}) => body || manifest);
}

/** Keys of backups of which only the result of a verification is left: somebody deleted the rest by hand. */
export function strayVerifications(objects: Iterable<ListedObject>): string[] {
  return gather(objects)
    .filter(({body, manifest}) => !body && !manifest)
    .map(({key}) => key);
}

function gather(objects: Iterable<ListedObject>): BackupObjects[] {
  const backups = new Map<string, BackupObjects>();
  for (const object of objects) {
    const place = partOf(object.key);
    const name = place && parseBackupKey(place.backup);
    if (!place || !name) continue;
    const backup = backups.get(place.backup) ?? {
      key: place.backup,
      ...name,
      body: undefined,
      manifest: undefined,
      verification: undefined,
    };
    backup[place.part] = object;
    backups.set(place.backup, backup);
  }
  return [...backups.values()].sort(
    (a, b) => b.startedAt.getTime() - a.startedAt.getTime() || (a.key < b.key ? 1 : -1),
  );
}

/**
 * `complete`: object and manifest fit together. `legacy`: made by the procedure before this program. `incomplete`: a part
 * is missing. `damaged`: the manifest or the object is not what was written.
 */
export type BackupState = 'complete' | 'legacy' | 'incomplete' | 'damaged';

/** A backup as `list` shows it. The digests of its tables are left in the bucket: a year of them need not fit in memory. */
export interface Backup {
  key: string;
  startedAt: Date;
  /** When the newest of its objects was written. */
  modifiedAt?: Date | undefined;
  compression: CompressionName;
  state: BackupState;
  /** Why it is not complete. */
  problem: string | undefined;
  /** Of the stored object. */
  sizeBytes: number;
  database: string | undefined;
  label: string | undefined;
  isHeld: boolean;
  tables: number | undefined;
  rows: number | undefined;
  dumpBytes: number | undefined;
  durationMs: number | undefined;
  keyFingerprint: string | undefined;
  /** Patterns of tables whose rows were left out; undefined where nothing says so. */
  excludedTableData: string[] | undefined;
  /** Whether the manifest's seal was checked; undefined without a manifest. */
  seal: SealState | undefined;
  /** The last verification, if there was one that can be believed. */
  verification: VerificationSummary | undefined;
  /** Everything that is stored of it. */
  objectKeys: string[];
}

/** What an object without a manifest of ours is, by its first bytes. */
export type BodyKind = 'sealed' | 'legacy';

/**
 * Puts together what is known of a backup.
 * @param reading of its manifest, if there is one
 * @param bodyKind of its object, looked at only when there is no manifest of ours
 */
export function describeBackup(
  objects: BackupObjects,
  reading: DocumentReading<Manifest> | undefined,
  bodyKind: BodyKind | undefined,
  verification?: VerificationSummary | undefined,
): Backup {
  const manifest = reading?.is === 'document' ? reading.document : undefined;
  const {state, problem} = judge(objects, reading, bodyKind);
  const listed = [objects.manifest, objects.verification, objects.body].flatMap((object) => object ?? []);
  const times = listed.flatMap(({modifiedAt}) => modifiedAt ?? []);
  return {
    key: objects.key,
    startedAt: objects.startedAt,
    modifiedAt: times.toSorted((a, b) => b.getTime() - a.getTime())[0],
    compression: objects.compression,
    state,
    problem,
    sizeBytes: objects.body?.sizeBytes ?? 0,
    // Sealed anew, a backup of the older form that did not record it has an empty one.
    database: manifest?.database || (reading?.is === 'legacy' ? reading.database : undefined),
    label: manifest?.label,
    isHeld: manifest?.hold ?? false,
    tables: manifest?.contents.tables.length,
    rows: manifest?.contents.tables.reduce((sum, {rows}) => sum + rows, 0),
    dumpBytes: manifest?.dumpBytes,
    durationMs: manifest?.durationMs,
    keyFingerprint: manifest?.keyFingerprint,
    excludedTableData: manifest?.excludedTableData,
    seal: reading?.is === 'document' ? reading.seal : undefined,
    verification,
    objectKeys: listed.map(({key}) => key),
  };
}

/** IV and tag of the older form (32 bytes), and the smallest gzip file. */
const smallestLegacyBytes = 32 + 18;

function judge(
  {body}: BackupObjects,
  reading: DocumentReading<Manifest> | undefined,
  bodyKind: BodyKind | undefined,
): {state: BackupState; problem?: string} {
  if (!body) return {state: 'incomplete', problem: 'the object with the data is missing'};
  if (!reading || reading.is === 'legacy') {
    if (body.sizeBytes < smallestLegacyBytes)
      return {state: 'incomplete', problem: 'the object is too small to be a backup'};
    if (bodyKind === 'legacy') return {state: 'legacy'};
    // Somebody may have put it there to have the backup taken for an unfinished one, and pruned.
    if (reading) return {state: 'damaged', problem: 'its manifest is of the older form, and the object is not'};
    return {state: 'incomplete', problem: 'it has no manifest: the backup was not finished'};
  }
  if (reading.is === 'invalid') return {state: 'damaged', problem: `its manifest cannot be trusted: ${reading.reason}`};
  const size = reading.document.objects[0]?.size;
  if (size !== body.sizeBytes) {
    return {state: 'damaged', problem: `the object has ${body.sizeBytes} bytes, and its manifest says ${size}`};
  }
  return {state: 'complete'};
}

/** Whether a restore from it can be tried: everything that is not missing a part or damaged. */
export function isRestorable({state}: Pick<Backup, 'state'>): boolean {
  return state === 'complete' || state === 'legacy';
}

/**
 * Label of the backup that a restore takes of what it overwrites. Somebody wanted that state gone: such a backup is
 * restored when its key is named, never as the newest one.
 */
export const preRestoreLabel = 'pre-restore';

/** `partial`: with the rows of some tables left out. */
export type BackupKind = 'full' | 'partial' | 'pre-restore';

export function kindOf({label, excludedTableData}: Pick<Backup, 'label' | 'excludedTableData'>): BackupKind {
  if (label === preRestoreLabel) return 'pre-restore';
  return excludedTableData?.length ? 'partial' : 'full';
}

/** Can be restored, and is not what a restore took of the state that somebody wanted gone. */
export function isRegular(backup: Pick<Backup, 'state' | 'label'>): boolean {
  return isRestorable(backup) && backup.label !== preRestoreLabel;
}

type Patterns = Partial<Pick<Backup, 'excludedTableData'>>;

/** Whether two backups leave out the rows of the same tables, as far as their patterns say. */
export function hasSamePatterns({excludedTableData: a = []}: Patterns, {excludedTableData: b = []}: Patterns): boolean {
  return JSON.stringify([...new Set(a)].sort()) === JSON.stringify([...new Set(b)].sort());
}

/**
 * Whether one of the keys opens a backup; undefined when that is not known: there are no keys, or it is of the older form,
 * which does not name its key. A manifest that none of them sealed may name any key.
 * @param fingerprints of the keys at hand
 */
export function isOpenedBy(
  {keyFingerprint, seal}: Pick<Backup, 'keyFingerprint' | 'seal'>,
  fingerprints: readonly string[] | undefined,
): boolean | undefined {
  if (!fingerprints || keyFingerprint === undefined) return undefined;
  return seal === 'verified' && fingerprints.includes(keyFingerprint);
}
