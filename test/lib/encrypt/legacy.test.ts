import {createCipheriv} from 'node:crypto';
import {readFileSync} from 'node:fs';
import {gunzipSync} from 'node:zlib';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {encryptionKey} from '../../../src/lib/encrypt/keys.ts';
import {authenticateLegacy, legacyOverheadBytes, openLegacy} from '../../../src/lib/encrypt/legacy.ts';
import {BackupError} from '../../../src/lib/errors.ts';
import {Secret} from '../../../src/lib/secret.ts';
import {bytewise, cut, cutPlaces, feed, noise, tryFeed} from '../feed.ts';

const hex = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f';
const key = encryptionKey(new Secret(hex));
const otherKey = encryptionKey(new Secret('ff'.repeat(32)));
const fixture = (name: string) => readFileSync(new URL(`../../fixtures/legacy/${name}`, import.meta.url));
const object = fixture('clinic.sql.gz.encrypted');

async function* stream(chunks: Iterable<Buffer>): AsyncGenerator<Buffer> {
  yield* chunks;
}

const authenticate = (chunks: Iterable<Buffer>, keys = [key]) => authenticateLegacy(stream(chunks), keys, 'backup-x');

/** Both readers refuse it, in our words. */
async function expectRefused(
  chunks: readonly Buffer[],
  reason: RegExp = /altered, cut off, or encrypted with another key/,
): Promise<void> {
  const {error} = await tryFeed(chunks, openLegacy(key, 'backup-x'));
  expect(error).toBeInstanceOf(BackupError);
  expect(error).toMatchObject({code: 'DECRYPTION_FAILED', exitCode: 5, reason: expect.stringMatching(/^backup-x: /)});
  expect(error).toMatchObject({reason: expect.stringMatching(reason)});
  await expect(authenticate(chunks)).rejects.toMatchObject({code: 'DECRYPTION_FAILED'});
}

describe('a backup in the older form', () => {
  it('opens, whole and byte by byte', async () => {
    for (const chunks of [[object], bytewise(object)]) {
      expect(gunzipSync(await feed(chunks, openLegacy(key, 'x')))).toEqual(fixture('clinic.sql'));
      expect((await authenticate(chunks)).fingerprint).toBe(key.fingerprint);
    }
  });

  it('opens when there is nothing in it', async () => {
    const empty = fixture('empty.encrypted');
    expect(empty).toHaveLength(legacyOverheadBytes);
    for (const chunks of [[empty], bytewise(empty)]) expect(await feed(chunks, openLegacy(key, 'x'))).toHaveLength(0);
    expect(await authenticate([empty])).toBe(key);
  });

  it('opens for any content, cut in any way', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({maxLength: 500}), cutPlaces, fc.nat(), async (values, places, seed) => {
        const iv = noise(16, seed);
        const cipher = createCipheriv('aes-256-gcm', Buffer.from(hex, 'hex'), iv);
        const bytes = Buffer.concat([iv, cipher.update(values), cipher.final(), cipher.getAuthTag()]);
        expect((await feed(cut(bytes, places), openLegacy(key, 'x'))).equals(Buffer.from(values))).toBe(true);
        expect(await authenticate(cut(bytes, places), [otherKey, key])).toBe(key);
      }),
      {numRuns: 60},
    );
  });

  it('is read under a previous key too', async () => {
    expect(await authenticate([object], [otherKey, key])).toBe(key);
    expect(await authenticate(bytewise(object), [key, otherKey])).toBe(key);
  });

  it('of several megabytes is authenticated under several keys without waiting for ever', async () => {
    const iv = noise(16);
    const plain = noise(5 << 20);
    const cipher = createCipheriv('aes-256-gcm', Buffer.from(hex, 'hex'), iv);
    const bytes = Buffer.concat([iv, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    const chunks = cut(
      bytes,
      Array.from({length: 80}, (_, index) => index * 65_536),
    );
    expect(await authenticate(chunks, [otherKey, key])).toBe(key);
  });
});

describe('what is not a whole, unchanged backup is refused', () => {
  it('under another key, naming the keys that were tried', async () => {
    const {error} = await tryFeed([object], openLegacy(otherKey, 'x'));
    expect(error).toMatchObject({code: 'DECRYPTION_FAILED', reason: expect.stringContaining(otherKey.fingerprint)});
    await expect(authenticate([object], [otherKey])).rejects.toMatchObject({
      reason: expect.stringContaining(otherKey.fingerprint),
    });
  });

  it('with any bit flipped: in the IV, the ciphertext or the tag', async () => {
    for (let at = 0; at < object.length; at += 1) {
      const altered = Buffer.from(object);
      altered[at] = (altered[at] ?? 0) ^ (1 << (at % 8));
      await expectRefused([altered]);
    }
  });

  it('cut off anywhere', async () => {
    for (let length = legacyOverheadBytes; length < object.length; length += 1) {
      await expectRefused([object.subarray(0, length)]);
    }
  });

  it('with a byte appended or put in front', async () => {
    await expectRefused([object, Buffer.of(0)]);
    await expectRefused([Buffer.of(0), object]);
  });

  it('too short to be one, and says that', async () => {
    for (let length = 0; length < legacyOverheadBytes; length += 1) {
      await expectRefused(cut(object.subarray(0, length), [5]), /too short/);
    }
  });

  it('when the download fails, with that error', async () => {
    async function* failing() {
      yield object.subarray(0, 20);
      throw new Error('connection lost');
    }
    await expect(authenticateLegacy(failing(), [key], 'x')).rejects.toThrow('connection lost');
  });
});
