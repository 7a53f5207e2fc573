import type {Interface} from 'node:readline/promises';
import {BackupError, interruption} from '../lib/errors.ts';

/**
 * Asks one question, and closes the lines. Undefined when the input has ended (Ctrl-D).
 * @throws BackupError INTERRUPTED
 */
export async function ask(lines: Interface, question: string, signal: AbortSignal): Promise<string | undefined> {
  const end = new AbortController();
  let isInterrupted = false;
  // While readline reads, Ctrl-C sends no signal. Not every Node.js ends the question by itself.
  lines.once('SIGINT', () => {
    isInterrupted = true;
    end.abort();
  });
  lines.once('close', () => end.abort());
  try {
    return await lines.question(question, {signal: AbortSignal.any([signal, end.signal])});
  } catch {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    if (!isInterrupted) return undefined;
    throw new BackupError('Interrupted', {
      code: 'INTERRUPTED',
      kind: 'interrupted',
      reason: 'Ctrl-C was the answer to the question; nothing was changed',
    });
  } finally {
    lines.close();
  }
}
