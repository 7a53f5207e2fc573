/** What files need of a store besides: metadata, shared keys, and names that only files have. */
import {randomBytes} from 'node:crypto';
import {Readable} from 'node:stream';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {BackupError} from '../../src/lib/errors.ts';
import {collect, contentOf, failureOf, type StoreKind, type TestStore, testStore} from '../support/settings.ts';

const mib = 1 << 20;
const partSizeBytes = 5 * mib;
const metadata = {'loma-format': '1', 'original-size': '12', digest: 'a'.repeat(240)};

function bodyOf(bytes: Buffer): Readable {
  return Readable.from([bytes], {objectMode: false});
}

/** Some MiB, then an error. */
function failingBody(mibs: number, reason: Error): Readable {
  let left = mibs;
  return new Readable({
    read() {
      left -= 1;
      if (left >= 0) this.push(randomBytes(mib));
      else this.destroy(reason);
    },
  });
}

describe.each<StoreKind>(['directory', 's3'])('a store of kind %s', (kind) => {
  let place: TestStore;
  beforeAll(async () => {
    place = await testStore(kind);
  });
  afterAll(() => place.dispose());

  test('keeps metadata with an object, however it was stored, and replaces them with it', async () => {
    await place.store.create('created', Buffer.from('1'), {metadata});
    await place.store.put('put', bodyOf(Buffer.from('2')), {partSizeBytes, metadata});
    await place.store.put('large', bodyOf(randomBytes(partSizeBytes + 1)), {partSizeBytes, metadata});
    await place.store.replace('created by replacing', Buffer.from('3'), {metadata});
    for (const key of ['created', 'put', 'large', 'created by replacing']) {
      expect((await place.store.head(key))?.metadata).toEqual(metadata);
    }
    await place.store.replace('created', Buffer.from('4'), {metadata: {digest: 'b'}});
    expect((await place.store.head('created'))?.metadata).toEqual({digest: 'b'});
    await place.store.replace('created', Buffer.from('5'));
    expect((await place.store.head('created'))?.metadata).toEqual({});
    expect(await place.keys()).toEqual(['created', 'created by replacing', 'large', 'put']);
  });

  test('takes metadata away with the object', async () => {
    await place.store.create('deleted', Buffer.from('1'), {metadata});
    await place.store.delete('deleted');
    await place.store.create('deleted', Buffer.from('2'));
    expect((await place.store.head('deleted'))?.metadata).toEqual({});
    await place.store.delete('deleted');
  });

  test('replaces an object with a stream when asked to, and keeps it when that stream fails', async () => {
    const content = randomBytes(100);
    await place.store.create('replaced', content, {metadata});
    const reason = new BackupError('The file changed', {code: 'FILE_CHANGED', kind: 'unexpected'});
    for (const mibs of [0, 7, 12]) {
      const putting = place.store.put('replaced', failingBody(mibs, reason), {partSizeBytes, key: 'replacing'});
      expect(await failureOf(putting)).toBe(reason);
      expect((await contentOf(place.store, 'replaced')).equals(content)).toBe(true);
      expect((await place.store.head('replaced'))?.metadata).toEqual(metadata);
      expect(await place.unfinished()).toEqual([]);
    }
    const larger = randomBytes(partSizeBytes + 7);
    await place.store.put('replaced', bodyOf(larger), {partSizeBytes, key: 'replacing', metadata: {digest: 'c'}});
    expect((await contentOf(place.store, 'replaced')).equals(larger)).toBe(true);
    expect((await place.store.head('replaced'))?.metadata).toEqual({digest: 'c'});
  });

  test('keeps the object of another run that was stored under a shared key meanwhile', async () => {
    const reason = new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted'});
    const other = Buffer.from('of another run');
    let isFirst = true;
    const body = new Readable({
      read() {
        if (isFirst) this.push(randomBytes(mib));
        else void place.store.replace('shared', other).then(() => this.destroy(reason));
        isFirst = false;
      },
    });
    expect(await failureOf(place.store.put('shared', body, {partSizeBytes, key: 'shared'}))).toBe(reason);
    expect((await contentOf(place.store, 'shared')).equals(other)).toBe(true);
    const again = place.store.put('shared', bodyOf(other), {partSizeBytes, key: 'shared'});
    expect(await failureOf(again)).toMatchObject({code: 'OBJECT_EXISTS'});
  });

  test.each([
    ['a line break', 'names/a\nb\r\nc'],
    ['white space at its ends', 'names/ \t x \n'],
    ['an escape character', 'names/\u001b[31mred\u0007'],
    ['plus and percent', 'names/a+b%2Bc%0A d'],
    ['é as one character', 'names/\u00e9'],
    ['é as two', 'names/e\u0301'],
    ['255 bytes in one part', `names/${'x'.repeat(255)}`],
    ['255 bytes of emoji in one part, and dots', `names/${'😀'.repeat(50)}${'.'.repeat(55)}`],
    ['a long part before its end', `names/${'y'.repeat(230)}/z`],
  ])('takes and lists a key with %s', async (_, key) => {
    const content = Buffer.from(`content of ${key}`);
    await place.store.put(key, bodyOf(content), {partSizeBytes, metadata});
    expect((await contentOf(place.store, key)).equals(content)).toBe(true);
    expect((await place.store.head(key))?.metadata).toEqual(metadata);
    expect((await collect(place.store.list('names/'))).map((info) => info.key)).toEqual([key]);
    expect((await collect(place.store.list(key.slice(0, -1)))).map((info) => info.key)).toEqual([key]);
    await place.store.delete(key);
    expect(await collect(place.store.list('names/'))).toEqual([]);
  });
});

test('a directory lists an unfinished upload of a long name under its key, and takes it away', async () => {
  const place = await testStore('directory');
  const key = `names/${'x'.repeat(255)}`;
  const controller = new AbortController();
  const body = new Readable({read: () => undefined});
  const putting = place.store.put(key, body, {partSizeBytes, signal: controller.signal}).catch(() => undefined);
  body.push(randomBytes(mib));
  let found: string[] = [];
  while (found.length === 0) found = await place.unfinished();
  expect(found).toEqual([key]);
  expect(await place.keys()).toEqual([]);
  for await (const upload of place.store.unfinishedUploads('names/')) await place.store.abortUpload(upload);
  expect(await place.unfinished()).toEqual([]);
  controller.abort();
  await putting;
  await place.dispose();
});
