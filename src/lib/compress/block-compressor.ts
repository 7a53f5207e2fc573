import {Duplex} from 'node:stream';
import {BlockPool, blockBytes} from '../streams/block-pool.ts';

export type CompressBlock = (block: Buffer, done: (error: Error | null, compressed?: Buffer) => void) => void;

/** Blocks under way at once: two keep both cores of a small machine busy, the third waits for the first free thread. */
const concurrency = 3;

/**
 * A stage that gathers its input into blocks and compresses each as a member (gzip) or frame (zstd) of its own, several
 * at a time on libuv's thread pool, and passes them on in order. Members and frames one after another are one valid
 * file: RFC 1952, 2.2; RFC 8878, 3.
 *
 * It is a Duplex, not a Transform: results come later than the write that they belong to, and a Transform would not notice
 * that its reader is slower.
 * @param pool gets the blocks back that were compressed: a block that is written whole is compressed as it is, and nobody may
 *   look at it afterwards
 */
export function compressBlocks(compress: CompressBlock, pool?: BlockPool): Duplex {
  const blocks = pool ?? new BlockPool();
  let block = blocks.take();
  let filled = 0;
  let isEmpty = true;
  /** Results in the order of their blocks; undefined is one that is still under way. */
  const results: (Buffer | undefined)[] = [];
  let firstIndex = 0;
  /** Whether the reader takes more. */
  let isWanted = true;
  /** Goes on when at most `until` blocks are left. */
  let waiting: {until: number; resume: () => void} | undefined;
  let failure: Error | undefined;

  const stage = new Duplex({
    writableHighWaterMark: blockBytes,
    readableHighWaterMark: blockBytes,
    write(chunk: Buffer, _encoding, done) {
      fill(chunk, done);
    },
    final(done) {
      // An empty stream must be a valid file too.
      if (filled > 0 || isEmpty) start();
      whenAtMost(0, (error) => {
        if (!error) stage.push(null);
        done(error);
      });
    },
    read() {
      isWanted = true;
      passOn();
    },
  });

  /** Copies a chunk into the block; whenever that is full, waits for a free place to compress it. */
  function fill(chunk: Buffer, done: (error?: Error | null) => void): void {
    if (pool && filled === 0 && chunk.length === blockBytes) {
      blocks.give(block);
      block = chunk;
      filled = blockBytes;
      start();
      whenAtMost(concurrency - 1, done);
      return;
    }
    const taken = chunk.copy(block, filled);
    filled += taken;
    if (filled < blockBytes) {
      done();
      return;
    }
    start();
    const rest = chunk.subarray(taken);
    whenAtMost(concurrency - 1, (error) => {
      if (error || rest.length === 0) done(error);
      else fill(rest, done);
    });
  }

  function start(): void {
    isEmpty = false;
    const full = block;
    const index = firstIndex + results.length;
    results.push(undefined);
    compress(full.subarray(0, filled), (error, compressed) => {
      if (error) failure = error;
      blocks.give(full);
      results[index - firstIndex] = compressed;
      passOn();
    });
    block = blocks.take();
    filled = 0;
  }

  /** Hands on what is ready, as long as the reader takes it, and lets the writer go on. */
  function passOn(): void {
    while (isWanted && !failure && results[0] !== undefined) {
      const compressed = results.shift();
      firstIndex += 1;
      isWanted = stage.push(compressed);
    }
    if (!waiting || (results.length > waiting.until && !failure)) return;
    const {resume} = waiting;
    waiting = undefined;
    resume();
  }

  function whenAtMost(until: number, done: (error?: Error | null) => void): void {
    const resume = () => done(failure ?? null);
    if (failure || results.length <= until) resume();
    else waiting = {until, resume};
  }

  return stage;
}
