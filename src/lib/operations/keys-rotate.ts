import pMap from 'p-map';
import {type Backup, isRestorable} from '../catalog/backups.ts';
import {manifestKey, verificationKey} from '../catalog/key-names.ts';
import {
  type DocumentReading,
  dataKeySeal,
  type JsonObject,
  type Manifest,
  mostManifestBytes,
  sealDocument,
} from '../catalog/manifest.ts';
import {mostVerificationBytes, readVerification} from '../catalog/verification.ts';
import type {KeySettings, StoreSettings} from '../config.ts';
import {withUnwrappedDataKey, wrapDataKey} from '../encrypt/data-key.ts';
import {fittingKeys} from '../encrypt/frame-check.ts';
import {allKeys, type Keyring, keyring, recoveryNamespace} from '../encrypt/keys.ts';
import type {MessageHeader, WrappedKey} from '../encrypt/message-header.ts';
import {asBackupError, BackupError, interruption, messageAndReason, messageOf} from '../errors.ts';
import {asStep, type Step} from '../observer.ts';
import {openStores, type Stores} from '../upload/open-store.ts';
import {type ObjectStore, readSmall} from '../upload/store.ts';
import {
  catalogKeys,
  dataKeySealingKey,
  loadManifest,
  manifestSealingKey,
  readCatalog,
  readObjectHeader,
  verificationSealingKey,
} from './catalog.ts';
import {filesKeyring} from './files-objects.ts';
import {type FileRotation, type RotationMode, rotateFiles} from './files-rotate.ts';
import {checkOpenable, keptKeys} from './open-backup.ts';
import {resealedKey, resealLegacy} from './reseal-legacy.ts';
import type {Runtime} from './runtime.ts';

export interface RotateSettings {
  store: StoreSettings;
  keys: KeySettings;
  /** Say what would be done, and write nothing. */
  dryRun: boolean;
  /** Also download, seal and upload backups of the older form, which have no data key to wrap. */
  resealLegacy: boolean;
  /** Also download, seal and upload the files of the files bucket that hang on a previous key. */
  files: boolean;
}

/** What became of a backup, or would become. */
export type RotationOutcome =
  /** The current key opens it, and did before. */
  | 'unchanged'
  /** Its data key is wrapped under the current key now. */
  | 'rotated'
  /** Of the older form, and sealed anew in another object. */
  | 'resealed'
  /** Of the older form, and left. */
  | 'legacy'
  /** Incomplete or damaged. */
  | 'left'
  | 'failed';

export interface Rotation {
  key: string;
  outcome: RotationOutcome;
  /** Why it failed or was left; the new key's name of one that was sealed anew. */
  note: string | undefined;
}

export interface FileRotations {
  /** The current key alone opens them. */
  current: number;
  /** Sealed anew by this run, or would be. */
  rotated: number;
  /** They hang on previous keys. */
  needed: number;
  failed: FileRotation[];
}

export interface RotateResult {
  dryRun: boolean;
  /** Of the current key. */
  keyFingerprint: string;
  /** Of the previous keys. */
  previousFingerprints: string[];
  rotations: Rotation[];
  /** Files that hang, or hung, on a previous key; undefined when the files bucket could not be looked at. */
  files: FileRotations | undefined;
  /** Why previous keys are still needed; empty when they may be destroyed. */
  keepPreviousBecause: string[];
}

export const rotateSteps: readonly Step[] = [
  {id: 'catalog', title: 'Read the catalog'},
  {id: 'rotate', title: 'Wrap data keys under the current key'},
  {id: 'reseal', title: 'Seal backups of the older form anew'},
  {id: 'files', title: 'Look at the files bucket'},
];

/** Backups rotated at the same time. */
const concurrency = 4;

/**
 * Makes the current key open every backup that a previous one opens, without uploading data: the data key is unwrapped,
 * wrapped under the current key and kept in the manifest, which is sealed anew. The manifest is replaced in one write, as
 * the last one: before it, the backup opens as it did; after it, with the current key alone. So it can be ended at any
 * moment and run again.
 * @throws BackupError for an interruption, or when the catalog cannot be read; what failed is in the result
 */
export async function rotateKeys(settings: RotateSettings, runtime: Runtime): Promise<RotateResult> {
  const {current, previous, recoveryPublicKey} = settings.keys;
  const keys = keyring(current, previous, recoveryPublicKey);
  using stores = await openStores(settings.store);
  return await rotateIn(stores, keys, settings, runtime);
}

async function rotateIn(
  stores: Stores,
  keys: Keyring,
  {dryRun, resealLegacy: withLegacy, files: withFiles}: RotateSettings,
  runtime: Runtime,
): Promise<RotateResult> {
  const {observer, signal} = runtime;
  const store = stores.backups;
  const backups = await asStep(
    observer,
    'catalog',
    () => readCatalog(store, keys, signal),
    (found) => `${found.length} backups`,
  );
  /** Undefined: it was pruned in the meantime. */
  const attempt = async (backup: Backup, work: () => Promise<Omit<Rotation, 'key'>>): Promise<Rotation | undefined> => {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    try {
      return {key: backup.key, ...(await work())};
    } catch (error) {
      throwInterruption(error, signal);
      if (asBackupError(error).code === 'OBJECT_NOT_FOUND') {
        if (!(await isThere(store, backup.key))) return undefined;
        if (backup.state !== 'legacy' && !(await isThere(store, manifestKey(backup.key)))) {
          return {key: backup.key, outcome: 'left', note: 'its manifest was deleted in the meantime'};
        }
      }
      return {key: backup.key, outcome: 'failed', note: messageAndReason(error)};
    }
  };
  const legacy = backups.filter(({state}) => state === 'legacy');
  // What a run that was killed left of a copy is made anew below.
  const remains = new Set(withLegacy ? legacy.map(resealedKey) : []);
  const sealed = backups.filter(({state, key}) => state !== 'legacy' && !(state === 'incomplete' && remains.has(key)));
  const rotations = await asStep(
    observer,
    'rotate',
    async () => {
      const work = (backup: Backup) => attempt(backup, () => rotate(store, backup, keys, {dryRun, signal}));
      const done = await pMap(sealed, work, {concurrency});
      return done.filter((rotation) => rotation !== undefined);
    },
    (done) => `${done.filter(({outcome}) => outcome === 'rotated').length} ${dryRun ? 'would be ' : ''}rotated`,
  );
  if (withLegacy && legacy.length > 0) {
    observer({type: 'started', step: 'reseal'});
    for (const backup of legacy) {
      const work = () => resealLegacy(store, backup, backups, keys, runtime, {dryRun});
      const rotation = await attempt(backup, async () => ({outcome: 'resealed', note: await work()}));
      if (rotation) rotations.push(rotation);
    }
    observer({type: 'finished', step: 'reseal'});
  } else {
    observer({type: 'skipped', step: 'reseal', note: legacy.length === 0 ? 'there are none' : 'not asked for'});
    for (const {key} of legacy) rotations.push({key, outcome: 'legacy', note: 'it has no data key to wrap'});
  }
  const files = await asStep(
    observer,
    'files',
    () => filesIn(stores, keys, withFiles ? (dryRun ? 'plan' : 'reseal') : 'look', runtime),
    ({note}) => note,
  );
  return {
    dryRun,
    keyFingerprint: keys.current.fingerprint,
    previousFingerprints: keys.previous.map(({fingerprint}) => fingerprint),
    rotations,
    files: files.rotations,
    keepPreviousBecause: [
      // An empty bucket looks like one that is not the right one, or a disk that is not mounted.
      ...(rotations.length === 0
        ? [
            `no backup was looked at: ${store.description} holds none (is it the right one? CLOUDFLARE_R2_BUCKET_BACKUPS, LOMA_BACKUP_STORE)`,
          ]
        : []),
      ...reasonsToKeep(rotations, dryRun),
      ...files.reasons,
    ],
  };
}

/** Where the store does not answer, nothing is taken for gone. */
async function isThere(store: ObjectStore, key: string): Promise<boolean> {
  return (await store.head(key).catch(() => true)) !== undefined;
}

function throwInterruption(error: unknown, signal: AbortSignal | undefined): void {
  const interrupted = interruption(signal);
  if (interrupted) throw interrupted;
  if (!(error instanceof BackupError)) throw error;
}

interface RotateOptions {
  dryRun: boolean;
  signal: AbortSignal | undefined;
}

async function rotate(
  store: ObjectStore,
  backup: Backup,
  keys: Keyring,
  {dryRun, signal}: RotateOptions,
): Promise<Omit<Rotation, 'key'>> {
  if (!isRestorable(backup)) return {outcome: 'left', note: `it is ${backup.state}: ${backup.problem}`};
  // Whatever a restore would refuse is refused here, too.
  await checkOpenable(store, {backup}, keys);
  const header = await readObjectHeader(store, backup.key);
  const reading = await loadManifest(store, backup.key, catalogKeys(keys).manifest);
  if (!header || reading.is !== 'document') throw changed(backup.key);
  const verification = await outdatedVerification(store, backup.key, keys);
  const isCurrent = isRotated(header, reading, keys);
  if (isCurrent && !verification) return {outcome: 'unchanged', note: undefined};
  const manifest = isCurrent ? undefined : await rewrapped(header, reading, keys, backup.key);
  const interrupted = interruption(signal);
  if (interrupted) throw interrupted;
  if (!dryRun) {
    // The manifest last: once it is replaced, the current key alone opens and shows everything of this backup.
    if (verification) await store.replace(verificationKey(backup.key), verification);
    if (manifest) await replaceManifest(store, backup.key, manifest, keys);
  }
  return {outcome: 'rotated', note: undefined};
}

function changed(what: string): BackupError {
  return new BackupError('The backup changed while its key was rotated', {
    code: 'OBJECT_CHANGED',
    kind: 'storage',
    reason: what,
    hint: 'Is something else at work in the bucket? Run it again.',
  });
}

/** Whether the current key (and the recovery key, if there is one) opens the object, and sealed the manifest. */
function isRotated(
  header: MessageHeader,
  {document, sealedBy}: Extract<DocumentReading<Manifest>, {is: 'document'}>,
  {current, recoveryPublic}: Keyring,
): boolean {
  const wrappedKeys = [...header.wrappedKeys, ...keptKeys(document)];
  const opens = fittingKeys([current], wrappedKeys).length > 0;
  const isRecoverable = !recoveryPublic || wrappedKeys.some(({name}) => name === recoveryPublic.fingerprint);
  return sealedBy === current.fingerprint && document.keyFingerprint === current.fingerprint && opens && isRecoverable;
}

/**
 * The manifest with the data key wrapped under the current keys, sealed with the current one. What is wrapped under a recovery
 * key stays, unless another recovery key takes its place.
 */
async function rewrapped(
  header: MessageHeader,
  {document, json}: Extract<DocumentReading<Manifest>, {is: 'document'}>,
  keys: Keyring,
  what: string,
): Promise<Buffer> {
  const {current: key, recoveryPublic: recovery} = keys;
  const isInHeader = (own: WrappedKey) =>
    header.wrappedKeys.some(({namespace, name}) => namespace === own.namespace && name === own.name);
  const wrapped = {header, keys: allKeys(keys), more: keptKeys(document), what};
  const {kept, sealing} = await withUnwrappedDataKey(wrapped, async (dataKey) => {
    const own = (await wrapDataKey(dataKey, header, {key, recovery})).filter((each) => !isInHeader(each));
    // What is about to be relied on: the current key alone, and what is about to be stored.
    const proof = {header, keys: [key], more: own, what};
    if (!(await withUnwrappedDataKey(proof, (again) => again.equals(dataKey)))) throw changed(what);
    const earlier = recovery ? [] : keptKeys(document).filter(({namespace}) => namespace === recoveryNamespace);
    return {kept: [...own, ...earlier], sealing: dataKeySealingKey(dataKey)};
  });
  const {wrappedKeys: _, ...rest} = json;
  const manifest: JsonObject = {
    ...rest,
    keyFingerprint: key.fingerprint,
    ...(kept.length === 0
      ? {}
      : {
          wrappedKeys: kept.map(({namespace, info, wrapped}) => ({
            namespace,
            providerInfo: info.toString('hex'),
            wrappedKey: wrapped.toString('hex'),
          })),
        }),
  };
  const sealed = {...manifest, dataKeySeal: dataKeySeal(manifest, sealing)};
  return Buffer.from(sealDocument(sealed, manifestSealingKey(key)));
}

/**
 * Reads back what was stored; if it is not good, the old manifest is put back. Of a backup that is being pruned it is read in
 * vain, and not written. A prune between the two leaves a manifest without its object, which a later prune deletes.
 */
async function replaceManifest(store: ObjectStore, key: string, manifest: Buffer, keys: Keyring): Promise<void> {
  const name = manifestKey(key);
  const old = await readSmall(store, name, mostManifestBytes);
  await store.replace(name, manifest);
  const reading = await loadManifest(store, key, [manifestSealingKey(keys.current)]);
  if (reading.is === 'document' && reading.seal === 'verified') return;
  await store.replace(name, old);
  throw changed(key);
}

/** The result of the last verification, sealed with the current key, if it was sealed with a previous one. */
async function outdatedVerification(store: ObjectStore, key: string, keys: Keyring): Promise<Buffer | undefined> {
  if (!(await store.head(verificationKey(key)))) return undefined;
  let bytes: Buffer;
  try {
    bytes = await readSmall(store, verificationKey(key), mostVerificationBytes);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
  const reading = readVerification(bytes, key, catalogKeys(keys).verification);
  // One that cannot be believed counts as none: it is not to be made believable.
  if (reading.is !== 'document' || reading.seal !== 'verified') return undefined;
  if (reading.sealedBy === keys.current.fingerprint) return undefined;
  return Buffer.from(sealDocument(reading.json, verificationSealingKey(keys.current)));
}

function reasonsToKeep(rotations: readonly Rotation[], dryRun: boolean): string[] {
  const count = (...outcomes: RotationOutcome[]) => rotations.filter(({outcome}) => outcomes.includes(outcome)).length;
  const pending = dryRun ? count('rotated', 'resealed') : 0;
  return [
    pending > 0 ? `${pending} backups are not rotated yet (--dry-run)` : '',
    count('failed') > 0 ? `${count('failed')} backups could not be rotated` : '',
    count('legacy') > 0 ? `${count('legacy')} backups of the older form do not say which key opens them` : '',
    count('left') > 0 ? `${count('left')} incomplete or damaged backups were left as they are` : '',
  ].filter(Boolean);
}

/** Looks at the files bucket or seals its files anew. One that is not there says nothing of files in another. */
async function filesIn(
  {files: store}: Stores,
  keys: Keyring,
  mode: RotationMode,
  runtime: Runtime,
): Promise<{rotations: FileRotations | undefined; note: string; reasons: string[]}> {
  try {
    if (!(await store.isThere())) {
      const reason =
        `for files, ${store.description} is not there: if you keep files in another one, set CLOUDFLARE_R2_BUCKET_FILES; ` +
        'if you keep none, no file needs them';
      return {rotations: undefined, note: 'no files bucket', reasons: [reason]};
    }
    const {files, outdatedIndexes} = await rotateFiles(store, filesKeyring(keys), mode, runtime);
    const count = (outcome: FileRotation['outcome']) => files.filter((file) => file.outcome === outcome).length;
    const failed = files.filter(({outcome}) => outcome === 'failed');
    const rotations = {current: count('unchanged'), rotated: count('rotated'), needed: count('needed'), failed};
    const {rotated, needed} = rotations;
    const reasons = [
      needed > 0 ? `${needed} files in ${store.description} need them (keys rotate --files seals them anew)` : '',
      mode === 'plan' && rotated > 0 ? `${rotated} files are not sealed anew yet (--dry-run)` : '',
      failed.length > 0
        ? `${failed.length} files ${mode === 'look' ? 'could not be looked at' : 'could not be sealed anew'}`
        : '',
      outdatedIndexes > 0 && needed + rotated + failed.length === 0
        ? `${outdatedIndexes} indexes of hidden names need them (keys rotate --files)`
        : '',
    ].filter(Boolean);
    const note = mode === 'reseal' ? `${rotated} of ${files.length} files sealed anew` : `${files.length} files`;
    return {rotations, note, reasons};
  } catch (error) {
    throwInterruption(error, runtime.signal);
    const reason = (error instanceof BackupError && error.reason) || messageOf(error);
    const what = `${store.description} could not be looked at: ${reason}`;
    return {rotations: undefined, note: what, reasons: [what]};
  }
}

/**
 * Makes an error of backups and files that could not be rotated.
 * @throws BackupError ROTATION_INCOMPLETE
 */
export function requireRotated({rotations, files}: RotateResult): void {
  const failed = [...rotations.filter(({outcome}) => outcome === 'failed'), ...(files?.failed ?? [])];
  if (failed.length === 0) return;
  const inFiles = files?.failed.length ?? 0;
  const what = [
    failed.length > inFiles ? `${failed.length - inFiles} backups` : '',
    inFiles > 0 ? `${inFiles} files` : '',
  ].filter(Boolean);
  throw new BackupError(`${what.join(' and ')} could not be rotated`, {
    code: 'ROTATION_INCOMPLETE',
    kind: 'integrity',
    reason: failed.map(({key, note}) => `${key}: ${note}`).join('\n'),
    hint: 'Keep every previous key. Is the right one in PHI_ENCRYPTION_KEYS_PREVIOUS? Run it again: what is rotated stays so.',
  });
}
