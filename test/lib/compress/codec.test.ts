import {spawnSync} from 'node:child_process';
import {gunzipSync, zstdDecompressSync} from 'node:zlib';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {codecs, decompressionError} from '../../../src/lib/compress/codec.ts';
import {BackupError} from '../../../src/lib/errors.ts';
import {cut, cutPlaces, feed, noise, text, tryFeed} from '../feed.ts';

const readers = {gzip: gunzipSync, zstd: zstdDecompressSync};
const hasProgram = (name: string) => spawnSync(name, ['--version']).status === 0;

describe.each([codecs.gzip, codecs.zstd])('the codec $name', (codec) => {
  const read = readers[codec.name];

  it('brings back any bytes, cut in any way on both sides', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.uint8Array({maxLength: 4000}), fc.nat({max: 4000}).map(text)),
        cutPlaces,
        cutPlaces,
        async (bytes, places, compressedPlaces) => {
          const plain = Buffer.from(bytes);
          const compressed = await feed(cut(plain, places), codec.compress());
          expect(read(compressed).equals(plain)).toBe(true);
          expect((await feed(cut(compressed, compressedPlaces), codec.decompress())).equals(plain)).toBe(true);
        },
      ),
      {numRuns: 40},
    );
  });

  it('makes a valid file of an empty stream', async () => {
    const compressed = await feed([], codec.compress());
    expect(compressed.length).toBeGreaterThan(0);
    expect(read(compressed)).toHaveLength(0);
    expect(await feed([compressed], codec.decompress())).toHaveLength(0);
  });

  it('keeps the order of many blocks of unequal cost', async () => {
    const parts = Array.from({length: 12}, (_, index) =>
      index % 3 === 0 ? noise(1 << 20, index + 1) : text((index + 1) * 9999),
    );
    const plain = Buffer.concat(parts);
    expect(read(await feed(parts, codec.compress())).equals(plain)).toBe(true);
  });

  it('compresses what comes in small chunks as well as one large one', async () => {
    const plain = text(3_000_000);
    const chunks = cut(
      plain,
      Array.from({length: 400}, (_, index) => index * 8192),
    );
    const compressed = await feed(chunks, codec.compress());
    expect(compressed.length).toBeLessThan(plain.length / 20);
    expect(read(compressed).equals(plain)).toBe(true);
  });

  (hasProgram(codec.name) ? it : it.skip)(`is read by the program ${codec.name}`, async () => {
    const plain = Buffer.concat([noise(1 << 20), text(2_000_000)]);
    const compressed = await feed(cut(plain, [1 << 20, 2 << 20]), codec.compress());
    const {status, stdout} = spawnSync(codec.name, ['-dc'], {input: compressed, maxBuffer: 1 << 24});
    expect(status).toBe(0);
    expect(stdout.equals(plain)).toBe(true);
  });

  it('notices a damaged stream, and says so in our words', async () => {
    const plain = Buffer.concat([noise(5000), text(5000)]);
    const compressed = await feed([plain], codec.compress());
    let noticed = 0;
    for (let at = 0; at < compressed.length; at += 67) {
      const damaged = Buffer.from(compressed);
      damaged[at] = (damaged[at] ?? 0) ^ 0x10;
      const {released, error} = await tryFeed([damaged], codec.decompress());
      if (error === undefined) {
        // A bit that means nothing, such as the time in gzip's head.
        expect(released.equals(plain)).toBe(true);
        continue;
      }
      noticed += 1;
      expect(decompressionError(error, 'the backup')).toMatchObject({
        code: 'DECRYPTION_FAILED',
        exitCode: 5,
        reason: expect.stringMatching(/^the backup was opened/),
      });
    }
    expect(noticed).toBeGreaterThan(50);
  });

  it('notices a stream that is cut off, anywhere', async () => {
    const compressed = await feed([noise(300), text(300)], codec.compress());
    for (let length = 1; length < compressed.length; length += length < 30 || length > compressed.length - 20 ? 1 : 7) {
      const {error} = await tryFeed([compressed.subarray(0, length)], codec.decompress());
      expect([length, decompressionError(error, 'x')]).toEqual([length, expect.any(BackupError)]);
    }
  });

  it('notices what is no compressed stream', async () => {
    const {error} = await tryFeed([Buffer.from('SELECT 1; -- not compressed')], codec.decompress());
    expect(decompressionError(error, 'x')).toBeInstanceOf(BackupError);
  });
});

describe('an error of something else', () => {
  it('is not taken for a damaged stream', () => {
    for (const error of [
      new Error('x'),
      Object.assign(new Error('x'), {code: 'ECONNRESET'}),
      undefined,
      'Z_DATA_ERROR',
    ]) {
      expect(decompressionError(error, 'x')).toBeUndefined();
    }
  });
});
