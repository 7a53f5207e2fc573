/**
 * Databases that others have made: schemas that Debian's packages bring along, and the database that PostgreSQL's own regression
 * tests leave behind, with whatever its makers could think of.
 */
import {chmod, mkdir, mkdtemp, readFile, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {execa} from 'execa';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {regressionTests, sqlOfPackage} from '../support/debian-samples.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {isFullRun} from '../support/size.ts';
import {roundTrip} from './round-trip.ts';

const {postgres} = servers();

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-samples-'));
  // The server reads files of it.
  await chmod(folder, 0o755);
});
afterAll(() => rm(folder, {recursive: true}));

async function comesBack(source: TestDatabase, what: string): Promise<void> {
  const target = await createDatabase(postgres);
  try {
    const {taken} = await roundTrip(source, target, postgres.adminUrl, {again: true});
    expect(taken.tables).toBeGreaterThan(0);
    recordTrial({
      area: "Other people's databases",
      what: `${what}: ${taken.tables} tables, ${taken.rows} rows`,
      outcome: 'all digests equal; restored over itself',
    });
  } finally {
    await target.drop();
  }
}

describe('the database of a package', () => {
  const schema = (name: string) => `usr/share/dbconfig-common/data/${name}/install/pgsql`;
  const zabbix = ['schema', 'images', 'data'].map((name) => `usr/share/zabbix-server-pgsql/${name}.sql.gz`);
  const samples: [string, string[]][] = [
    ['icinga2-ido-pgsql', [schema('icinga2-ido-pgsql')]],
    ['bacula-director-pgsql', [schema('bacula-director-pgsql')]],
    ['roundcube-core', [schema('roundcube')]],
    ['pdns-backend-pgsql', ['usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql']],
    ['zabbix-server-pgsql', zabbix],
  ];

  it.each(isFullRun ? samples : samples.slice(0, 1))(
    '%s comes back, is proved, and comes back over itself',
    async (name, files) => {
      const sql = await sqlOfPackage(folder, name, files);
      const source = await createDatabase(postgres, {sql});
      await comesBack(source, `Debian's ${name}`);
      await source.drop();
    },
  );
});

/** 20 MB of source, and some minutes. */
const inFull = isFullRun ? it : it.skip;

describe("PostgreSQL's regression database", () => {
  inFull(
    'comes back, is proved, and comes back over itself',
    async () => {
      const tests = await regressionTests(path.join(folder, 'source'), postgres.major);
      const results = path.join(folder, 'results', 'results');
      await mkdir(results, {recursive: true});
      for (const place of [results, path.dirname(results)]) await chmod(place, 0o777);
      const source = await createDatabase(postgres);
      const env = {
        PG_ABS_SRCDIR: tests,
        PG_ABS_BUILDDIR: path.dirname(results),
        PG_LIBDIR: tests,
        PG_DLSUFFIX: '.so',
        PGTZ: 'PST8PDT',
        PGDATESTYLE: 'Postgres, MDY',
      };
      const schedule = await readFile(path.join(tests, 'parallel_schedule'), 'utf8');
      const names = [...schedule.matchAll(/^test: (.*)$/gm)].flatMap(([, list = '']) => list.trim().split(/\s+/));
      expect(names.length).toBeGreaterThan(100);
      for (const name of names) {
        // Many fail in places, as they are meant to; and those that want a library of C functions, which is not built here.
        const file = path.join(tests, 'sql', `${name}.sql`);
        const psql = path.join(postgres.binDirectory, 'psql');
        await execa(psql, ['-X', '-q', '-d', source.url, '-f', file], {
          env,
          reject: false,
          timeout: 120_000,
          stdio: 'ignore',
        });
      }
      await comesBack(source, "PostgreSQL's regression tests");
      await source.drop();
    },
    1_800_000,
  );
});
