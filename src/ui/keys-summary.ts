/** The results of the `keys` commands as text for people. */
import type {GeneratedKey} from '../lib/operations/keys-generate.ts';
import type {RotateResult, RotationOutcome} from '../lib/operations/keys-rotate.ts';
import type {KeysInUse} from '../lib/operations/keys-show.ts';
import {bold, formatCount, printable} from './format.ts';
import {table} from './table.ts';

export function generatedKeyText({key, fingerprint}: GeneratedKey): string {
  return [
    bold('A new key'),
    `  PHI_ENCRYPTION_KEY=${key}`,
    `  Fingerprint: ${fingerprint}`,
    '',
    'It is stored nowhere. Before it seals the first backup:',
    '  1. Write it down twice, in two places that do not fail together (a safe, a password manager); not in the bucket.',
    '     Beside it: the fingerprint, the date, and examples/open_backup.py, which opens a backup without this program.',
    '  2. Read it back from each place, set PHI_ENCRYPTION_KEY to what you read, and compare the fingerprint:',
    '     loma-backup keys show',
    '  3. It takes the place of another key? That one goes to PHI_ENCRYPTION_KEYS_PREVIOUS; then: loma-backup keys rotate',
    '  4. Clear this terminal and its scrollback.',
    'Without the key (or a recovery key) the backups are lost, and nobody can help.',
  ].join('\n');
}

const roles = {
  current: 'PHI_ENCRYPTION_KEY',
  previous: 'PHI_ENCRYPTION_KEYS_PREVIOUS',
  unknown: 'NOT AT HAND',
} as const;

export function keysInUseText(result: KeysInUse, width: number): string {
  const notes = [
    result.legacy > 0 ? `${formatCount(result.legacy)} of the older form do not name their key` : '',
    result.unreadable > 0 ? `${formatCount(result.unreadable)} incomplete or damaged (loma-backup list)` : '',
    result.recoveryFingerprint ? `new backups also open with the recovery key ${result.recoveryFingerprint}` : '',
  ].filter(Boolean);
  return [
    table(
      ['Fingerprint', 'Opens', 'Where'],
      result.keys.map(({fingerprint, role, backups}) => [
        fingerprint,
        `${formatCount(backups)} of ${formatCount(result.backups)}`,
        roles[role],
      ]),
      width,
    ),
    ...notes,
  ].join('\n');
}

const outcomes: Readonly<Record<RotationOutcome, [done: string, planned: string]>> = {
  unchanged: ['unchanged', 'unchanged'],
  rotated: ['rotated', 'would rotate'],
  resealed: ['resealed', 'would reseal'],
  legacy: ['legacy', 'legacy'],
  left: ['left', 'left'],
  failed: ['FAILED', 'would FAIL'],
};

export function rotateSummary(result: RotateResult): string {
  const {rotations, dryRun, keyFingerprint} = result;
  const lines = rotations
    .filter(({outcome}) => outcome !== 'unchanged')
    .map(({key, outcome, note}) => {
      const text =
        note === undefined ? '' : outcome === 'resealed' ? `  as ${printable(note)}` : `  ${printable(note)}`;
      return `${outcomes[outcome][dryRun ? 1 : 0].padEnd(12)}  ${printable(key)}${text}`;
    });
  const ready = rotations.filter(({outcome}) => ['unchanged', 'rotated', 'resealed'].includes(outcome)).length;
  return [
    ...lines,
    bold(
      `${formatCount(ready)} of ${formatCount(rotations.length)} backups ${dryRun ? 'would open' : 'open'} with key ${keyFingerprint}`,
    ),
    ...filesText(result),
    ...previousKeysText(result),
  ].join('\n');
}

function filesText({files, dryRun, keyFingerprint}: RotateResult): string[] {
  if (!files) return [];
  const {current, rotated, needed, failed} = files;
  const total = current + rotated + needed + failed.length;
  if (total === 0) return [];
  return [
    ...failed.map(
      ({key, note}) => `${outcomes.failed[dryRun ? 1 : 0].padEnd(12)}  ${printable(`${key}  ${note ?? ''}`)}`,
    ),
    bold(
      `${formatCount(current + rotated)} of ${formatCount(total)} files ${dryRun ? 'would open' : 'open'} with it` +
        `${rotated > 0 ? `, ${formatCount(rotated)} of them sealed anew` : ''} (${keyFingerprint})`,
    ),
  ];
}

function previousKeysText({previousFingerprints, keepPreviousBecause: reasons}: RotateResult): string[] {
  if (reasons.length > 0) return ['Keep every previous key:', ...reasons.map((reason) => `  ${printable(reason)}`)];
  if (previousFingerprints.length === 0) return [];
  const names = previousFingerprints.join(', ');
  return [
    `Not needed any more: ${names}. Take it out of PHI_ENCRYPTION_KEYS_PREVIOUS, verify a backup, and destroy it.`,
  ];
}
