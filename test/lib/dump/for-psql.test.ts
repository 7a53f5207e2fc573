import {Readable, Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {forPsql, noticeLostClient} from '../../../src/lib/dump/for-psql.ts';
import {BackupError} from '../../../src/lib/errors.ts';
import {waitUntil} from '../../support/wait-until.ts';
import {bytewise, cut, cutPlaces, feed, tryFeed} from '../feed.ts';
import {dumpBytes, type Piece, randomDump} from './random-dump.ts';

const checks = 'SELECT 42;';
/** Why a statement of a kind may fail. */
const harmless: Partial<Record<Piece['kind'], string>> = {
  extension: 'insufficient_privilege OR dependent_objects_still_exist',
  constraintDrop:
    'invalid_table_definition OR dependent_objects_still_exist OR undefined_object OR invalid_schema_name',
  indexDrop: 'dependent_objects_still_exist',
  dummyView: 'invalid_table_definition OR wrong_object_type OR undefined_object OR invalid_schema_name',
};
const tablespace = `SELECT pg_catalog.set_config('default_tablespace', coalesce((SELECT spcname FROM pg_catalog.pg_tablespace WHERE spcname = 'Fast; Disk''s' AND pg_catalog.has_tablespace_privilege(oid, 'CREATE')), ''), false);\n`;
const mayCommit = async () => {};
const lastWord = 'w0rd';
const stage = () => forPsql({restrictToken: 'tok3n', beforeCommit: () => checks, lastWord, mayCommit});
/** What comes after the checks. */
const lastWords = 'SELECT pg_catalog.pg_current_xact_id() AS transaction \\gset\n\\echo w0rd :transaction\nCOMMIT;\n';
const ending = `\\unrestrict tok3n\n${lastWords}`;

describe('what psql gets to see', () => {
  it('is the dump without its own restrict and transaction lines, in one restricted transaction', async () => {
    await fc.assert(
      fc.asyncProperty(randomDump, cutPlaces, async (pieces, places) => {
        const kept = pieces.filter(({kind}) => kind !== 'restrict' && kind !== 'transaction');
        const seen = await feed(cut(dumpBytes(pieces), places), stage());
        const text = ({kind, text: sql}: Piece) => {
          if (kind === 'newSetting') {
            return "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout';\n";
          }
          if (kind === 'setting' && sql.includes('Fast')) return tablespace;
          const reasons = harmless[kind];
          if (reasons === undefined) return sql;
          return `DO $loma$ BEGIN ${sql.trim()} EXCEPTION WHEN ${reasons} THEN NULL; END $loma$;\n`;
        };
        expect(seen.toString()).toBe(
          `\\restrict tok3n\n${noticeLostClient}BEGIN;\n${kept.map(text).join('')}\n${checks}\n${ending}`,
        );
      }),
      {numRuns: 150},
    );
  });

  it('keeps a comment on an extension as it is when it holds the quote that would be put round it', async () => {
    const text = "COMMENT ON EXTENSION pgcrypto IS 'a $loma$; DROP TABLE x; b';\n";
    expect((await feed([Buffer.from(text)], stage())).toString()).toContain(`BEGIN;\n${text}`);
  });

  it('has the search path that is asked for in the place of none', async () => {
    const text = "SELECT pg_catalog.set_config('search_path', '', false);\n";
    expect((await feed([Buffer.from(text)], stage())).toString()).toContain(`BEGIN;\n${text}`);
    const other = forPsql({
      restrictToken: undefined,
      searchPath: `"it's", public`,
      beforeCommit: () => '',
      lastWord,
      mayCommit,
    });
    expect((await feed(bytewise(Buffer.from(text)), other)).toString()).toContain(
      `BEGIN;\nSELECT pg_catalog.set_config('search_path', '"it''s", public', false);\n`,
    );
  });

  it('begins without \\restrict for a psql that does not know it', async () => {
    const older = forPsql({restrictToken: undefined, beforeCommit: () => '', lastWord, mayCommit});
    expect((await feed([Buffer.from('SELECT 1;\n')], older)).toString()).toBe(
      `${noticeLostClient}BEGIN;\nSELECT 1;\n\n\n${lastWords}`,
    );
  });

  it('keeps restrict and transaction lines that are rows, or text inside a function', async () => {
    const text =
      'CREATE FUNCTION f() AS $$;\nBEGIN;\n\\restrict a\nCOMMIT;\n$$;\nCOPY t FROM stdin;\nBEGIN;\n\\restrict a\nCOMMIT;\n\\.\n';
    expect((await feed(bytewise(Buffer.from(text)), stage())).toString()).toContain(text);
  });

  it('is the same wherever the dump is cut in two', async () => {
    const dump = Buffer.from(
      "-- a ' comment\n\n--\n\nCOPY t FROM stdin;\n\\.x\n$$\n\\.\n\n/* b\n*/\nSELECT E'\\'' /* c */;\n-- d\n",
    );
    const whole = await feed([dump], stage());
    for (let place = 1; place < dump.length; place += 1) {
      const seen = await feed(cut(dump, [place]), stage());
      expect({place, seen: seen.toString()}).toEqual({place, seen: whole.toString()});
    }
  });

  it.each([999, 1000, 1001, 8190, 8192, 20_000])(
    'is refused for certain with a dollar quote whose tag has %d characters, if it is too long',
    async (length) => {
      const tag = `$${'x'.repeat(length)}$`;
      const dump = Buffer.from(`SELECT ${tag} ' ${tag};\n\\! touch x '\n`);
      const codes = new Set<unknown>();
      for (const chunks of [[dump], cut(dump, [70]), cut(dump, [length]), cut(dump, [8192])]) {
        const {error} = await tryFeed(chunks, stage());
        codes.add((error as BackupError | undefined)?.reason);
      }
      expect([...codes]).toEqual([expect.stringContaining(length > 1000 ? 'longer than 1000' : 'touch x')]);
    },
  );

  it('is committed for an empty dump only after its checks', async () => {
    expect((await feed([], stage())).toString()).toBe(
      `\\restrict tok3n\n${noticeLostClient}BEGIN;\n\n${checks}\n${ending}`,
    );
  });
});

describe('a psql command in the dump', () => {
  it.each([
    '\\! touch /tmp/x\n',
    'SELECT 1 \\! touch /tmp/x\n',
    '-- Name: x\r\\! touch /tmp/x\n',
    '\\connect other\n',
    'SELECT 1;\n\\.\n',
    'COPY t FROM stdin;\n\\.\r\n\\! x\n\\.\n',
  ])('is refused: %j', async (text) => {
    for (const chunks of [[Buffer.from(text)], bytewise(Buffer.from(text))]) {
      const {released, error} = await tryFeed(chunks, stage());
      expect(error).toBeInstanceOf(BackupError);
      expect(error).toMatchObject({code: 'DUMP_UNREADABLE', kind: 'integrity'});
      expect(released.toString()).not.toContain('COMMIT;');
      expect(released.toString()).not.toMatch(/touch|\\connect|\\! x/);
    }
  });
});

describe('nothing is committed', () => {
  it('when the checks before the commit throw', async () => {
    const refusing = forPsql({
      restrictToken: 'a',
      beforeCommit: () => {
        throw new BackupError('not authentic', {code: 'DECRYPTION_FAILED', kind: 'integrity'});
      },
      lastWord,
      mayCommit,
    });
    const {released, error} = await tryFeed([Buffer.from('SELECT 1;\n')], refusing);
    expect(error).toMatchObject({code: 'DECRYPTION_FAILED'});
    expect(released.toString()).not.toContain('COMMIT');
  });

  it('before psql has run the checks, nor when it has not', async () => {
    let said = '';
    let sayWhen = () => {};
    const waiting = forPsql({
      restrictToken: 'a',
      beforeCommit: () => checks,
      lastWord,
      mayCommit: () => new Promise((resolve) => (sayWhen = resolve)),
    });
    waiting.on('data', (bytes: Buffer) => (said += bytes));
    waiting.end('SELECT 1;\n');
    await waitUntil(async () => said.includes(checks), {what: 'the checks'});
    await new Promise((resolve) => setImmediate(resolve));
    expect(said).not.toContain('COMMIT');
    sayWhen();
    await waiting.toArray();
    expect(said).toMatch(/\nCOMMIT;\n$/);

    const mayCommit = () => Promise.reject(new Error('psql has gone'));
    const failed = forPsql({restrictToken: 'a', beforeCommit: () => checks, lastWord, mayCommit});
    const {released, error} = await tryFeed([Buffer.from('SELECT 1;\n')], failed);
    expect(error).toMatchObject({message: 'psql has gone'});
    expect(released.toString()).toContain(checks);
    expect(released.toString()).not.toContain('COMMIT');
  });

  it('when the source fails, and the checks are not even asked for', async () => {
    let asked = false;
    const released: Buffer[] = [];
    async function* source() {
      yield Buffer.from('SELECT 1;\n');
      throw new Error('connection lost');
    }
    const target = forPsql({
      restrictToken: 'a',
      beforeCommit: () => {
        asked = true;
        return '';
      },
      lastWord,
      mayCommit,
    });
    const sink = new Writable({
      write(chunk: Buffer, _encoding, done) {
        released.push(chunk);
        done();
      },
    });
    await expect(pipeline(Readable.from(source()), target, sink)).rejects.toThrow('connection lost');
    expect(asked).toBe(false);
    expect(Buffer.concat(released).toString()).not.toContain('COMMIT');
  });

  it.each(['COPY t FROM stdin;\n1\n', "SELECT 'half", 'SELECT $$half', '/* half'])(
    'when the dump is cut off: %j',
    async (text) => {
      const {released, error} = await tryFeed([Buffer.from(text)], stage());
      expect(error).toMatchObject({code: 'DUMP_UNREADABLE'});
      expect(released.toString()).not.toContain('COMMIT');
    },
  );
});
