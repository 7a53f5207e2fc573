/** One contract, held by every kind of store: see src/lib/upload/store.ts. */
import {randomBytes} from 'node:crypto';
import {existsSync} from 'node:fs';
import {mkdir, readdir, rm} from 'node:fs/promises';
import path from 'node:path';
import {Readable} from 'node:stream';
import {CreateMultipartUploadCommand} from '@aws-sdk/client-s3';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import pMap from 'p-map';
import type {StoreSettings} from '../../src/lib/config.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {openStores} from '../../src/lib/upload/open-store.ts';
import {S3Store, s3Client} from '../../src/lib/upload/s3-store.ts';
import {readSmall} from '../../src/lib/upload/store.ts';
import {type ObjectHandle, objectClient, startObjectServer} from '../support/object-server.ts';
import {isListening} from '../support/probe.ts';
import {type Fault, type FaultyProxy, startProxy} from '../support/proxy.ts';
import {servers} from '../support/sandbox.ts';
import {collect, contentOf, failureOf, s3Settings, type TestStore, testStore} from '../support/settings.ts';

const mib = 1 << 20;
const partSizeBytes = 5 * mib;

interface Kind {
  name: string;
  /** Undefined: a directory. */
  server: () => Promise<{handle: ObjectHandle; stop: () => Promise<void>} | undefined>;
}

const shared = servers().objects;
const kinds: Kind[] = [
  {name: 'a directory', server: async () => undefined},
  {name: shared.kind, server: async () => ({handle: shared, stop: async () => undefined})},
];
// Ceph has conditional writes, which Swift has not: the second opinion where it is installed.
if (shared.kind !== 'ceph' && existsSync('/usr/bin/radosgw')) {
  kinds.push({
    name: 'ceph',
    async server() {
      const own = await startObjectServer({kind: 'ceph'});
      return {handle: own, stop: () => own.stop()};
    },
  });
}

function bodyOf(bytes: Buffer, chunkBytes = 300_000): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
    })(),
    {objectMode: false},
  );
}

/** A body that goes on for some MiB; then `after` is called, and nothing more comes. */
function bodyThen(mibs: number, after: (body: Readable) => void): Readable {
  let left = mibs;
  return new Readable({
    read() {
      left -= 1;
      if (left >= 0) this.push(randomBytes(mib));
      else after(this);
    },
  });
}

/** The same bucket through a client that asks for pages of so many objects, and counts them. */
function paging(settings: StoreSettings, pageSize: number) {
  if (settings.kind !== 's3') return undefined;
  const client = s3Client(settings);
  const requests = {count: 0};
  client.middlewareStack.add(
    (next, context) => (args) => {
      if (context.commandName !== 'ListObjectsV2Command') return next(args);
      requests.count += 1;
      return next({...args, input: {...args.input, MaxKeys: pageSize} as typeof args.input});
    },
    {step: 'initialize', name: 'smallPages'},
  );
  return {store: new S3Store(client, settings.backupsBucket, 'bucket'), requests, close: () => client.destroy()};
}

describe.each(kinds)('$name', ({server}) => {
  let running: Awaited<ReturnType<Kind['server']>>;
  let place: TestStore;
  const isSwift = () => running?.handle.kind === 'swift';

  beforeAll(async () => {
    running = await server();
    place = await testStore(running ? 's3' : 'directory', running?.handle);
  }, 120_000);
  afterAll(async () => {
    await place?.dispose();
    await running?.stop();
  });

  const nothingOf = async (key: string) => {
    expect(await place.store.head(key)).toBeUndefined();
    expect(await place.keys()).not.toContain(key);
    expect(await place.unfinished()).toEqual([]);
  };

  test('is there, with or without objects, and another is not', async () => {
    const one = await testStore(running ? 's3' : 'directory', running?.handle);
    if (!running) await mkdir(one.folder, {recursive: true});
    expect(await one.store.isThere()).toBe(true);
    using stores = await openStores({...one.settings, backupsBucket: 'loma-of-nobody'});
    expect(await stores.backups.isThere()).toBe(false);
    await one.dispose();
  });

  test.each([
    ['nothing', 0],
    ['one byte', 1],
    ['a byte less than a part', partSizeBytes - 1],
    ['exactly a part', partSizeBytes],
    ['a byte more than a part', partSizeBytes + 1],
    ['several parts', 2 * partSizeBytes + 12_345],
  ])('stores a stream of %s', async (_, size) => {
    const key = `put/${size}`;
    const content = randomBytes(size);
    let reported = 0;
    await place.store.put(key, bodyOf(content), {partSizeBytes, onBytes: (total) => (reported = total)});
    expect((await contentOf(place.store, key)).equals(content)).toBe(true);
    expect(reported).toBe(size);
    const info = await place.store.head(key);
    expect(info).toMatchObject({key, sizeBytes: size});
    expect(Math.abs(Date.now() - (info?.modifiedAt.getTime() ?? 0))).toBeLessThan(120_000);
    expect(await place.unfinished()).toEqual([]);
  });

  test.each([0, 1, 7, 12])(
    'leaves nothing of a stream that fails after %d MiB, and passes its error on',
    async (mibs) => {
      const key = `failing/${mibs}`;
      const reason = new BackupError('pg_dump failed', {code: 'PG_DUMP_FAILED', kind: 'postgres'});
      const body = bodyThen(mibs, (failing) => failing.destroy(reason));
      expect(await failureOf(place.store.put(key, body, {partSizeBytes}))).toBe(reason);
      await nothingOf(key);
    },
  );

  test.each([0, 7, 12])('leaves nothing of a stream that is aborted after %d MiB', async (mibs) => {
    const key = `aborted/${mibs}`;
    const controller = new AbortController();
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const body = bodyThen(mibs, () => controller.abort(reason));
    const putting = place.store.put(key, body, {partSizeBytes, signal: controller.signal});
    expect(await failureOf(putting)).toBe(reason);
    await nothingOf(key);
  });

  test('stores nothing when it was aborted before the start', async () => {
    const signal = AbortSignal.abort(new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'}));
    const failure = await failureOf(place.store.put('late', bodyOf(randomBytes(10)), {partSizeBytes, signal}));
    expect(failure.code).toBe('INTERRUPTED');
    await nothingOf('late');
  });

  test('refuses to put or create over an object, and replaces it when asked to', async () => {
    const key = 'existing';
    await place.store.create(key, Buffer.from('first'));
    const again = [
      place.store.put(key, bodyOf(Buffer.from('second')), {partSizeBytes}),
      place.store.create(key, Buffer.from('third')),
    ];
    for (const attempt of again) {
      expect(await failureOf(attempt)).toMatchObject({code: 'OBJECT_EXISTS', exitCode: 4});
    }
    expect(String(await contentOf(place.store, key))).toBe('first');
    await place.store.replace(key, Buffer.from('fourth'));
    expect(String(await contentOf(place.store, key))).toBe('fourth');
    await place.store.replace('replaced without one before', Buffer.from('new'));
    expect(String(await contentOf(place.store, 'replaced without one before'))).toBe('new');
    expect(await place.unfinished()).toEqual([]);
  });

  test('lets exactly one of several win that create an object at once', async () => {
    const outcomes = await Promise.allSettled(
      Array.from({length: 6}, (_, index) => place.store.create('contested', Buffer.from(`writer ${index}`))),
    );
    const winners = outcomes.flatMap((outcome, index) => (outcome.status === 'fulfilled' ? [index] : []));
    const losers = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason.code] : []));
    expect(new Set(losers).size === 0 || new Set(losers)).toEqual(losers.length === 0 || new Set(['OBJECT_EXISTS']));
    // Swift has no conditional writes: there the store looks first, which two can do at once.
    if (!isSwift()) expect(winners).toHaveLength(1);
    const content = String(await contentOf(place.store, 'contested'));
    expect(winners.map((index) => `writer ${index}`)).toContain(content);
  });

  test.each([
    ['with one request', 1000],
    ['in parts', partSizeBytes + 1000],
  ])('never overwrites what came while it stored a stream %s', async (_, size) => {
    const key = `overtaken/${size}`;
    const slow = bodyThen(0, async (body) => {
      // All was asked and found free; now somebody else is quicker.
      await place.store.put(key, bodyOf(Buffer.alloc(size, 'q')), {partSizeBytes});
      body.push(Buffer.alloc(size, 's'));
      body.push(null);
    });
    const failure = await failureOf(place.store.put(key, slow, {partSizeBytes}));
    expect(failure).toMatchObject({code: 'OBJECT_EXISTS', exitCode: 4});
    expect((await contentOf(place.store, key)).equals(Buffer.alloc(size, 'q'))).toBe(true);
    expect(await place.unfinished()).toEqual([]);
  });

  test.each([
    ['no more than a part', 1],
    ['more than a part', 7],
  ])('leaves what came while it stored a stream that fails after %s', async (_, mibs) => {
    const key = `overtaken, failing/${mibs}`;
    const reason = new BackupError('pg_dump failed', {code: 'PG_DUMP_FAILED', kind: 'postgres'});
    const slow = bodyThen(mibs, async (body) => {
      await place.store.put(key, bodyOf(Buffer.from('quick')), {partSizeBytes});
      body.destroy(reason);
    });
    expect(await failureOf(place.store.put(key, slow, {partSizeBytes}))).toBe(reason);
    expect(String(await contentOf(place.store, key))).toBe('quick');
    expect(await place.unfinished()).toEqual([]);
  });

  test.each([
    ['with one request', 1000, 'PUT'],
    ['in parts', partSizeBytes + 1000, 'POST'],
  ])('an answer that was lost does not make a stream that was stored %s somebody else’s', async (_, size, method) => {
    if (!running) return;
    const key = `answer lost/${size}`;
    let isFirst = true;
    const proxy = await startProxy(running.handle, (request) => {
      if (request.method !== method || request.url.includes('uploads') || !isFirst) return undefined;
      isFirst = false;
      return {cutAfterBytes: -1};
    });
    using stores = await openStores(s3Settings(proxy, place.settings.backupsBucket));
    const content = randomBytes(size);
    const {etag} = await stores.backups.put(key, bodyOf(content), {partSizeBytes});
    expect(proxy.faulted).toHaveLength(1);
    expect((await contentOf(place.store, key)).equals(content)).toBe(true);
    expect((await place.store.head(key))?.etag).toBe(etag);
    await proxy.stop();
  });

  test.each([
    ['with one request', 1000, 'PUT'],
    ['in parts', partSizeBytes + 1000, 'POST'],
  ])('lets the store itself refuse to overwrite by a stream that it stores %s', async (_, size, method) => {
    if (!running) return;
    const proxy = await startProxy(running.handle, (request) => {
      const makesObject = request.method === method && !request.url.includes('uploads');
      return makesObject ? {answer: {status: 412, code: 'PreconditionFailed'}} : undefined;
    });
    using stores = await openStores(s3Settings(proxy, place.settings.backupsBucket));
    const failure = await failureOf(stores.backups.put(`refused/${size}`, bodyOf(randomBytes(size)), {partSizeBytes}));
    expect(failure).toMatchObject({code: 'OBJECT_EXISTS', exitCode: 4});
    expect(proxy.faulted.map(({headers}) => headers['if-none-match'])).toEqual(['*']);
    await nothingOf(`refused/${size}`);
    await proxy.stop();
  });

  test('an answer that was lost does not make a created object somebody else’s', async () => {
    if (!running) return;
    let isFirst = true;
    const proxy = await startProxy(running.handle, ({method}) => {
      if (method !== 'PUT' || !isFirst) return undefined;
      isFirst = false;
      return {cutAfterBytes: -1};
    });
    using stores = await openStores(s3Settings(proxy, place.settings.backupsBucket));
    await stores.backups.create('lost answer', Buffer.from('mine'));
    expect(proxy.faulted).toHaveLength(1);
    expect(proxy.requests.length).toBeGreaterThan(1);
    expect(String(await contentOf(place.store, 'lost answer'))).toBe('mine');
    await proxy.stop();
  });

  describe('reading', () => {
    const content = randomBytes(3 * mib + 17);
    beforeAll(() => place.store.replace('reading/object', content));

    test.each([
      ['the middle', {offset: 1000, length: 70_000}, content.subarray(1000, 71_000)],
      ['all from an offset', {offset: mib + 1}, content.subarray(mib + 1)],
      ['the first bytes', {length: 3}, content.subarray(0, 3)],
      ['no bytes', {length: 0}, Buffer.alloc(0)],
      ['no bytes of the middle', {offset: 5, length: 0}, Buffer.alloc(0)],
      ['more than there is', {offset: content.length - 5, length: 100}, content.subarray(-5)],
      ['the last byte', {offset: content.length - 1}, content.subarray(-1)],
      ['what is just behind the end', {offset: content.length}, Buffer.alloc(0)],
      ['what is far behind the end', {offset: content.length + 1000, length: 10}, Buffer.alloc(0)],
    ])('%s', async (_, options, expected) => {
      const chunks = (await collect(place.store.get('reading/object', options))) as Buffer[];
      expect(Buffer.concat(chunks).equals(expected)).toBe(true);
    });

    test('a part of an empty object', async () => {
      await place.store.create('reading/empty', Buffer.alloc(0));
      expect(await contentOf(place.store, 'reading/empty')).toHaveLength(0);
      expect(await collect(place.store.get('reading/empty', {length: 10}))).toEqual([]);
    });

    test('an object that is not there', async () => {
      for (const options of [{}, {offset: 10}, {length: 3}]) {
        const reading = collect(place.store.get('reading/nothing', options));
        expect(await failureOf(reading)).toMatchObject({code: 'OBJECT_NOT_FOUND', exitCode: 4});
      }
      expect(await place.store.head('reading/nothing')).toBeUndefined();
      expect(await place.store.head('reading')).toBeUndefined();
      expect(await place.store.head('reading/')).toBeUndefined();
      expect(await place.store.head('reading/object/below')).toBeUndefined();
    });

    test('is ended by the signal', async () => {
      const controller = new AbortController();
      const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
      const reading = (async () => {
        for await (const _ of place.store.get('reading/object', {signal: controller.signal})) controller.abort(reason);
      })();
      expect(await failureOf(reading)).toBe(reason);
    });

    test('a small object whole, and a larger one not at all', async () => {
      await place.store.replace('reading/small', Buffer.from('12345'));
      expect(String(await readSmall(place.store, 'reading/small', 5))).toBe('12345');
      await expect(readSmall(place.store, 'reading/small', 4)).rejects.toThrow('larger than 4 bytes');
    });
  });

  test('lists the objects of a prefix in the order of their bytes, however many pages they fill', async () => {
    const own = await testStore(running ? 's3' : 'directory', running?.handle);
    // Swift takes a minute of processor time for a thousand objects: there the pages are made smaller instead.
    const numbers = Array.from({length: isSwift() ? 25 : 1005}, (_, index) => String(index).padStart(4, '0'));
    const odd = ['page/B', 'page/a b', 'page/a-b', 'page/a/b', 'page/ab', 'page/ü', 'page/\uff5e', 'page/😀'];
    const others = ['mane', 'many-more', 'x/many/1'];
    const keys = [...numbers.map((number) => `many/${number}`), ...odd, ...others];
    await pMap(keys.toReversed(), (key) => own.store.replace(key, Buffer.from('x')), {concurrency: 16});
    const {store, requests, close} = paging(own.settings, isSwift() ? 4 : 1000) ?? {store: own.store};
    const listed = await collect(store.list('many/'));
    expect(listed.map(({key}) => key)).toEqual(numbers.map((number) => `many/${number}`));
    expect(listed.every(({sizeBytes}) => sizeBytes === 1)).toBe(true);
    if (requests) expect(requests.count).toBe(isSwift() ? 7 : 2);
    expect((await collect(store.list('many/001'))).map(({key}) => key)).toEqual(
      Array.from({length: 10}, (_, digit) => `many/001${digit}`),
    );
    expect((await collect(store.list('page/'))).map(({key}) => key)).toEqual(odd);
    expect(await collect(store.list('nothing/'))).toEqual([]);
    expect(await collect(store.list(''))).toHaveLength(keys.length);
    close?.();
    await own.dispose();
  });

  test.each([
    'odd/with space',
    'odd/plus+percent%41',
    'odd/ümläut/山田.encrypted',
    'odd/question?and#hash&amp;',
    `odd/quotes'"<>`,
    'odd/emoji 😀',
    'odd/back\\slash',
    'odd/.hidden',
    'odd/..dots',
    'odd/=;,@:$!*()~',
  ])('takes the key %s', async (key) => {
    const content = Buffer.from(`content of ${key}`);
    await place.store.put(key, bodyOf(content), {partSizeBytes});
    expect((await contentOf(place.store, key)).equals(content)).toBe(true);
    expect(await place.store.head(key)).toMatchObject({key, sizeBytes: content.length});
    expect((await collect(place.store.list('odd/'))).map((info) => info.key)).toContain(key);
    await place.store.delete(key);
    expect(await place.store.head(key)).toBeUndefined();
  });

  test('deletes an object, and nothing that is not there', async () => {
    await place.store.create('deleted/one', Buffer.from('1'));
    await place.store.create('deleted/other', Buffer.from('2'));
    await place.store.delete('deleted/one');
    await place.store.delete('deleted/one');
    await place.store.delete('never/there');
    expect((await collect(place.store.list('deleted/'))).map(({key}) => key)).toEqual(['deleted/other']);
  });

  test('lists unfinished uploads and aborts them', async () => {
    const own = await testStore(running ? 's3' : 'directory', running?.handle);
    const begun = Date.now();
    const controller = new AbortController();
    const putting: Promise<unknown>[] = [];
    if (running) {
      const client = objectClient(running.handle);
      for (const Key of ['uploads/one', 'uploads/other', 'elsewhere']) {
        await client.send(new CreateMultipartUploadCommand({Bucket: own.settings.backupsBucket, Key}));
      }
      client.destroy();
    } else {
      for (const key of ['uploads/one', 'uploads/other', 'elsewhere']) {
        await new Promise<void>((resolve) => {
          const body = bodyThen(1, () => resolve());
          putting.push(own.store.put(key, body, {partSizeBytes, signal: controller.signal}).catch(() => undefined));
        });
      }
    }
    expect(await own.keys()).toEqual([]);
    const uploads = await collect(own.store.unfinishedUploads('uploads/'));
    expect(uploads.map(({key}) => key).sort()).toEqual(['uploads/one', 'uploads/other']);
    for (const {startedAt} of uploads) expect(Math.abs(startedAt.getTime() - begun)).toBeLessThan(120_000);
    for (const upload of uploads) await own.store.abortUpload(upload);
    // Once more: it is gone, and that is no error.
    for (const upload of uploads) await own.store.abortUpload(upload);
    expect(await own.unfinished()).toEqual(['elsewhere']);
    controller.abort();
    await Promise.all(putting);
    await own.dispose();
  });
});

describe('a directory', () => {
  let place: TestStore;
  beforeAll(async () => {
    place = await testStore('directory');
  });
  afterAll(() => place.dispose());

  test.each(['../escaped', 'a/../../escaped', '/etc/passwd', '..', 'a/../../backups-evil/x', 'nul\0byte'])(
    'is not left by the key %j',
    async (key) => {
      const attempts = [
        () => place.store.put(key, bodyOf(Buffer.from('x')), {partSizeBytes}),
        () => place.store.create(key, Buffer.from('x')),
        () => place.store.replace(key, Buffer.from('x')),
        () => place.store.head(key),
        () => collect(place.store.get(key)),
        () => place.store.delete(key),
        () => place.store.abortUpload({key: 'x', id: key, startedAt: new Date()}),
      ];
      for (const attempt of attempts) {
        const failure = await failureOf(Promise.resolve().then(attempt as () => Promise<unknown>));
        expect(failure).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
        expect(failure.reason).toContain('out of the directory');
      }
    },
  );

  test('that cannot be made says so', async () => {
    await place.store.create('file', Buffer.from('in the way'));
    const blocked = await openStores({
      kind: 'directory',
      path: path.join(place.folder, 'file'),
      backupsBucket: 'b',
      filesBucket: 'f',
    });
    expect(await failureOf(blocked.backups.create('x', Buffer.from('x')))).toMatchObject({
      code: 'STORAGE_FAILED',
      exitCode: 4,
    });
  });

  test('does not keep an object whose metadata could not be written', async () => {
    const key = 'files/scan.pdf.encrypted';
    const blocked = path.join(place.folder, 'files', '.scan.pdf.encrypted\ufffe');
    await mkdir(path.join(blocked, 'in-the-way'), {recursive: true});
    const metadata = {name: 'x'};
    for (const attempt of [
      () => place.store.create(key, Buffer.from('x'), {metadata}),
      () => place.store.put(key, bodyOf(Buffer.from('x')), {partSizeBytes, metadata}),
    ]) {
      expect(await failureOf(attempt())).toMatchObject({code: 'STORAGE_FAILED'});
      expect(await place.store.head(key)).toBeUndefined();
    }
    expect(await readdir(path.dirname(blocked))).toEqual([path.basename(blocked)]);
    await rm(blocked, {recursive: true});
  });

  test('that is not there is no empty store: every method says so', async () => {
    const missing = path.join(place.folder, 'not-mounted');
    const {backups: store} = await openStores({
      kind: 'directory',
      path: missing,
      backupsBucket: 'b',
      filesBucket: 'f',
    });
    const attempts: (() => Promise<unknown>)[] = [
      () => collect(store.list('')),
      () => collect(store.list('database-backups/')),
      () => collect(store.unfinishedUploads('database-backups/')),
      () => store.head('x'),
      () => collect(store.get('x')),
      () => store.delete('x'),
      () => store.create('x', Buffer.from('x')),
    ];
    for (const attempt of attempts) {
      const failure = await failureOf(attempt());
      expect(failure).toMatchObject({code: 'STORAGE_FAILED', message: 'The directory of the store is not there'});
      expect(failure.reason).toContain(`there is no ${missing},`);
    }
    expect(existsSync(missing)).toBe(false);
  });

  test('without the folder of the bucket is an empty store: nothing was written to it yet', async () => {
    const empty = await testStore('directory');
    expect(await empty.keys()).toEqual([]);
    expect(await empty.unfinished()).toEqual([]);
    expect(await empty.store.head('x')).toBeUndefined();
    await empty.store.delete('x');
    expect(existsSync(empty.folder)).toBe(false);
    await empty.dispose();
  });
});

describe('an S3 server that refuses', () => {
  test('a wrong secret or an unknown key: every method says that it was denied', async () => {
    const place = await testStore('s3');
    await place.store.create('object', Buffer.from('x'));
    for (const changes of [{secretAccessKey: 'wrong'}, {accessKeyId: 'loma:nobody'}]) {
      using stores = await openStores(s3Settings({...shared, ...changes}, place.settings.backupsBucket));
      const {backups: store} = stores;
      const attempts: Promise<unknown>[] = [
        store.put('new', bodyOf(Buffer.from('x')), {partSizeBytes}),
        store.create('new', Buffer.from('x')),
        store.replace('object', Buffer.from('y')),
        store.head('object'),
        collect(store.get('object')),
        collect(store.list('')),
        store.delete('object'),
        collect(store.unfinishedUploads('')),
      ];
      for (const failure of await Promise.all(attempts.map(failureOf))) {
        expect(failure).toMatchObject({code: 'STORAGE_DENIED', exitCode: 4});
        expect(failure.hint).toBeTruthy();
      }
    }
    expect(await place.keys()).toEqual(['object']);
    expect(String(await contentOf(place.store, 'object'))).toBe('x');
    await place.dispose();
  });

  test('requests signed for another region than its own: the setting is named', async () => {
    using stores = await openStores(s3Settings({...shared, region: 'eu-central-1'}, 'loma-any'));
    const failure = await failureOf(collect(stores.backups.list('')));
    // Ceph takes any region.
    if (shared.kind === 'swift')
      expect(failure).toMatchObject({code: 'STORAGE_DENIED', hint: expect.stringContaining('CLOUDFLARE_R2_REGION')});
    else expect(failure).toMatchObject({code: 'STORAGE_FAILED', reason: expect.stringContaining('NoSuchBucket')});
  });

  test('a bucket that is not there is named as the cause', async () => {
    using stores = await openStores(s3Settings(shared, 'loma-no-such-bucket'));
    const {backups: store} = stores;
    const attempts: Promise<unknown>[] = [
      store.put('new', bodyOf(Buffer.from('x')), {partSizeBytes}),
      store.put('large', bodyOf(randomBytes(partSizeBytes + 1)), {partSizeBytes}),
      store.create('new', Buffer.from('x')),
      collect(store.get('object')),
      collect(store.list('')),
    ];
    for (const failure of await Promise.all(attempts.map(failureOf))) {
      expect(failure).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
      expect(failure.reason).toContain('NoSuchBucket');
      expect(failure.hint).toContain('CLOUDFLARE_R2_BUCKET_BACKUPS');
    }
  });

  test('to listen at all: said within seconds', async () => {
    const port = 9;
    expect(await isListening(port)).toBe(false);
    using stores = await openStores(s3Settings({...shared, endpoint: `http://127.0.0.1:${port}`}, 'bucket'));
    const started = performance.now();
    const attempts: Promise<unknown>[] = [
      stores.backups.put('new', bodyOf(randomBytes(100)), {partSizeBytes}),
      stores.backups.head('object'),
      collect(stores.backups.list('')),
    ];
    for (const failure of await Promise.all(attempts.map(failureOf))) {
      expect(failure).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
      expect(failure.reason).toContain('ECONNREFUSED');
    }
    expect(performance.now() - started).toBeLessThan(15_000);
  });
});

test('a delete of what is not there is no error, where the store says that it is not there', async () => {
  const proxy = await startProxy(shared, ({method}) =>
    method === 'DELETE' ? {answer: {status: 404, code: 'NoSuchKey'}} : undefined,
  );
  const place = await testStore('s3', proxy);
  await place.store.delete('gone');
  expect(proxy.faulted).toHaveLength(1);
  await place.dispose();
  await proxy.stop();
});

describe('a download over a connection that breaks', () => {
  const content = randomBytes(4 * mib);
  let place: TestStore;
  beforeAll(async () => {
    place = await testStore('s3');
    await place.store.create('object', content);
  });
  afterAll(() => place.dispose());

  /** Reads through a proxy that does with the n-th GET what `faultOf` says. */
  async function reading<T>(
    faultOf: (attempt: number) => Fault | undefined,
    work: (store: TestStore['store'], proxy: FaultyProxy) => Promise<T>,
  ): Promise<T> {
    let attempts = 0;
    const proxy = await startProxy(shared, ({method}) => (method === 'GET' ? faultOf(attempts++) : undefined));
    using stores = await openStores(s3Settings(proxy, place.settings.backupsBucket));
    try {
      return await work(stores.backups, proxy);
    } finally {
      await proxy.stop();
    }
  }

  const ranges = (proxy: FaultyProxy) => proxy.requests.map(({headers}) => headers.range);

  test('goes on from where it stopped, with If-Match', async () => {
    await reading(
      (attempt) => (attempt < 3 ? {cutAfterBytes: mib + 7} : undefined),
      async (store, proxy) => {
        expect((await contentOf(store, 'object')).equals(content)).toBe(true);
        expect(proxy.faulted).toHaveLength(3);
        expect(ranges(proxy)).toEqual([undefined, ...[1, 2, 3].map((n) => `bytes=${n * (mib + 7)}-`)]);
        const tags = proxy.requests.map(({headers}) => headers['if-match']);
        expect(tags[0]).toBeUndefined();
        expect(tags[1]).toMatch(/^"?[0-9a-f]{32}/);
        expect(new Set(tags.slice(1)).size).toBe(1);
      },
    );
  });

  test('goes on within a range', async () => {
    await reading(
      (attempt) => (attempt === 0 ? {cutAfterBytes: 1000} : undefined),
      async (store, proxy) => {
        const chunks = (await collect(store.get('object', {offset: 500, length: 5000}))) as Buffer[];
        expect(Buffer.concat(chunks).equals(content.subarray(500, 5500))).toBe(true);
        expect(ranges(proxy)).toEqual(['bytes=500-5499', 'bytes=1500-5499']);
      },
    );
  });

  test('is not given up as long as it makes progress', async () => {
    await reading(
      (attempt) => (attempt < 12 ? {cutAfterBytes: 300_000} : undefined),
      async (store, proxy) => {
        expect((await contentOf(store, 'object')).equals(content)).toBe(true);
        expect(proxy.faulted).toHaveLength(12);
      },
    );
  });

  test('is given up when it makes none', async () => {
    await reading(
      (attempt) => ({cutAfterBytes: attempt === 0 ? mib : 0}),
      async (store, proxy) => {
        expect(await failureOf(contentOf(store, 'object'))).toMatchObject({code: 'STORAGE_FAILED', exitCode: 4});
        expect(proxy.requests.length).toBeGreaterThan(3);
        expect(new Set(ranges(proxy).slice(1))).toEqual(new Set([`bytes=${mib}-`]));
      },
    );
  }, 120_000);

  test('is refused when the object is another one by then', async () => {
    const own = await testStore('s3');
    await own.store.create('object', content);
    let attempts = 0;
    const proxy = await startProxy(shared, ({method}) => {
      if (method !== 'GET') return undefined;
      attempts += 1;
      if (attempts === 1) return {cutAfterBytes: mib};
      return {before: () => own.store.replace('object', randomBytes(content.length))};
    });
    using stores = await openStores(s3Settings(proxy, own.settings.backupsBucket));
    expect(await failureOf(contentOf(stores.backups, 'object'))).toMatchObject({code: 'OBJECT_CHANGED', exitCode: 4});
    expect(proxy.faulted).toHaveLength(2);
    await proxy.stop();
    await own.dispose();
  });

  test('is refused when the object was deleted meanwhile', async () => {
    const own = await testStore('s3');
    await own.store.create('object', content);
    let attempts = 0;
    const proxy = await startProxy(shared, ({method}) => {
      if (method !== 'GET') return undefined;
      attempts += 1;
      return attempts === 1 ? {cutAfterBytes: mib} : {before: () => own.store.delete('object')};
    });
    using stores = await openStores(s3Settings(proxy, own.settings.backupsBucket));
    expect((await failureOf(contentOf(stores.backups, 'object'))).code).toMatch(/OBJECT_(NOT_FOUND|CHANGED)/);
    await proxy.stop();
    await own.dispose();
  });

  test('that asks to come back later is asked again', async () => {
    await reading(
      (attempt) => (attempt < 2 ? {answer: {status: 503, code: 'SlowDown'}} : undefined),
      async (store, proxy) => {
        expect((await contentOf(store, 'object')).equals(content)).toBe(true);
        expect(proxy.requests).toHaveLength(3);
      },
    );
  });
});
