import pMap, {pMapSkip} from 'p-map';
import type {Backup} from '../catalog/backups.ts';
import {staleUploadMs} from '../catalog/health.ts';
import {backupsPrefix, manifestKey, partOf, verificationKey} from '../catalog/key-names.ts';
import {planRetention, type RetentionDecision, type RetentionPolicy} from '../catalog/retention.ts';
import {fingerprintsOf, keyring, type ReadingKeys} from '../encrypt/keys.ts';
import {asBackupError, BackupError, interruption, messageAndReason} from '../errors.ts';
import {asStep, type Observer, type Step} from '../observer.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore, UnfinishedUpload} from '../upload/store.ts';
import {type CatalogAndStrays, isPublished, readCatalogAndStrays} from './catalog.ts';
import type {ListSettings} from './list.ts';
import type {Runtime} from './runtime.ts';

export interface PruneSettings extends ListSettings {
  retention: RetentionPolicy;
  /** Say what would be done, and do nothing. */
  dryRun: boolean;
}

export interface PruneResult {
  dryRun: boolean;
  decisions: RetentionDecision<Backup>[];
  /** Keys of backups that were deleted, or would be. */
  deleted: string[];
  /** Deletes that the bucket's lock rules forbid: they come back at the next prune. */
  locked: string[];
  /** What could not be deleted or aborted; under the prefix of all backups: unfinished uploads could not be listed. */
  failed: {key: string; reason: string}[];
  /** Results of verifications whose backup is gone, which were deleted, or would be. */
  strayVerifications: string[];
  /** Unfinished uploads of this program that were aborted, or would be. */
  abortedUploads: string[];
}

/** Backups that are deleted at the same time; the objects of one go one after another. */
const concurrency = 8;

export const pruneSteps: readonly Step[] = [
  {id: 'catalog', title: 'Read the catalog'},
  {id: 'delete', title: 'Delete old backups'},
  {id: 'uploads', title: 'Abort unfinished uploads'},
];

/**
 * Deletes the backups that the policy no longer keeps, and aborts uploads of this program that were never finished.
 * Whatever can be deleted is; what could not be is in the result (see `requirePruned`).
 */
export async function prune(settings: PruneSettings, runtime: Runtime): Promise<PruneResult> {
  const {optionalKeys} = settings;
  const keys = optionalKeys && keyring(optionalKeys.current, optionalKeys.previous);
  using stores = await openStores(settings.store);
  const {observer, signal} = runtime;
  const catalog = await asStep(
    observer,
    'catalog',
    () => readCatalogAndStrays(stores.backups, keys, signal),
    ({backups}) => `${backups.length} backups`,
  );
  return await pruneStore(stores.backups, {...catalog, keys}, settings, runtime);
}

/** The same, in a store that is open and whose catalog was read with these keys. */
export async function pruneStore(
  store: ObjectStore,
  {backups, strays, keys}: CatalogAndStrays & {keys: ReadingKeys | undefined},
  {retention, dryRun}: Pick<PruneSettings, 'retention' | 'dryRun'>,
  {observer, signal, now}: Runtime,
): Promise<PruneResult> {
  const decisions = planRetention(backups, retention, keys && fingerprintsOf(keys), now());
  const result: PruneResult = {
    dryRun,
    decisions,
    deleted: [],
    locked: [],
    failed: [],
    strayVerifications: [],
    abortedUploads: [],
  };
  const would = dryRun ? 'would be ' : '';
  observer({type: 'started', step: 'delete'});
  // Oldest first, so that an interruption leaves the newer ones.
  const old = decisions.toReversed().filter(({action}) => action === 'delete');
  const deletions = await pMap(
    old,
    // What has begun when it is interrupted is ended.
    ({backup}) => (signal?.aborted ? pMapSkip : deleteBackup(store, backup, dryRun)),
    {concurrency},
  );
  const interrupted = interruption(signal);
  if (interrupted) throw interrupted;
  for (const deletion of deletions) addTo(result, deletion);
  const kept = new Set(deletions.flatMap(({key, isKept}) => (isKept ? [key] : [])));
  result.decisions = decisions.map((decision) =>
    kept.has(decision.backup.key)
      ? {...decision, action: 'keep', because: 'it was published in the meantime'}
      : decision,
  );
  for (const key of strays) await deleteStray(store, key, result);
  const deleted = `${result.deleted.length} ${would}deleted, ${backups.length - result.deleted.length} kept`;
  end(observer, 'delete', deleted, result.failed.length + result.locked.length);

  observer({type: 'started', step: 'uploads'});
  const failures = await abortStaleUploads(store, result, {signal, now});
  result.failed.push(...failures);
  end(observer, 'uploads', `${result.abortedUploads.length} ${would}aborted`, failures.length);
  return result;
}

/** Ends a step, as a failed one when something of it could not be done. */
function end(observer: Observer, step: string, note: string, failures: number): void {
  if (failures === 0) observer({type: 'finished', step, note});
  else observer({type: 'failed', step, note: `${note}, ${failures} failed`});
}

interface Deletion {
  key: string;
  /** It was listed while it was being published. */
  isKept: boolean;
  /** Undefined: it is gone, or would be, or is kept. */
  failure: BackupError | undefined;
}

/** The manifest goes first: a backup that is half deleted must not look complete. */
async function deleteBackup(store: ObjectStore, backup: Backup, dryRun: boolean): Promise<Deletion> {
  const {key, objectKeys} = backup;
  try {
    const isKept = missesPart(backup) && (await isPublished(store, key));
    if (!dryRun && !isKept) for (const each of objectKeys) await store.delete(each);
    return {key, isKept, failure: undefined};
  } catch (error) {
    return {key, isKept: false, failure: asBackupError(error)};
  }
}

/** It is in nobody's way: when a lock rule keeps it, the next prune tries again. */
async function deleteStray(store: ObjectStore, key: string, result: PruneResult): Promise<void> {
  const verification = verificationKey(key);
  try {
    // The listing may be an older one.
    if ((await store.head(key)) || (await store.head(manifestKey(key)))) return;
    if (!result.dryRun) await store.delete(verification);
    result.strayVerifications.push(verification);
  } catch (error) {
    const {code, reason, message} = asBackupError(error);
    if (code !== 'OBJECT_LOCKED') result.failed.push({key: verification, reason: reason ?? message});
  }
}

function missesPart({key, state, objectKeys}: Backup): boolean {
  return state === 'incomplete' && ![key, manifestKey(key)].every((each) => objectKeys.includes(each));
}

function addTo(result: PruneResult, {key, isKept, failure}: Deletion): void {
  if (isKept) return;
  if (!failure) result.deleted.push(key);
  else if (failure.code === 'OBJECT_LOCKED') result.locked.push(key);
  else result.failed.push({key, reason: failure.reason ?? failure.message});
}

function isOld({key, startedAt}: UnfinishedUpload, now: Date): boolean {
  return partOf(key) !== undefined && now.getTime() - startedAt.getTime() > staleUploadMs;
}

/** @returns what could not be aborted, or not even be listed */
async function abortStaleUploads(
  store: ObjectStore,
  result: PruneResult,
  {signal, now}: Pick<Runtime, 'signal' | 'now'>,
): Promise<PruneResult['failed']> {
  const failures: PruneResult['failed'] = [];
  const fail = (key: string, error: unknown) => {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    failures.push({key, reason: messageAndReason(error)});
  };
  const abort = async (upload: UnfinishedUpload) => {
    // A backup of a large database over a slow line takes more than a day: its parts go on coming.
    const newestPart = await store.newestPartAt(upload);
    if (newestPart && now().getTime() - newestPart.getTime() <= staleUploadMs) return;
    if (!result.dryRun) await store.abortUpload(upload);
    result.abortedUploads.push(upload.key);
  };
  try {
    for await (const upload of store.unfinishedUploads(backupsPrefix)) {
      if (isOld(upload, now())) await abort(upload).catch((error) => fail(upload.key, error));
    }
  } catch (error) {
    fail(backupsPrefix, error);
  }
  return failures;
}

/** Whether everything that was to be deleted was, also when nothing was to be. */
export function isPruned(
  result: PruneResult | undefined,
): result is undefined | (PruneResult & {failed: []; locked: []}) {
  return !result || result.failed.length + result.locked.length === 0;
}

/** The error for what could not be deleted. */
export function pruneError({decisions, failed, locked}: PruneResult): BackupError {
  const old = new Set(decisions.map(({backup}) => backup.key));
  const count = failed.filter(({key}) => old.has(key)).length + locked.length;
  const lines = [
    ...failed.map(({key, reason}) => `${key}: ${reason}`),
    ...locked.map((key) => `${key}: locked by a rule of the bucket`),
  ];
  const what =
    count > 0 ? `${count} of the old backups could not be deleted` : 'Unfinished uploads could not be aborted';
  return new BackupError(what, {
    code: 'PRUNE_INCOMPLETE',
    kind: 'storage',
    reason: lines.join('\n'),
    hint:
      failed.length === 0
        ? 'A bucket lock keeps them: run prune again when it has let them go, or keep them longer (--keep-days).'
        : 'The token needs "Object Read & Write". Run prune again: what was deleted stays deleted.',
  });
}

/**
 * Refuses to call a prune done that left something behind.
 * @throws BackupError PRUNE_INCOMPLETE
 */
export function requirePruned(result: PruneResult): void {
  if (!isPruned(result)) throw pruneError(result);
}
