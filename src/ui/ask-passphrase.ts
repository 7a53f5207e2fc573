import {createInterface} from 'node:readline/promises';
import {Writable} from 'node:stream';
import {ask} from './ask.ts';
import type {Terminal} from './confirm.ts';

/**
 * Asks for a passphrase without showing it. Undefined when there is no terminal to ask on, or nothing was typed.
 * @throws BackupError INTERRUPTED
 */
export async function askPassphrase(
  question: string,
  {input, output}: Terminal,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (!input.isTTY || !output.isTTY) return undefined;
  output.write(question);
  const silent = new Writable({write: (_chunk, _encoding, done) => done()});
  const lines = createInterface({input, output: silent, terminal: true});
  try {
    return (await ask(lines, '', signal)) || undefined;
  } finally {
    output.write('\n');
  }
}
