import {Readable, Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {execute, processFailure, readFrom, withoutValues, writeTo} from '../../../src/lib/postgres/process.ts';

describe('an error of psql', () => {
  it.each([
    ['invalid input syntax for type integer: "Jane Doe 123"', 'invalid input syntax for type integer: "…"'],
    [
      'invalid input syntax for type date: "x"y" at character 8',
      'invalid input syntax for type date: "…" at character 8',
    ],
    ['invalid input value for enum mood: "secret"', 'invalid input value for enum mood: "…"'],
    ['value "99999999999" is out of range for type integer', 'value "…" is out of range for type integer'],
    ['date/time field value out of range: "2025-99-99"', 'date/time field value out of range: "…"'],
    [
      'duplicate key value violates unique constraint "t_pkey"',
      'duplicate key value violates unique constraint "t_pkey"',
    ],
    ['malformed array literal: "{secret"', 'malformed array literal: "…"'],
    ['time zone "secret" not recognized', 'time zone "…" not recognized'],
    ['relation "public.patients" does not exist', 'relation "public.patients" does not exist'],
  ])('is shown without values of rows: %s', (message, shown) => {
    expect(withoutValues(message)).toBe(shown);
  });

  it.each([
    [
      'psql:<stdin>:12: FEHLER:  ungültiger Eingabewert für Enum public.st: »PHI\nFEHLER:  PHI«\nKONTEXT:  COPY p, Zeile 2: »PHI«',
      'psql:<stdin>:12: FEHLER:  ungültiger Eingabewert für Enum public.st…',
    ],
    ['ОШИБКА:  неверный синтаксис для типа date: "PHI"', 'ОШИБКА:  неверный синтаксис для типа date…'],
    ['エラー:  "PHI"は不正です', 'エラー:  …'],
    [
      'psql:<stdin>:3: NOTICE:  x\npsql:<stdin>:4: ERREUR:  valeur « PHI » hors limites\nDÉTAIL : PHI',
      'psql:<stdin>:3: NOTICE…\npsql:<stdin>:4: ERREUR:  valeur …',
    ],
    [
      'pg_dump: error: Dumping the contents of table "t" failed: PQgetResult() failed.\npg_dump: detail: Error message from server: FEHLER:  Wert »PHI« ist falsch\nKONTEXT:  PHI',
      'pg_dump: error: Dumping the contents of table …\npg_dump: detail: Error message from server: FEHLER:  Wert …',
    ],
  ])('is shown without values of rows in a language of the server, too: %j', (message, shown) => {
    expect(withoutValues(message)).toBe(shown);
  });

  it('keeps what a failed row count says', () => {
    const message = 'invalid input syntax for type integer: "loma-backup: row count: table public.x has 1 rows, not 2"';
    expect(withoutValues(message)).toBe(message);
    const german = 'psql:<stdin>:9: FEHLER:  ungültig: »loma-backup: row count: table public.x has 1 rows, not 2«';
    expect(withoutValues(german)).toBe(german);
  });

  it('is shown without the lines that quote rows and statements', () => {
    const message = [
      'ERROR:  duplicate key value violates unique constraint "p_pkey"',
      'DETAIL:  Key (ssn)=(123-45-6789) already exists.',
      'CONTEXT:  COPY p, line 2: "123-45-6789"',
      "LINE 1: insert into p values ('123-45-6789')",
      'pg_dump: detail: Error message from server: ERROR:  x',
    ].join('\n');
    const shown = withoutValues(message);
    expect(shown).not.toContain('123-45');
    expect(shown).toContain('p_pkey');
    expect(shown).toContain('Error message from server');
  });
});

describe('a value of a row', () => {
  /** Of some lines, with quotes anywhere. */
  const value = fc
    .array(fc.constantFrom('PHI', '"', ': "', ' ', 'value "', "'", '\\', '\t', '^'), {minLength: 1, maxLength: 12})
    .map((parts) => parts.join(''));
  const lines = fc.array(value, {minLength: 1, maxLength: 30}).map((texts) => texts.join('\n'));
  const prefix = fc.constantFrom('', 'psql:<stdin>:12: ', 'pg_dump: error: query failed: ');

  it('is shown of no message, whatever is in it', () => {
    fc.assert(
      fc.property(lines, lines, prefix, (one, other, before) => {
        const message = [
          `${before}ERROR:  invalid input syntax for type date: "${one}"`,
          `DETAIL:  Key (ssn)=(${other}) already exists.`,
          `CONTEXT:  COPY p, line 2, column born: "${one}"`,
          `LINE 1: ${other}`,
          '        ^',
          'connection to server was lost',
        ].join('\n');
        const shown = withoutValues(message);
        expect(shown).not.toContain('PHI');
        expect(shown).toContain('invalid input syntax for type date: "…"');
        expect(shown).toContain('connection to server was lost');
      }),
      {numRuns: 500},
    );
  });

  it('is not shown of a failed program either, however long it is', async () => {
    const script =
      'echo "ERROR:  invalid input syntax for type date: \\"PHI" >&2; yes PHI | head -50 >&2; echo "PHI\\"" >&2; exit 3';
    const error = await execute('sh', ['-c', script], {environment: {PATH: process.env.PATH ?? ''}}).catch(
      (reason) => reason,
    );
    expect(processFailure(error)).toMatchObject({
      stderr: 'ERROR:  invalid input syntax for type date: "…"',
      exitCode: 3,
    });
  });
});

describe('a program at one end of a pipeline', () => {
  const environment = {PATH: process.env.PATH ?? ''};
  const failing = () => new Writable({write: (_chunk, _encoding, done) => done(new Error('the store is down'))});

  it('that waits in silence is ended when the other end fails', async () => {
    const {stream, stop} = readFrom('sh', ['-c', 'head -c 2000000 /dev/zero; exec sleep 600'], {environment});
    await expect(pipeline(stream, failing())).rejects.toThrow('the store is down');
    await stop();
  });

  it('that does not read is ended when its source fails', async () => {
    const {stream, stop} = writeTo('sh', ['-c', 'exec sleep 600'], {environment});
    const source = Readable.from(
      (async function* () {
        yield Buffer.alloc(10);
        throw new Error('the download broke off');
      })(),
    );
    await expect(pipeline(source, stream)).rejects.toThrow('the download broke off');
    await stop();
  });

  it('that is asked to say something: it says it, or has failed, or ended', async () => {
    const run = (script: string) => {
      const program = writeTo('sh', ['-c', script], {environment});
      const said = program.printed('ready');
      program.stream.on('error', () => undefined);
      return {...program, said};
    };
    const good = run('echo "not ready"; read -r line; echo "$line"; cat >/dev/null');
    good.stream.write('ready\n');
    expect(await good.said).toBe('');
    await pipeline(Readable.from([]), good.stream);
    const more = run('echo unready; echo ready to go; echo ready to stay; cat >/dev/null');
    expect(await more.said).toBe('to go');
    await pipeline(Readable.from([]), more.stream);
    const inPieces = run('printf "readyx\nrea"; read -r line; printf "dy 4"; read -r line; echo 2; cat >/dev/null');
    inPieces.stream.write('\n\n');
    expect(await inPieces.said).toBe('42');
    await pipeline(Readable.from([]), inPieces.stream);
    await expect(run('echo "not ready"; echo no >&2; exit 3').said).rejects.toMatchObject({exitCode: 3});
    await expect(run('echo already').said).rejects.toThrow('sh ended without having said ready');
  });

  it.each([
    ['fails', 'echo data; echo reason >&2; exit 3'],
    ['fails without output', 'exit 3'],
  ])('that %s rejects the pipeline before its end', async (_, script) => {
    const {stream} = readFrom('sh', ['-c', script], {environment});
    const chunks: Buffer[] = [];
    await expect(
      pipeline(stream, async (source: AsyncIterable<Buffer>) => {
        for await (const chunk of source) chunks.push(chunk);
      }),
    ).rejects.toMatchObject({exitCode: 3});
  });

  it.each([
    ['data', 'printf data'],
    ['', 'true'],
  ])('that succeeds with %j gives exactly that', async (expected, script) => {
    const {stream} = readFrom('sh', ['-c', script], {environment});
    expect(Buffer.concat(await stream.toArray()).toString()).toBe(expected);
  });

  it('that is not there is an error', async () => {
    const {stream} = readFrom('/none', [], {environment});
    await expect(stream.toArray()).rejects.toMatchObject({code: 'ENOENT'});
  });
});
