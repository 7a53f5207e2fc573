/** What a database holds, in a form that two of them can be compared by; and the programs that are at work on it. */
import {readFile} from 'node:fs/promises';
import {pipeline} from 'node:stream/promises';
import type {DumpContents} from '../../src/lib/dump/contents.ts';
import {inspect} from '../../src/lib/dump/inspect.ts';
import {startDump} from '../../src/lib/dump/pg-dump.ts';
import {locatePgDump} from '../../src/lib/postgres/tools.ts';
import type {TestDatabase} from './database.ts';
import {childrenOf} from './process-children.ts';
import {servers} from './sandbox.ts';
import {connectionTo} from './settings.ts';

/** Every table with its rows and their digest, and a digest of the schema: from a dump of the database as it is now. */
export async function contentsOf(url: string, encoding = 'UTF8'): Promise<DumpContents> {
  const pgDump = await locatePgDump(servers().postgres.major, process.env.PATH ?? '');
  const dump = startDump({connection: connectionTo(url), pgDump, encoding, inherited: process.env});
  const inspector = inspect();
  await pipeline(dump.stream, inspector, async (chunks: AsyncIterable<Buffer>) => {
    for await (const _ of chunks);
  });
  return inspector.inspection.contents;
}

/** ALTER DATABASE may have changed how names and values are written, and is not in a dump. */
const pinned = `SET quote_all_identifiers = off; SET timezone = 'UTC'; SET bytea_output = hex; SET datestyle = ISO;
  SET lc_monetary = 'C'; SET search_path = pg_catalog;`;

const tablesSql = `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE (c.relkind = 'r' OR (c.relkind = 'm' AND c.relispopulated)) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1`;

/** A digest of every table's rows whatever their order, and of the large objects. */
export async function rowDigests(database: TestDatabase): Promise<Record<string, string>> {
  // Joined by a character that no name has: a name may hold a line break.
  const list = await database.query(`${pinned} SELECT string_agg(t.name, chr(1)) FROM (${tablesSql}) AS t (name)`);
  const questions = list
    .split('\u0001')
    .filter(Boolean)
    .map(
      (table) =>
        `SELECT '${table.replaceAll("'", "''")}', count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM ONLY ${table} t`,
    );
  questions.push(
    `SELECT 'large objects', count(*) || ' ' || coalesce(md5(string_agg(l.oid || md5(lo_get(l.oid)), '|' ORDER BY l.oid)), '') FROM pg_largeobject_metadata l`,
  );
  const answer = await database.query(
    `${pinned} SELECT json_object_agg(t.name, t.digest) FROM (${questions.join('\nUNION ALL\n')}) AS t (name, digest)`,
  );
  return JSON.parse(answer) as Record<string, string>;
}

/** PostgreSQL's client programs that this process has started and that still run. */
export async function runningClients(): Promise<{name: string; pid: number}[]> {
  const names = await Promise.all(
    (await childrenOf(process.pid)).map(async (pid) => {
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
      return {name: name.trim(), pid};
    }),
  );
  return names.filter(({name}) => name === 'pg_dump' || name === 'psql');
}
