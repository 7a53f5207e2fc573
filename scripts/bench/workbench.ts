/** The database, the folders and the programs that everything is measured with. */
import {mkdir, stat} from 'node:fs/promises';
import {execa} from 'execa';
import {pgDumpArguments} from '../../src/lib/dump/pg-dump.ts';
import {type Connection, clientEnvironment, parseConnectionUrl} from '../../src/lib/postgres/connection.ts';
import {shellWord} from '../../src/lib/shell-word.ts';
import {clinicSql} from '../../test/support/clinic.ts';
import {createDatabase, type TestDatabase} from '../../test/support/database.ts';
import type {PostgresServer} from '../../test/support/postgres-server.ts';
import {environmentWith, newKey} from '../shared/cli.ts';
import {run, type Script} from '../shared/script.ts';

export interface Workbench {
  postgres: PostgresServer;
  source: TestDatabase;
  /** For plain files and sealed ones. */
  folder: string;
  /** The plain dump of `source`, made with the flags that `backup` gives to pg_dump. */
  plainDump: string;
  plainBytes: number;
  /** The environment for the command line with a `file://` store. */
  env: NodeJS.ProcessEnv;
  storeFolder: string;
  /** Runs a line of bash with `pg_dump` and `psql` as `$PG_DUMP` and `$PSQL`, connected to `database`. */
  shell(line: string, database?: string): Promise<void>;
}

/** Fills a database and dumps it once, which warms the caches and gives the file for `psql -1`. */
export async function prepare(
  postgres: PostgresServer,
  folder: string,
  patients: number,
  {signal}: Script,
): Promise<Workbench> {
  const source = await createDatabase(postgres, {sql: clinicSql({patients})});
  signal.throwIfAborted();
  await source.query('VACUUM (ANALYZE)');
  const storeFolder = `${folder}/store`;
  await mkdir(storeFolder);
  const plainDump = `${folder}/plain.sql`;
  const recipient = await ageRecipient(folder);
  const shell = async (line: string, database = source.name) => {
    const connection = connectionTo(postgres.url(database));
    const flags = pgDumpArguments({connection}).map(shellWord).join(' ');
    const env = {
      ...clientEnvironment(connection, process.env),
      PG_DUMP: `${postgres.binDirectory}/pg_dump`,
      PSQL: `${postgres.binDirectory}/psql`,
      RECIPIENT: recipient,
      FOLDER: folder,
    };
    const text = `set -euo pipefail; dump() { "$PG_DUMP" ${flags}; }; ${line}`;
    await run('bash', ['-c', text], {env, signal, output: 'quiet'});
  };
  await shell('dump >"$FOLDER/plain.sql"');
  return {
    postgres,
    source,
    folder,
    plainDump,
    plainBytes: (await stat(plainDump)).size,
    env: environmentWith({
      DATABASE_URL: source.url,
      PHI_ENCRYPTION_KEY: newKey(),
      LOMA_BACKUP_STORE: `file://${storeFolder}`,
    }),
    storeFolder,
    shell,
  };
}

function connectionTo(url: string): Connection {
  const connection = parseConnectionUrl(url);
  if (typeof connection === 'string') throw new Error(`the database URL ${connection}`);
  return connection;
}

/** A throw-away key pair of age; its secret half is of no use to anybody. */
async function ageRecipient(folder: string): Promise<string> {
  const {stderr} = await execa('age-keygen', ['-o', `${folder}/age.key`]);
  const recipient = /age1\S+/.exec(stderr)?.[0];
  if (!recipient) throw new Error('age-keygen names no recipient');
  return recipient;
}
