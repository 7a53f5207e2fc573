/** Names come from databases and buckets: a terminal must not obey what stands in them. */
import {PassThrough} from 'node:stream';
import {describe, expect, it} from '@jest/globals';
import type {Backup} from '../../src/lib/catalog/backups.ts';
import {BackupError} from '../../src/lib/errors.ts';
import {confirmOverwrite} from '../../src/ui/confirm.ts';
import {errorText} from '../../src/ui/error-text.ts';
import {filesRestoreSummary, filesTable, filesVerifySummary, migrateSummary} from '../../src/ui/files-summary.ts';
import {rotateSummary} from '../../src/ui/keys-summary.ts';
import {ProgressView} from '../../src/ui/progress.ts';
import {reportHtml} from '../../src/ui/report-html.ts';
import {
  backupSummary,
  extractSummary,
  listTable,
  pruneSummary,
  restoreSummary,
  statusSummary,
  verifySummary,
} from '../../src/ui/summary.ts';
import {recordTrial} from '../support/reliability.ts';

/** Sets the title, clears the screen, colours, goes back over what was written, and ends with a name. */
const evil = '\u001b]0;owned\u0007\u001b[2J\u009b31m\r\b\b\u0000\u007f\u0090evil\u001b[8m';

/** Words that the program itself chooses among. */
const ownWords = [
  ...['status', 'state', 'action', 'outcome', 'seal', 'compression', 'kind', 'id', 'title'],
  ...['keyFingerprint', 'previousFingerprints', 'mtime', 'toolVersion'],
];

/** The same, with every text that comes from elsewhere replaced. */
function hostile<T>(value: T, name = ''): T {
  if (typeof value === 'string') return (ownWords.includes(name) ? value : evil) as T;
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (Array.isArray(value)) return value.map((item) => hostile(item, name)) as T;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, hostile(item, key)])) as T;
}

/** All that was written. */
function written(output: PassThrough): string {
  const chunks: string[] = [];
  for (let chunk = output.read(); chunk !== null; chunk = output.read()) chunks.push(String(chunk));
  return chunks.join('');
}

function expectHarmless(text: string, what: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  expect(text.replaceAll(/\u001b\[(1|22|0)m/g, '').match(/[^\P{Cc}\n]/gu)).toBeNull();
  expect(text).toContain('evil');
  recordTrial({
    area: 'Hostile input: control characters in every name',
    what,
    outcome: 'none of them reaches the terminal',
  });
}

const at = new Date('2026-01-02T03:04:05Z');
const backup: Backup = {
  key: 'k',
  startedAt: at,
  compression: 'gzip',
  state: 'damaged',
  problem: 'p',
  sizeBytes: 1,
  database: 'd',
  label: 'l',
  isHeld: true,
  tables: 1,
  rows: 1,
  dumpBytes: 1,
  durationMs: 1,
  keyFingerprint: 'f',
  excludedTableData: ['p'],
  seal: 'unchecked',
  verification: {at, isProved: false},
  objectKeys: ['k'],
};
const step = {id: 'store', title: 't', status: 'failed', note: 'n', durationMs: 1} as const;
const verified = {
  key: 'k',
  startedAt: at,
  durationMs: 1,
  steps: [step],
  total: 1,
  passed: 0,
  failed: 1,
  skipped: 0,
  isProved: false,
  comparison: undefined,
  recoveryMs: undefined,
  toolVersion: '1',
  backups: [backup],
  warnings: ['w'],
};
const facts = {
  name: 'n',
  contentType: 'c',
  sizeBytes: 1,
  mtime: '1700000000.000000000',
  digest: 'd',
  keyFingerprint: 'f',
  isHidden: false,
};
/** Of all results together. */
const figures = {
  ...{tables: 1, rows: 1, dumpBytes: 1, compressedBytes: 1, sizeBytes: 1, durationMs: 1, uploaded: 1, uploadedBytes: 1},
  ...{
    unchanged: 1,
    deleted: 1,
    skipped: 1,
    conflicts: 1,
    failed: 1,
    restored: 1,
    restoredBytes: 1,
    unchecked: 1,
    good: 1,
    bytes: 1,
  },
  isHeld: false,
  pruned: undefined,
  leftOut: [{what: 'w', because: 'b', sql: 's'}],
  dryRun: false,
};
const listed = {key: 'k', name: 'n', storedAt: at, storedBytes: 1, facts, problem: 'p'};

describe('no control character of a name reaches the terminal', () => {
  it.each<[string, () => string]>([
    ['list', () => listTable(hostile([backup]), 80, at)],
    ['verify', () => verifySummary(hostile(verified))],
    ['the report', () => reportHtml(hostile(verified))],
    ['status', () => statusSummary(hostile({findings: [{id: 'newest', isGood: false, text: 't'}]}) as never)],
    [
      'backup',
      () =>
        backupSummary(
          hostile({
            ...figures,
            key: 'k',
            database: 'd',
            keyFingerprint: 'f',
            retention: {keepDays: 1, keepLast: 1},
          }) as never,
        ),
    ],
    [
      'restore',
      () =>
        restoreSummary(
          hostile({
            ...figures,
            key: 'k',
            recoveryPoint: at,
            target: 't',
            safetyBackup: 's',
            uncountedTables: ['u'],
          }) as never,
        ),
    ],
    [
      'restore --output',
      () => extractSummary(hostile({...figures, key: 'k', recoveryPoint: at, output: 'o'}) as never),
    ],
    [
      'prune',
      () =>
        pruneSummary(
          hostile({
            dryRun: false,
            decisions: [{backup, action: 'delete', because: 'b'}],
            deleted: [],
            locked: [],
            failed: [{key: 'k', reason: 'r'}],
            strayVerifications: ['k'],
            abortedUploads: ['k'],
          }) as never,
        ),
    ],
    [
      'keys rotate',
      () =>
        rotateSummary(
          hostile({
            rotations: [
              {key: 'k', outcome: 'failed', note: 'n'},
              {key: 'k', outcome: 'resealed', note: 'n'},
            ],
            dryRun: false,
            keyFingerprint: 'f',
            previousFingerprints: ['f'],
            keepPreviousBecause: ['r'],
          }) as never,
        ),
    ],
    ['files list', () => filesTable(hostile([listed]) as never, false, 80)],
    ['files list --long', () => filesTable(hostile([listed]) as never, true, 80)],
    [
      'files migrate',
      () =>
        migrateSummary(
          hostile({
            ...figures,
            files: ['uploaded', 'conflict', 'failed', 'skipped'].map((action) => ({
              action,
              path: 'p',
              sizeBytes: 1,
              reason: 'r',
            })),
            prefix: 'p',
          }) as never,
        ),
    ],
    [
      'files restore',
      () =>
        filesRestoreSummary(
          hostile({
            ...figures,
            files: ['failed', 'conflict'].map((action) => ({action, name: 'n', reason: 'r'})),
            to: 't',
          }) as never,
        ),
    ],
    [
      'files verify',
      () => filesVerifySummary(hostile({...figures, findings: [{name: 'n', reason: 'r'}], failed: 1}) as never),
    ],
    [
      'an error',
      () =>
        errorText(new BackupError(evil, {code: 'UNEXPECTED', kind: 'unexpected', reason: evil, hint: evil}), String),
    ],
  ])('%s', (what, text) => {
    expectHarmless(text(), what);
  });

  it('the question before a restore', async () => {
    const output = new PassThrough();
    const target = hostile({
      version: 'v',
      major: 15,
      database: 'd',
      sizeBytes: 1,
      encoding: 'e',
      roles: ['r'],
      address: 'a',
      tables: 1,
      approximateRows: 1,
      otherObjects: 1,
    });
    const terminal = {input: new PassThrough(), output} as never;
    const chosen = [{name: evil, isTable: true, approximateRows: 1}];
    const {signal} = new AbortController();
    await confirmOverwrite(target, hostile(backup), {chosen} as never, terminal, signal);
    expectHarmless(written(output), 'the question before a restore');
  });

  it('progress', async () => {
    const output = new PassThrough();
    const view = new ProgressView(
      [
        {id: 'a', title: 'A'},
        {id: 'b', title: 'B'},
      ],
      output as never,
      String,
    );
    view.observer({type: 'started', step: 'a'});
    view.observer({type: 'warning', message: evil});
    view.observer({type: 'finished', step: 'a', note: evil});
    view.observer({type: 'skipped', step: 'b', note: evil});
    await view.close('finished');
    expectHarmless(written(output), 'progress');
  });
});
