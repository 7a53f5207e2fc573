import {constants, zstdCompressSync} from 'node:zlib';
import {expect, it} from '@jest/globals';
import fc from 'fast-check';
import {decompressionError} from '../../../src/lib/compress/codec.ts';
import {zstdDecompressor} from '../../../src/lib/compress/zstd-decompressor.ts';
import {blockBytes} from '../../../src/lib/streams/block-pool.ts';
import {cut, feed, noise, text, tryFeed} from '../feed.ts';

const withChecksum = {params: {[constants.ZSTD_c_checksumFlag]: 1}};

/** With and without a checksum; of whole blocks, of few bytes, and of none; with blocks of all types. */
const plains = [
  text(blockBytes),
  noise(blockBytes),
  Buffer.alloc(0),
  text(300),
  Buffer.alloc(blockBytes),
  noise(70_000),
];
const frames = plains.map((plain, index) => zstdCompressSync(plain, index % 2 === 0 ? withChecksum : {}));

it('reads frame after frame, wherever the stream is cut near their ends', async () => {
  const compressed = Buffer.concat(frames);
  const ends = frames.map((_, index) => Buffer.concat(frames.slice(0, index + 1)).length);
  await fc.assert(
    fc.asyncProperty(fc.subarray(ends), fc.integer({min: -9, max: 9}), async (some, by) => {
      const places = some.map((end) => Math.max(0, Math.min(end + by, compressed.length)));
      expect((await feed(cut(compressed, places), zstdDecompressor())).equals(Buffer.concat(plains))).toBe(true);
    }),
    {numRuns: 60},
  );
});

it('holds no more than its reader takes: a frame of zeros is a thousand times shorter than what it holds', async () => {
  const zeros = zstdCompressSync(Buffer.alloc(blockBytes));
  const stage = zstdDecompressor();
  stage.write(Buffer.concat(Array.from({length: 500}, () => zeros)));
  await new Promise((resolve) => stage.once('readable', resolve));
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(stage.readableLength).toBeLessThan(5 * blockBytes);
  stage.end();
  let bytes = 0;
  for await (const chunk of stage as AsyncIterable<Buffer>) bytes += chunk.length;
  expect(bytes).toBe(500 * blockBytes);
});

it.each([
  ['a bomb', zstdCompressSync(Buffer.alloc(100 << 20))],
  ['a frame that is too long', zstdCompressSync(noise(9 << 20))],
  ['what is no frame', Buffer.from('SELECT 1; -- not compressed')],
  ['nothing', Buffer.alloc(0)],
  ['half a frame', frames[0]?.subarray(0, -1) as Buffer],
  ['a frame and half a head', Buffer.concat([frames[3] as Buffer, (frames[3] as Buffer).subarray(0, 4)])],
])('refuses %s', async (_, bytes) => {
  for (const chunks of [
    [bytes],
    cut(
      bytes,
      [1, 5, bytes.length - 2].filter((at) => at > 0 && at < bytes.length),
    ),
  ]) {
    const {error} = await tryFeed(chunks, zstdDecompressor());
    expect(decompressionError(error, 'x')).toMatchObject({code: 'DECRYPTION_FAILED'});
  }
});
