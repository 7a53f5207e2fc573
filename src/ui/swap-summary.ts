/** The result of a `restore --swap`, with the way back in words that a shell takes. */
import type {SwapResult} from '../lib/operations/restore-swap.ts';
import type {Connection} from '../lib/postgres/connection.ts';
import {shellWord} from '../lib/shell-word.ts';
import {formatBytes, printable} from './format.ts';
import {restoreSummary} from './summary.ts';

/** psql reads a name with an equals sign, or one that looks like a URL, as a whole connection string. */
function databaseWord(name: string): string {
  return /=|^postgres(ql)?:/.test(name) ? `dbname='${name.replace(/[\\']/g, '\\$&')}'` : name;
}

/** psql with the address of a connection and without its password, which psql asks for. */
function psqlCommand({host, port, user}: Connection, database: string): string {
  const options: [string, string][] = [
    ['-h', host],
    ['-p', port],
    ['-U', user],
    ['-d', databaseWord(database)],
  ];
  const given = options.filter(([, value]) => value !== '').map(([flag, value]) => `${flag} ${shellWord(value)}`);
  return printable(`psql -X -v ON_ERROR_STOP=1 ${given.join(' ')}`);
}

function script(command: string, sql: string): string[] {
  return [`${command} <<'SQL'`, sql, 'SQL'];
}

export function swapSummary(result: SwapResult, target: Connection): string {
  const {oldDatabase, oldSizeBytes, connectTo, undoSql, dropSql} = result.swap;
  const size = oldSizeBytes === undefined ? '' : `, ${formatBytes(oldSizeBytes)} on the server`;
  const psql = psqlCommand(target, connectTo);
  return [
    restoreSummary(result, [['Before it', `${oldDatabase}${size}: the old database, whole`]]),
    '',
    'To go back to the old database (stop the application first; the restored one stays, under another name):',
    '',
    ...script(psql, undoSql),
    '',
    'To delete the old database, when it is not needed any more (this cannot be undone):',
    '',
    ...script(psql, dropSql),
  ].join('\n');
}
