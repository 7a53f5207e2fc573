import {chmod, mkdtemp, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {type Connection, parseConnectionUrl} from '../../../src/lib/postgres/connection.ts';
import {query} from '../../../src/lib/postgres/query.ts';
import {locatePsql} from '../../../src/lib/postgres/tools.ts';
import {servers} from '../../support/sandbox.ts';
import {failureOf} from '../../support/settings.ts';

const {postgres} = servers();
const connectionOf = (url: string) => parseConnectionUrl(url) as Connection;

/** A psql that says why it cannot connect. */
let folder: string;
let psql: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-psql-'));
  psql = path.join(folder, 'psql');
  await writeFile(psql, '#!/bin/sh\necho "$PGAPPNAME" >&2\nexit 2\n');
  await chmod(psql, 0o755);
});
afterAll(() => rm(folder, {recursive: true}));

describe('the hint of a connection that fails over TLS', () => {
  const withMode = (parameters: string) => {
    const url = new URL(postgres.adminUrl);
    url.hostname = '127.0.0.1';
    url.search = parameters;
    return connectionOf(url.href);
  };

  test('sslmode=require, and a server without TLS', async () => {
    const session = {
      connection: withMode('sslmode=require'),
      psql: await locatePsql(process.env.PATH ?? ''),
      inherited: {},
    };
    const error = await failureOf(query(session, 'SELECT 1'));
    expect(error).toMatchObject({code: 'POSTGRES_UNREACHABLE', reason: expect.stringMatching(/does not support SSL/)});
    expect(error.hint).toMatch(/If it has no TLS, take sslmode and ssl out of the URL/);
  });

  test.each([
    [
      'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "ann", database "clinic", no encryption',
      /add \?sslmode=require/,
    ],
    [
      'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "ann", database "clinic", SSL off',
      /add \?sslmode=require/,
    ],
    ['ERROR:  SSL/TLS required', /add \?sslmode=require/],
    ['root certificate file "/root/.postgresql/root.crt" does not exist', /add sslrootcert=FILE/],
    ['SSL error: certificate verify failed', /its certificate made for this host name/],
    ['FATAL:  database "clinic" does not exist', /database name at the end of the URL/],
  ])('%s', async (said, hint) => {
    const connection = connectionOf(`postgresql://ann@db/clinic?application_name=${encodeURIComponent(said)}`);
    const session = {connection, psql: {...(await locatePsql(process.env.PATH ?? '')), path: psql}, inherited: {}};
    const error = await failureOf(query(session, 'SELECT 1'));
    expect(error.hint).toMatch(hint);
  });
});
