import {Transform} from 'node:stream';

/** The size that streams are cut to between stages, in bytes: pipes deliver 8 to 64 KiB, and each chunk costs. */
export const blockBytes = 1 << 20;

/** A stage that gathers small chunks into blocks of exactly `size` bytes (the last one is what is left). */
export function blocks(size: number = blockBytes): Transform {
  let block = Buffer.allocUnsafeSlow(size);
  let filled = 0;
  return new Transform({
    readableHighWaterMark: 2 * size,
    writableHighWaterMark: size,
    transform(chunk: Buffer, _encoding, done) {
      let rest = chunk;
      while (rest.length > 0) {
        const taken = rest.copy(block, filled);
        filled += taken;
        rest = rest.subarray(taken);
        if (filled === size) {
          this.push(block);
          block = Buffer.allocUnsafeSlow(size);
          filled = 0;
        }
      }
      done();
    },
    flush(done) {
      if (filled > 0) this.push(block.subarray(0, filled));
      done();
    },
  });
}
