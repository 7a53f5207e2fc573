/** The names of objects in the backups bucket. They are fixed: existing backups lie there under them. */
import type {CompressionName} from '../config.ts';

/** Everything of this program in the backups bucket is under this prefix. */
export const backupsPrefix = 'database-backups/';

const manifestSuffix = '.metadata.json';
const verificationSuffix = '.verification.json';

const suffixes: Readonly<Record<CompressionName, string>> = {gzip: '.sql.gz', zstd: '.sql.zst'};
const timestampPattern = String.raw`\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}-\d{3}Z`;
const keyPattern = new RegExp(
  String.raw`^database-backups/(${timestampPattern})/backup-(${timestampPattern})\.sql\.(gz|zst)\.encrypted$`,
);

/** A UTC time as it stands in a key: ISO 8601 with `:` and `.` turned into `-`. */
export function timestampOf(time: Date): string {
  return time.toISOString().replaceAll(/[:.]/g, '-');
}

/** The time that a key's timestamp means; undefined for a text that is none, such as the 31st of February. */
export function parseTimestamp(text: string): Date | undefined {
  const iso = text.replace(/^(\d{4}-\d{2}-\d{2}T\d{2})-(\d{2})-(\d{2})-(\d{3}Z)$/, '$1:$2:$3.$4');
  const time = new Date(iso);
  return !Number.isNaN(time.getTime()) && timestampOf(time) === text ? time : undefined;
}

/** The key of a backup that starts now. */
export function backupKey(startedAt: Date, compression: CompressionName): string {
  const timestamp = timestampOf(startedAt);
  return `${backupsPrefix}${timestamp}/backup-${timestamp}${suffixes[compression]}.encrypted`;
}

export interface BackupName {
  startedAt: Date;
  compression: CompressionName;
}

/** What a key says; undefined when it is not the key of a backup. */
export function parseBackupKey(key: string): BackupName | undefined {
  const match = keyPattern.exec(key);
  if (!match || match[1] !== match[2]) return undefined;
  const startedAt = parseTimestamp(match[1] ?? '');
  return startedAt && {startedAt, compression: match[3] === 'zst' ? 'zstd' : 'gzip'};
}

export function manifestKey(key: string): string {
  return key + manifestSuffix;
}

export function verificationKey(key: string): string {
  return key + verificationSuffix;
}

/** The backup that an object belongs to, and what it is of it; undefined for an object that is none of ours. */
export function partOf(objectKey: string): {backup: string; part: 'body' | 'manifest' | 'verification'} | undefined {
  for (const [suffix, part] of [
    [manifestSuffix, 'manifest'],
    [verificationSuffix, 'verification'],
    ['', 'body'],
  ] as const) {
    if (!objectKey.endsWith(suffix)) continue;
    const backup = objectKey.slice(0, objectKey.length - suffix.length);
    if (parseBackupKey(backup)) return {backup, part};
  }
  return undefined;
}
