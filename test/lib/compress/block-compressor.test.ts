import {Readable, Writable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {type CompressBlock, compressBlocks} from '../../../src/lib/compress/block-compressor.ts';
import {blockBytes} from '../../../src/lib/streams/block-pool.ts';
import {cut, cutPlaces, feed, noise, tryFeed} from '../feed.ts';

/** Whole blocks that differ, and a last one that is not whole. */
const chunks = (count: number) =>
  Array.from({length: count}, (_, index) => Buffer.alloc(index === count - 1 ? 10 : blockBytes, `${index};`));
/** What stands for a compressed block: a copy, because the block is used again. */
const copy = (block: Buffer) => Buffer.from(block.subarray(0, 64));

describe('compressing block by block', () => {
  it('makes blocks of one size of whatever comes, and together they are the stream', async () => {
    const bytes = noise(3 * blockBytes + 7);
    await fc.assert(
      fc.asyncProperty(cutPlaces, async (places) => {
        const sizes: number[] = [];
        const compress: CompressBlock = (block, done) => {
          sizes.push(block.length);
          setImmediate(() => done(null, Buffer.from(block)));
        };
        expect((await feed(cut(bytes, places), compressBlocks(compress))).equals(bytes)).toBe(true);
        expect(sizes).toEqual([blockBytes, blockBytes, blockBytes, 7]);
      }),
      {numRuns: 20},
    );
  });

  it('makes one empty block of nothing, and none after a whole last one', async () => {
    for (const [length, expected] of [
      [0, [0]],
      [blockBytes, [blockBytes]],
    ] as const) {
      const sizes: number[] = [];
      const stage = compressBlocks((block, done) => {
        sizes.push(block.length);
        setImmediate(() => done(null, copy(block)));
      });
      await feed(length ? [noise(length)] : [], stage);
      expect(sizes).toEqual(expected);
    }
  });

  it('passes blocks on in their order, in whatever order they become ready', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({max: 5}), {minLength: 1, maxLength: 8}), async (turns) => {
        const finished: number[] = [];
        let index = 0;
        const compress: CompressBlock = (block, done) => {
          const mine = index;
          index += 1;
          let left = turns[mine % turns.length] ?? 0;
          const later = () => {
            left -= 1;
            if (left >= 0) return void setImmediate(later);
            finished.push(mine);
            done(null, copy(block));
          };
          setImmediate(later);
        };
        const given = chunks(turns.length);
        expect((await feed(given, compressBlocks(compress))).equals(Buffer.concat(given.map(copy)))).toBe(true);
        expect(finished).toHaveLength(turns.length);
      }),
      {numRuns: 20},
    );
  });

  it('works on several blocks at once, and never on many', async () => {
    let under = 0;
    let most = 0;
    const compress: CompressBlock = (block, done) => {
      under += 1;
      most = Math.max(most, under);
      setImmediate(() =>
        setImmediate(() => {
          under -= 1;
          done(null, copy(block));
        }),
      );
    };
    await feed(chunks(20), compressBlocks(compress));
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(4);
    expect(under).toBe(0);
  });

  it.each([0, 1, 4, 9])('fails when the compressor fails on block %i of ten', async (failing) => {
    let index = 0;
    const compress: CompressBlock = (block, done) => {
      const mine = index;
      index += 1;
      setImmediate(() => done(mine === failing ? new Error('out of memory') : null, copy(block)));
    };
    const {released, error} = await tryFeed(chunks(10), compressBlocks(compress));
    expect(error).toMatchObject({message: 'out of memory'});
    const before = Buffer.concat(chunks(10).slice(0, failing).map(copy));
    expect(before.subarray(0, released.length).equals(released)).toBe(true);
  });

  it('fails with the source, and results that come afterwards do no harm', async () => {
    const pending: (() => void)[] = [];
    const stage = compressBlocks((block, done) => void pending.push(() => done(null, copy(block))));
    function* source() {
      yield* chunks(3);
      throw new Error('pg_dump failed');
    }
    const {released, error} = await tryFeed(source(), stage);
    expect(error).toMatchObject({message: 'pg_dump failed'});
    for (const finish of pending) finish();
    await new Promise((resolve) => setImmediate(resolve));
    expect(released).toHaveLength(0);
  });
});

describe('a reader that is slower than the compression', () => {
  it('holds up the writer: what waits does not grow with the data', async () => {
    const stage = compressBlocks((block, done) => setImmediate(() => done(null, Buffer.from(block))));
    let written = 0;
    const source = Readable.from(
      (function* () {
        for (; written < 64; written += 1) yield Buffer.alloc(blockBytes, written);
      })(),
      {objectMode: false, highWaterMark: 1},
    );
    let most = 0;
    const sink = new Writable({
      highWaterMark: 1,
      write(_chunk, _encoding, done) {
        most = Math.max(most, stage.readableLength);
        // Ten turns of the event loop a block: the compression needs one.
        const wait = (turns: number): unknown => (turns === 0 ? done() : setImmediate(wait, turns - 1));
        wait(10);
      },
    });
    await pipeline(source, stage, sink);
    expect(written).toBe(64);
    expect(most).toBeLessThanOrEqual(2 * blockBytes);
  });
});
