import {Transform} from 'node:stream';

export type CompressBlock = (block: Buffer, done: (error: Error | null, compressed: Buffer) => void) => void;

/** Blocks under way at once: two keep both cores of a small machine busy, and each holds a block in memory. */
const concurrency = 3;

/**
 * A stage that compresses every chunk it is given as a member (gzip) or frame (zstd) of its own, several at a time on
 * libuv's thread pool, and passes them on in order. Members and frames one after another are one valid file: RFC 1952,
 * 2.2; RFC 8878, 3. Chunks should be about 1 MiB; smaller ones compress badly.
 */
export function compressBlocks(compress: CompressBlock): Transform {
  /** Results in the order of their blocks; undefined is one that is still under way. */
  const results: (Buffer | undefined)[] = [];
  let firstIndex = 0;
  let nextIndex = 0;
  let blocksSeen = 0;
  /** Goes on when a place is free (transform) or everything is done (flush). */
  let waiting: {until: number; resume: () => void} | undefined;
  let failure: Error | undefined;

  const stage = new Transform({
    // One block waits while `concurrency` others are under way.
    writableHighWaterMark: 1,
    readableHighWaterMark: 1 << 20,
    transform(block: Buffer, _encoding, done) {
      start(block);
      wait(concurrency - 1, done);
    },
    flush(done) {
      // An empty stream must be a valid file too.
      if (blocksSeen === 0) start(Buffer.alloc(0));
      wait(0, done);
    },
  });

  function start(block: Buffer): void {
    blocksSeen += 1;
    const index = nextIndex;
    nextIndex += 1;
    results.push(undefined);
    compress(block, (error, compressed) => {
      if (error) failure = error;
      results[index - firstIndex] = compressed;
      while (!failure && results.length > 0 && results[0] !== undefined) {
        stage.push(results.shift());
        firstIndex += 1;
      }
      if (waiting && (failure || results.length <= waiting.until)) {
        const {resume} = waiting;
        waiting = undefined;
        resume();
      }
    });
  }

  function wait(until: number, done: (error?: Error | null) => void): void {
    const resume = () => done(failure ?? null);
    if (failure || results.length <= until) resume();
    else waiting = {until, resume};
  }

  return stage;
}
