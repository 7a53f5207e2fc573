/** The results of operations as text for people. */
import type {Backup} from '../lib/catalog/backups.ts';
import {leftOutRows} from '../lib/catalog/choice.ts';
import type {LeftOut} from '../lib/dump/left-out.ts';
import type {BackupResult} from '../lib/operations/backup.ts';
import type {ExtractResult} from '../lib/operations/extract.ts';
import type {PruneResult} from '../lib/operations/prune.ts';
import type {RestoreResult} from '../lib/operations/restore.ts';
import type {StatusResult} from '../lib/operations/status.ts';
import type {VerifyResult} from '../lib/operations/verify.ts';
import {
  bold,
  formatAge,
  formatBytes,
  formatCount,
  formatDuration,
  formatReduction,
  formatTime,
  printable,
} from './format.ts';
import {table} from './table.ts';

/** Names and values, one pair a line, the values under each other. */
function facts(title: string, pairs: [string, string][]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return [bold(title), ...pairs.map(([name, value]) => `  ${`${name}:`.padEnd(width + 2)}${printable(value)}`)].join(
    '\n',
  );
}

function plural(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}

export function backupSummary(result: BackupResult): string {
  const {retention, pruned} = result;
  return facts('Backup complete', [
    ['Backup key', result.key],
    ['Database', `${result.database}, ${plural(result.tables, 'table')}, ${plural(result.rows, 'row')}`],
    ['Size before', formatBytes(result.dumpBytes)],
    [
      'Size after',
      `${formatBytes(result.compressedBytes)} (${formatReduction(result.dumpBytes, result.compressedBytes)} smaller)`,
    ],
    ['Final size', `${formatBytes(result.sizeBytes)}, encrypted with key ${result.keyFingerprint}`],
    ['Duration', formatDuration(result.durationMs)],
    [
      'Retention',
      result.isHeld
        ? 'held: never pruned'
        : `${plural(retention.keepDays, 'day')}, and the newest ${retention.keepLast} whatever their age`,
    ],
    ['Pruned', pruned ? `${plural(pruned.deleted.length, 'old backup')} deleted` : 'nothing'],
  ]);
}

export function restoreSummary(result: RestoreResult, more: [string, string][] = []): string {
  const counted =
    result.uncountedTables?.length === 0 ? 'every table counted in the target' : 'counted where they can be seen';
  const summary = facts('Restore complete', [
    ['Backup key', result.key],
    ['Recovery point', `${formatTime(result.recoveryPoint)} (${result.recoveryPoint.toISOString()})`],
    ...(result.sourceDatabase === undefined ? [] : ([['Backup of', result.sourceDatabase]] as [string, string][])),
    ['Target', result.target],
    ...(result.safetyBackup
      ? ([['Before it', `the target was backed up: ${result.safetyBackup}`]] as [string, string][])
      : []),
    ['Restored', `${plural(result.tables, 'table')}, ${plural(result.rows, 'row')}; ${counted}`],
    ['Duration', formatDuration(result.durationMs)],
    ...more,
  ]);
  return [summary, ...leftOutLines(result.leftOut)].join('\n');
}

/** What a restore left out, and what would bring it back. */
export function leftOutLines(leftOut: readonly LeftOut[]): string[] {
  if (leftOut.length === 0) return [];
  return [
    bold('Not restored'),
    ...leftOut.flatMap(({what, because, sql}) => [
      `  ${printable(what)}: ${printable(because)}`,
      ...(sql === undefined ? [] : [`    ${printable(sql.replaceAll(/\s+/g, ' '))}`]),
    ]),
  ];
}

export function extractSummary(result: ExtractResult): string {
  const summary = facts('Plain SQL written', [
    ['Backup key', result.key],
    ['Recovery point', `${formatTime(result.recoveryPoint)} (${result.recoveryPoint.toISOString()})`],
    ['File', `${result.output}, ${formatBytes(result.dumpBytes)}`],
    ['Contents', `${plural(result.tables, 'table')}, ${plural(result.rows, 'row')}`],
    ['Duration', formatDuration(result.durationMs)],
  ]);
  return [summary, ...leftOutLines(result.leftOut)].join('\n');
}

/** What a backup is, in a word or two; why, if it is not complete. */
function stateText(backup: Backup, now: Date): string {
  const {verification} = backup;
  const notes = [
    verification
      ? `${verification.isProved ? 'proved' : 'verification FAILED'} ${formatAge(now.getTime() - verification.at.getTime())}`
      : '',
    backup.isHeld ? 'held' : '',
    leftOutRows(backup) ?? '',
    backup.state === 'complete' ? '' : backup.state,
    backup.problem ?? '',
    backup.seal === 'unchecked' ? `seal not checked (key ${backup.keyFingerprint})` : '',
  ];
  return notes.filter(Boolean).join(', ');
}

export function listTable(backups: readonly Backup[], width: number, now: Date = new Date()): string {
  if (backups.length === 0) return 'There are no backups yet.';
  const databases = new Set(backups.flatMap(({database}) => database ?? []));
  const ofDatabase = (cell: string) => (databases.size > 1 ? [cell] : []);
  return table(
    ['Date', ...ofDatabase('Database'), 'Size', 'Tables', 'Rows', 'Label', 'Notes', 'Key'],
    backups.map((backup) => [
      formatTime(backup.startedAt),
      ...ofDatabase(printable(backup.database ?? '-')),
      formatBytes(backup.sizeBytes),
      backup.tables === undefined ? '-' : formatCount(backup.tables),
      backup.rows === undefined ? '-' : formatCount(backup.rows),
      printable(backup.label ?? '-'),
      printable(stateText(backup, now) || '-'),
      printable(backup.key),
    ]),
    width,
  );
}

export function pruneSummary(result: PruneResult): string {
  const [deleted, locked] = [new Set(result.deleted), new Set(result.locked)];
  const verdict = (key: string) => (deleted.has(key) ? 'deleted' : locked.has(key) ? 'locked' : 'not deleted');
  const lines = result.decisions.map(({backup, action, because}) => {
    const word = action === 'keep' ? 'keep' : result.dryRun ? 'would delete' : verdict(backup.key);
    return `${word.padEnd(12)}  ${printable(backup.key)}  because ${printable(because)}`;
  });
  for (const key of result.strayVerifications) {
    lines.push(
      `${(result.dryRun ? 'would delete' : 'deleted').padEnd(12)}  ${printable(key)}  because the backup that it is about is gone`,
    );
  }
  for (const key of result.abortedUploads) {
    lines.push(
      `${(result.dryRun ? 'would abort' : 'aborted').padEnd(12)}  ${printable(key)}  because no part of its upload came for over a day`,
    );
  }
  const would = result.dryRun ? ' would be' : '';
  lines.push(
    bold(
      `${plural(result.deleted.length, 'backup')}${would} deleted, ${result.decisions.length - result.deleted.length} kept, ` +
        `${plural(result.abortedUploads.length, 'unfinished upload')}${would} aborted`,
    ),
  );
  return lines.join('\n');
}

const statusMarks = {passed: 'passed ', failed: 'FAILED ', skipped: 'skipped'} as const;

export function verifySummary(result: VerifyResult): string {
  const width = Math.max(...result.steps.map(({title}) => title.length));
  const steps = result.steps.map(
    ({title, status, note, durationMs}) =>
      `  ${statusMarks[status]}  ${title.padEnd(width)}  ${formatDuration(durationMs).padStart(8)}  ${printable(note)}`,
  );
  const verdict =
    result.failed > 0
      ? 'Verification FAILED'
      : result.isProved
        ? 'Backup proved'
        : 'Nothing failed, but the backup was not restored';
  const recovery = result.recoveryMs === undefined ? '' : `, recovery time ${formatDuration(result.recoveryMs)}`;
  return [
    bold(verdict),
    ...steps,
    `Total ${result.total}, passed ${result.passed}, failed ${result.failed}, skipped ${result.skipped}, in ${formatDuration(result.durationMs)}${recovery}`,
  ].join('\n');
}

export function statusSummary({findings}: StatusResult): string {
  return findings.map(({isGood, text}) => `${isGood ? 'ok   ' : 'ALARM'}  ${printable(text)}`).join('\n');
}
