import {createInterface} from 'node:readline/promises';
import type {TargetFacts} from '../lib/load/target.ts';
import {formatCount, printable} from './format.ts';

export interface Terminal {
  input: NodeJS.ReadStream;
  output: NodeJS.WriteStream;
}

/**
 * Shows what would be overwritten and asks for the database's name. Anything else, and no terminal to ask on, is a no.
 */
export async function confirmOverwrite(
  target: TargetFacts,
  backupKey: string,
  {input, output}: Terminal,
  signal: AbortSignal,
): Promise<boolean> {
  output.write(
    [
      '',
      'The target is not empty. What it holds will be overwritten:',
      `  Server:    ${printable(target.address)} (PostgreSQL ${target.version})`,
      `  Database:  ${printable(target.database)}`,
      `  Holds:     ${formatCount(target.tables)} tables, about ${formatCount(target.approximateRows)} rows`,
      `  With:      ${backupKey}`,
      '',
    ].join('\n'),
  );
  if (!input.isTTY || !output.isTTY) return false;
  const lines = createInterface({input, output});
  try {
    const answer = await lines.question('Type the name of the database to overwrite it: ', {signal});
    return answer === target.database;
  } catch {
    // Ctrl-C or Ctrl-D.
    return false;
  } finally {
    lines.close();
  }
}
