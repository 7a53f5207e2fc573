import {createHash} from 'node:crypto';
import {readFileSync} from 'node:fs';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {countLines} from '../../../src/lib/dump/count-lines.ts';
import {type Inspection, inspect, requireComplete} from '../../../src/lib/dump/inspect.ts';
import {BackupError} from '../../../src/lib/errors.ts';
import {bytewise, cut, cutPlaces, feed, tryFeed} from '../feed.ts';
import {dumpBytes, type Piece, randomDump} from './random-dump.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

async function inspectionOf(chunks: Iterable<Buffer>): Promise<Inspection> {
  const tap = inspect();
  await feed(chunks, tap);
  return tap.inspection;
}

/** The inspection, counted from the pieces that the dump was made of. */
function expectedOf(pieces: readonly Piece[]): Omit<Inspection, 'entries'> {
  const starts = pieces.flatMap((piece, index) => (piece.kind === 'copyStart' ? [index] : []));
  const schema = pieces
    .filter(({kind}) => !['copyData', 'restrict', 'version'].includes(kind))
    .map(({text}) => text)
    .join('');
  return {
    contents: {
      tables: starts.map((index) => {
        const next = pieces[index + 1];
        const rows = next?.kind === 'copyData' ? next.text : '';
        return {
          table: pieces[index]?.table ?? '',
          columns: pieces[index]?.columns ?? '',
          rows: rows.split('\n').length - 1,
          bytes: Buffer.byteLength(rows),
          sha256: sha256(rows),
        };
      }),
      schema: {bytes: Buffer.byteLength(schema), sha256: sha256(schema)},
    },
    bytes: dumpBytes(pieces).length,
    isComplete: true,
    versions: {
      server: pieces.some(({kind, text}) => kind === 'version' && text.startsWith('-- Dumped from'))
        ? '15.14'
        : undefined,
      pgDump: pieces.some(({kind, text}) => kind === 'version' && text.startsWith('-- Dumped by'))
        ? '15.14'
        : undefined,
    },
    commands: [],
    tablesWithoutRows:
      pieces.some(({text}) => text.startsWith('-- Name: patients; Type: TABLE;')) &&
      !starts.some((index) => pieces[index]?.table === 'public.patients')
        ? [{schema: 'public', name: 'patients'}]
        : [],
    tablespaces: pieces.some(({kind, text}) => kind === 'setting' && text.includes('Fast')) ? ["Fast; Disk's"] : [],
  };
}

describe('inspecting a random dump', () => {
  it('counts and digests every table and the rest, however it is cut, and passes it on unchanged', async () => {
    await fc.assert(
      fc.asyncProperty(randomDump, cutPlaces, async (pieces, places) => {
        const bytes = dumpBytes(pieces);
        const tap = inspect();
        expect((await feed(cut(bytes, places), tap)).equals(bytes)).toBe(true);
        expect(tap.inspection).toMatchObject(expectedOf(pieces));
      }),
      {numRuns: 150},
    );
  });

  it('gives the same for two dumps that differ in token and versions only', async () => {
    const dump = (token: string, version: string) =>
      `\\restrict ${token}\n\n-- Dumped from database version ${version}\n-- Dumped by pg_dump version ${version}\n\nSELECT 1;\n\\unrestrict ${token}\n`;
    const one = await inspectionOf([Buffer.from(dump('aaa', '15.14'))]);
    const other = await inspectionOf([Buffer.from(dump('BBBB', '18.1 (Debian)'))]);
    expect(one.contents).toEqual(other.contents);
    expect(one.commands).toEqual([]);
  });

  it('gives another schema digest when a table is renamed, and another table digest when a value changes', async () => {
    const dump = (table: string, value: string) => Buffer.from(`COPY public.${table} (a) FROM stdin;\n${value}\n\\.\n`);
    const one = await inspectionOf([dump('t', 'x')]);
    const renamed = await inspectionOf([dump('u', 'x')]);
    const changed = await inspectionOf([dump('t', 'y')]);
    expect(renamed.contents.schema.sha256).not.toBe(one.contents.schema.sha256);
    expect(changed.contents.schema).toEqual(one.contents.schema);
    expect(changed.contents.tables[0]?.sha256).not.toBe(one.contents.tables[0]?.sha256);
  });
});

describe('inspecting', () => {
  it('reports the running total of bytes at every chunk', async () => {
    const totals: number[] = [];
    await feed(
      ['SELECT 1;\n', 'SELECT 2;\n'].map((text) => Buffer.from(text)),
      inspect((total) => totals.push(total)),
    );
    expect(totals).toEqual([10, 20]);
  });

  it('has no result before the end', () => {
    expect(() => inspect().inspection).toThrow(/not been read to its end/);
  });

  it('notices a missing closing line', async () => {
    const inspection = await inspectionOf([Buffer.from('SELECT 1;\n')]);
    expect(inspection.isComplete).toBe(false);
    expect(() => requireComplete(inspection)).toThrow(
      expect.objectContaining({code: 'DUMP_UNREADABLE', exitCode: 5, hint: expect.stringMatching(/another backup/)}),
    );
  });

  it('does not take a closing line inside a function body or a row for the end', async () => {
    const line = '-- PostgreSQL database dump complete\n';
    const bytes = Buffer.from(`SELECT $$;\n${line}$$;\nCOPY t FROM stdin;\n${line}\\.\n`);
    expect((await inspectionOf(bytewise(bytes))).isComplete).toBe(false);
  });

  it('fails when the dump is cut off inside rows or quotes', async () => {
    for (const text of ['COPY t FROM stdin;\n1\n', "SELECT '"]) {
      const {error} = await tryFeed([Buffer.from(text)], inspect());
      expect(error).toBeInstanceOf(BackupError);
      expect(error).toMatchObject({code: 'DUMP_UNREADABLE'});
    }
  });

  it('records psql commands, ten at the most, shortened, the same for every split', async () => {
    const bytes = Buffer.from(`SELECT 1 \\! ${'x'.repeat(200)}\n;\n${'\\echo hello\n'.repeat(20)}`);
    const {commands} = await inspectionOf([bytes]);
    expect(commands).toHaveLength(10);
    expect(commands[0]).toBe(`\\! ${'x'.repeat(77)}`);
    expect(commands[1]).toBe('\\echo hello');
    expect((await inspectionOf(bytewise(bytes))).commands).toEqual(commands);
  });
});

describe('a dump that pg_dump 15 wrote of a database with odd names', () => {
  const bytes = readFileSync(new URL('../../fixtures/dumps/odd-names.sql', import.meta.url));

  it('holds its tables with their rows, whole or in pieces of a few bytes', async () => {
    const inspection = await inspectionOf([bytes]);
    expect(inspection).toMatchObject({
      isComplete: true,
      commands: [],
      tablesWithoutRows: [],
      bytes: bytes.length,
      versions: {server: '15.18', pgDump: '15.18'},
    });
    expect(inspection.contents.tables.map(({table, columns, rows}) => [table, columns, rows])).toEqual([
      ['"Odd schema"."Odd ""name"" FROM stdin;"', '"a b", "c,d", "e)f"', 3],
      ['public."line\nbreak"', 'id', 1],
      ['public.nothing', '', 2],
      ['public.patients', 'id, note', 5],
      ['public.vacant', 'id', 0],
    ]);
    for (const size of [1, 7, 64]) {
      const places = Array.from({length: Math.ceil(bytes.length / size)}, (_, index) => index * size);
      expect(await inspectionOf(cut(bytes, places))).toEqual(inspection);
    }
  });
});

describe('countLines', () => {
  it('counts what a split at line breaks counts, at any offset in memory', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constant(0x0a), fc.integer({min: 0, max: 255})), {maxLength: 300}),
        fc.nat({max: 16}),
        (values, offset) => {
          const memory = Buffer.alloc(offset + values.length + 16, 0x0a);
          Buffer.from(values).copy(memory, offset);
          const bytes = memory.subarray(offset, offset + values.length);
          expect(countLines(bytes)).toBe(bytes.toString('latin1').split('\n').length - 1);
        },
      ),
      {numRuns: 500},
    );
  });

  it('counts in megabytes too', () => {
    expect(countLines(Buffer.alloc(3_000_001, 0x0a))).toBe(3_000_001);
    expect(countLines(Buffer.alloc(3_000_001, 'abc\n'))).toBe(750_000);
  });
});
