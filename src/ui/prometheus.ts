/** The state of the backups as a text file for the textfile collector of Prometheus' node exporter. */
import {randomBytes} from 'node:crypto';
import {rename, unlink, writeFile} from 'node:fs/promises';
import type {FindingId} from '../lib/catalog/health.ts';
import {BackupError, messageOf} from '../lib/errors.ts';
import type {StatusResult} from '../lib/operations/status.ts';

/** Name, help and unit of each finding's figure (Prometheus' naming conventions: base units, seconds). */
const metrics: Readonly<Record<FindingId, {name: string; help: string; scale: number}>> = {
  newest: {name: 'loma_backup_newest_age_seconds', help: 'Age of the newest complete backup.', scale: 0.001},
  proof: {name: 'loma_backup_proof_age_seconds', help: 'Age of the last verification of a backup.', scale: 0.001},
  days: {name: 'loma_backup_missing_days', help: 'Days in the retention window without a backup.', scale: 1},
  size: {
    name: 'loma_backup_size_ratio',
    help: 'Size of the newest backup over the median of those before it.',
    scale: 1,
  },
  incomplete: {name: 'loma_backup_incomplete', help: 'Incomplete or damaged backups and stale uploads.', scale: 1},
  keys: {name: 'loma_backup_unopenable', help: 'Backups that no configured key opens.', scale: 1},
};

/** The file's text (Prometheus text exposition format 0.0.4). */
export function prometheusText({at, isHealthy, findings, backups}: StatusResult): string {
  const gauge = (name: string, help: string, values: [labels: string, value: number][]) => [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} gauge`,
    ...values.map(([labels, value]) => `${name}${labels} ${value}`),
  ];
  const figures = findings.flatMap(({id, value}) => {
    const {name, help, scale} = metrics[id];
    return value === undefined ? [] : gauge(name, help, [['', value * scale]]);
  });
  const lines = [
    ...gauge('loma_backup_healthy', 'Whether every check passed.', [['', Number(isHealthy)]]),
    ...gauge(
      'loma_backup_check',
      'Whether a check passed.',
      findings.map(({id, isGood}) => [`{check="${id}"}`, Number(isGood)]),
    ),
    ...gauge('loma_backup_count', 'Backups in the store.', [['', backups]]),
    ...gauge('loma_backup_status_timestamp_seconds', 'When this was looked at.', [['', at.getTime() / 1000]]),
    ...figures,
  ];
  return `${lines.join('\n')}\n`;
}

/** Writes the file whole or not at all: the collector may read at any moment. */
export async function writePrometheusFile(file: string, text: string): Promise<void> {
  // The collector reads *.prom only.
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`;
  try {
    await writeFile(partial, text, {mode: 0o644});
    await rename(partial, file);
  } catch (error) {
    await unlink(partial).catch(() => undefined);
    throw new BackupError('The Prometheus file could not be written', {
      code: 'OUTPUT_FAILED',
      kind: 'unexpected',
      reason: messageOf(error),
      hint: 'Is its directory there, and may this user write in it?',
    });
  }
}
