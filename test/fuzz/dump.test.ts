/**
 * The inspector, and what psql gets to see of a dump: for any bytes, in any pieces. Driven through the streams that the
 * pipelines use, so that whatever reads a dump inside of them is held to the same.
 */
import {createHash} from 'node:crypto';
import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {forPsql} from '../../src/lib/dump/for-psql.ts';
import {type Inspection, inspect} from '../../src/lib/dump/inspect.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {dumpBytes, merged, type Piece, randomDump} from '../lib/dump/random-dump.ts';
import {bytewise, cut, cutPlaces, noise, tryFeed} from '../lib/feed.ts';
import {recordTrial} from '../support/reliability.ts';
import {bySize, isFullRun, seed} from '../support/size.ts';
import {readPlainly} from './plain-reading.ts';

/** Holds a property to cases that are made up, and notes how many they were. */
async function holds<T>(
  what: string,
  outcome: string,
  property: fc.IAsyncPropertyWithHooks<T>,
  {short, full = short * 20}: {short: number; full?: number},
): Promise<void> {
  const numRuns = bySize({short, full});
  await fc.assert(property, {numRuns, seed});
  recordTrial({area: 'Hostile input: dumps', what: `${numRuns} times ${what}`, outcome});
}

interface Outcome {
  inspection: Inspection | undefined;
  code: string | undefined;
}

async function inspectionOf(chunks: Iterable<Buffer>): Promise<Outcome & {released: Buffer}> {
  const tap = inspect(() => {}, {withEntries: true});
  const {released, error} = await tryFeed(chunks, tap);
  if (error === undefined) return {inspection: tap.inspection, code: undefined, released};
  expect(error).toBeInstanceOf(BackupError);
  return {inspection: undefined, code: (error as BackupError).code, released};
}

/** The outcome without what has been released, which may differ when a dump is refused. */
async function outcomeOf(chunks: Iterable<Buffer>): Promise<Outcome> {
  const {inspection, code} = await inspectionOf(chunks);
  return {inspection, code};
}

async function forPsqlOf(chunks: Iterable<Buffer>): Promise<{text: string | undefined; code: string | undefined}> {
  const {released, error} = await tryFeed(
    chunks,
    forPsql({restrictToken: 'aB3', beforeCommit: () => 'SELECT 42;', lastWord: 'w', mayCommit: async () => {}}),
  );
  if (error === undefined) return {text: released.toString('latin1'), code: undefined};
  expect(error).toBeInstanceOf(BackupError);
  expect(released.toString('latin1')).not.toContain('SELECT 42;');
  return {text: undefined, code: (error as BackupError).code};
}

/** What means something to psql, to a scanner, or only resembles it. */
const fragments = [
  'COPY t FROM stdin;\n',
  'COPY public."a b" (x, "y""z") FROM stdin;\n',
  'COPY "',
  ' (a) FROM stdin;\n',
  'copy t from stdin;\n',
  '\\.\n',
  '\\.\r\n',
  '\\.',
  '\n',
  '\n',
  '\n',
  '\r',
  '\r\n',
  '\t',
  ' ',
  "'",
  "'",
  "''",
  '"',
  'E',
  "e'",
  'e/**/',
  '\\',
  "\\'",
  '\\\\',
  '\\N',
  '\\! echo ran\n',
  '\\restrict aB3\n',
  '\\unrestrict aB3\n',
  '$',
  '$$',
  '$a$',
  '$é$',
  '$1',
  '1',
  'a',
  'é',
  '🩺',
  '_',
  ';',
  ';\n',
  '(',
  ')',
  '--',
  '-',
  '/',
  '*',
  '/*',
  '*/',
  '\0',
  '\x7f',
  '\x1b[2J',
  'BEGIN;\n',
  'COMMIT;\n',
  ' begin ',
  ' Begin ',
  ' case ',
  ' end ',
  'CREATE FUNCTION f() ',
  'create or replace procedure p() BEGIN ATOMIC ',
  'SELECT ',
  'DROP EXTENSION IF EXISTS a;\n',
  "COMMENT ON EXTENSION a IS 'b';\n",
  '-- Name: x; Type: TABLE; Schema: y; Owner: -\n',
  '-- Data for Name: x; Type: TABLE DATA; Schema: y; Owner: -\n',
  '-- Dumped from database version 15.14\n',
  '-- Dumped by pg_dump version 15.14\n',
  '-- PostgreSQL database dump complete\n',
];

/** A piece of text that ends near the place where a reader may come to the end of what it holds at a time. */
const stretch = fc
  .tuple(
    fc.constantFrom(2048, 4096, 8192, 16_384, 65_536),
    fc.integer({min: -20, max: 20}),
    fc.constantFrom('x', ' ', '-', '\n'),
  )
  .map(([size, more, filling]) => filling.repeat(size + more));

const soup = fc
  .array(fc.oneof({weight: 60, arbitrary: fc.constantFrom(...fragments)}, {weight: 1, arbitrary: stretch}), {
    maxLength: 40,
  })
  .map((parts) => parts.join(''));

/** Cuts near the marks that matter, and at the sizes that pipes and decompressors give. */
function cuts(bytes: Buffer, places: readonly number[]): Buffer[][] {
  const every = (size: number) =>
    cut(
      bytes,
      Array.from({length: Math.ceil(bytes.length / size)}, (_, index) => index * size),
    );
  return [cut(bytes, places), every(8192), every(65_536), bytes.length < 3000 ? bytewise(bytes) : every(97)];
}

describe('any text', () => {
  it('is read as psql would read it', async () => {
    await holds(
      'text that looks like a dump, cut and strange',
      'read as psql would read it (a plain reading of its lexer), or refused',
      fc.asyncProperty(soup, async (text) => {
        const {inspection, code} = await outcomeOf([Buffer.from(text)]);
        const reading = readPlainly(text);
        expect([undefined, 'DUMP_UNREADABLE']).toContain(code);
        if (!inspection || !reading) return expect([inspection, reading]).toEqual([undefined, undefined]);
        const {contents, isComplete, versions, commands} = inspection;
        expect({...contents, isComplete, versions, commands}).toEqual({
          ...reading,
          commands: reading.commands.slice(0, 10),
        });
      }),
      {short: 1500, full: 50_000},
    );
  });

  it('is inspected with the same result however it is cut, and passed on unchanged', async () => {
    await holds(
      'such text, in pieces of any size',
      'the same result for each, passed on unchanged',
      fc.asyncProperty(soup, cutPlaces, async (text, places) => {
        const bytes = Buffer.from(text);
        const whole = await inspectionOf([bytes]);
        if (whole.inspection) expect(whole.released.equals(bytes)).toBe(true);
        for (const chunks of cuts(bytes, places)) {
          expect(await outcomeOf(chunks)).toEqual({inspection: whole.inspection, code: whole.code});
        }
      }),
      {short: 400},
    );
  });

  it('is given to psql only if the inspector found no command, and the same however it is cut', async () => {
    await holds(
      'such text, on its way to psql',
      'psql is given it only if there is no command in it',
      fc.asyncProperty(soup, cutPlaces, async (text, places) => {
        const bytes = Buffer.from(text);
        const {inspection} = await outcomeOf([bytes]);
        const whole = await forPsqlOf([bytes]);
        expect(whole.code === undefined).toBe(inspection !== undefined && inspection.commands.length === 0);
        for (const chunks of cuts(bytes, places)) expect(await forPsqlOf(chunks)).toEqual(whole);
      }),
      {short: 400},
    );
  });

  it('of arbitrary bytes ends with a result or a refusal', async () => {
    await holds(
      'arbitrary bytes',
      'a result, or a refusal',
      fc.asyncProperty(fc.uint8Array({maxLength: 3000}), cutPlaces, async (values, places) => {
        const bytes = Buffer.from(values);
        const whole = await outcomeOf([bytes]);
        expect(await outcomeOf(cut(bytes, places))).toEqual(whole);
        expect([undefined, 'DUMP_UNREADABLE']).toContain(whole.code);
      }),
      {short: 300},
    );
  });
});

describe('a table of any values', () => {
  /** As the server writes a value (PostgreSQL manual, COPY, Text Format; CopyAttributeOutText). */
  const escapes: Record<string, string> = {
    '\b': '\\b',
    '\f': '\\f',
    '\n': '\\n',
    '\r': '\\r',
    '\t': '\\t',
    '\v': '\\v',
    '\\': '\\\\',
  };
  const written = (value: string | null) =>
    value === null ? '\\N' : value.replaceAll(/[\b\f\n\r\t\v\\]/g, (character) => escapes[character] ?? '');
  const value = fc.oneof(
    fc.constantFrom(...fragments).map((text) => text.replaceAll('\0', '')),
    fc.string({unit: 'binary', maxLength: 30}).map((text) => text.replaceAll('\0', '')),
    fc.constant(null),
    stretch,
  );

  it('is counted and digested by the bytes that the server wrote, and leaves the next table alone', async () => {
    await holds(
      'a table of any values, in pieces of any size',
      'rows, bytes and SHA-256 are those of what the server wrote; the next table is whole',
      fc.asyncProperty(
        fc.array(fc.array(value, {minLength: 1, maxLength: 3}), {maxLength: 6}),
        cutPlaces,
        async (rows, places) => {
          const data = rows.map((values) => `${values.map(written).join('\t')}\n`).join('');
          const bytes = Buffer.from(`COPY public.t (a) FROM stdin;\n${data}\\.\n\n\nCOPY u FROM stdin;\n1\n\\.\n`);
          for (const chunks of cuts(bytes, places)) {
            const {inspection} = await outcomeOf(chunks);
            expect(inspection?.commands).toEqual([]);
            expect(inspection?.contents.tables).toMatchObject([
              {
                table: 'public.t',
                rows: rows.length,
                bytes: Buffer.byteLength(data),
                sha256: createHash('sha256').update(data).digest('hex'),
              },
              {table: 'u', rows: 1},
            ]);
          }
        },
      ),
      {short: 60},
    );
  });
});

describe('a random dump with long pieces between its parts', () => {
  it('is taken for what it was made of, wherever a reader comes to the end of what it holds', async () => {
    const filler = fc
      .tuple(fc.constantFrom(2048, 4096, 8192, 65_536, 131_072), fc.integer({min: -40, max: 40}))
      .map(([size, more]): Piece => ({kind: 'sql', text: `SELECT '${'x'.repeat(size + more)}';\n`}));
    await holds(
      'a random dump with long texts at the edges of what a reader holds',
      'taken for what it was made of',
      fc.asyncProperty(filler, randomDump, filler, cutPlaces, async (before, pieces, after, places) => {
        const dump = merged([before, ...pieces, after]);
        const bytes = dumpBytes(dump);
        const rows = dump.filter(({kind}) => kind === 'copyData').map(({text}) => Buffer.byteLength(text));
        for (const chunks of cuts(bytes, places)) {
          const {inspection} = await outcomeOf(chunks);
          expect(inspection).toMatchObject({isComplete: true, commands: [], bytes: bytes.length});
          const tables = inspection?.contents.tables ?? [];
          expect(tables.map((table) => table.table)).toEqual(dump.flatMap(({table}) => table ?? []));
          expect(tables.map((table) => table.bytes).filter(Boolean)).toEqual(rows);
        }
      }),
      {short: 25},
    );
  });
});

describe('a line of 100 MB', () => {
  const length = bySize({short: 10 << 20, full: 100 << 20});
  const block = Buffer.from(
    noise(1 << 16)
      .toString('base64')
      .replaceAll(/[^A-Za-z0-9]/g, 'x'),
  );

  function* line(head: string, tail: string, size: number): Generator<Buffer> {
    yield Buffer.from(head);
    let left = length;
    for (; left > size; left -= size) yield block.subarray(0, size);
    yield block.subarray(0, left);
    yield Buffer.from(tail);
  }

  it.each([
    ['a row', 'COPY t FROM stdin;\n', '\n\\.\n'],
    ['a row after one that looks like the end', 'COPY t FROM stdin;\n\\.x\n', '\n\\.\n'],
    ['a string', "SELECT pg_catalog.lowrite(0, '", "');\n"],
    ['an escape string', "COMMENT ON TABLE t IS E'", "';\n"],
    ['a function body', 'CREATE FUNCTION f() AS $_$', '$_$;\n'],
    ['a comment', '/* ', '*/\n'],
    ['a name', 'SELECT "', '";\n'],
    ['a word', 'SELECT ', ';\n'],
    ['a line comment', '-- ', '\n'],
  ])('as %s is inspected with flat memory', async (what, head, tail) => {
    const results: unknown[] = [];
    for (const size of [65_536, 1000]) {
      const tap = inspect(() => {}, {withEntries: true});
      let passed = 0;
      let peak = 0;
      const before = process.memoryUsage();
      await pipeline(Readable.from(line(head, tail, size), {objectMode: false}), tap, async (chunks) => {
        for await (const chunk of chunks as AsyncIterable<Buffer>) {
          passed += chunk.length;
          const now = process.memoryUsage();
          peak = Math.max(peak, now.arrayBuffers - before.arrayBuffers);
        }
      });
      expect(passed).toBe(Buffer.byteLength(head) + length + Buffer.byteLength(tail));
      // The queues of the streams, and what the garbage collector leaves for later.
      if (isFullRun) expect(peak).toBeLessThan(64 << 20);
      const {contents, commands, bytes} = tap.inspection;
      expect(commands).toEqual([]);
      // The blocks are cut elsewhere, so the digests differ between the sizes.
      results.push({
        tables: contents.tables.map((table) => [table.rows, table.bytes]),
        schema: contents.schema.bytes,
        bytes,
      });
    }
    expect(results[0]).toEqual(results[1]);
    recordTrial({
      area: 'Hostile input: dumps',
      what: `a line of ${length >> 20} MB: ${what}`,
      outcome: 'inspected, with less than 64 MB of buffers',
    });
  });
});
