/** A restore beside the target: into a new database, which takes its place when it is whole. */
import {totals} from '../dump/contents.ts';
import type {LeftOut} from '../dump/left-out.ts';
import {readingKeys} from '../encrypt/keys.ts';
import {asBackupError, BackupError, interruption, messageOf} from '../errors.ts';
import {dropDatabase} from '../load/drop-database.ts';
import {privilegeWarnings} from '../load/privileges.ts';
import {
  claimTarget,
  createBeside,
  databaseSize,
  dropAbandoned,
  exchange,
  type SwapClaim,
  sessionBeside,
} from '../load/swap.ts';
import {lookForSwap, type SwapFacts, swapObstacles, swapWarnings} from '../load/swap-facts.ts';
import {nameBeside, type SwapInstructions, swapInstructions} from '../load/swap-names.ts';
import {settingSql} from '../load/swap-settings.ts';
import {isEmpty} from '../load/target.ts';
import {asStep, collectWarnings, type Step} from '../observer.ts';
import {withDatabase} from '../postgres/connection.ts';
import {type Session, uninterrupted} from '../postgres/query.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore} from '../upload/store.ts';
import {heldBy} from './load-filter.ts';
import {managedFilter} from './managed.ts';
import {type PrivilegesBefore, privilegesBefore, privilegesLeftOut} from './privileges.ts';
import {
  type Confirm,
  finishRestored,
  load,
  type Prepared,
  prepare,
  type RestoreResult,
  type RestoreSettings,
  refusal,
} from './restore.ts';
import type {Runtime} from './runtime.ts';

/** No safety backup: the old database is one, whole and beside the new one. */
export type SwapSettings = Omit<RestoreSettings, 'safetyBackup' | 'selection'>;

export interface SwapResult extends RestoreResult {
  swap: SwapInstructions & {
    /** The restored database has this name now. */
    database: string;
    /** And the one that had it before has this one. */
    oldDatabase: string;
    /** Of the old database on the server, in bytes; undefined if it could not be asked for. */
    oldSizeBytes: number | undefined;
    /** Left by runs that were killed, and dropped by this one. */
    droppedDatabases: string[];
  };
}

export const swapSteps: readonly Step[] = [
  {id: 'find', title: 'Find the backup'},
  {id: 'target', title: 'Look at the target'},
  {id: 'create', title: 'Make a new database beside the target'},
  {id: 'authenticate', title: 'Authenticate (a backup of the older form is read twice)'},
  {id: 'download', title: 'Download and decrypt', group: 'Restore'},
  {id: 'load', title: 'Load (psql)', group: 'Restore'},
  {id: 'analyze', title: 'Collect planner statistics (ANALYZE)'},
  {id: 'swap', title: 'Rename both databases'},
];

/**
 * Restores a backup into a new database beside the target, and then gives it the target's name; the target stays beside
 * it under another name. Whatever fails, the target is as it was and the new database is dropped.
 * @throws BackupError SWAP_REFUSED before anything is changed, SWAP_FAILED, and those of a restore
 */
export async function restoreSwap(settings: SwapSettings, confirm: Confirm, runtime: Runtime): Promise<SwapResult> {
  const keys = readingKeys(settings.keys, settings.recovery);
  using stores = await openStores(settings.store);
  const started = performance.now();
  const {warnings, warn} = collectWarnings(runtime.observer, settings.target.warnings);
  const prepared = await prepare(stores.backups, keys, settings, runtime, warn);
  const {openable, target} = prepared;
  const facts = await lookForSwap(prepared.session, target.major);
  const obstacles = swapObstacles(facts);
  if (obstacles.length > 0) throw swapRefused(target.address, obstacles);
  const server = await sessionBeside(prepared.session, facts);
  const privileges = await privilegesBefore(prepared.session, target, {isSameDatabase: false});
  for (const text of [...swapWarnings(facts), ...privilegeWarnings(privileges.before, privileges)]) warn(text);
  const replaced = {chosen: undefined};
  if (!isEmpty(target) && !(await confirm(target, openable.backup, replaced))) throw refusal(target, replaced);
  const claim = await claimTarget(server, facts);
  try {
    const restored = await restoreBeside(
      stores.backups,
      keys,
      {prepared, facts, privileges, claim, server, managed: settings.managed === true, searchPath: settings.searchPath},
      runtime,
      warn,
    );
    return {
      key: openable.backup.key,
      sourceDatabase: openable.backup.database,
      recoveryPoint: openable.backup.startedAt,
      target: target.address,
      ...restored,
      durationMs: Math.round(performance.now() - started),
      safetyBackup: undefined,
      warnings,
    };
  } finally {
    await claim.release();
  }
}

/** Settings of the target that its new holder does not have, and how somebody who may can make them. */
function settingsLeftOut({database, role, properties}: SwapFacts): LeftOut[] {
  return properties.settings
    .filter(({maySet}) => !maySet)
    .map((setting) => ({
      what: `setting ${setting.name}${setting.role === undefined ? '' : ` for ${setting.role}`}`,
      because: `${role} may not set it`,
      sql: settingSql(database, setting),
    }));
}

interface Beside {
  prepared: Prepared;
  facts: SwapFacts;
  /** Of the target. */
  privileges: PrivilegesBefore;
  claim: SwapClaim;
  /** To another database of the server. */
  server: Session;
  /** Without what a managed server refuses. */
  managed: boolean;
  searchPath: string | undefined;
}

async function restoreBeside(
  store: ObjectStore,
  keys: ReturnType<typeof readingKeys>,
  {prepared, facts, privileges, claim, server, managed, searchPath}: Beside,
  runtime: Runtime,
  warn: (message: string) => void,
) {
  const {observer} = runtime;
  const {openable, session, target} = prepared;
  const {dropped, failed} = await dropAbandoned(server);
  if (dropped.length > 0) warn(`dropped what a run that was killed had left: ${dropped.join(', ')}`);
  if (failed.length > 0)
    warn(`a run that was killed has left databases that could not be dropped: ${failed.join(', ')}`);
  const name = await asStep(
    observer,
    'create',
    () => createBeside(server, facts, claim, runtime.now()).catch(notMade(server)),
    (made) => made,
  );
  try {
    const beside = {...session, connection: withDatabase(session.connection, name)};
    const filters = managed ? [await managedFilter(beside)] : [];
    const {contents, tablesWithoutRows, tablespaces, bytes} = await load(store, openable, keys, beside, runtime, {
      filters,
      searchPath,
      aftermath: `${target.address} is as it was, and the new database is dropped`,
    });
    const loaded = {...contents, tables: heldBy(filters, contents.tables)};
    const part = {isPart: false, filters, tablesWithoutRows, tablespaces};
    const uncountedTables = await finishRestored(beside, loaded, part, observer, warn);
    const lost = await privilegesLeftOut(beside, privileges, warn);
    const interrupted = interruption(runtime.signal);
    if (interrupted) throw interrupted;
    const now = runtime.now();
    const taken = new Set(facts.names);
    const oldDatabase = nameBeside(facts.database, 'before', now, taken);
    await asStep(
      observer,
      'swap',
      () => exchange(server, facts, {name, oldName: oldDatabase}),
      () => `the old one is ${oldDatabase} now`,
    );
    return {
      ...totals(loaded),
      leftOut: [...filters.flatMap(({leftOut}) => leftOut), ...settingsLeftOut(facts), ...lost],
      dumpBytes: bytes,
      uncountedTables,
      swap: {
        database: facts.database,
        oldDatabase,
        oldSizeBytes: await databaseSize(server, oldDatabase).catch(() => undefined),
        droppedDatabases: dropped,
        ...swapInstructions({
          target: facts.database,
          old: oldDatabase,
          undone: nameBeside(facts.database, 'undone', now, taken),
          connectTo: server.connection.database,
        }),
      },
    };
  } catch (error) {
    await dropDatabase(uninterrupted(server), name).catch((problem) =>
      warn(`${name} could not be dropped (${messageOf(problem)}): the next restore --swap drops it`),
    );
    throw error;
  }
}

function swapRefused(address: string, obstacles: readonly string[]): BackupError {
  return new BackupError('Refused: another database cannot take the place of the target', {
    code: 'SWAP_REFUSED',
    kind: 'postgres',
    reason: `${address}: ${obstacles.join('\n')}`,
    hint: 'Mend each, or restore into a new, empty database with --target. Nothing was changed.',
  });
}

const notMade =
  ({signal}: Session) =>
  (error: unknown): never => {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    const {code, kind, reason, message} = asBackupError(error);
    throw new BackupError('The new database beside the target could not be made', {
      code: code === 'POSTGRES_QUERY_FAILED' ? 'SWAP_FAILED' : code,
      kind,
      reason: reason ?? message,
      hint: 'Mend the cause, or restore into a new, empty database with --target. The target is as it was.',
    });
  };
