import {createInterface} from 'node:readline/promises';
import type {Backup} from '../lib/catalog/backups.ts';
import {leftOutRows} from '../lib/catalog/choice.ts';
import type {TargetFacts} from '../lib/load/target.ts';
import type {Overwritten} from '../lib/operations/selection.ts';
import {ask} from './ask.ts';
import {formatAge, formatCount, formatTime, printable} from './format.ts';

export interface Terminal {
  input: NodeJS.ReadStream;
  output: NodeJS.WriteStream;
}

export interface Overwriting extends Overwritten {
  /** The database makes way for another, and stays beside it. */
  isSwap?: boolean;
}

/**
 * Shows what would be overwritten and asks for the database's name. Anything else, and no terminal to ask on, is a no.
 * @throws BackupError INTERRUPTED
 */
export async function confirmOverwrite(
  target: TargetFacts,
  backup: Backup,
  overwritten: Overwriting,
  {input, output}: Terminal,
  signal: AbortSignal,
): Promise<boolean> {
  output.write(overwriteText(target, backup, overwritten, new Date()));
  if (!input.isTTY || !output.isTTY) return false;
  const question = `Type the name of the database to ${overwritten.isSwap ? 'replace' : 'overwrite'} it: `;
  return (await ask(createInterface({input, output}), question, signal)) === target.database;
}

/** What would be overwritten, and with what. */
export function overwriteText(target: TargetFacts, backup: Backup, {chosen, isSwap}: Overwriting, now: Date): string {
  const {tables, rows, database} = backup;
  const lacking = leftOutRows(backup);
  const age = formatAge(now.getTime() - backup.startedAt.getTime());
  const contents =
    tables === undefined || rows === undefined ? [] : [`${formatCount(tables)} tables, ${formatCount(rows)} rows`];
  return [
    '',
    chosen
      ? 'Some of what was chosen is in the target, and will be overwritten:'
      : isSwap
        ? 'The target is not empty. Its sessions will be ended, and a restored database takes its place; it stays under another name:'
        : 'The target is not empty. What it holds will be overwritten:',
    `  Server:    ${printable(target.address)} (PostgreSQL ${printable(target.version)})`,
    `  Database:  ${printable(target.database)}`,
    `  Holds:     ${formatCount(target.tables)} tables, about ${formatCount(target.approximateRows)} rows`,
    ...(chosen ? replacedLines(chosen) : []),
    'With this backup:',
    `  Key:       ${printable(backup.key)}`,
    `  Database:  ${printable(database ?? 'not known')}`,
    ...(lacking === undefined ? [] : [`  Rows:      ${printable(lacking)}`]),
    `  Taken:     ${[`${formatTime(backup.startedAt)} (${age})`, ...contents].join(', ')}`,
    '',
  ].join('\n');
}

const mostLines = 30;

function replacedLines(chosen: NonNullable<Overwritten['chosen']>): string[] {
  const lines = chosen.map(
    ({name, isTable, approximateRows}) =>
      `  Replaced:  ${printable(name)}${isTable ? `, about ${formatCount(approximateRows)} rows` : ''}`,
  );
  const more = lines.length - mostLines;
  return more > 0 ? [...lines.slice(0, mostLines), `  and ${formatCount(more)} more`] : lines;
}
