import {Transform} from 'node:stream';
import {type DumpHandler, DumpScanner} from './scanner.ts';

/**
 * A stage that lets a handler see a dump and passes on what the handler makes of it.
 * @param take gives what is to be passed on, and forgets it
 * @param atEnd is called when the dump was read to its end, before the last `take`; if it gives a promise, there is one more `take` when
 *   that is kept, and the stream ends then
 * @throws (the stream) BackupError DUMP_UNREADABLE when the dump is cut off, and what the handler throws
 */
export function scanStage(
  handler: DumpHandler,
  take: () => readonly Buffer[],
  atEnd: () => void | Promise<void>,
): Transform {
  const scanner = new DumpScanner(handler);
  const stage = new Transform({
    highWaterMark: 1 << 20,
    transform(chunk: Buffer, _encoding, done) {
      attempt(done, () => {
        scanner.write(chunk);
        passOn();
        done();
      });
    },
    flush(done) {
      attempt(done, () => {
        scanner.end();
        const more = atEnd();
        passOn();
        if (!more) return done();
        more.then(passOn).then(() => done(), done);
      });
    },
  });

  function passOn(): void {
    for (const bytes of take()) stage.push(bytes);
  }

  return stage;
}

function attempt(done: (error: Error) => void, work: () => void): void {
  try {
    work();
  } catch (error) {
    done(error as Error);
  }
}
