import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {type DumpHandler, DumpScanner} from '../../../src/lib/dump/scanner.ts';
import {BackupError} from '../../../src/lib/errors.ts';
import {bytewise, cut, cutPlaces} from '../feed.ts';
import {dumpBytes, merged, type Piece, quoteName, randomDump} from './random-dump.ts';

type Event = {kind: keyof DumpHandler; text: string; table?: string; columns?: string};

/** What a scanner says of chunks; neighbouring pieces of SQL and of rows are put together. */
function eventsOf(chunks: Iterable<Buffer>): Event[] {
  const events: Event[] = [];
  const note = (kind: keyof DumpHandler, bytes: Buffer, facts: {table?: string; columns?: string} = {}) => {
    const last = events.at(-1);
    const text = bytes.toString('latin1');
    if (last?.kind === kind && (kind === 'sql' || kind === 'copyData')) last.text += text;
    else events.push({kind, text, ...facts});
  };
  const scanner = new DumpScanner({
    sql: (bytes) => note('sql', bytes),
    restrict: (line) => note('restrict', line),
    command: (line) => note('command', line),
    version: (line) => note('version', line),
    transaction: (line) => note('transaction', line),
    entry: (line) => note('entry', line),
    extension: (line) => note('extension', line),
    constraintDrop: (line) => note('constraintDrop', line),
    indexDrop: (line) => note('indexDrop', line),
    dummyView: (statement) => note('dummyView', statement),
    newSetting: (line) => note('newSetting', line),
    setting: (line) => note('setting', line),
    copyStart: (statement, line) => note('copyStart', line, statement),
    copyData: (bytes) => note('copyData', bytes),
    copyEnd: (line) => note('copyEnd', line),
    complete: (line) => note('complete', line),
  });
  for (const chunk of chunks) scanner.write(chunk);
  scanner.end();
  return events;
}

const scan = (text: string) => eventsOf([Buffer.from(text)]);
const kinds = (text: string) => scan(text).map(({kind}) => kind);
const expected = (pieces: readonly Piece[]): Event[] =>
  pieces.map((piece) => ({...piece, text: Buffer.from(piece.text).toString('latin1')}));

function caught(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('a random dump', () => {
  it('is taken for what it was made of, however it is cut into chunks', () => {
    fc.assert(
      fc.property(randomDump, cutPlaces, (pieces, places) => {
        const bytes = dumpBytes(pieces);
        expect(eventsOf([bytes])).toEqual(expected(pieces));
        expect(eventsOf(cut(bytes, places))).toEqual(expected(pieces));
      }),
      {numRuns: 400},
    );
  });

  it('is taken for the same byte by byte', () => {
    fc.assert(
      fc.property(randomDump, (pieces) => {
        expect(eventsOf(bytewise(dumpBytes(pieces)))).toEqual(expected(pieces));
      }),
      {numRuns: 100},
    );
  });

  it('is taken for the same when the memory of each chunk is used again', () => {
    fc.assert(
      fc.property(randomDump, fc.integer({min: 1, max: 50}), (pieces, size) => {
        const bytes = dumpBytes(pieces);
        const block = Buffer.alloc(size);
        function* reused() {
          for (let at = 0; at < bytes.length; at += size) {
            block.fill(0x21);
            yield block.subarray(0, bytes.copy(block, 0, at, at + size));
          }
        }
        expect(eventsOf(reused())).toEqual(expected(pieces));
      }),
      {numRuns: 100},
    );
  });

  it('cut off anywhere either fails or has no closing line, and never says it was complete', () => {
    fc.assert(
      fc.property(randomDump, fc.nat(), (pieces, place) => {
        const bytes = dumpBytes(pieces);
        // All but the closing line, its line break, and the comment after it.
        const end = place % (bytes.length - '-- PostgreSQL database dump complete\n--\n\n'.length);
        const isInside = pieces.some((piece, index) => {
          const start = dumpBytes(pieces.slice(0, index)).length;
          return piece.kind === 'copyData' && end > start && end < start + Buffer.byteLength(piece.text);
        });
        let events: Event[] | undefined;
        const error = caught(() => {
          events = eventsOf([bytes.subarray(0, end)]);
        });
        if (isInside) expect(error).toMatchObject({code: 'DUMP_UNREADABLE'});
        if (error !== undefined) expect(error).toBeInstanceOf(BackupError);
        else expect(events?.filter(({kind}) => kind === 'complete')).toEqual([]);
      }),
      {numRuns: 300},
    );
  });
});

describe('bytes that are no dump at all', () => {
  const soup = fc
    .array(
      fc.constantFrom(
        'COPY ',
        'x',
        ' FROM stdin;\n',
        '\\.',
        '\n',
        "'",
        '"',
        '$',
        '$a$',
        '--',
        '/*',
        '*/',
        '\\',
        ';',
        '(',
        ')',
        '1',
        'create function f() begin atomic',
        ' end',
        'E',
        '\r',
        '\0',
        'é',
        'BEGIN;',
      ),
      {
        maxLength: 60,
      },
    )
    .map((tokens) => Buffer.from(tokens.join('')));

  it('come out as they went in, the same for every split, or are refused as cut off', () => {
    fc.assert(
      fc.property(soup, cutPlaces, (bytes, places) => {
        const outcome = (chunks: Buffer[]) => {
          let events: Event[] = [];
          const error = caught(() => {
            events = eventsOf(chunks);
          });
          return {
            // Where a command stands inside a statement, it is told beside the SQL that it is a part of.
            commands: events.filter(({kind}) => kind === 'command').map(({text}) => text),
            others: merged(events.filter(({kind}) => kind !== 'command') as Piece[]),
            code: error === undefined ? undefined : (error as BackupError).code,
          };
        };
        const whole = outcome([bytes]);
        expect(outcome(cut(bytes, places))).toEqual(whole);
        expect(outcome(bytewise(bytes))).toEqual(whole);
        expect([undefined, 'DUMP_UNREADABLE']).toContain(whole.code);
      }),
      {numRuns: 1500},
    );
  });
});

describe('the data of a table', () => {
  const copy = (rows: string) => `COPY public.t (a) FROM stdin;\n${rows}\\.\n`;

  it.each([
    '\\.x\n',
    ' \\.\n',
    '\\\\.\n',
    'x\\.\n',
    '\\..\n',
    '\\.\t\n',
    '\r\\.\n',
    'COPY y FROM stdin;\n',
    "'\n",
    '$$\n',
    '\\! rm -rf /\n',
    '\\restrict x\n',
    '-- PostgreSQL database dump complete\n',
    'BEGIN;\n',
    '\n\n',
    '\r\n',
    `${'\\'.repeat(5)}\n`,
  ])('may hold %j', (rows) => {
    expect(scan(copy(rows))).toMatchObject([
      {kind: 'copyStart'},
      {kind: 'copyData', text: rows},
      {kind: 'copyEnd', text: '\\.\n'},
    ]);
  });

  it('may be empty', () => {
    expect(kinds(copy(''))).toEqual(['copyStart', 'copyEnd']);
    expect(eventsOf(bytewise(Buffer.from(copy(''))))).toEqual(scan(copy('')));
  });

  it('may be one line of megabytes', () => {
    const rows = `${'x'.repeat(3 << 20)}\n`;
    const chunks = cut(
      Buffer.from(copy(rows)),
      Array.from({length: 60}, (_, index) => index * 65_536),
    );
    expect(eventsOf(chunks)).toMatchObject([{kind: 'copyStart'}, {kind: 'copyData', text: rows}, {kind: 'copyEnd'}]);
  });

  it('ends at \\. before CR LF too, as it does for psql: what follows is not data', () => {
    for (const rows of ['', 'row\n']) {
      const text = `COPY public.t (a) FROM stdin;\n${rows}\\.\r\n\\! touch /tmp/x\n`;
      const events = scan(text);
      expect(events.at(-1)).toEqual({kind: 'command', text: '\\! touch /tmp/x\n'});
      expect(events.map((event) => event.text).join('')).toBe(text);
      expect(eventsOf(bytewise(Buffer.from(text)))).toEqual(events);
    }
  });
});

describe('the head of a table', () => {
  it.each([
    ['COPY public.t (id, name) FROM stdin;', 'public.t', 'id, name'],
    ['COPY public.nothing  FROM stdin;', 'public.nothing', ''],
    ['COPY "S p"."a""b" ("x, y", "FROM stdin;") FROM stdin;', '"S p"."a""b"', '"x, y", "FROM stdin;"'],
    ['COPY public."two\nlines (a) FROM stdin;\n" (id) FROM stdin;', 'public."two\nlines (a) FROM stdin;\n"', 'id'],
    ['COPY public."(a)" ("b)", "c(") FROM stdin;', 'public."(a)"', '"b)", "c("'],
    ['COPY public."Zürich" ("größe") FROM stdin;', 'public."Zürich"', '"größe"'],
  ])('%j names the table %s', (line, table, columns) => {
    const text = `${line}\n1\n\\.\n`;
    expect(scan(text)).toMatchObject([
      {kind: 'copyStart', table, columns},
      {kind: 'copyData', text: '1\n'},
      {kind: 'copyEnd'},
    ]);
    expect(eventsOf(bytewise(Buffer.from(text)))).toEqual(scan(text));
  });

  it('tells names apart that are not UTF-8', () => {
    const head = (name: string) => eventsOf([Buffer.from(`COPY public."${name}"  FROM stdin;\n\\.\n`, 'latin1')])[0];
    expect(head('caf\xe9')?.table).toBe('public."caf\ufffde9"');
    expect(head('caf\xe8')?.table).toBe('public."caf\ufffde8"');
  });

  it('holds for any name', () => {
    fc.assert(
      fc.property(
        fc.string({unit: 'grapheme', minLength: 1}),
        fc.array(fc.string({unit: 'grapheme', minLength: 1}), {maxLength: 5}),
        (name, columns) => {
          const table = `public.${quoteName(name)}`;
          const list = columns.map(quoteName).join(', ');
          const text = `COPY ${table} ${list && `(${list})`} FROM stdin;\n1\n\\.\n`;
          expect(scan(text)[0]).toMatchObject({kind: 'copyStart', table, columns: list});
        },
      ),
    );
  });

  it('may name 1,600 columns', () => {
    const list = Array.from({length: 1600}, (_, index) => `"${'""'.repeat(60)}${index}"`).join(', ');
    const bytes = Buffer.from(`COPY public.wide (${list}) FROM stdin;\n\\.\n`);
    expect(eventsOf(cut(bytes, [8192, 16_384, 100_000]))).toMatchObject([
      {kind: 'copyStart', columns: list},
      {kind: 'copyEnd'},
    ]);
  });

  it.each(['COPY public.t (a) TO stdout;', 'COPY t FROM program;', 'COPYRIGHT;', 'COPY (SELECT 1) TO stdout;'])(
    '%j is ordinary SQL',
    (line) => {
      expect(kinds(`${line}\nSELECT 1;\n`)).toEqual(['sql']);
    },
  );
});

describe('text that looks like a dump inside quotes', () => {
  const body =
    'BEGIN;\nCOPY x FROM stdin;\n\\.\n\\! rm -rf /\nCOMMIT;\n-- PostgreSQL database dump complete\n\\restrict x\n';

  it.each([
    ['$$', `CREATE FUNCTION f() AS $$;\n${body}$$;\n`],
    ['$_$ around $$', `CREATE FUNCTION f() AS $_$;\n$$\n${body}$$ $_;\n${body}$_$;\n`],
    ['a tag with letters beyond ASCII', `CREATE FUNCTION f() AS $é$;\n${body}$é$;\n`],
    ['single quotes', `CREATE FUNCTION f() AS ';\n''\n${body}';\n`],
    ["E''", `COMMENT ON TABLE t IS E';\n\\'\n${body.replaceAll('\\', '\\\\')}\\\\';\n`],
    ["e''", `COMMENT ON TABLE t IS e'\\';\n${body}';\n`],
    ['a name', `CREATE TABLE "a;\n""\n${body}" ();\n`],
    ['a block comment', `/* ;\n${body}*/\n`],
    ['nested block comments', `/* ;\n/* /* */ ${body}*/\n${body}*/ SELECT 1;\n`],
  ])('is SQL: %s', (_, text) => {
    expect(kinds(text)).toEqual(['sql']);
    expect(eventsOf(bytewise(Buffer.from(text)))).toEqual(scan(text));
  });

  it('is SQL in ordinary strings with backslash escapes when the dump turns standard_conforming_strings off', () => {
    const text = `SET standard_conforming_strings = off;\nSELECT 'it\\'s;\n${body}';\nSELECT 1;\n`;
    expect(kinds(text)).toEqual(['sql']);
    // With the standard reading the string ends at the second quote, and what follows is commands.
    expect(caught(() => kinds(text.replace('off', 'on ')))).toBeDefined();
  });

  it.each([
    ['a backslash at the end of a plain string', "SELECT '\\';\n"],
    ['an identifier that ends in e', "SELECT type'\\';\n"],
    ['a dollar sign inside an identifier', 'SELECT a$b$ ;\n'],
    ['a parameter', 'PREPARE p AS SELECT $1;\n'],
    ['a comment after an e', "SELECT e/**/'\\';\n"],
  ])('does not begin at %s', (_, text) => {
    expect(kinds(`${text}COPY t FROM stdin;\n\\.\n`)).toEqual(['sql', 'copyStart', 'copyEnd']);
  });
});

describe('a psql command outside quotes', () => {
  it.each([
    ['on a line of its own', '\\! rm -rf /\n'],
    ['after a statement', 'SELECT 1; \\! rm -rf /\n'],
    ['inside a statement', 'SELECT 1\n\\! rm -rf /\n;\n'],
    ['inside parentheses', 'SELECT (1\n\\! rm -rf /\n);\n'],
    ['after a closed quote', "SELECT 'a'\\! rm -rf /\n;"],
    ['after a closed dollar quote', 'SELECT $$a$$\\! rm -rf /\n;'],
    ['after a closed block comment', '/* /* */ */\\! rm -rf /\n'],
    ['after a carriage return that ends a comment for psql', '-- harmless\r\\! rm -rf /\n'],
    ['after a carriage return in an entry', '-- Name: x\r\\! rm -rf /\n'],
    ['after a carriage return in a version line', '-- Dumped from database version 15\r\\! rm -rf /\n'],
    ['after a carriage return in the closing line', '-- PostgreSQL database dump complete\r\\! rm -rf /\n'],
    ['after the data of a table', 'COPY t FROM stdin;\n\\.\n\\! rm -rf /\n'],
    ['at the very end, without a line break', 'SELECT 1;\n\\! rm -rf /'],
    ['after spaces', '   \\! rm -rf /\n'],
  ])('is noticed %s, and named in full however it is cut', (_, text) => {
    const commands = (events: Event[]) =>
      events.filter(({kind}) => kind === 'command').map((event) => event.text.trim());
    expect(commands(scan(text))[0]).toMatch(/^\\! rm -rf \//);
    expect(commands(eventsOf(bytewise(Buffer.from(text))))).toEqual(commands(scan(text)));
  });

  it.each(['\\restrict\n', '\\restrict a b\n', '\\restrict a;\\! x\n', '\\restrictx a\n', '\\connect db\n', '\\.\n'])(
    '%j is one, though it resembles what pg_dump writes',
    (line) => {
      expect(scan(line)).toEqual([{kind: 'command', text: line}]);
    },
  );
});

/** Read by a psql of its own rules, each of these would run the command: measured with psql 15. */
describe('where psql does not end a statement, neither does the scanner', () => {
  const table = 'COPY t FROM stdin;\n\\! rm -rf /\n\\.\n';

  it.each([
    ['inside parentheses', `SELECT (;\n${table}`],
    ['inside the body of an SQL-standard function', `CREATE FUNCTION f() BEGIN ATOMIC;\n${table}`],
    ['with CASE in it', `create or replace procedure f() Begin atomic; case end;\n${table}`],
  ])('%s', (_, text) => {
    for (const events of [scan(text), eventsOf(bytewise(Buffer.from(text)))]) {
      expect(events.filter(({kind}) => kind !== 'sql').map((event) => event.text)).toEqual(['\\! rm -rf /', '\\.']);
    }
  });

  it.each([
    ['after closed parentheses', 'SELECT (1);\nCREATE RULE r DO (SELECT 1; SELECT 2);\n'],
    ['after a closing parenthesis too many', 'SELECT );\n'],
    ['after the end of a function', 'CREATE FUNCTION f()\n BEGIN ATOMIC\n SELECT CASE WHEN a THEN 1 END;\nEND;\n'],
    ['after a transaction', 'SELECT 1; BEGIN ;\n'],
    ['after words in parentheses and names', 'CREATE FUNCTION f(begin int) RETURNS "begin";\n'],
    ['after a word that only begins so', 'CREATE FUNCTION beginning_of_all_things() RETURNS a.begins;\n'],
  ])('%s it does', (_, text) => {
    expect(kinds(`${text}COPY t FROM stdin;\n\\.\n`)).toEqual(['sql', 'copyStart', 'copyEnd']);
  });
});

it('a function named begin is refused: psql does not find the end of its statement', () => {
  const text = "CREATE FUNCTION public.begin() RETURNS integer\n    LANGUAGE sql\n    AS 'SELECT 1';\n";
  const error = caught(() => eventsOf([Buffer.from(text)]));
  expect(error).toMatchObject({code: 'DUMP_UNREADABLE', reason: expect.stringContaining('named begin')});
  expect(kinds('DROP FUNCTION public.begin();\nBEGIN;\n')).toEqual(['sql', 'transaction']);
});

it.each(['E', 'B', 'n', 'X'])("the letter of %s'' is no word of the statement", (letter) => {
  const text = `${letter}''CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT 1;\nCOPY t FROM stdin;\n`;
  expect(kinds(text)).toEqual(['sql']);
});

describe('SQL that versions of psql read in different ways', () => {
  it.each([
    ['a dollar quote after a number', 'SELECT 1$a$ ;$a$;\n'],
    ['a dollar quote after a parameter', 'SELECT $1$a$ ;$a$;\n'],
    ['an E string after a number', "SELECT 1e'\\';\n"],
    ['a string after a number', "SELECT 1'a';\n"],
    ['a dollar sign after a number alone', 'SELECT 1$;\n'],
    ['a dollar sign before a word', '$CREATE FUNCTION f() BEGIN ATOMIC ;\n'],
    ['a keyword after a number', '1CREATE FUNCTION f() BEGIN ATOMIC ;\n'],
    ['a keyword after a long number', `CREATE FUNCTION f() ${'1'.repeat(40)}begin ;\n`],
    ['a keyword after a parameter', 'CREATE FUNCTION f() $1BEGIN ATOMIC ;\n'],
    ['a NUL byte', "SELECT 'a' \0'\n\\! rm -rf /\n';\n"],
  ])('is refused: %s', (_, text) => {
    for (const chunks of [[Buffer.from(text)], bytewise(Buffer.from(text))]) {
      expect(caught(() => eventsOf(chunks))).toMatchObject({code: 'DUMP_UNREADABLE', exitCode: 5});
    }
  });
});

describe('a line of megabytes', () => {
  const long = 3 << 20;

  it.each([
    ['a name of line breaks', `COPY "${'\n'.repeat(long)}" FROM stdin;\n`],
    ['names without an end', `COPY t (${'"a", '.repeat(long / 5)}FROM stdin;\n`],
    ['a comment on an extension', `COMMENT ON EXTENSION a IS '${'x'.repeat(long)}';\n`],
    ['a comment', `-- Name: ${'x'.repeat(long)}\n`],
    ['a statement', `BEGIN;${' '.repeat(long)}\n`],
    ['a command', `\\restrict ${'x'.repeat(long)}\n`],
  ])('is read in passing, the same for every split: %s', (_, text) => {
    const places = Array.from({length: 50}, (__, index) => index * 65_536);
    const summary = (chunks: Buffer[]) => eventsOf(chunks).map((event) => [event.kind, event.text.length]);
    const bytes = Buffer.from(text);
    expect(summary(cut(bytes, places))).toEqual(summary([bytes]));
  });
});

describe('a dump that ends too early', () => {
  it.each([
    ['inside rows', 'COPY t FROM stdin;\n1\n', /data of a table/],
    ['before the first row', 'COPY t FROM stdin;\n', /data of a table/],
    ['inside the end of rows', 'COPY t FROM stdin;\n1\n\\.', /data of a table/],
    ['inside a string', "SELECT 'abc", /quoted/],
    ['inside an E string', "SELECT E'abc\\'", /quoted/],
    ['inside a name', 'SELECT "abc', /quoted/],
    ['inside a function body', 'AS $_$ BEGIN', /quoted/],
    ['inside the end of a function body', 'AS $_$ BEGIN $_', /quoted/],
    ['inside a block comment', '/* /* */', /quoted/],
  ])('is refused %s', (_, text, reason) => {
    for (const chunks of [[Buffer.from(text)], bytewise(Buffer.from(text))]) {
      const error = caught(() => eventsOf(chunks));
      expect(error).toBeInstanceOf(BackupError);
      expect(error).toMatchObject({code: 'DUMP_UNREADABLE', exitCode: 5, reason: expect.stringMatching(reason)});
    }
  });

  it('inside a line comment or a statement is left to the closing line to notice', () => {
    expect(kinds('SELECT 1')).toEqual(['sql']);
    expect(kinds('-- abc')).toEqual(['sql']);
  });
});
