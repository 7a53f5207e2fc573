import {createCipheriv, randomBytes} from 'node:crypto';
import {gzipSync} from 'node:zlib';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {backupKey} from '../../src/lib/catalog/key-names.ts';
import {restore} from '../../src/lib/operations/restore.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {servers} from '../support/sandbox.ts';
import {connectionTo, failureOf, keySettings, newKey, runtime, type TestStore, testStore} from '../support/settings.ts';

const key = newKey();
let store: TestStore;
let target: TestDatabase;

beforeAll(async () => {
  store = await testStore('directory');
  target = await createDatabase(servers().postgres);
});
afterAll(async () => {
  await target.drop();
  await store.dispose();
});

/** Stores a dump in the older form, which needs no manifest. */
async function storeDump(sql: string): Promise<string> {
  const dump = `SET client_encoding = 'UTF8';\n${sql}\n--\n-- PostgreSQL database dump complete\n--\n\n`;
  const iv = randomBytes(16);
  const cipher = createCipheriv('aes-256-gcm', Buffer.from(key, 'hex'), iv);
  const name = backupKey(new Date(Date.now() - Math.floor(Math.random() * 1e9)), 'gzip');
  const sealed = Buffer.concat([iv, cipher.update(gzipSync(dump)), cipher.final(), cipher.getAuthTag()]);
  await store.store.create(name, sealed);
  return name;
}

describe('a restore that the data make fail', () => {
  it.each([
    [
      'a duplicate key',
      `CREATE TABLE public.p (ssn text PRIMARY KEY);\nCOPY public.p (ssn) FROM stdin;\nPHI-123\nPHI-123\n\\.\n`,
      'violates unique constraint "p_pkey"',
    ],
    [
      'a value of the wrong type',
      `CREATE TABLE public.p (age int);\nCOPY public.p (age) FROM stdin;\nPHI-123\n\\.\n`,
      'invalid input syntax for type integer',
    ],
    [
      'a value of several lines',
      `CREATE TABLE public.p (age int);\nCOPY public.p (age) FROM stdin;\nPHI-123\\nPHI-123 "PHI-123"\\nPHI-123\n\\.\n`,
      'invalid input syntax for type integer',
    ],
    [
      'a check that fails',
      `CREATE TABLE public.p (name text CHECK (name = 'x'));\nCOPY public.p (name) FROM stdin;\nPHI-123\n\\.\n`,
      'violates check constraint',
    ],
    [
      'a foreign key that fails',
      `CREATE TABLE public.q (id text PRIMARY KEY);\nCREATE TABLE public.p (q text);\nCOPY public.p (q) FROM stdin;\nPHI-123\n\\.\n
       ALTER TABLE public.p ADD FOREIGN KEY (q) REFERENCES public.q (id);\n`,
      'violates foreign key constraint',
    ],
  ])('says why without a value of a row: %s', async (_, sql, why) => {
    const name = await storeDump(sql);
    const error = await failureOf(
      restore(
        {
          store: store.settings,
          keys: keySettings(key),
          choice: {by: 'key', key: name},
          target: connectionTo(target.url),
          allowUnrestricted: false,
        },
        async () => true,
        runtime(),
      ),
    );
    expect(error.reason).toContain(why);
    expect(`${error.message} ${error.reason} ${error.hint}`).not.toContain('PHI-123');
    expect(await target.query(`SELECT count(*) FROM pg_class WHERE relname IN ('p', 'q')`)).toBe('0');
  });
});
