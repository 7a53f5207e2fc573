/**
 * In place of pg_dump, for more than a database can be made for: the bytes of a dump of many tables. The rows of a block of
 * 16 MB come again and again; gzip looks back 32 KB, and zstd's blocks are smaller.
 *
 *     node pg-dump.ts BYTES MAJOR [arguments of pg_dump]
 */
import {writeSync} from 'node:fs';
import {Random} from '../support/random.ts';

const [, , bytes, major, ...pgDumpArguments] = process.argv;
const totalBytes = Number(bytes);
const tableBytes = Math.min(totalBytes / 4, 1e9);
const blockBytes = 16e6;

if (pgDumpArguments.includes('--version')) {
  // Of the newest minor version, so that this one is chosen among those on the machine.
  write(`pg_dump (PostgreSQL) ${major}.999\n`);
} else {
  dump();
}

function dump(): void {
  write(`--\n-- PostgreSQL database dump\n--\n
-- Dumped from database version 15.1\n-- Dumped by pg_dump version 15.1\n
SET standard_conforming_strings = on;\n
`);
  const rows = block();
  let written = 0;
  for (let number = 1; written < totalBytes; number++) {
    write(`--\n-- Data for Name: visits_${number}; Type: TABLE DATA; Schema: public; Owner: -\n--\n
COPY public.visits_${number} (id, patient, at, weight, note) FROM stdin;\n`);
    for (const end = Math.min(written + tableBytes, totalBytes); written < end; written += rows.length) write(rows);
    write('\\.\n\n\n');
  }
  write('--\n-- PostgreSQL database dump complete\n--\n\n');
}

function block(): Buffer {
  const random = new Random(1);
  const words = [
    'admitted',
    'discharged',
    'stable',
    'fever',
    'follow-up',
    'Müller',
    '\\N',
    'fasting\\nglucose',
    'O\\\\E',
  ];
  const rows: string[] = [];
  for (let length = 0, id = 1; length < blockBytes; id++) {
    const [a, b] = [random.below(2 ** 31), random.below(2 ** 31)];
    const note = Array.from({length: 1 + (a % 16)}, () => words[random.below(words.length)]).join(' ');
    const row = `${id}\tP-${a}\t2025-0${1 + (b % 9)}-1${b % 10} 08:00:00.${b}+00\t${a % 200}.${b % 100}\t${note}\n`;
    rows.push(row);
    length += row.length;
  }
  return Buffer.from(rows.join(''));
}

function write(content: string | Buffer): void {
  let rest = Buffer.from(content);
  while (rest.length > 0) rest = rest.subarray(writeSync(1, rest));
}
