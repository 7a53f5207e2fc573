import {randomBytes} from 'node:crypto';
import {createWriteStream} from 'node:fs';
import {rename, stat, unlink} from 'node:fs/promises';
import type {Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import type {KeySettings, StoreSettings} from '../config.ts';
import {totals} from '../dump/contents.ts';
import {forPsql} from '../dump/for-psql.ts';
import {type Inspection, inspect} from '../dump/inspect.ts';
import {type Keyring, keyring} from '../encrypt/keys.ts';
import {asBackupError, BackupError, interruption, messageOf} from '../errors.ts';
import {analyze, hiddenTables, loadError, rowCountChecks, startLoad} from '../load/psql.ts';
import {missingRoles, rolesMissing} from '../load/roles.ts';
import {isEmpty, lookAtTarget, type TargetFacts} from '../load/target.ts';
import {asStep, type Step} from '../observer.ts';
import type {Connection} from '../postgres/connection.ts';
import type {Session} from '../postgres/query.ts';
import {knowsRestrict, locatePsql} from '../postgres/tools.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore} from '../upload/store.ts';
import {type BackupChoice, findBackup} from './catalog.ts';
import {checkOpenable, type OpenableBackup, openBackup} from './open-backup.ts';
import type {Runtime} from './runtime.ts';

export interface RestoreSettings {
  store: StoreSettings;
  keys: KeySettings;
  choice: BackupChoice;
  target: Connection;
  /** Also with a psql that does not know `\restrict`, which could be made to run commands hidden in a dump. */
  allowUnrestricted: boolean;
}

/** Asks whether a database that is not empty may be overwritten; false refuses. */
export type Confirm = (target: TargetFacts, backup: OpenableBackup['backup']) => Promise<boolean>;

export interface RestoreResult {
  key: string;
  /** When the backup was started: everything after it is not in the restored database. */
  recoveryPoint: Date;
  /** `host:port/database`. */
  target: string;
  tables: number;
  /** Counted in the target, before the commit. */
  rows: number;
  dumpBytes: number;
  durationMs: number;
  /** Tables whose rows could not be counted, because row-level security hides them from this role. */
  uncountedTables: string[];
  warnings: string[];
}

export const restoreSteps: readonly Step[] = [
  {id: 'find', title: 'Find the backup'},
  {id: 'target', title: 'Look at the target'},
  {id: 'authenticate', title: 'Authenticate (a backup of the older form is read twice)'},
  {id: 'download', title: 'Download and decrypt', group: 'Restore'},
  {id: 'load', title: 'Load (psql)', group: 'Restore'},
  {id: 'analyze', title: 'Collect planner statistics (ANALYZE)'},
];

/** Restores a backup into a database, in one transaction that is committed when everything in it was found authentic. */
export async function restore(settings: RestoreSettings, confirm: Confirm, runtime: Runtime): Promise<RestoreResult> {
  const stores = openStores(settings.store);
  const keys = keyring(settings.keys.current, settings.keys.previous);
  try {
    return await restoreFrom(stores.backups, keys, settings, confirm, runtime);
  } finally {
    stores.close();
  }
}

async function restoreFrom(
  store: ObjectStore,
  keys: Keyring,
  settings: RestoreSettings,
  confirm: Confirm,
  runtime: Runtime,
): Promise<RestoreResult> {
  const {observer, signal, environment} = runtime;
  const started = performance.now();
  const warnings: string[] = [];
  const warn = (message: string) => {
    warnings.push(message);
    observer({type: 'warning', message});
  };
  settings.target.warnings.forEach(warn);
  const openable = await find(store, settings.choice, keys, runtime);
  const {backup} = openable;
  const psql = await locatePsql(environment.PATH ?? '');
  const session: Session = {connection: settings.target, psql, inherited: environment, signal};
  const target = await asStep(
    observer,
    'target',
    () => lookAtTarget(session),
    (facts) => `${facts.address}: ${facts.tables} tables, about ${facts.approximateRows} rows`,
  );
  const missing = await missingRoles(session, openable.manifest?.roles ?? []);
  if (missing.length > 0) throw rolesMissing(missing);
  if (!isEmpty(target) && !(await confirm(target, backup))) throw refusal(target);
  if (!knowsRestrict(psql.version)) {
    const risk = `psql ${psql.version.text} does not know \\restrict (CVE-2025-8714), and could run commands hidden in a dump`;
    if (!settings.allowUnrestricted) throw unrestricted(risk);
    warn(risk);
  }
  const {contents, bytes: dumpBytes} = await load(store, openable, keys, session, runtime);
  const uncountedTables = await hiddenTables(
    session,
    contents.tables.map(({table}) => table),
  );
  if (uncountedTables.length > 0) {
    warn(`rows not counted in the target, because row-level security hides them: ${uncountedTables.join(', ')}`);
  }
  try {
    await asStep(observer, 'analyze', () => analyze(session));
  } catch (error) {
    throw interruption(signal) ? error : warn(`restored, but ANALYZE failed (run it by hand): ${messageOf(error)}`);
  }
  return {
    key: backup.key,
    recoveryPoint: backup.startedAt,
    target: target.address,
    ...totals(contents),
    dumpBytes,
    durationMs: Math.round(performance.now() - started),
    uncountedTables,
    warnings,
  };
}

function find(store: ObjectStore, choice: BackupChoice, keys: Keyring, {observer}: Runtime): Promise<OpenableBackup> {
  return asStep(
    observer,
    'find',
    async () => checkOpenable(store, await findBackup(store, choice, keys), keys),
    ({backup}) => backup.key,
  );
}

function unrestricted(reason: string): BackupError {
  return new BackupError('Refused: this psql is not safe to restore with', {
    code: 'REFUSED',
    kind: 'refused',
    reason,
    hint: 'Install the newest minor release of the PostgreSQL client, or accept the risk with --yes. Nothing was changed.',
  });
}

function refusal({address, tables}: TargetFacts): BackupError {
  return new BackupError('Refused: the target is not empty', {
    code: 'REFUSED',
    kind: 'refused',
    reason: `${address} holds ${tables} tables, which a restore would overwrite, and nobody confirmed it`,
    hint: 'Restore into a new, empty database with --target, or confirm with --yes. Nothing was changed.',
  });
}

/** The one pipeline of a restore. `COMMIT` is its last word, said when every stage before has ended well. */
export async function load(
  store: ObjectStore,
  openable: OpenableBackup,
  keys: Keyring,
  session: Session,
  {observer, signal}: Runtime,
  options: {withEntries?: boolean} = {},
): Promise<Inspection> {
  const totalBytes = openable.backup.sizeBytes;
  if (openable.manifest) observer({type: 'skipped', step: 'authenticate', note: 'authenticated while it is read'});
  else observer({type: 'started', step: 'authenticate'});
  const dump = await openBackup(store, openable, keys, {
    signal,
    onBytes: (bytes) => observer({type: 'progress', step: 'download', bytes, totalBytes}),
  });
  if (!openable.manifest) observer({type: 'finished', step: 'authenticate'});
  for (const step of ['download', 'load']) observer({type: 'started', step});
  const dumpBytes = openable.manifest?.dumpBytes;
  const inspector = inspect(
    (bytes) =>
      observer({type: 'progress', step: 'load', bytes, ...(dumpBytes === undefined ? {} : {totalBytes: dumpBytes})}),
    options,
  );
  const filter = forPsql({
    restrictToken: knowsRestrict(session.psql.version) ? randomBytes(32).toString('hex') : undefined,
    beforeCommit() {
      dump.check(inspector.inspection);
      return rowCountChecks(inspector.inspection.contents.tables);
    },
  });
  const psql = startLoad(session);
  try {
    await pipeline([...dump.stages, inspector, filter, psql.stream], signal ? {signal} : {});
  } catch (error) {
    await psql.stop();
    throw interruption(signal) ?? loadError(error, session) ?? dump.translate(error) ?? asBackupError(error);
  }
  for (const step of ['download', 'load']) observer({type: 'finished', step});
  return inspector.inspection;
}

export interface ExtractSettings extends Omit<RestoreSettings, 'target' | 'allowUnrestricted'> {
  /** Where the plain SQL goes: a file that does not exist yet, or a stream. It is PHI. */
  output: string | Writable;
}

export interface ExtractResult {
  key: string;
  recoveryPoint: Date;
  /** The file, or `-`. */
  output: string;
  tables: number;
  rows: number;
  dumpBytes: number;
  durationMs: number;
}

export const extractSteps: readonly Step[] = [
  {id: 'find', title: 'Find the backup'},
  {id: 'authenticate', title: 'Authenticate (a backup of the older form is read twice)'},
  {id: 'download', title: 'Download, decrypt and write'},
];

/** Writes a backup's plain SQL instead of restoring it. A file appears under its name when all of it was authentic. */
export async function extract(settings: ExtractSettings, runtime: Runtime): Promise<ExtractResult> {
  const {observer, signal} = runtime;
  const started = performance.now();
  const stores = openStores(settings.store);
  const keys = keyring(settings.keys.current, settings.keys.previous);
  try {
    const openable = await find(stores.backups, settings.choice, keys, runtime);
    const write = async (openSink: () => Writable) => {
      const dump = await openBackup(stores.backups, openable, keys, {
        signal,
        onBytes: (bytes) =>
          observer({type: 'progress', step: 'download', bytes, totalBytes: openable.backup.sizeBytes}),
      });
      observer({type: 'skipped', step: 'authenticate', note: 'done'});
      observer({type: 'started', step: 'download'});
      const inspector = inspect();
      try {
        await pipeline([...dump.stages, inspector, openSink()], signal ? {signal} : {});
        dump.check(inspector.inspection);
      } catch (error) {
        throw interruption(signal) ?? dump.translate(error) ?? outputError(error);
      }
      observer({type: 'finished', step: 'download'});
      return inspector.inspection;
    };
    const {contents, bytes} =
      typeof settings.output === 'string'
        ? await writeFile(settings.output, write)
        : await write(() => settings.output as Writable);
    return {
      key: openable.backup.key,
      recoveryPoint: openable.backup.startedAt,
      output: typeof settings.output === 'string' ? settings.output : '-',
      ...totals(contents),
      dumpBytes: bytes,
      durationMs: Math.round(performance.now() - started),
    };
  } finally {
    stores.close();
  }
}

/** Fills a file beside `file` and gives it the name when it is whole; when something fails, no file is left. */
async function writeFile<T>(file: string, write: (openSink: () => Writable) => Promise<T>): Promise<T> {
  if (await stat(file).catch(() => undefined)) {
    throw new BackupError('Refused: the output file exists', {
      code: 'REFUSED',
      kind: 'refused',
      reason: file,
      hint: 'Choose another name, or move that file away.',
    });
  }
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`;
  try {
    const result = await write(() => createWriteStream(partial, {flags: 'wx', mode: 0o600, flush: true}));
    await rename(partial, file);
    return result;
  } catch (error) {
    await unlink(partial).catch(() => undefined);
    throw error;
  }
}

function outputError(error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  return new BackupError('The output could not be written', {
    code: 'OUTPUT_FAILED',
    kind: 'unexpected',
    reason: messageOf(error),
    hint: 'Is there room, and may this user write there? What was written of it was removed.',
    cause: error,
  });
}
