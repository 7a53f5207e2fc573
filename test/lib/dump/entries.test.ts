import {describe, expect, it} from '@jest/globals';
import {type DumpEntry, entryDifferences, headOf, shortHead} from '../../../src/lib/dump/entries.ts';

const head = (name: string, type: string) => `Name: ${name}; Type: ${type}; Schema: public; Owner: -`;

function entry(name: string, type: string, digest: string, lines = digest): DumpEntry {
  return {head: head(name, type), sha256: digest.repeat(64), linesSha256: lines.repeat(64)};
}

const dump = [entry('t', 'TABLE', 'a'), entry('t_idx', 'INDEX', 'b'), entry('s', 'SEQUENCE SET', 'c')];

describe('the differences between the objects of two dumps', () => {
  it('are none for the same objects in another order', () => {
    expect(entryDifferences(dump, dump.toReversed())).toEqual([]);
  });

  it('name what is missing, what is too much, and what reads otherwise', () => {
    const other = [entry('t', 'TABLE', 'f'), entry('v', 'VIEW', 'd'), entry('s', 'SEQUENCE SET', 'c')];
    const found = entryDifferences(dump, other).join('\n');
    expect(found).toContain('missing: INDEX public.t_idx');
    expect(found).toContain('not in the backup: VIEW public.v');
    expect(found).toContain('differs: TABLE public.t');
  });

  it('of other versions are looked for by name, but for what is data: sequences and large objects', () => {
    const newer = [entry('t', 'TABLE', 'f'), entry('t_idx', 'INDEX', 'f'), entry('s', 'SEQUENCE SET', 'c')];
    expect(entryDifferences(dump, newer, {onlyNames: true})).toEqual([]);
    const wrong = [entry('t', 'TABLE', 'f'), entry('s', 'SEQUENCE SET', 'f')];
    const found = entryDifferences(dump, wrong, {onlyNames: true}).join('\n');
    expect(found).toContain('missing: INDEX public.t_idx');
    expect(found).toContain('differs: SEQUENCE SET public.s');
  });

  it('do not count extensions, their comments, and the schema public', () => {
    const harmless = [
      entry('pgcrypto', 'EXTENSION', 'a'),
      entry('EXTENSION pgcrypto', 'COMMENT', 'a'),
      entry('public', 'SCHEMA', 'a'),
      entry('SCHEMA public', 'COMMENT', 'a'),
    ];
    expect(entryDifferences([...dump, ...harmless], dump)).toEqual([]);
    expect(entryDifferences(dump, [...dump, ...harmless])).toEqual([]);
  });

  it('forgive another order of columns in a table, and no other column', () => {
    expect(entryDifferences(dump, [entry('t', 'TABLE', 'f', 'a'), ...dump.slice(1)])).toEqual([]);
    expect(entryDifferences(dump, [entry('t', 'TABLE', 'f', 'e'), ...dump.slice(1)])).toHaveLength(1);
  });

  it('do not forgive another order of lines in anything else', () => {
    const view = entry('v', 'VIEW', 'g', 'b');
    expect(entryDifferences([view], [entry('v', 'VIEW', 'h', 'b')])).toHaveLength(1);
  });

  it('are headed without the tablespace, which is the server’s', () => {
    const plain = '-- Name: a; Type: TABLE; Schema: public; Owner: -';
    expect(headOf(Buffer.from(`${plain}; Tablespace: Fast Disk\n`))).toBe(plain.slice(3));
    expect(headOf(Buffer.from(`${plain}\n`))).toBe(plain.slice(3));
    const odd = '-- Data for Name: b; Tablespace: c; Type: TABLE DATA; Schema: public; Owner: -';
    expect(headOf(Buffer.from(`${odd}\n`))).toBe(odd.slice(3));
  });

  it('are told in few words', () => {
    expect(shortHead(head('t', 'TABLE'))).toBe('TABLE public.t');
    expect(shortHead('something else')).toBe('something else');
  });
});
