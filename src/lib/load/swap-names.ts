/** Names of the databases that a `restore --swap` makes and leaves: pure functions. */
import {quoteIdentifier} from '../postgres/query.ts';

/** PostgreSQL cuts longer names off (NAMEDATALEN - 1), in bytes. */
const longestNameBytes = 63;

/** Where a restore goes until it takes the target's place. */
const newDatabasePrefix = 'loma_swap_';

/** For SQL: matches the names that `newDatabaseName` gives. */
export const newDatabasePattern = `^${newDatabasePrefix}[0-9]{14}_[0-9a-f]{8}$`;

/** UTC, to the second: `20251104153000`. */
function stamp(now: Date): string {
  return now.toISOString().replaceAll(/\D/g, '').slice(0, 14);
}

/** @param token of the run that makes it: 31 bits; it stands at the name's end in hex */
export function newDatabaseName(now: Date, token: number): string {
  return `${newDatabasePrefix}${stamp(now)}_${token.toString(16).padStart(8, '0')}`;
}

/** The longest beginning of a text that takes no more than so many bytes in UTF-8, in whole characters. */
function beginning(text: string, bytes: number): string {
  let result = '';
  for (const character of text) {
    if (Buffer.byteLength(result + character) > bytes) break;
    result += character;
  }
  return result;
}

/**
 * A name for a database that makes way: `clinic_before_20251104153000`. A long name is cut so that the whole has at most
 * 63 bytes.
 * @param taken names that are in use
 */
export function nameBeside(database: string, word: 'before' | 'undone', now: Date, taken: ReadonlySet<string>): string {
  for (let attempt = 1; ; attempt++) {
    const end = `_${word}_${stamp(now)}${attempt === 1 ? '' : `_${attempt}`}`;
    const name = beginning(database, longestNameBytes - Buffer.byteLength(end)) + end;
    if (!taken.has(name)) return name;
  }
}

/** Of all names of databases those that earlier swaps of a database have left. */
export function earlierNames(database: string, names: readonly string[]): string[] {
  const end = /_before_\d{14}(_\d+)?$/;
  return names.filter((name) => {
    const match = end.exec(name);
    return match && name.slice(0, match.index) === beginning(database, longestNameBytes - Buffer.byteLength(match[0]));
  });
}

/** How to go back, and how to be rid of what was there before. */
export interface SwapInstructions {
  /** The database to be connected to: one of the server's others. */
  connectTo: string;
  /** Puts the old database back in its place, and keeps the restored one under another name. */
  undoSql: string;
  /** Deletes the old database. */
  dropSql: string;
}

export function swapInstructions(names: {
  target: string;
  old: string;
  undone: string;
  connectTo: string;
}): SwapInstructions {
  const [target, old, undone] = [names.target, names.old, names.undone].map(shownIdentifier);
  return {
    connectTo: names.connectTo,
    undoSql: [
      `SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE datname = ${shownLiteral(names.target)};`,
      'BEGIN;',
      `ALTER DATABASE ${target} RENAME TO ${undone};`,
      `ALTER DATABASE ${old} RENAME TO ${target};`,
      'COMMIT;',
    ].join('\n'),
    dropSql: `DROP DATABASE ${old};`,
  };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const control = /[\u0000-\u001f\u007f-\u009f]/g;

const escaped = (text: string) =>
  text.replaceAll('\\', '\\\\').replace(control, (found) => `\\${found.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** An identifier that can be printed on a terminal, whatever is in the name (SQL's `U&"…"`). */
function shownIdentifier(name: string): string {
  return name.search(control) < 0 ? quoteIdentifier(name) : `U&${quoteIdentifier(escaped(name))}`;
}

function shownLiteral(text: string): string {
  const quoted = (value: string) => `'${value.replaceAll("'", "''")}'`;
  return text.search(control) < 0 ? quoted(text) : `U&${quoted(escaped(text))}`;
}
