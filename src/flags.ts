/** Flags that several commands share. */
import {Flags} from '@oclif/core';
import {defaultRetention, type RetentionPolicy} from './lib/catalog/retention.ts';
import {BackupError} from './lib/errors.ts';
import type {BackupChoice} from './lib/operations/catalog.ts';
import type {SelectionRequest} from './lib/operations/selection.ts';
import {dateAlone, parseTime} from './ui/parse-time.ts';

/** Of `restore` and `verify`. */
export const searchPathFlag = Flags.string({
  description:
    'Where functions find what they name without its schema, while indexes and generated columns are made: needed only if a restore ' +
    'fails with "function … does not exist". [default: nowhere, as pg_dump has it]',
  helpValue: 'SCHEMA,…',
});

export const retentionFlags = {
  'keep-days': Flags.integer({
    description: `Keep backups that are younger than this many days. [default: ${defaultRetention.keepDays}]`,
    min: 0,
  }),
  'keep-last': Flags.integer({
    description: `Of each database, keep this many of the newest complete backups of each kind, however old they are. [default: ${defaultRetention.keepLast}]`,
    min: 1,
  }),
};

export function retentionOf(flags: {
  'keep-days'?: number | undefined;
  'keep-last'?: number | undefined;
}): RetentionPolicy {
  return {
    keepDays: flags['keep-days'] ?? defaultRetention.keepDays,
    keepLast: flags['keep-last'] ?? defaultRetention.keepLast,
  };
}

function usage(message: string): BackupError {
  return new BackupError(message, {
    code: 'USAGE',
    kind: 'configuration',
    hint: 'See what there is with `loma-backup list`, then name one key, or use --latest, or --at TIME.',
  });
}

/** Which backup is meant, of a KEY, --latest and --at: exactly one of them. */
export function choiceOf(key: string | undefined, latest: boolean, at: string | undefined): BackupChoice {
  const given = [key !== undefined, latest, at !== undefined].filter(Boolean).length;
  if (given !== 1) throw usage(given === 0 ? 'Which backup?' : 'Name one backup: a KEY, --latest or --at');
  if (key !== undefined) return {by: 'key', key};
  return at === undefined ? {by: 'latest'} : {by: 'time', at: timeOf(at)};
}

/** What of a backup is meant, of --table and --schema; undefined: everything. */
export function selectionOf(tables: string[] = [], schemas: string[] = []): SelectionRequest | undefined {
  return tables.length + schemas.length === 0 ? undefined : {tables, schemas};
}

/** @throws BackupError USAGE */
function timeOf(text: string): Date {
  const time = parseTime(text);
  if (time === dateAlone) {
    throw usage(
      `--at needs a time of day, too: "${text} 23:59" is the newest backup of that day, "${text} 00:00" one before it`,
    );
  }
  if (time) return time;
  throw usage(
    `--at must be a time that there is, such as 2025-11-04T15:30 or 2025-11-04T15:30:00Z: it is ${JSON.stringify(text)}`,
  );
}

export const concurrencyFlag = Flags.integer({
  description: 'Files under way at once. [default: 4]',
  min: 1,
  max: 64,
});

export const pingFlag = Flags.string({
  description: 'Report success here, and failure to URL/fail (healthchecks.io). [default: LOMA_BACKUP_PING_URL]',
  helpValue: 'URL',
});

const unitMs: Readonly<Record<string, number>> = {s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000};

/** A length of time that a person typed, such as 90m, 26h or 35d, in milliseconds. */
export function durationOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const match = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  const unit = unitMs[match?.[2] ?? ''];
  if (match && unit) return Number(match[1]) * unit;
  throw new BackupError(`${flag} must be a length of time such as 90m, 26h or 35d`, {
    code: 'USAGE',
    kind: 'configuration',
    reason: `it is ${JSON.stringify(text)}`,
    hint: 'Write a number and one of s, m, h and d.',
  });
}

export const scaffoldFlags = {
  overwrite: Flags.boolean({description: 'Replace files that are there and differ.'}),
  'dry-run': Flags.boolean({description: 'Say what would be written, and write nothing.'}),
};
