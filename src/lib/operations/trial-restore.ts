/** A trial restore: into a scratch database, which is dumped again, compared and taken away. */
import type {Inspection} from '../dump/inspect.ts';
import type {Keyring} from '../encrypt/keys.ts';
import {asBackupError, BackupError, messageOf} from '../errors.ts';
import {startLocalServer} from '../load/local-server.ts';
import {analyze} from '../load/psql.ts';
import {createMissingRoles, dropRoles} from '../load/roles.ts';
import {createScratch} from '../load/scratch.ts';
import type {Connection} from '../postgres/connection.ts';
import {type Session, serverFacts} from '../postgres/query.ts';
import {locatePgDump, majorOf} from '../postgres/tools.ts';
import type {ObjectStore} from '../upload/store.ts';
import {managedFilter} from './managed.ts';
import type {OpenableBackup} from './open-backup.ts';
import {type Comparison, describeComparison, prove} from './proof.ts';
import {load} from './restore.ts';
import {type Runtime, sessionOf} from './runtime.ts';

/** A server where scratch databases may be made, or a throw-away one on this machine. */
export type ScratchPlace = {on: 'server'; connection: Connection} | {on: 'this machine'};

export interface TrialOptions {
  store: ObjectStore;
  keys: Keyring;
  /** Leave out what only a superuser may restore. */
  isManaged: boolean;
  searchPath: string | undefined;
  warn: (message: string) => void;
}

export class TrialRestore {
  readonly #options: TrialOptions;
  readonly #runtime: Runtime;
  #serverVersion = '';
  #recoveryMs: number | undefined;
  #comparison: Comparison | undefined;

  constructor(options: TrialOptions, runtime: Runtime) {
    this.#options = options;
    this.#runtime = runtime;
  }

  /** Of the server that it was tried on; empty before that was asked. */
  get serverVersion(): string {
    return this.#serverVersion;
  }

  /** How long the restore took. */
  get recoveryMs(): number | undefined {
    return this.#recoveryMs;
  }

  /** What was compared, when nothing of it differed. */
  get comparison(): Comparison | undefined {
    return this.#comparison;
  }

  /**
   * @returns what was proved, in words
   * @throws BackupError CONTENTS_DIFFER, or of what could not be done
   */
  async run(openable: OpenableBackup, place: ScratchPlace): Promise<string> {
    if (place.on === 'server') return this.#restoreOn(await sessionOf(place.connection, this.#runtime), openable);
    const {manifest} = openable;
    const local = await startLocalServer({
      minimumMajor: manifest ? majorOf(manifest.serverVersion) : 13,
      searchPath: this.#runtime.environment.PATH ?? '',
      dumpBytes: manifest?.dumpBytes ?? openable.backup.sizeBytes * 10,
      signal: this.#runtime.signal,
    });
    try {
      for (const warning of local.warnings) this.#options.warn(warning);
      return await this.#restoreOn(await sessionOf(local.connection, this.#runtime), openable);
    } finally {
      await local.stop();
    }
  }

  async #restoreOn(server: Session, openable: OpenableBackup): Promise<string> {
    const {manifest} = openable;
    const facts = await serverFacts(server);
    this.#serverVersion = facts.version;
    const pgDump = await locatePgDump(facts.major, this.#runtime.environment.PATH ?? '');
    const {warn} = this.#options;
    const scratch = await createScratch(server, manifest?.encoding ?? facts.encoding, this.#runtime.now(), warn);
    let roles: string[] = [];
    try {
      roles = await createMissingRoles(server, manifest?.roles ?? []);
      const managed = this.#options.isManaged ? await managedFilter(scratch.session) : undefined;
      const started = performance.now();
      const inspection = await load(this.#options.store, openable, this.#options.keys, scratch.session, this.#quiet(), {
        withEntries: true,
        filters: managed ? [managed] : [],
        searchPath: this.#options.searchPath,
        onTransaction: (number) => scratch.loadedBy(number),
      });
      await managed?.settle?.();
      await analyze(scratch.session);
      this.#recoveryMs = Math.round(performance.now() - started);
      const {differences, notes, compared} = await prove(
        {...expectedOf(openable, inspection), notCompared: managed?.heads, holds: managed?.holds},
        {
          session: scratch.session,
          pgDump,
          serverVersion: facts.version,
          onBytes: (bytes) => this.#runtime.observer({type: 'progress', step: 'restore', bytes}),
        },
      );
      if (differences.length > 0) {
        await scratch.requireUndisturbed();
        throw proofFailed(differences);
      }
      this.#comparison = compared;
      const seconds = (this.#recoveryMs / 1000).toFixed(1);
      return [
        `restored in ${seconds} s into ${scratch.description} on PostgreSQL ${facts.version}, and dumped again: ` +
          describeComparison(compared),
        ...notes,
        ...(managed?.leftOut ?? []).map(({what}) => `left out and not proved: ${what}`),
      ].join('; ');
    } finally {
      await this.#cleanUp('the scratch database', () => scratch.drop());
      for (const {role, reason} of await dropRoles(server, roles)) {
        warn(
          `the role ${role}, made for the test, could not be dropped (${reason}): drop it when nothing uses it any more`,
        );
      }
    }
  }

  /** What cannot be cleaned up is told, and changes nothing about the backup. */
  async #cleanUp(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#options.warn(`${what} could not be dropped: ${asBackupError(error).reason ?? messageOf(error)}`);
    }
  }

  /** The steps of the restore inside are progress of this one. */
  #quiet(): Runtime {
    const {observer} = this.#runtime;
    return {
      ...this.#runtime,
      observer: (event) => {
        if (event.type === 'warning') observer(event);
        if (event.type === 'progress' && event.step === 'load') observer({...event, step: 'restore'});
      },
    };
  }
}

/** What was in the stream, which was found equal to the manifest, with what the manifest says about its origin. */
function expectedOf({manifest}: OpenableBackup, {contents, entries, versions}: Inspection) {
  return {
    contents,
    entries,
    encoding: manifest?.encoding,
    excludedTableData: manifest?.excludedTableData ?? [],
    pgDumpVersion: manifest?.pgDumpVersion ?? versions.pgDump ?? '',
    serverVersion: manifest?.serverVersion ?? versions.server ?? '',
  };
}

function proofFailed(differences: readonly string[]): BackupError {
  const shown = differences.slice(0, 20);
  const more = differences.length > shown.length ? [`and ${differences.length - shown.length} more`] : [];
  return new BackupError('The restored database is not what was backed up', {
    code: 'CONTENTS_DIFFER',
    kind: 'verification',
    reason: [...shown, ...more].join('; '),
  });
}
