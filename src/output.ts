/** stdout, when it takes no more: the result of a command must not be lost with it, nor be taken for one that was told. */
import {setImmediate} from 'node:timers/promises';
import {BackupError, codeOf, messageOf} from './lib/errors.ts';
import {errorText} from './ui/error-text.ts';

let failure: Error | undefined;
let result: string | undefined;
let isTold = false;

/** Listens to what goes wrong with stdout and stderr, in the place of oclif, which throws it where nobody catches it. */
export function watchOutput(): void {
  process.stdout.removeAllListeners('error');
  process.stdout.on('error', (error) => {
    // Not when the reader went away, such as `head`: it has what it wanted.
    if (codeOf(error) !== 'EPIPE') failure ??= error;
  });
  // Nobody can be told of it, and a backup does not fail for the sake of its progress.
  process.stderr.on('error', () => undefined);
}

/** Says what is to be printed on stderr if stdout does not take it: the text of a result, secrets masked. */
export function keepResult(text: string): void {
  result = text;
}

/** The failure of stdout was an error of the command itself, which has told it. */
export function outputFailureIsTold(): void {
  isTold = true;
}

/** Tells a failure of stdout, if there was one. @returns the exit code, which is the command's own if that is not 0 */
export async function checkOutput(exitCode: typeof process.exitCode): Promise<typeof process.exitCode> {
  // What a pipe has no room for yet waits in this process, for as long as its reader does.
  if (process.stdout.writable) await new Promise<void>((done) => process.stdout.write('', () => done()));
  // A failed write is told in the turn after it.
  await setImmediate();
  if (!failure || isTold) return exitCode;
  const error = new BackupError('The output could not be written', {
    code: 'OUTPUT_FAILED',
    kind: 'unexpected',
    reason: messageOf(failure),
    hint:
      result === undefined
        ? 'Is there room where the output goes? Then run the command again.'
        : 'The command itself has ended, and what it had to say is above. Is there room where its output goes?',
  });
  const asIs = (text: string) => text;
  process.stderr.write(`${result === undefined ? '' : `${result}\n`}${errorText(error, asIs)}`);
  return exitCode || error.exitCode;
}
