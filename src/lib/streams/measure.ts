import {createHash} from 'node:crypto';
import {Transform} from 'node:stream';

export interface Measure extends Transform {
  /** Of all bytes so far. */
  readonly bytes: number;
  /** SHA-256 of the whole stream, hex. @throws Error before its end */
  readonly sha256: string;
}

/**
 * A tap that counts a stream, and digests it if asked to, and changes nothing.
 * @param onBytes is told the running total at every chunk
 */
export function measure(options: {digest?: boolean; onBytes?: (total: number) => void} = {}): Measure {
  const hash = options.digest ? createHash('sha256') : undefined;
  let bytes = 0;
  let sha256: string | undefined;
  const tap = new Transform({
    highWaterMark: 2 << 20,
    transform(chunk: Buffer, _encoding, done) {
      hash?.update(chunk);
      bytes += chunk.length;
      options.onBytes?.(bytes);
      done(null, chunk);
    },
    flush(done) {
      sha256 = hash?.digest('hex');
      done();
    },
  });
  return Object.defineProperties(tap, {
    bytes: {get: () => bytes},
    sha256: {
      get() {
        if (sha256 === undefined) throw new Error('the stream has not been read to its end');
        return sha256;
      },
    },
  }) as Measure;
}
