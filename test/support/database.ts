/** A database of its own for each test, and SQL through psql. */
import {randomBytes} from 'node:crypto';
import path from 'node:path';
import {execa} from 'execa';
import type {PostgresHandle} from './postgres-handle.ts';
import {findPostgres} from './postgres-programs.ts';

export interface DatabaseOptions {
  /** Default `template0`: nobody can be connected to it, and it has no local additions. */
  template?: string;
  /** Another than UTF8 gets locale C, which goes with every encoding. */
  encoding?: string;
  /** Of the ICU, as the provider of the database's collation; since PostgreSQL 15. */
  icuLocale?: string;
  /** Run in the new database. */
  sql?: string;
}

export interface TestDatabase {
  name: string;
  /** The superuser's, with the password in it. */
  url: string;
  /** What `psql -XAtq` prints, without the last line break. */
  query(sql: string): Promise<string>;
  /** Also when others are connected. */
  drop(): Promise<void>;
}

export async function createDatabase(server: PostgresHandle, options: DatabaseOptions = {}): Promise<TestDatabase> {
  const {template = 'template0', encoding, icuLocale, sql} = options;
  const name = `loma_${randomBytes(6).toString('hex')}`;
  const inEncoding = encoding ? ` ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C'` : '';
  const byIcu = icuLocale ? ` LOCALE_PROVIDER icu ICU_LOCALE '${icuLocale}'` : '';
  await runSql(server.adminUrl, `CREATE DATABASE ${name} TEMPLATE "${template}"${inEncoding}${byIcu}`);
  const url = server.url(name);
  const database: TestDatabase = {
    name,
    url,
    query: (text) => runSql(url, text),
    drop: async () => void (await runSql(server.adminUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)),
  };
  if (sql !== undefined) {
    try {
      await runSql(url, sql);
    } catch (error) {
      await database.drop();
      throw error;
    }
  }
  return database;
}

/**
 * Runs SQL through psql, stopping at the first error, and returns what it prints. Neither the password nor the SQL is on
 * the command line, where every user of the machine could read it.
 *
 * @throws Error with psql's message.
 */
export async function runSql(url: string, sql: string): Promise<string> {
  const address = new URL(url);
  const password = decodeURIComponent(address.password);
  address.password = '';
  // No settings of the caller's (PGSERVICE, PGOPTIONS, …) in a test.
  const foreign = Object.entries(process.env).filter(([name]) => !name.startsWith('PG'));
  const result = await execa(await psql(), ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', address.href, '-f', '-'], {
    input: sql,
    env: {
      ...Object.fromEntries(foreign),
      PGPASSWORD: password,
      PGCLIENTENCODING: 'UTF8',
      PGCONNECT_TIMEOUT: '10',
      LC_ALL: 'C',
    },
    extendEnv: false,
    reject: false,
  });
  if (result.failed) throw new Error(result.stderr || result.shortMessage);
  return result.stdout;
}

let psqlPath: Promise<string> | undefined;

function psql(): Promise<string> {
  psqlPath ??= findPostgres().then((programs) => (programs ? path.join(programs.binDirectory, 'psql') : 'psql'));
  return psqlPath;
}
