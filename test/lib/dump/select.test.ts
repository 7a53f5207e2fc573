import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {filterEntries} from '../../../src/lib/dump/entry-filter.ts';
import {OutlineReader} from '../../../src/lib/dump/outline.ts';
import {SelectRules} from '../../../src/lib/dump/select.ts';
import {resolveSelection, type SelectionRequest} from '../../../src/lib/dump/selection.ts';
import {keyOf, splitStatements} from '../../../src/lib/dump/sql-names.ts';
import {BackupError} from '../../../src/lib/errors.ts';
import {bytewise, cut, cutPlaces, feed, tryFeed} from '../feed.ts';
import {quoteName} from './random-dump.ts';

/** A part of a dump, and the tables that it is chosen with: all of them have to be; undefined: it never is. */
interface Block {
  text: string;
  needs: string[] | undefined;
}

const tricky = fc.constantFrom(
  'plain',
  'Odd name',
  'a"b',
  'a.b',
  'a; b',
  "it's",
  'line\nbreak',
  '\n-- Name: x; Type: TABLE; Schema: y; Owner: -\n',
  '--',
  'ON public.x',
  '; Type: TABLE; Schema: public; Owner: -',
  'x FROM stdin;\n',
  'naïve',
  'REFERENCES a.b',
  '$$',
);
const tableName = fc.tuple(tricky, tricky).map(([schema, name]) => `${quoteName(schema)}.${quoteName(name)}`);
const value = fc.constantFrom(
  'DROP TABLE x;',
  '-- Name: a; Type: TABLE; Schema: b; Owner: -',
  '--',
  'BEGIN;',
  'CREATE TABLE public.x (',
  ' \\\\.',
  'ä',
  '',
);

const oneLine = (text: string) => text.replaceAll(/[\r\n]/g, ' ');
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;
const entry = (name: string, type: string, sql: string, data = false) =>
  `--\n-- ${data ? 'Data for ' : ''}Name: ${oneLine(name)}; Type: ${type}; Schema: s; Owner: -\n--\n\n${sql}\n\n\n`;

/** What pg_dump writes of some tables, each with rows and with a foreign key to the next. */
function dumpOf(tables: readonly string[], texts: readonly string[]): Block[] {
  const block = (text: string, ...needs: string[]): Block => ({text, needs});
  const never = (text: string): Block => ({text, needs: undefined});
  const pairs = tables.map((table, at) => ({
    table,
    next: tables[(at + 1) % tables.length] ?? table,
    text: texts[at % texts.length] ?? '',
  }));
  return [
    block(
      '--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n-- Dumped from database version 15.1\n\nSET row_security = off;\n',
    ),
    ...pairs.map(({table}) =>
      block(`ALTER TABLE IF EXISTS ONLY ${table} DROP CONSTRAINT IF EXISTS "to; next";\n`, table),
    ),
    never('DROP INDEX IF EXISTS public.i;\n'),
    ...pairs.map(({table}) => block(`DROP TABLE IF EXISTS ${table};\n`, table)),
    never(`DROP FUNCTION IF EXISTS public."f; g"(a text);\nDROP SCHEMA IF EXISTS "DROP TABLE";\n`),
    never(
      entry(
        'f',
        'FUNCTION',
        `CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $_$\n${texts.join('\n')}\n;\nDROP TABLE ${tables[0]};\n$_$;`,
      ),
    ),
    block("SET default_tablespace = '';\n"),
    never('\n'),
    ...pairs.flatMap(({table, text}) => [
      block(entry(table, 'TABLE', `CREATE TABLE ${table} (\n    a text DEFAULT ${literal(text)}\n);`), table),
      block(entry(table, 'COMMENT', `COMMENT ON COLUMN ${table}.a IS ${literal(`${text}\n--\n`)};`), table),
    ]),
    block('SET default_table_access_method = heap;\n'),
    ...pairs.map(({table, text}) =>
      block(
        entry(
          table,
          'TABLE DATA',
          `COPY ${table} (a) FROM stdin;\n${text}\n--\n-- Name: x; Type: TABLE; Schema: y; Owner: -\n\\.`,
          true,
        ),
        table,
      ),
    ),
    never(entry('BLOBS', 'BLOBS', "BEGIN;\n\nSELECT pg_catalog.lo_open('1', 131072);\n\nCOMMIT;", true)),
    ...pairs.flatMap(({table, next, text}) => [
      block(entry('i', 'INDEX', `CREATE INDEX "on" ON ${table} USING btree (a) WHERE a <> ${literal(text)};`), table),
      block(
        entry(
          'k',
          'FK CONSTRAINT',
          `ALTER TABLE ONLY ${table}\n    ADD CONSTRAINT "to; next" FOREIGN KEY (a, "b c") REFERENCES ${next}(a);`,
        ),
        table,
        next,
      ),
      block(entry('k', 'COMMENT', `COMMENT ON CONSTRAINT "to; next" ON ${table} IS ${literal(text)};`), table, next),
      block(
        entry(
          't',
          'TRIGGER',
          `CREATE TRIGGER "ON public.x" AFTER UPDATE OF "ON y.z" ON ${table} FOR EACH ROW EXECUTE FUNCTION public.f();`,
        ),
        table,
      ),
    ]),
    block('--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n'),
  ];
}

/** The text of a dump: what stands before the first entry, and after a setting, has its blank lines of its own. */
const whole = (blocks: readonly Block[]) => Buffer.from(blocks.map(({text}) => text).join(''));

async function select(dump: Buffer[], request: Partial<SelectionRequest>): Promise<{sql: string; rules: SelectRules}> {
  const reader = new OutlineReader(() => undefined);
  await feed(dump, reader.stage);
  const selection = resolveSelection(reader.outline, {tables: [], schemas: [], ...request});
  const rules = new SelectRules({selection, createSchemas: new Set()});
  return {sql: (await feed(dump, filterEntries(rules))).toString(), rules};
}

describe('some tables of a dump', () => {
  it('are all that is let through of it, for any names, texts and splits; the rest is what is left out', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(tableName, {minLength: 1, maxLength: 4}),
        fc.array(value, {minLength: 1, maxLength: 4}),
        fc.array(fc.boolean(), {minLength: 4, maxLength: 4}),
        cutPlaces,
        async (tables, texts, choice, places) => {
          const chosen = tables.filter((_, at) => choice[at]);
          const blocks = dumpOf(tables, texts);
          const isChosen = ({needs}: Block) => needs?.every((table) => chosen.includes(table)) ?? false;
          if (chosen.length === 0) return;
          const {sql, rules} = await select(cut(whole(blocks), places), {tables: chosen});
          // Blank lines after a setting belong to the entry before it.
          expect(sql.replaceAll('\n\n', '\n')).toBe(
            blocks
              .filter(isChosen)
              .map(({text}) => text)
              .join('')
              .replaceAll('\n\n', '\n'),
          );
          expect([...rules.filled].sort()).toEqual(chosen.map(keyOf).sort());
          const keys = blocks.filter(
            (block) => /ADD CONSTRAINT/.test(block.text) && chosen.includes(block.needs?.[0] ?? ''),
          );
          expect(rules.leftOut).toHaveLength(keys.filter((block) => !isChosen(block)).length);
        },
      ),
      {numRuns: 120},
    );
  });

  it('are the same, byte by byte', async () => {
    const dump = whole(dumpOf(['public.a', 'public."b; c"'], ['x', 'DROP TABLE x;']));
    const once = await select([dump], {tables: ['public.b; c']});
    expect((await select(bytewise(dump), {tables: ['public.b; c']})).sql).toBe(once.sql);
    expect(once.sql).not.toContain('public.a');
  });

  it.each(['Übung 1', '"Übung 1"'])('of a schema, by the name %s', async (name) => {
    const dump = whole(dumpOf(['"Übung 1".a', 'public.b'], ['x']));
    const {rules} = await select([dump], {schemas: [name]});
    expect([...rules.filled]).toEqual(['"Übung 1".a']);
    await expect(select([dump], {schemas: ['"Ubung 1"']})).rejects.toMatchObject({code: 'NOT_IN_BACKUP'});
  });

  it('are told apart when two names look the same without quotes', async () => {
    const dump = whole(dumpOf(['"a.b".c', 'a."b.c"'], ['x']));
    await expect(select([dump], {tables: ['a.b.c']})).rejects.toMatchObject({
      code: 'NOT_IN_BACKUP',
      reason: expect.stringContaining('"a.b".c, a."b.c"'),
    });
    expect((await select([dump], {tables: ['a."b.c"']})).sql).not.toContain('"a.b".c');
  });

  it('drop nothing with CASCADE, and nothing of other schemas', async () => {
    const dump = Buffer.from(
      `DROP TYPE IF EXISTS s.t CASCADE;\nDROP TYPE IF EXISTS s.u;\nDROP TYPE IF EXISTS "s.u".u;\nDROP CAST IF EXISTS (s.t AS int);\nDROP FUNCTION IF EXISTS t.f(s.t);\n${entry('s', 'SCHEMA', 'CREATE SCHEMA s;')}`,
    );
    expect((await select([dump], {schemas: ['s']})).sql).toBe('DROP TYPE IF EXISTS s.u;\n');
  });

  it('are dropped by a statement of ours when the dump has none, as one made without --clean', async () => {
    const dump = Buffer.from(
      `SET a = 1;\n${entry('t', 'TABLE', 'CREATE TABLE s.t (\n);')}${entry('u', 'TABLE', 'CREATE TABLE s.u (\n);')}`,
    );
    expect((await select([dump], {tables: ['s.t']})).sql).toMatch(
      /^SET a = 1;\nDROP TABLE IF EXISTS s\.t;\n--\n-- Name: t;/,
    );
  });
});

describe('a temporal foreign key, as PostgreSQL 18 has them', () => {
  const key = (column: string) =>
    entry(
      'k',
      'FK CONSTRAINT',
      `ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k FOREIGN KEY (${column}, PERIOD valid_at) REFERENCES s.u(${column}, PERIOD valid_at);`,
    );
  const tables = `${entry('t', 'TABLE', 'CREATE TABLE s.t (\n);')}${entry('u', 'TABLE', 'CREATE TABLE s.u (\n);')}`;

  it('is left out where the other table is not restored, whatever the length of its names', async () => {
    const sql = key('responsible_department_identifier_of_the_booking');
    const {rules} = await select([Buffer.from(`${tables}${sql}`)], {tables: ['s.t']});
    expect(rules.leftOut).toMatchObject([{what: 'foreign key k of s.t'}]);
    expect((await select([Buffer.from(`${tables}${sql}`)], {schemas: ['s']})).sql).toContain('PERIOD valid_at');
  });
});

describe('a schema whose name is a keyword', () => {
  it('is made with its name in quotes', async () => {
    const reader = new OutlineReader(() => undefined);
    const dump = [Buffer.from(`SET a = 1;\n${entry('q', 'TABLE', 'CREATE TABLE "order".q (\n);')}`)];
    await feed(dump, reader.stage);
    const selection = resolveSelection(reader.outline, {tables: [], schemas: ['order']});
    const rules = new SelectRules({selection, createSchemas: new Set(['order'])});
    expect((await feed(dump, filterEntries(rules))).toString()).toContain('CREATE SCHEMA IF NOT EXISTS "order";');
  });
});

describe('a filter', () => {
  it('passes on an entry that is longer than what is looked at, with its last byte', async () => {
    const long = entry('f', 'FUNCTION', `CREATE FUNCTION s.f() RETURNS text AS $$${'x'.repeat(3 << 20)}$$;`);
    const other = entry('g', 'FUNCTION', 'CREATE FUNCTION t.g() RETURNS text AS $$$$;');
    for (const dump of [Buffer.from(long + other), Buffer.from(other + long)]) {
      const reader = new OutlineReader(() => undefined);
      await feed([dump], reader.stage);
      const options = {
        selection: {relations: new Map(), wholeSchemas: new Set(['s']), schemas: new Set(['s'])},
        createSchemas: new Set<string>(),
      };
      expect((await feed(cut(dump, [1 << 20, 1_500_001]), filterEntries(new SelectRules(options)))).toString()).toBe(
        long,
      );
    }
  });

  it('refuses a psql command, also in what would be left out', async () => {
    const rules = new SelectRules({
      selection: {relations: new Map(), wholeSchemas: new Set(), schemas: new Set()},
      createSchemas: new Set(),
    });
    const {released, error} = await tryFeed(
      [Buffer.from(`${entry('x', 'X', 'SELECT 1;')}\\! touch /tmp/x\n`)],
      filterEntries(rules),
    );
    expect(error).toBeInstanceOf(BackupError);
    expect(error).toMatchObject({code: 'DUMP_UNREADABLE'});
    expect(released.toString()).not.toContain('touch');
  });
});

describe('statements', () => {
  it('are split at their ends only, and are the text together', () => {
    const text = `SET a = 'x;\ny';\n\n-- a; comment\nDROP TABLE "a;\nb""c";\nDROP X -1;\nrest`;
    expect(splitStatements(text)).toEqual([
      `SET a = 'x;\ny';\n`,
      `\n-- a; comment\nDROP TABLE "a;\nb""c";\n`,
      'DROP X -1;\n',
      'rest',
    ]);
  });
});
