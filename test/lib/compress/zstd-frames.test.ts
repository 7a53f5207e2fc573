import {zstdDecompressSync} from 'node:zlib';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {zstdFrames} from '../../../src/lib/compress/zstd-frames.ts';
import {blockBytes} from '../../../src/lib/streams/block-pool.ts';
import {noise, text} from '../feed.ts';

/** Bytes that zstd can do nothing with, bytes that it makes nearly nothing of, and text. */
const contents = [(length: number) => noise(length), (length: number) => Buffer.alloc(length), text];
const blocks = fc.record({
  content: fc.constantFrom(...contents),
  length: fc.oneof(fc.nat({max: 100}), fc.constant(blockBytes), fc.nat({max: blockBytes})),
});

describe('frames of zstd', () => {
  it('hold a block each, however many are under way, and stay what they are', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(blocks, {maxLength: 24}), fc.integer({min: 1, max: 4}), async (given, atOnce) => {
        const compress = zstdFrames(1);
        const originals = given.map(({content, length}) => content(length));
        const frames: Buffer[] = [];
        const waiting = [...originals.entries()];
        const worker = async () => {
          for (let next = waiting.shift(); next; next = waiting.shift()) {
            const [index, original] = next;
            frames[index] = await new Promise<Buffer>((resolve, reject) => {
              compress(original, (error, frame) => (frame ? resolve(frame) : reject(error)));
            });
          }
        };
        await Promise.all(Array.from({length: atOnce}, worker));
        for (const [index, original] of originals.entries()) {
          expect(zstdDecompressSync(frames[index] as Buffer).equals(original)).toBe(true);
        }
      }),
      {numRuns: 30},
    );
  });

  it('end with a checksum: bytes that were changed are noticed', async () => {
    const original = text(9000);
    const frame = await new Promise<Buffer | undefined>((resolve) => {
      zstdFrames(1)(original, (_, compressed) => resolve(compressed));
    });
    const damaged = Buffer.from(frame as Buffer);
    damaged.writeUInt8((damaged.at(-1) ?? 0) ^ 1, damaged.length - 1);
    expect(() => zstdDecompressSync(damaged)).toThrow(/checksum/i);
  });
});
