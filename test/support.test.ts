import {createHash} from 'node:crypto';
import {access} from 'node:fs/promises';
import path from 'node:path';
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  PutObjectCommand,
} from '@aws-sdk/client-s3';
import {afterAll, describe, expect, jest, test} from '@jest/globals';
import {execa} from 'execa';
import {clinicSql} from './support/clinic.ts';
import {freePorts} from './support/free-ports.ts';
import {
  createBucket,
  listAllKeys,
  listUnfinishedUploads,
  objectClient,
  startObjectServer,
} from './support/object-server.ts';
import {createDatabase, runSql, startPostgres} from './support/postgres-server.ts';
import {isListening} from './support/probe.ts';
import {servers} from './support/sandbox.ts';
import {waitUntil} from './support/wait-until.ts';

const {postgres, objects} = servers();

// Starting servers takes seconds, and several times that on a machine that is busy.
jest.setTimeout(120_000);

describe('the shared PostgreSQL', () => {
  test('gives every caller a database of its own', async () => {
    const [one, other] = await Promise.all([
      createDatabase(postgres, {sql: 'CREATE TABLE t AS SELECT 1 AS n'}),
      createDatabase(postgres, {encoding: 'LATIN1'}),
    ]);
    expect(await one.query('SELECT n FROM t')).toBe('1');
    expect(await other.query('SHOW server_encoding')).toBe('LATIN1');
    await expect(other.query('SELECT n FROM t')).rejects.toThrow('relation "t" does not exist');
    await Promise.all([one.drop(), other.drop()]);
    await expect(one.query('SELECT 1')).rejects.toThrow('does not exist');
  });

  test('stops at the first error and keeps the password out of the message', async () => {
    const database = await createDatabase(postgres);
    const failure = await database.query('SELECT 1/0; CREATE TABLE t ();').catch((error: unknown) => String(error));
    expect(failure).toContain('division by zero');
    expect(failure).not.toContain(postgres.password);
    expect(await database.query("SELECT to_regclass('t') IS NULL")).toBe('t');
    await database.drop();
  });

  test('refuses a wrong password, and takes a role and parameters in the URL', async () => {
    const wrong = postgres.url('postgres', {password: 'wrong'});
    await expect(runSql(wrong, 'SELECT 1')).rejects.toThrow('password authentication failed');
    const params = {application_name: 'a b&c'};
    expect(await runSql(postgres.url('postgres', {params}), 'SHOW application_name')).toBe('a b&c');
  });
});

describe('the clinic', () => {
  test('is the same every time, grows with its patients, and survives a plain dump and restore', async () => {
    const [small, again, double, restored] = await Promise.all([
      createDatabase(postgres, {sql: clinicSql({patients: 500})}),
      createDatabase(postgres, {sql: clinicSql({patients: 500})}),
      createDatabase(postgres, {sql: clinicSql({patients: 1000})}),
      createDatabase(postgres),
    ]);
    const dump = await plainDump(small.url);
    expect(await plainDump(again.url)).toBe(dump);
    const ratio = (await plainDump(double.url)).length / dump.length;
    expect(ratio).toBeGreaterThan(1.9);
    expect(ratio).toBeLessThan(2.1);
    await restored.query(dump);
    // The rows of the updated table come in another order (they fill the gaps of pages differently), and no line is lost.
    expect(sorted(await plainDump(restored.url))).toBe(sorted(dump));
    await Promise.all([small, again, double, restored].map((database) => database.drop()));
  });

  test('has what a backup trips over', async () => {
    const database = await createDatabase(postgres, {sql: clinicSql()});
    const facts = {
      'SELECT count(*) FROM public.heartbeats': '3',
      'SELECT count(*) FROM public.waiting_list': '0',
      'SELECT count(*) FROM pg_largeobject_metadata': '3',
      "SELECT count(*) FROM public.audit_log WHERE actor = 'trigger'": '5',
      'SELECT count(*) FROM public."Quoted ""Table"" with späces"': '5',
      "SELECT bool_and(full_name = given_name || ' ' || family_name) FROM public.patients": 't',
      'SELECT count(*) > 20 FROM billing.turnover': 't',
      "SELECT bool_or(notes ~ E'\\n') AND bool_or(notes ~ E'\\t') AND bool_or(notes ~ '[^\\x01-\\x7f]') FROM encounters":
        't',
      "SELECT bool_or(strpos(notes, E'\\\\.\\n') > 0) FROM public.encounters": 't',
      'SELECT bool_and(sha256(content) = sha256) FROM public.documents': 't',
      'SELECT count(DISTINCT tableoid) FROM public.audit_log': '3',
      "SELECT relrowsecurity FROM pg_class WHERE relname = 'documents'": 't',
    };
    for (const [question, answer] of Object.entries(facts)) {
      expect([question, await database.query(question)]).toEqual([question, answer]);
    }
    await database.drop();
  });
});

describe('the shared object server', () => {
  const client = objectClient(objects);
  afterAll(() => client.destroy());

  test('keeps what is put, and lists it', async () => {
    const Bucket = await createBucket(objects);
    expect(Bucket).not.toBe(await createBucket(objects));
    await client.send(new PutObjectCommand({Bucket, Key: 'b/ü 2', Body: 'text'}));
    await client.send(new PutObjectCommand({Bucket, Key: 'a/1', Body: '1'}));
    expect(await listAllKeys(objects, Bucket)).toEqual(['a/1', 'b/ü 2']);
    const {Body} = await client.send(new GetObjectCommand({Bucket, Key: 'b/ü 2'}));
    expect(await Body?.transformToString()).toBe('text');
  });

  test('refuses a wrong secret', async () => {
    const Bucket = await createBucket(objects);
    const stranger = objectClient(objects, {secretAccessKey: 'wrong'});
    await expect(stranger.send(new PutObjectCommand({Bucket, Key: 'k', Body: 'text'}))).rejects.toMatchObject({
      name: 'SignatureDoesNotMatch',
      $metadata: {httpStatusCode: 403},
    });
    stranger.destroy();
    expect(await listAllKeys(objects, Bucket)).toEqual([]);
  });

  test('refuses a body that does not fit its Content-MD5', async () => {
    const Bucket = await createBucket(objects);
    const put = (text: string) => {
      const ContentMD5 = createHash('md5').update(text).digest('base64');
      return client.send(new PutObjectCommand({Bucket, Key: 'k', Body: 'text', ContentMD5}));
    };
    await expect(put('other')).rejects.toMatchObject({name: 'BadDigest', $metadata: {httpStatusCode: 400}});
    expect(await listAllKeys(objects, Bucket)).toEqual([]);
    await put('text');
    expect(await listAllKeys(objects, Bucket)).toEqual(['k']);
  });

  test('refuses a body that was changed after it was signed', async () => {
    const Bucket = await createBucket(objects);
    const tampering = objectClient(objects);
    tampering.middlewareStack.add(
      (next) => (args) => {
        (args.request as {body: unknown}).body = Buffer.from('Text');
        return next(args);
      },
      {step: 'finalizeRequest', priority: 'low', name: 'tamper'},
    );
    await expect(tampering.send(new PutObjectCommand({Bucket, Key: 'k', Body: 'text'}))).rejects.toMatchObject({
      $metadata: {httpStatusCode: 400},
    });
    tampering.destroy();
    expect(await listAllKeys(objects, Bucket)).toEqual([]);
  });

  test('tells of unfinished uploads', async () => {
    const Bucket = await createBucket(objects);
    const {UploadId} = await client.send(new CreateMultipartUploadCommand({Bucket, Key: 'big'}));
    expect(await listUnfinishedUploads(objects, Bucket)).toEqual([{key: 'big', uploadId: UploadId}]);
    await client.send(new AbortMultipartUploadCommand({Bucket, Key: 'big', UploadId}));
    expect(await listUnfinishedUploads(objects, Bucket)).toEqual([]);
  });
});

describe('servers of one’s own', () => {
  test('two PostgreSQL side by side, one of them killed and started again', async () => {
    const [one, other] = await Promise.all([startPostgres(), startPostgres({settings: {max_connections: 17}})]);
    expect(one.port).not.toBe(other.port);
    expect(await runSql(other.adminUrl, 'SHOW max_connections')).toBe('17');
    const database = await createDatabase(one, {sql: 'CREATE TABLE t AS SELECT 1 AS n'});
    const sleeping = expect(database.query('SELECT pg_sleep(60)')).rejects.toThrow(/closed the connection|terminat/);
    const isSleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    await waitUntil(async () => (await runSql(one.adminUrl, isSleeping)) === '1', {what: 'the query to run'});
    await one.kill();
    await sleeping;
    await expect(database.query('SELECT 1')).rejects.toThrow('Connection refused');
    await one.start();
    expect(await database.query('SELECT n FROM t')).toBe('1');
    await Promise.all([one.stop('immediate'), other.stop()]);
    await expect(access(path.dirname(one.dataDirectory))).rejects.toMatchObject({code: 'ENOENT'});
    expect(await isListening(one.port)).toBe(false);
  });

  test('an object server that is killed and comes back with what it had', async () => {
    const server = await startObjectServer();
    const bucket = await createBucket(server);
    const writer = objectClient(server);
    await writer.send(new PutObjectCommand({Bucket: bucket, Key: 'kept', Body: 'text'}));
    writer.destroy();
    await server.kill();
    expect(await isListening(Number(new URL(server.endpoint).port))).toBe(false);
    await server.resume();
    expect(await listAllKeys(server, bucket)).toEqual(['kept']);
    await server.kill('SIGSTOP');
    await expect(fetch(server.endpoint, {signal: AbortSignal.timeout(300)})).rejects.toThrow('timeout');
    await server.resume();
    expect(await listAllKeys(server, bucket)).toEqual(['kept']);
    await server.stop();
  });

  test('a server whose starter was killed goes with it', async () => {
    const module = JSON.stringify(new URL('./support/postgres-server.ts', import.meta.url).href);
    const script = `const {startPostgres} = await import(${module});
      const {port, dataDirectory} = await startPostgres();
      console.log(JSON.stringify({port, dataDirectory}));
      setInterval(() => {}, 1000);`;
    const starter = execa(process.execPath, ['--input-type=module', '-e', script], {reject: false});
    let facts = {port: 0, dataDirectory: ''};
    for await (const line of starter) {
      facts = JSON.parse(line) as typeof facts;
      expect(await isListening(facts.port)).toBe(true);
      starter.kill('SIGKILL');
    }
    const isGone = () =>
      access(path.dirname(facts.dataDirectory)).then(
        () => false,
        () => true,
      );
    await waitUntil(isGone, {what: 'the watchdog to clear up', timeoutMs: 10_000});
    expect(await isListening(facts.port)).toBe(false);
  });

  test('free ports are consecutive', async () => {
    const first = await freePorts(5);
    expect(await Promise.all([0, 1, 2, 3, 4].map((step) => isListening(first + step)))).toEqual(Array(5).fill(false));
  });
});

function sorted(text: string): string {
  return text.split('\n').sort().join('\n');
}

/** Without the lines that are random in every dump. */
async function plainDump(url: string): Promise<string> {
  const {password} = new URL(url);
  const address = url.replace(`:${password}@`, '@');
  const program = path.join(postgres.binDirectory, 'pg_dump');
  const {stdout} = await execa(program, ['-d', address], {env: {PGPASSWORD: password}});
  return stdout.replaceAll(/^\\(un)?restrict \w+$/gm, '');
}
