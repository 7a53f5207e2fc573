/** A backup to restore, and targets that hold something else before: a restore gives the one or leaves the other. */
import {expect} from '@jest/globals';
import type {DumpContents} from '../../src/lib/dump/contents.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {backup} from '../../src/lib/operations/backup.ts';
import type {RestoreResult} from '../../src/lib/operations/restore.ts';
import {clinicSql} from '../support/clinic.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {contentsOf} from '../support/dumps.ts';
import type {PostgresHandle} from '../support/postgres-handle.ts';
import {runSql} from '../support/postgres-server.ts';
import {backupSettings, runtime, type TestStore} from '../support/settings.ts';
import {waitUntil} from '../support/wait-until.ts';

export class Targets {
  readonly #server: PostgresHandle;
  readonly #template: TestDatabase;
  readonly source: TestDatabase;
  readonly backupKey: string;
  readonly contents: {old: DumpContents; new: DumpContents};

  private constructor(
    server: PostgresHandle,
    template: TestDatabase,
    source: TestDatabase,
    backupKey: string,
    contents: {old: DumpContents; new: DumpContents},
  ) {
    this.#server = server;
    this.#template = template;
    this.source = source;
    this.backupKey = backupKey;
    this.contents = contents;
  }

  /** @param store gets the backup of a database of this server */
  static async create(server: PostgresHandle, store: TestStore, key: string): Promise<Targets> {
    // More than one frame of 1 MiB when compressed.
    const source = await createDatabase(server, {sql: clinicSql({patients: 800})});
    const {key: backupKey} = await backup(backupSettings({database: source.url, store, key}), runtime());
    // The same tables with other rows, one changed, and one that the backup does not know.
    const template = await createDatabase(server, {
      sql: `${clinicSql({patients: 20})} UPDATE providers SET full_name = 'Kept';`,
    });
    const contents = {old: await contentsOf(template.url), new: await contentsOf(source.url)};
    return new Targets(server, template, source, backupKey, contents);
  }

  /** A new target, in the old state. */
  next(): Promise<TestDatabase> {
    return createDatabase(this.#server, {template: this.#template.name});
  }

  /**
   * Holds the target to what the restore has said of it: the new state after a success, the old one after a failure; one
   * of the two when the answer to the COMMIT was lost.
   * @returns what happened, for the table
   */
  async expectOneOrTheOther(target: TestDatabase, outcome: RestoreResult | Error, exitCode: number): Promise<string> {
    await this.#untilAlone(target);
    const found = await contentsOf(target.url);
    if (!(outcome instanceof Error)) {
      expect(found).toEqual(this.contents.new);
      return ['succeeded, the target is the new one', ...(outcome.warnings.length > 0 ? ['with a warning'] : [])].join(
        ', ',
      );
    }
    expect(outcome).toBeInstanceOf(BackupError);
    expect(outcome).toMatchObject({exitCode});
    const {code, reason = ''} = outcome as BackupError;
    const ending = `failed with ${code} (exit code ${exitCode})`;
    if (!reason.includes('may hold the backup or be as it was')) {
      expect(found).toEqual(this.contents.old);
      return `${ending}, the target is the old one`;
    }
    expect([this.contents.old, this.contents.new]).toContainEqual(found);
    return `${ending} that says that the COMMIT is uncertain; the target is the old one or the new one`;
  }

  async drop(): Promise<void> {
    await Promise.all([this.source.drop(), this.#template.drop()]);
  }

  /** Until the server has noticed that its client is gone. */
  async #untilAlone(target: TestDatabase): Promise<void> {
    const count = `SELECT count(*) FROM pg_stat_activity WHERE datname = '${target.name}'`;
    await waitUntil(async () => (await runSql(this.#server.adminUrl, count)) === '0', {
      what: 'the sessions of the restore to end',
    });
  }
}
