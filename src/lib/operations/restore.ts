import {randomBytes} from 'node:crypto';
import {pipeline} from 'node:stream/promises';
import {preRestoreLabel} from '../catalog/backups.ts';
import type {RetentionPolicy} from '../catalog/retention.ts';
import type {CompressionName, KeySettings, StoreSettings} from '../config.ts';
import {type DumpContents, totals} from '../dump/contents.ts';
import {forPsql} from '../dump/for-psql.ts';
import {type Inspection, inspect} from '../dump/inspect.ts';
import type {LeftOut} from '../dump/left-out.ts';
import {type ReadingKeys, type RecoveryKeyText, readingKeys} from '../encrypt/keys.ts';
import {asBackupError, BackupError, interruption, messageOf} from '../errors.ts';
import {freeSpace} from '../load/disk-space.ts';
import {preflight} from '../load/preflight.ts';
import {privilegeWarnings} from '../load/privileges.ts';
import {analyze, hiddenTables, loadError, rowCountChecks, startLoad} from '../load/psql.ts';
import {missingRoles, rolesMissing} from '../load/roles.ts';
import {isEmpty, lookAtTarget, missingTablespaces, otherTables, type TargetFacts} from '../load/target.ts';
import {asStep, collectWarnings, type Observer, type Step} from '../observer.ts';
import type {Connection} from '../postgres/connection.ts';
import {isReadable, type Session, uninterrupted} from '../postgres/query.ts';
import {knowsRestrict} from '../postgres/tools.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore} from '../upload/store.ts';
import {backup} from './backup.ts';
import {type BackupChoice, findBackup} from './catalog.ts';
import {heldBy, type LoadFilter} from './load-filter.ts';
import {managedFilter} from './managed.ts';
import {checkOpenable, type OpenableBackup, openBackup} from './open-backup.ts';
import {privilegesBefore, privilegesLeftOut} from './privileges.ts';
import {type Runtime, sessionOf} from './runtime.ts';
import {
  choose,
  lookAtChosen,
  type Overwritten,
  overwrittenOf,
  type SelectionRequest,
  selectFilter,
} from './selection.ts';

export interface RestoreSettings {
  store: StoreSettings;
  /** Undefined when they are lost, and the recovery key stands in for them. */
  keys: KeySettings | undefined;
  recovery?: RecoveryKeyText | undefined;
  choice: BackupChoice;
  target: Connection;
  /** Also with a psql that does not know `\restrict`, which could be made to run commands hidden in a dump. */
  allowUnrestricted: boolean;
  /** Also into a target that does not fit the backup: an older server, another encoding, a disk with too little room. */
  allowUnfit?: boolean | undefined;
  /** Only these tables and schemas; undefined: everything. */
  selection?: SelectionRequest | undefined;
  /** Leave out what only a superuser may restore. */
  managed?: boolean;
  /** Where functions find what they name without its schema: `public, app`; by default nowhere. */
  searchPath?: string | undefined;
  /** How to back up a target that is not empty before it is overwritten; undefined: not at all. */
  safetyBackup?: {compression: CompressionName; retention: RetentionPolicy} | undefined;
}

/** Asks whether a database that is not empty, or some tables of it, may be overwritten; false refuses. */
export type Confirm = (
  target: TargetFacts,
  backup: OpenableBackup['backup'],
  overwritten: Overwritten,
) => Promise<boolean>;

export interface RestoreResult {
  key: string;
  /** The database that the backup is of; undefined if it does not say. */
  sourceDatabase: string | undefined;
  /** When the backup was started: everything after it is not in the restored database. */
  recoveryPoint: Date;
  /** `host:port/database`. */
  target: string;
  tables: number;
  /** Counted in the target, before the commit. */
  rows: number;
  dumpBytes: number;
  durationMs: number;
  /** Tables whose rows could not be counted, because row-level security hides them from this role; undefined: not known. */
  uncountedTables: string[] | undefined;
  /** Key of the backup that was taken of the target before it was overwritten. */
  safetyBackup: string | undefined;
  /** What was not restored, on purpose. */
  leftOut: LeftOut[];
  warnings: string[];
}

export const restoreSteps: readonly Step[] = [
  {id: 'find', title: 'Find the backup'},
  {id: 'target', title: 'Look at the target'},
  {id: 'safety', title: 'Back up the target first'},
  {id: 'authenticate', title: 'Authenticate (a backup of the older form is read twice)'},
  {id: 'download', title: 'Download and decrypt', group: 'Restore'},
  {id: 'load', title: 'Load (psql)', group: 'Restore'},
  {id: 'analyze', title: 'Collect planner statistics (ANALYZE)'},
];

/** Restores a backup into a database, in one transaction that is committed when everything in it was found authentic. */
export async function restore(settings: RestoreSettings, confirm: Confirm, runtime: Runtime): Promise<RestoreResult> {
  const keys = readingKeys(settings.keys, settings.recovery);
  using stores = await openStores(settings.store);
  return await restoreFrom(stores.backups, keys, settings, confirm, runtime);
}

async function restoreFrom(
  store: ObjectStore,
  keys: ReadingKeys,
  settings: RestoreSettings,
  confirm: Confirm,
  runtime: Runtime,
): Promise<RestoreResult> {
  const started = performance.now();
  const {warnings, warn} = collectWarnings(runtime.observer, settings.target.warnings);
  const {openable, session, target, chosen, occupied} = await prepare(store, keys, settings, runtime, warn);
  const overwritten = occupied ? overwrittenOf(occupied) : isEmpty(target) ? undefined : {chosen: undefined};
  const privileges = overwritten && (await privilegesBefore(session, target, {isSameDatabase: true}));
  if (privileges && !chosen) for (const text of privilegeWarnings(privileges.before, privileges)) warn(text);
  if (overwritten && !(await confirm(target, openable.backup, overwritten))) throw refusal(target, overwritten);
  const safetyBackup = overwritten ? await backUpFirst(settings, runtime) : undefined;
  const filters = [
    ...(chosen ? [selectFilter(chosen, occupied?.missingSchemas)] : []),
    ...(settings.managed ? [await managedFilter(session)] : []),
  ];
  const {
    contents,
    tablesWithoutRows,
    tablespaces,
    bytes: dumpBytes,
  } = await load(store, chosen?.openable ?? openable, keys, session, runtime, {
    filters,
    searchPath: settings.searchPath,
  });
  const loaded = {...contents, tables: heldBy(filters, contents.tables)};
  const part = {isPart: chosen !== undefined, filters, tablesWithoutRows, tablespaces};
  const uncountedTables = await finishRestored(session, loaded, part, runtime.observer, warn);
  const leftOut = filters.flatMap((filter) => filter.leftOut);
  const listed = new Set(leftOut.map(({what}) => what));
  const lost = privileges ? await privilegesLeftOut(session, privileges, warn) : [];
  return {
    key: openable.backup.key,
    sourceDatabase: openable.backup.database,
    recoveryPoint: openable.backup.startedAt,
    target: target.address,
    ...totals(loaded),
    dumpBytes,
    durationMs: Math.round(performance.now() - started),
    uncountedTables,
    safetyBackup,
    leftOut: [...leftOut, ...lost.filter(({what}) => !listed.has(what))],
    warnings,
  };
}

/** What is known of a backup and its target before anything is changed. */
export interface Prepared {
  openable: OpenableBackup;
  session: Session;
  target: TargetFacts;
  /** Undefined: everything. */
  chosen: Awaited<ReturnType<typeof choose>> | undefined;
  /** What the target holds of what was chosen. */
  occupied: Awaited<ReturnType<typeof lookAtChosen>> | undefined;
}

/**
 * Finds the backup, looks at the target, and says what speaks against restoring the one into the other.
 * @throws BackupError ROLES_MISSING or REFUSED, and those of what it asks
 */
export async function prepare(
  store: ObjectStore,
  keys: ReadingKeys,
  settings: RestoreSettings,
  runtime: Runtime,
  warn: (message: string) => void,
): Promise<Prepared> {
  const {observer} = runtime;
  const openable = await find(store, settings.choice, keys, runtime, warn);
  const chosen = settings.selection && (await choose(store, openable, keys, settings.selection, runtime));
  const session = await sessionOf(settings.target, runtime);
  // One question after the other: the role may be allowed one session.
  const target = await asStep(
    observer,
    'target',
    () => lookAtTarget(session),
    (facts) => `${facts.address}: ${facts.tables} tables, about ${facts.approximateRows} rows`,
  );
  const occupied = chosen && (await lookAtChosen(chosen, session));
  // Policies of tables that are not chosen may name roles that nobody needs.
  const missing = await missingRoles(session, chosen ? [] : (openable.manifest?.roles ?? []));
  if (missing.length > 0) throw rolesMissing(missing);
  if (openable.manifest) {
    // How much room some tables take is not known.
    const freeBytes = chosen ? undefined : await freeSpace(session);
    const {risks, warnings} = preflight(openable.manifest, {...target, freeBytes});
    if (risks.length > 0 && !settings.allowUnfit) throw unfit(target, risks);
    for (const text of [...risks, ...warnings]) warn(text);
  }
  if (!knowsRestrict(session.psql.version)) {
    const risk = `psql ${session.psql.version.text} does not know \\restrict (CVE-2025-8714), and could run commands hidden in a dump`;
    if (!settings.allowUnrestricted) throw unrestricted(risk);
    warn(risk);
  }
  return {openable, session, target, chosen, occupied};
}

/**
 * Takes an ordinary backup of what a restore is about to overwrite.
 * @throws BackupError of the backup, when it fails: then nothing is restored
 */
async function backUpFirst(
  {store, keys, target, safetyBackup}: RestoreSettings,
  runtime: Runtime,
): Promise<string | undefined> {
  if (!safetyBackup) return undefined;
  if (!keys) throw noSafetyBackup();
  const {observer} = runtime;
  const settings = {
    database: {...target, warnings: []},
    store,
    keys,
    ...safetyBackup,
    label: preRestoreLabel,
    hold: false,
    excludeTableData: [],
    prune: false,
  };
  // Its steps are progress of this one.
  const quiet: Runtime = {
    ...runtime,
    observer: (event) => {
      if (event.type === 'progress' && event.step === 'dump') observer({...event, step: 'safety'});
    },
  };
  try {
    const {key} = await asStep(
      observer,
      'safety',
      () => backup(settings, quiet),
      (result) => result.key,
    );
    return key;
  } catch (error) {
    const failure = asBackupError(error);
    if (failure.code === 'INTERRUPTED') throw failure;
    throw new BackupError(`Nothing was restored: the target could not be backed up first (${failure.message})`, {
      code: failure.code,
      kind: failure.kind,
      ...(failure.reason === undefined ? {} : {reason: failure.reason}),
      hint: `${failure.hint ?? ''} If what the target holds is worthless, use --no-safety-backup.`.trim(),
    });
  }
}

function noSafetyBackup(): BackupError {
  return new BackupError('Refused: the target is not empty, and there is no key to back it up with first', {
    code: 'REFUSED',
    kind: 'refused',
    reason: 'the recovery key opens backups, and PHI_ENCRYPTION_KEY, which seals them, is not set',
    hint: 'Restore into a new, empty database; or set a new PHI_ENCRYPTION_KEY (loma-backup keys generate). Nothing was changed.',
  });
}

/**
 * What is left to do when the restore is committed. It stays restored, whatever fails or is interrupted here.
 * @returns tables whose rows could not be counted; undefined when it could not be asked which ones
 */
export async function finishRestored(
  session: Session,
  {tables}: DumpContents,
  {
    isPart,
    filters,
    tablesWithoutRows,
    tablespaces,
  }: {isPart: boolean; filters: readonly LoadFilter[]} & Pick<Inspection, 'tablesWithoutRows' | 'tablespaces'>,
  observer: Observer,
  warn: (message: string) => void,
): Promise<string[] | undefined> {
  const names = tables.map(({table}) => table);
  // Short questions, whose answers are part of the result: they are asked after an interruption, too.
  const asking = uninterrupted(session);
  const orWarn = async <T>(what: string, work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      warn(`the restore is complete, but ${what}: ${messageOf(error)}`);
      return undefined;
    }
  };
  const uncounted = await orWarn('it could not be asked which rows are hidden from this role', async () => [
    ...(await hiddenTables(asking, names.filter(isReadable))),
    ...names.filter((name) => !isReadable(name)),
  ]);
  if (uncounted?.length) {
    warn(
      `rows not counted in the target, because they are hidden from this role or their names cannot be read: ${uncounted.join(', ')}`,
    );
  }
  await orWarn('it could not be asked what else the target holds', async () => {
    const foreign = isPart ? [] : await otherTables(asking, names, tablesWithoutRows);
    if (foreign.length > 0) {
      warn(`the target also holds tables that are not in the backup, as they were: ${foreign.join(', ')}`);
    }
    const elsewhere = isPart ? [] : await missingTablespaces(asking, tablespaces);
    if (elsewhere.length > 0) {
      warn(
        `no such tablespace, or not for this role; what lay in it is where the database lies: ${elsewhere.join(', ')}`,
      );
    }
    for (const filter of filters) await filter.settle?.();
  });
  await orWarn('ANALYZE was not run to its end (run it by hand)', () =>
    asStep(observer, 'analyze', () => analyze(session, isPart ? names.filter(isReadable) : undefined)),
  );
  return uncounted;
}

/** Finds the backup that is meant, and sees to it that it can be opened. */
export function find(
  store: ObjectStore,
  choice: BackupChoice,
  keys: ReadingKeys,
  {observer, signal}: Runtime,
  warn: (message: string) => void,
): Promise<OpenableBackup> {
  return asStep(
    observer,
    'find',
    async () => checkOpenable(store, await findBackup(store, choice, keys, warn, {signal}), keys),
    ({backup}) => backup.key,
  );
}

function unfit({address}: TargetFacts, risks: readonly string[]): BackupError {
  return new BackupError('Refused: the target does not fit the backup', {
    code: 'REFUSED',
    kind: 'refused',
    reason: `${address}: ${risks.join('\n')}`,
    hint: 'Restore into a target that fits (--target), or try this one all the same with --yes. Nothing was changed.',
  });
}

function unrestricted(reason: string): BackupError {
  return new BackupError('Refused: this psql is not safe to restore with', {
    code: 'REFUSED',
    kind: 'refused',
    reason,
    hint: 'Install the newest minor release of the PostgreSQL client, or accept the risk with --yes. Nothing was changed.',
  });
}

export function refusal({address, tables}: TargetFacts, {chosen}: Overwritten): BackupError {
  const what = chosen?.map(({name}) => name).join(', ') || `${tables} tables`;
  return new BackupError('Refused: the target is not empty', {
    code: 'REFUSED',
    kind: 'refused',
    reason: `${address} holds ${what}, which a restore would overwrite, and nobody confirmed it`,
    hint: 'Restore into a new, empty database with --target, or confirm with --yes. Nothing was changed.',
  });
}

export interface LoadOptions {
  withEntries?: boolean;
  filters?: readonly LoadFilter[];
  searchPath?: string | undefined;
  /** What is so after a failure, when the database that is loaded is thrown away then. */
  aftermath?: string;
  /** Is told the number of the transaction (xid8) that all of it is done in, before its COMMIT. */
  onTransaction?: (number: string) => void;
}

/** The one pipeline of a restore. `COMMIT` is its last word, said when every stage before has ended well. */
export async function load(
  store: ObjectStore,
  openable: OpenableBackup,
  keys: ReadingKeys,
  session: Session,
  {observer, signal}: Runtime,
  {filters = [], aftermath, searchPath, onTransaction, ...options}: LoadOptions = {},
): Promise<Inspection> {
  const totalBytes = openable.backup.sizeBytes;
  if (openable.manifest) observer({type: 'skipped', step: 'authenticate', note: 'authenticated while it is read'});
  else if (!openable.authenticatedBy) observer({type: 'started', step: 'authenticate'});
  const dump = await openBackup(store, openable, keys, {
    signal,
    onBytes: (bytes) => observer({type: 'progress', step: 'download', bytes, totalBytes}),
  });
  if (!openable.manifest && !openable.authenticatedBy) observer({type: 'finished', step: 'authenticate'});
  for (const step of ['download', 'load']) observer({type: 'started', step});
  const dumpBytes = openable.manifest?.dumpBytes;
  const inspector = inspect(
    (bytes) =>
      observer({type: 'progress', step: 'load', bytes, ...(dumpBytes === undefined ? {} : {totalBytes: dumpBytes})}),
    options,
  );
  const psql = startLoad(uninterrupted(session));
  let isCommitting = false;
  // When COMMIT was said its end is waited for: of one that is broken off nobody knows what came of it.
  const stopping = new AbortController();
  const stop = () => {
    if (!isCommitting || aftermath !== undefined) stopping.abort(signal?.reason);
    else observer({type: 'warning', message: 'the COMMIT is under way, and its end is waited for'});
  };
  if (signal?.aborted) stop();
  signal?.addEventListener('abort', stop);
  let checked: Promise<void> | undefined;
  const lastWord = randomBytes(16).toString('hex');
  const filter = forPsql({
    restrictToken: knowsRestrict(session.psql.version) ? randomBytes(32).toString('hex') : undefined,
    searchPath,
    lastWord,
    beforeCommit() {
      dump.check(inspector.inspection);
      for (const {check} of filters) check();
      checked = psql.printed(lastWord).then(onTransaction);
      return rowCountChecks(heldBy(filters, inspector.inspection.contents.tables));
    },
    async mayCommit() {
      await checked;
      isCommitting = true;
    },
  });
  try {
    const stages = filters.map(({stage}) => stage);
    await pipeline([...dump.stages, inspector, ...stages, filter, psql.stream], {signal: stopping.signal});
  } catch (error) {
    await psql.stop();
    const interrupted = isCommitting && aftermath === undefined ? undefined : interruption(signal);
    const failure = interrupted ?? loadError(error, session, isCommitting, aftermath);
    throw failure ?? dump.translate(error) ?? asBackupError(error);
  } finally {
    signal?.removeEventListener('abort', stop);
  }
  for (const step of ['download', 'load']) observer({type: 'finished', step});
  return inspector.inspection;
}
