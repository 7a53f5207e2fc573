import {describe, expect, it} from '@jest/globals';
import {rowCountChecks} from '../../../src/lib/load/psql.ts';
import {createDatabase} from '../../support/database.ts';
import {servers} from '../../support/sandbox.ts';

describe('the row count checks', () => {
  it('quote names inside and outside of literals', () => {
    const [, , sql] = rowCountChecks([{table: `public."it's"`, rows: 3}]).split('\n');
    expect(sql).toContain(`row_security_active('public."it''s"')`);
    expect(sql).toContain(`FROM ONLY public."it's")`);
  });

  it('turn row-level security on again, which the dump turned off: a hidden row is passed over, not an error', () => {
    expect(rowCountChecks([])).toMatch(/^SET row_security = on;\n/);
  });

  it('pass over a name that is not UTF-8: it cannot be asked for', () => {
    expect(rowCountChecks([{table: 'public.caf\ufffd', rows: 1}])).toBe(rowCountChecks([]));
  });

  it('let a table of an extension hold more rows than the dump has of it, and no other one', async () => {
    const database = await createDatabase(servers().postgres, {
      sql: `CREATE EXTENSION hstore; CREATE TABLE own (id int); CREATE TABLE registry (id int);
        ALTER EXTENSION hstore ADD TABLE registry; INSERT INTO own VALUES (1), (2); INSERT INTO registry VALUES (1), (2);`,
    });
    const check = (table: string, rows: number) => database.query(`BEGIN; ${rowCountChecks([{table, rows}])} COMMIT`);
    for (const [table, rows] of [
      ['public.own', 2],
      ['public.registry', 2],
      ['public.registry', 0],
    ] as const) {
      expect(await check(table, rows)).toMatch(/\n0$/);
    }
    await expect(check('public.own', 1)).rejects.toThrow('table public.own has 2 rows, not 1');
    await expect(check('public.registry', 3)).rejects.toThrow('table public.registry has 2 rows, not 3');
    await database.drop();
  });

  it('look at the list of all tables for partitioned ones only: the work grows with the tables, not with their square', async () => {
    const database = await createDatabase(servers().postgres, {
      sql: `CREATE TABLE plain (id int); CREATE TABLE parted (id int) PARTITION BY LIST (id);
        CREATE TABLE only_part PARTITION OF parted DEFAULT; INSERT INTO parted VALUES (1);`,
    });
    const withoutList = (table: string) => {
      const [, , check] = rowCountChecks([{table, rows: 0}]).split('\n');
      return database.query(`SET loma.tables = 'no list'; ${check}`);
    };
    expect(await withoutList('public.plain')).toBe('0');
    await expect(withoutList('public.parted')).rejects.toThrow('malformed array literal: "no list"');
    await database.drop();
  });
});
