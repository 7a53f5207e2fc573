/** Every error that loma-backup reports on purpose, and the exit code each kind ends the process with. */

/** Exit codes of the command line, by the kind of error (see `--help` and docs/BACKUP_PROCEDURES.md). */
export const exitCodes = {
  unexpected: 1,
  configuration: 2,
  postgres: 3,
  storage: 4,
  integrity: 5,
  verification: 6,
  refused: 7,
  interrupted: 130,
  terminated: 143,
} as const;

export type ErrorKind = keyof typeof exitCodes;

/** Stable codes, for scripts and for searching the runbook. */
export type ErrorCode =
  | 'CONFIGURATION_INVALID'
  | 'USAGE'
  | 'POSTGRES_UNREACHABLE'
  | 'POSTGRES_QUERY_FAILED'
  | 'POSTGRES_TOOLS_MISSING'
  | 'PG_DUMP_FAILED'
  | 'DUMP_UNREADABLE'
  | 'ROLES_MISSING'
  | 'RESTORE_FAILED'
  | 'RESTORE_INCOMPLETE'
  | 'NOT_IN_BACKUP'
  | 'SWAP_REFUSED'
  | 'SWAP_FAILED'
  | 'STORAGE_FAILED'
  | 'STORAGE_DENIED'
  | 'OBJECT_NOT_FOUND'
  | 'OBJECT_EXISTS'
  | 'OBJECT_LOCKED'
  | 'OBJECT_CHANGED'
  | 'BACKUP_NOT_FOUND'
  | 'BACKUP_INCOMPLETE'
  | 'PRUNE_INCOMPLETE'
  | 'ROTATION_INCOMPLETE'
  | 'OUTPUT_FAILED'
  | 'FILES_NOT_FOUND'
  | 'FILE_UNREADABLE'
  | 'FILE_CHANGED'
  | 'FILE_REFUSED'
  | 'FILE_DIFFERS'
  | 'DECRYPTION_FAILED'
  | 'WRONG_KEY'
  | 'MANIFEST_INVALID'
  | 'CONTENTS_DIFFER'
  | 'REFUSED'
  | 'INTERRUPTED'
  | 'UNEXPECTED';

export interface ErrorFacts {
  code: ErrorCode;
  kind: ErrorKind;
  /** Why it happened: the underlying message, as far as it helps. */
  reason?: string;
  /** What to do now: a question, or a command to type. */
  hint?: string;
  cause?: unknown;
}

/** An error with three parts: what happened (`message`), why (`reason`) and what to do now (`hint`). */
export class BackupError extends Error {
  override readonly name = 'BackupError';
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  readonly exitCode: number;
  readonly reason: string | undefined;
  readonly hint: string | undefined;

  constructor(message: string, facts: ErrorFacts) {
    super(message, facts.cause === undefined ? undefined : {cause: facts.cause});
    this.code = facts.code;
    this.kind = facts.kind;
    this.exitCode = exitCodes[facts.kind];
    this.reason = facts.reason;
    this.hint = facts.hint;
  }
}

/**
 * The error to throw when work ended because `signal` was aborted. A killed child looks like a failed one, so this is
 * looked at before any other error is translated.
 */
export function interruption(signal: AbortSignal | undefined): BackupError | undefined {
  if (!signal?.aborted) return undefined;
  if (signal.reason instanceof BackupError) return signal.reason;
  return new BackupError('Interrupted', {code: 'INTERRUPTED', kind: 'interrupted', cause: signal.reason});
}

/** The message of anything that was thrown, on one line if it has only one. */
export function messageOf(error: unknown): string {
  // Not `instanceof Error`: errors of Node's own modules come from another realm under jest (jest #2549).
  if (typeof error === 'object' && error !== null && 'message' in error) return String(error.message);
  return String(error);
}

/** What happened and why, on one line: for where a failure is one of several, or a warning. */
export function messageAndReason(error: unknown): string {
  const {message, reason} = asBackupError(error);
  return [message, reason].filter(Boolean).join(': ');
}

/** The `code` of a system or library error (`ENOENT`, `ECONNREFUSED`, …), if it has one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** Passes our own errors on, and makes one of ours of any other. */
export function asBackupError(error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  return new BackupError('Unexpected failure', {
    code: 'UNEXPECTED',
    kind: 'unexpected',
    reason: messageOf(error),
    hint: 'Run it again; if it stays, report the command and all that it printed.',
    cause: error,
  });
}
