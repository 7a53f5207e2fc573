/** The results of the operations on files as text for people. Names come from outside: no control character is printed. */
import type {ListedFile} from '../lib/operations/files-list.ts';
import type {MigratedFile, MigrateResult} from '../lib/operations/files-migrate.ts';
import type {FilesRestoreResult} from '../lib/operations/files-restore.ts';
import type {FilesVerifyResult} from '../lib/operations/files-verify.ts';
import {bold, formatBytes, formatCount, formatDuration, formatTime, printable} from './format.ts';
import {table} from './table.ts';

function files(count: number): string {
  return `${formatCount(count)} ${count === 1 ? 'file' : 'files'}`;
}

function line(word: string, name: string, note: string | undefined): string {
  return `${word.padEnd(12)}  ${printable(name)}${note ? `  because ${printable(note)}` : ''}`;
}

export function migrateSummary(result: MigrateResult): string {
  const {dryRun} = result;
  const would = dryRun ? ' would be' : '';
  const shown = result.files.filter(({action}) => dryRun || !['uploaded', 'unchanged'].includes(action));
  return [
    ...shown.map((file) => migratedLine(file, dryRun)),
    bold(
      `${files(result.uploaded)} (${formatBytes(result.uploadedBytes)})${would} uploaded to ${printable(result.prefix)}, ` +
        `${formatCount(result.unchanged)} there already, ${files(result.deleted)}${would} deleted here`,
    ),
    `${formatCount(result.skipped)} skipped, ${formatCount(result.conflicts)} in conflict, ${formatCount(result.failed)} failed, ` +
      `in ${formatDuration(result.durationMs)}`,
    ...(result.conflicts > 0 ? ['To store the local content as the newer version: --overwrite.'] : []),
  ].join('\n');
}

function migratedLine({action, path, sizeBytes, isDeleted, reason}: MigratedFile, dryRun: boolean): string {
  switch (action) {
    case 'uploaded':
    case 'unchanged': {
      const word = action === 'unchanged' ? 'there already' : dryRun ? 'would upload' : 'uploaded';
      const deleted = isDeleted ? `, then ${dryRun ? 'would delete' : 'deleted'} it here` : '';
      return `${word.padEnd(13)} ${printable(path)}  ${formatBytes(sizeBytes)}${deleted}`;
    }
    case 'conflict':
      return line('CONFLICT', path, reason);
    case 'failed':
      return line('FAILED', path, reason);
    default:
      return line('skipped', path, reason);
  }
}

export function filesTable(listed: readonly ListedFile[], isLong: boolean, width: number): string {
  if (listed.length === 0) return 'There are no such files.';
  const total = listed.reduce((sum, {storedBytes}) => sum + storedBytes, 0);
  const rows = listed.map((file) => {
    const name = printable(file.name);
    if (!isLong) return [formatTime(file.storedAt), formatBytes(file.storedBytes), name];
    const {facts, problem} = file;
    return [
      formatTime(file.storedAt),
      formatBytes(file.storedBytes),
      facts ? formatBytes(facts.sizeBytes) : '-',
      facts ? formatTime(new Date(Number(facts.mtime) * 1000)) : '-',
      printable(facts?.contentType ?? '-'),
      facts?.keyFingerprint ?? '-',
      printable(problem ?? (facts ? (facts.isHidden ? 'name hidden' : '-') : 'no metadata')),
      name,
    ];
  });
  const head = isLong
    ? ['Stored', 'Size', 'Original', 'Modified', 'Type', 'Key', 'Notes', 'Name']
    : ['Stored', 'Size', 'Name'];
  return `${table(head, rows, width)}\n${files(listed.length)}, ${formatBytes(total)}`;
}

export function filesRestoreSummary(result: FilesRestoreResult): string {
  const shown = result.files.filter(
    ({action, isUnchecked}) => isUnchecked || action === 'failed' || action === 'conflict',
  );
  return [
    ...shown.map(({action, name, reason}) => {
      const word = action === 'failed' ? 'FAILED' : action === 'conflict' ? 'CONFLICT' : 'unchecked';
      return line(word, name, reason);
    }),
    bold(
      `${files(result.restored)} (${formatBytes(result.restoredBytes)}) restored to ${printable(result.to)}, ` +
        `${formatCount(result.unchanged)} there already`,
    ),
    `${formatCount(result.conflicts)} in conflict, ${formatCount(result.unchecked)} without a digest to hold them to, ` +
      `${formatCount(result.failed)} failed, in ${formatDuration(result.durationMs)}`,
    ...(result.conflicts > 0 ? ['Local files were kept. To replace them: --overwrite.'] : []),
  ].join('\n');
}

export function filesVerifySummary(result: FilesVerifyResult): string {
  return [
    ...result.findings.map(({name, reason}) => line('FAILED', name, reason)),
    bold(
      result.failed > 0
        ? `Verification FAILED: ${files(result.failed)}`
        : `${files(result.good + result.unchecked)} opened (${formatBytes(result.bytes)}), nothing wrong`,
    ),
    `${formatCount(result.good)} with the digest that was stored, ${formatCount(result.unchecked)} without one, ` +
      `${formatCount(result.failed)} failed, in ${formatDuration(result.durationMs)}`,
  ].join('\n');
}
