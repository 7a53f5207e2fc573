import {Transform} from 'node:stream';

/** A stage that passes so many bytes on, and fails with the given error at the first one more. */
export function limit(mostBytes: number, tooMany: () => Error): Transform {
  let total = 0;
  return new Transform({
    highWaterMark: 1 << 20,
    transform(chunk: Buffer, _encoding, done) {
      total += chunk.length;
      if (total > mostBytes) done(tooMany());
      else done(null, chunk);
    },
  });
}
