/** Random dumps as pg_dump writes them, made of pieces that say what a scanner should take each for. */
import fc from 'fast-check';

export type PieceKind =
  | 'sql'
  | 'restrict'
  | 'version'
  | 'transaction'
  | 'entry'
  | 'extension'
  | 'constraintDrop'
  | 'indexDrop'
  | 'dummyView'
  | 'newSetting'
  | 'setting'
  | 'copyStart'
  | 'copyData'
  | 'copyEnd'
  | 'complete';

export interface Piece {
  kind: PieceKind;
  text: string;
  /** Of a `copyStart`. */
  table?: string;
  columns?: string;
}

const oneOf = (...pieces: Piece[]): Piece[] => pieces;

/** Lines that mean something to psql, or to a scanner, when they stand outside quotes. */
const trickyLines = [
  'COPY x FROM stdin;',
  'COPY public.x (a, b) FROM stdin;',
  '\\.',
  'BEGIN;',
  'COMMIT;',
  '\\! rm -rf /',
  '\\restrict abc',
  '\\unrestrict abc',
  "it's",
  "''",
  '"',
  '--',
  '-- Name: x; Type: TABLE; Schema: y; Owner: -',
  '-- Dumped from database version 99',
  '-- PostgreSQL database dump complete',
  '/*',
  '*/',
  '$$',
  '$_$',
  '$',
  '\\',
  ';',
  'a\rb',
  'Ärztin 🩺',
  '',
  'SET standard_conforming_strings = off;',
];

const trickyText = fc
  .array(fc.oneof(fc.constantFrom(...trickyLines), fc.string({maxLength: 8})), {maxLength: 6})
  .map((lines) => lines.join('\n'));

const quoteString = (text: string) => `'${text.replaceAll("'", "''")}'`;
const quoteEscapeString = (text: string) =>
  `E'${text.replaceAll('\\', '\\\\').replaceAll("'", (_, at: number) => (at % 2 ? "''" : "\\'"))}'`;
const quoteDollar = (text: string) => {
  const tag = ['$$', '$_$', '$_X$', '$long_tag_é$'].find(
    (candidate) => (text + candidate).indexOf(candidate) === text.length,
  );
  return tag === undefined ? quoteString(text) : tag + text + tag;
};

/** A quoted name of any text: never empty, as PostgreSQL has it. */
export const quoteName = (text: string) => `"${(text || 'empty').replaceAll('"', '""')}"`;

const quoted = fc
  .tuple(trickyText, fc.constantFrom(quoteString, quoteEscapeString, quoteDollar, quoteName))
  .map(([text, quote]) => quote(text));

const blockComment = trickyText.map(
  (text) => `/* ${text.replaceAll(/\/\*|\*\//g, '').replaceAll(/[/*]/g, '')} /* nested */ still */`,
);
const lineComment = trickyText.map((text) => `-- ${text.replaceAll(/[\r\n]/g, ' ')}`.replace(/^-- -- /, '-- '));

const word = fc.constantFrom(
  'CREATE',
  'FUNCTION',
  'x',
  'e',
  'E',
  '1 - 2',
  'a / b',
  '$1',
  'price$usd',
  'now()',
  ',',
  '=',
  '(x)',
  '((1) + 2)',
);

/** A statement; it begins with a word, so that it is not taken for something else. */
const statement = fc
  .array(fc.oneof({weight: 3, arbitrary: word}, {weight: 3, arbitrary: quoted}, {weight: 1, arbitrary: blockComment}), {
    maxLength: 6,
  })
  .chain((tokens) =>
    fc.constantFrom(' ', '\n', '\n    ').map((space) => oneOf({kind: 'sql', text: `SELECT ${tokens.join(space)};\n`})),
  );

const remark = lineComment
  .filter((text) => !/^-- (Name: |Dumped |Data for Name: |PostgreSQL database dump complete)/.test(text))
  .map((text) => oneOf({kind: 'sql', text: `${text}\n\n`}));

const plainName = fc.constantFrom('patients', 'visits', '_v2');
const anyName = fc.oneof(
  plainName,
  fc
    .constantFrom('Odd name', 'a"b', 'line\nbreak', ' FROM stdin;', 'x (y) FROM stdin;\n', '(,).', 'naïve')
    .map(quoteName),
);

/** A row of COPY text: as the server escapes it, and rows that only look like the end. */
const row = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .array(trickyText, {minLength: 1, maxLength: 3})
      .map((values) =>
        values
          .map((value) =>
            value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\r', '\\r').replaceAll('\t', '\\t'),
          )
          .join('\t'),
      ),
  },
  {weight: 1, arbitrary: fc.constantFrom('\\.x', ' \\.', '\\\\.', '\\..', '\\. ', '\\N', '.', '\\', "'", '\\.\t\r')},
);

const table = fc
  .record({
    schema: anyName,
    name: anyName,
    columns: fc.array(anyName, {maxLength: 3}),
    rows: fc.array(row, {maxLength: 6}),
  })
  .map(({schema, name, columns, rows}): Piece[] => {
    const qualified = `${schema}.${name}`;
    const list = columns.join(', ');
    return [
      {
        kind: 'copyStart',
        text: `COPY ${qualified} ${list ? `(${list})` : ''} FROM stdin;\n`,
        table: qualified,
        columns: list,
      },
      {kind: 'copyData', text: rows.map((text) => `${text}\n`).join('')},
      {kind: 'copyEnd', text: '\\.\n'},
      {kind: 'sql', text: '\n\n'},
    ];
  });

const special = fc.constantFrom<Piece[]>(
  [
    {kind: 'sql', text: '--\n'},
    {kind: 'entry', text: '-- Name: patients; Type: TABLE; Schema: public; Owner: -\n'},
    {kind: 'sql', text: '--\n\n'},
  ],
  [{kind: 'entry', text: '-- Data for Name: "COPY x"; Type: TABLE DATA; Schema: public; Owner: -\n'}],
  [{kind: 'version', text: '-- Dumped from database version 15.14 (Debian 15.14-1)\n'}],
  [{kind: 'version', text: '-- Dumped by pg_dump version 15.14\n'}],
  [{kind: 'extension', text: 'DROP EXTENSION IF EXISTS "uuid-ossp";\n'}],
  [{kind: 'extension', text: "COMMENT ON EXTENSION pgcrypto IS 'it''s cryptographic; functions';\n"}],
  [{kind: 'newSetting', text: 'SET transaction_timeout = 0;\n'}],
  [{kind: 'constraintDrop', text: 'ALTER TABLE IF EXISTS ONLY public."a; b" DROP CONSTRAINT IF EXISTS "c; d";\n'}],
  [{kind: 'constraintDrop', text: 'ALTER DOMAIN app."a;\n b" DROP CONSTRAINT IF EXISTS c;\n'}],
  [{kind: 'indexDrop', text: 'DROP INDEX IF EXISTS app."a;\n";\n'}],
  [{kind: 'dummyView', text: 'CREATE OR REPLACE VIEW app.v AS\nSELECT\n    NULL::integer AS id;\n'}],
  [
    {
      kind: 'dummyView',
      text: 'CREATE OR REPLACE VIEW app."v;\n""" AS\nSELECT\n    NULL::app."m;\n" AS "a "" ;\n",\n    NULL::numeric(10,2)[] COLLATE app."x;\n" AS b;\n',
    },
  ],
  [{kind: 'dummyView', text: 'CREATE OR REPLACE VIEW app.nothing AS\nSELECT;\n'}],
  // The view itself, as pg_get_viewdef writes it.
  [{kind: 'sql', text: 'CREATE OR REPLACE VIEW app.v AS\n SELECT t.id,\n    NULL::integer AS n\n   FROM app.t;\n'}],
  [{kind: 'setting', text: "SET default_tablespace = '';\n"}],
  [{kind: 'setting', text: `SET default_tablespace = "Fast; Disk's";\n`}],
  [{kind: 'setting', text: 'SET default_table_access_method = heap;\n'}],
  [{kind: 'restrict', text: '\\restrict aB3\n'}],
  [{kind: 'restrict', text: '\\unrestrict aB3\n'}],
  [
    {kind: 'transaction', text: 'BEGIN;\n'},
    {kind: 'sql', text: "SELECT pg_catalog.lo_open('1', 131072);\n"},
    {kind: 'transaction', text: 'COMMIT;\n'},
  ],
);

const closing: Piece[] = [
  {kind: 'sql', text: '--\n'},
  {kind: 'complete', text: '-- PostgreSQL database dump complete\n'},
  {kind: 'sql', text: '--\n\n'},
];

/** Merges neighbours of a kind, and drops empty ones: SQL and rows come in any pieces. */
export function merged(pieces: readonly Piece[]): Piece[] {
  const result: Piece[] = [];
  for (const piece of pieces) {
    if (piece.text === '') continue;
    const last = result.at(-1);
    if (last && last.kind === piece.kind && (piece.kind === 'sql' || piece.kind === 'copyData')) {
      result[result.length - 1] = {...last, text: last.text + piece.text};
    } else {
      result.push(piece);
    }
  }
  return result;
}

/** A whole dump, with its closing line. */
export const randomDump = fc
  .array(fc.oneof({weight: 3, arbitrary: statement}, {weight: 3, arbitrary: table}, remark, special), {maxLength: 12})
  .map((blocks) => merged([...blocks.flat(), ...closing]));

export function dumpBytes(pieces: readonly Piece[]): Buffer {
  return Buffer.from(pieces.map(({text}) => text).join(''));
}
